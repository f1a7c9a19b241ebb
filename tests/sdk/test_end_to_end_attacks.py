"""What a server that lies, and a kill at any moment, can do to a sealed profile: be noticed, and cost a second try."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from xrec_sdk.end_to_end import EndToEnd, seal_profile
from xrec_sdk.keyring import new_vault, renew
from xrec_sdk.profile import Profile
from xrec_sdk.seal import seal
from xrec_sdk.sync import ZERO, Row
from xrec_sdk.sync_client import SyncClient, Timing
from xrec_sdk.sync_merge import digest_of
from xrec_sdk.sync_store import SyncStore
from xrec_sdk.sync_tables import ROW, row_of

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
from served import served, settings, token, until

QUICK = Timing(wait_s=20, gather_s=0.0, look_every_s=0.1, first_delay_s=0.02, longest_delay_s=0.2)
NOW_MS = time.time_ns() // 1_000_000 - 10_000
DEVICE = Path(__file__).with_name("pairing_device.py")


def opened(path):
    profile = Profile(path)
    for purpose in ("personalise", "sync"):
        profile.set_consent(purpose, True)
    seal_profile(profile)
    return profile


def synced(profile, port, folder):
    client = SyncClient(profile, f"http://127.0.0.1:{port}", lambda: token(folder), timing=QUICK)
    return client, EndToEnd(profile, client)


def items(profile):
    return sorted(event.item_id for event in profile.events())


def pair(old, new):
    pairing = new.pair("pc")
    approval = old.approve(pairing.text)
    approval._mailbox.leave(approval._approver.newcomer, approval._approver.answer)
    assert pairing.digits(timeout_s=20) == approval.digits(timeout_s=20)
    approval.confirm()
    pairing.confirm(timeout_s=20)


def altered(**fields):
    return lambda body, other: json.dumps({**json.loads(body), **fields})


def with_its(name):
    return lambda body, other: json.dumps({**json.loads(body), name: json.loads(other)[name]})


def forged(body):
    """Return an event in the clear under the id of another."""
    return json.dumps({"id": json.loads(body)["id"], "at_ms": 5, "event": "view", "item_id": "forged", "device": "d"})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda body, other: other, "e2e.tampered"),
        (altered(id="another"), "e2e.tampered"),
        (altered(at_ms=5), "e2e.tampered"),
        (with_its("tags"), "e2e.tampered"),
        (with_its("sealed"), "e2e.tampered"),
        (altered(sealed=7), "e2e.tampered"),
        (altered(key="A" * 22), "e2e.unknown_key"),
        (altered(key=[]), "e2e.tampered"),
        (lambda body, other: body[: len(body) // 2], "e2e.tampered"),
        (lambda body, other: "[" * 20_000, "e2e.tampered"),
        (lambda body, other: "null", "e2e.tampered"),
        (lambda body, other: "", "e2e.tampered"),
        (lambda body, other: forged(body), "e2e.unsealed"),
        (lambda body, other: seal(bytes(32), forged(body)), "e2e.unknown_key"),
    ],
)
def test_an_event_that_the_server_has_changed_is_noticed_not_shown_and_stops_nothing(lying, change, code):
    phone, pc = lying.start()
    phone.record("view", "changed", "phone", NOW_MS)
    phone.record("view", "good", "phone", NOW_MS)
    lying.stop_phone()

    def alter(rows):
        last, good = [row for row in rows if row.kind == "event"][-2:]
        return {last.seq: change(last.body, good.body)}

    lying.alter(alter)
    keys, client = lying.start_pc()
    until(lambda: items(pc) == ["before", "good"] and client.status().state == "up_to_date")
    assert keys.problems() == {code: 1} and client.status().dead == 1
    pc.record("view", "after", "pc", NOW_MS)
    until(lambda: client.status().queued == 0)
    assert not SyncStore(pc).standing().is_diverged


def test_a_key_of_the_servers_own_is_noticed_and_nothing_is_sealed_with_it(lying):
    phone, pc = lying.start()
    phone.record("view", "good", "phone", NOW_MS)
    lying.stop_phone()
    evil = new_vault("evil")
    _, id, body = renew(evil, add=[evil.own.member(), *lying.members])

    def alter(rows):
        last = rows[-1]
        return {
            last.seq + 1: Row(last.seq + 1, "key", id, last.epoch, ZERO, last.device, last.dseq + 1, 0, NOW_MS, body)
        }

    lying.alter(alter)
    keys, client = lying.start_pc()
    until(lambda: items(pc) == ["before", "good"] and client.status().state == "up_to_date")
    assert keys.problems() == {"e2e.bad_key": 1}
    pc.record("view", "after", "pc", NOW_MS)
    until(lambda: client.status().queued == 0)
    bodies = lying.rows()
    assert not any(f'"key":"{id}"' in row.body for row in bodies if row.kind == "event")


class Lying:
    """A server of one user whose operator changes rows, and the digest with them, while a device is away."""

    def __init__(self, folder):
        self.folder, self.house = folder, folder / "house"
        self.house.mkdir()
        self.made = []

    def start(self):
        self.serving = served(settings(self.house))
        port = self.serving.__enter__()
        phone, self.pc = opened(self.folder / "phone.db"), opened(self.folder / "pc.db")
        self.phone_client, old = synced(phone, port, self.house)
        pc_client, new = synced(self.pc, port, self.house)
        self.made += [self.phone_client, phone, pc_client, self.pc]
        old.create("phone")
        pair(old, new)
        phone.record("view", "before", "phone", NOW_MS)
        until(lambda: items(self.pc) == ["before"] and new.state() == "ready")
        self.members = new._vault().members
        pc_client.close()
        return phone, self.pc

    def stop_phone(self):
        until(lambda: self.phone_client.status().queued == 0)
        self.phone_client.close()
        self.serving.__exit__(None, None, None)

    def rows(self):
        connection = sqlite3.connect(self.house / "profiles.db")
        found = [row_of(row) for row in connection.execute(f"SELECT {ROW} FROM rows ORDER BY seq")]
        connection.close()
        return found

    def alter(self, change):
        rows = {row.seq: row for row in self.rows()}
        connection = sqlite3.connect(self.house / "profiles.db")
        for seq, new in change(list(rows.values())).items():
            if isinstance(new, Row):
                columns = (new.kind, new.id, new.epoch, 0, 0, new.device, new.dseq, 0, new.received_ms, new.body)
                connection.execute("INSERT INTO rows VALUES (1,?,?,?,?,?,?,?,?,?,?,?)", (seq, *columns))
                connection.execute("UPDATE profiles SET seq = ?", (seq,))
            else:
                connection.execute("UPDATE rows SET body = ? WHERE seq = ?", (new, seq))
        connection.commit()
        digest = digest_of(self.rows()).to_bytes(32, "big")
        connection.execute("UPDATE profiles SET digest = ?", (digest,))
        connection.commit()
        connection.close()

    def start_pc(self):
        self.serving = served(settings(self.house))
        client, keys = synced(self.pc, self.serving.__enter__(), self.house)
        self.made.append(client)
        return keys, client


@pytest.fixture
def lying(tmp_path):
    server = Lying(tmp_path)
    yield server
    for one in server.made:
        one.close()
    server.serving.__exit__(None, None, None)


def run(path, port, folder, *words):
    """Start a device of its own process; it says each step on a line and is killed where the words say."""
    command = [sys.executable, str(DEVICE), str(path), f"http://127.0.0.1:{port}", token(folder), *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


@pytest.mark.parametrize("stage", ["text", "digits", "joined"])
def test_a_new_device_that_is_killed_in_a_pairing_pairs_again(tmp_path, stage):
    house = tmp_path / "house"
    house.mkdir()
    with served(settings(house)) as port:
        phone = opened(tmp_path / "phone.db")
        client, keys = synced(phone, port, house)
        keys.create("phone")
        phone.record("view", "apple", "phone", NOW_MS)
        process = run(tmp_path / "pc.db", port, house, "new", stage)
        text = process.stdout.readline().strip()
        if stage != "text":
            approval = keys.approve(text)
            digits = approval.digits(timeout_s=30)
            assert process.stdout.readline().strip() == digits
            if stage == "joined":
                approval.confirm()
        assert process.wait(60) == -signal.SIGKILL
        process.stdin.close()
        process.stdout.close()
        pc = opened(tmp_path / "pc.db")
        other, again = synced(pc, port, house)
        if stage != "joined":
            assert again.state() == "no_key"
            pair(keys, again)
        until(lambda: again.state() == "ready" and items(pc) == ["apple"])
        assert [one.label for one in keys.devices()] == ["pc", "phone"]
        for one in (client, other, phone, pc):
            one.close()


def test_an_old_device_that_is_killed_between_the_new_key_and_its_letter_pairs_again(tmp_path):
    house = tmp_path / "house"
    house.mkdir()
    with served(settings(house)) as port:
        process = run(tmp_path / "phone.db", port, house, "old")
        assert process.stdout.readline().strip() == "made"
        pc = opened(tmp_path / "pc.db")
        other, new = synced(pc, port, house)
        pairing = new.pair("pc")
        process.stdin.write(f"{pairing.text}\n")
        process.stdin.flush()
        assert pairing.digits(timeout_s=30) == process.stdout.readline().strip()
        assert process.wait(60) == -signal.SIGKILL
        process.stdin.close()
        process.stdout.close()
        phone = opened(tmp_path / "phone.db")
        client, keys = synced(phone, port, house)
        pair(keys, new)
        phone.record("view", "apple", "phone", NOW_MS)
        until(lambda: items(pc) == ["apple"] and keys.state() == new.state() == "ready")
        for one in (client, other, phone, pc):
            one.close()
