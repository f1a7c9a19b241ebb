"""A sealed profile on real devices and a real server: paired, shared, removed, erased, recovered; nothing leaks."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from xrec_sdk.end_to_end import EndToEnd, seal_profile
from xrec_sdk.errors import UsageError
from xrec_sdk.profile import Profile
from xrec_sdk.sync import SyncError
from xrec_sdk.sync_client import SyncClient, Timing
from xrec_sdk.sync_store import SyncStore

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
from places import PostgresPlace, SqlitePlace, places
from served import served, settings, token, until

QUICK = Timing(wait_s=20, gather_s=0.0, look_every_s=0.1, first_delay_s=0.02, longest_delay_s=0.2)
NOW_MS = time.time_ns() // 1_000_000 - 10_000
MARKS = ("oranges", "wishlisted", "Anna's phone", "laptop")


@dataclass
class Device:
    """One of a user's devices: its profile, its sync, its keys."""

    profile: Profile
    client: SyncClient
    keys: EndToEnd

    def record(self, *items, event="view"):
        for item in items:
            self.profile.record(event, item, "phone", NOW_MS)

    def items(self):
        return sorted(event.item_id for event in self.profile.events())

    def is_quiet(self):
        status = self.client.status()
        return status.queued == 0 and status.state == "up_to_date"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with served(settings(folder)) as port:
        yield f"http://127.0.0.1:{port}", folder


@pytest.fixture
def open_device(server, tmp_path):
    """Return a function that opens a device of a user; all are closed at the end."""
    made = []

    def device(name, user, address=None, **options):
        url, folder = address or server
        profile = Profile(tmp_path / f"{user}-{name}.db", **options)
        for purpose in ("personalise", "sync"):
            profile.set_consent(purpose, True)
        seal_profile(profile)
        client = SyncClient(profile, url, lambda: token(folder, user), timing=QUICK)
        made.append(Device(profile, client, EndToEnd(profile, client)))
        return made[-1]

    yield device
    for one in made:
        one.client.close()
        one.profile.close()


def pair(old, new, label):
    """Pair as a user would: the old device reads the text, both show digits, the user says that they are the same."""
    pairing = new.keys.pair(label)
    approval = old.keys.approve(pairing.text)
    shown = []
    thread = threading.Thread(target=lambda: shown.append(pairing.digits(timeout_s=30)))
    thread.start()
    digits = approval.digits(timeout_s=30)
    thread.join()
    assert shown == [digits]
    approval.confirm()
    pairing.confirm(timeout_s=30)
    until(lambda: new.keys.state() == "ready")


def family(open_device, user, *names, **options):
    """Return a user's devices, all paired; the first has made the keys."""
    first = open_device(names[0], user, **options)
    first.keys.create(names[0])
    devices = [first]
    for name in names[1:]:
        devices.append(open_device(name, user, **options))
        pair(first, devices[-1], name)
    return devices


def test_two_devices_pair_and_share_what_was_before_and_what_comes_after(open_device):
    phone, pc = open_device("phone", "two"), open_device("pc", "two")
    phone.record("before the keys")
    pc.record("on the pc")
    assert phone.keys.state() == "no_key"
    phone.keys.create("Anna's phone")
    until(phone.is_quiet)
    until(lambda: pc.client.status().state == "up_to_date" and pc.client.status().queued <= 1)  # consents are sent
    assert pc.items() == ["on the pc"] and pc.client.status().queued == 1  # nothing else leaves without a key
    with pytest.raises(UsageError) as refusal:
        pc.keys.create("PC")
    assert refusal.value.code == "e2e.exists"
    pair(phone, pc, "PC")
    until(lambda: phone.items() == pc.items() == ["before the keys", "on the pc"])
    pc.record("after")
    until(lambda: phone.items() == ["after", "before the keys", "on the pc"])
    assert [(one.label, one.is_this) for one in phone.keys.devices()] == [("Anna's phone", True), ("PC", False)]
    assert phone.profile.events() == pc.profile.events() and phone.keys.problems() == pc.keys.problems() == {}
    until(lambda: phone.is_quiet() and pc.is_quiet())
    until(lambda: SyncStore(phone.profile).standing().digest == SyncStore(pc.profile).standing().digest)


@pytest.mark.parametrize("make_place", places())
def test_the_servers_files_hold_no_item_no_type_and_no_label(open_device, tmp_path, make_place):
    folder = tmp_path / "house"
    folder.mkdir()
    place = make_place(folder)
    database, ledger = place.address()
    with served(settings(folder, database=database, ledger=ledger)) as port:
        address = (f"http://127.0.0.1:{port}", folder)
        phone = open_device("phone", "scan", address)
        phone.keys.create("Anna's phone")
        pc = open_device("pc", "scan", address)
        pair(phone, pc, "laptop")
        phone.record("oranges", "apples", event="wishlisted")
        until(lambda: pc.items() == ["apples", "oranges"])
        pc.profile.forget(item_id="oranges")
        until(lambda: phone.items() == ["apples"])
        phone.keys.recovery_code()
        until(lambda: phone.is_quiet() and pc.is_quiet())
        held = {path.name: path.read_bytes() for path in folder.glob("*.db*")}
        if isinstance(place, PostgresPlace):
            for name in place.names:
                place.run("pg_dump", "-f", str(folder / f"{name}.sql"), name)
                held[name] = (folder / f"{name}.sql").read_bytes()
    assert held and any(b"sealed" in data for data in held.values())
    found = [(name, mark) for name, data in held.items() for mark in (*MARKS, "apples") if mark.encode() in data]
    assert found == []
    assert isinstance(place, SqlitePlace) or len(held) == 2


def test_a_removed_device_reads_nothing_of_what_comes_after(open_device):
    phone, pc, tablet = family(open_device, "removal", "phone", "pc", "tablet")
    phone.record("before")
    until(lambda: pc.items() == tablet.items() == ["before"])
    gone = next(one.id for one in phone.keys.devices() if one.label == "tablet")
    with pytest.raises(UsageError):
        phone.keys.remove_device("nobody")
    phone.keys.remove_device(gone)
    phone.record("after")
    until(lambda: pc.items() == ["after", "before"])
    until(lambda: tablet.keys.state() == "waiting" and tablet.client.status().state == "up_to_date")
    assert tablet.items() == ["before"] and tablet.keys.problems() == {"e2e.unknown_key": 1}
    tablet.record("by who was removed")
    pc.record("by who stayed")
    until(lambda: phone.items() == ["after", "before", "by who stayed"])
    assert tablet.client.status().queued == 1 and [one.label for one in pc.keys.devices()] == ["pc", "phone"]


def test_an_erasure_makes_a_new_key_and_reaches_what_other_devices_have_not_sent(open_device):
    phone, pc = family(open_device, "erase", "phone", "pc")
    phone.record("apple", "bread")
    until(lambda: pc.items() == ["apple", "bread"])
    until(lambda: phone.is_quiet() and pc.is_quiet())
    keys = {row.id for row in key_rows(phone)}
    pc.client.close()
    pc.record("apple", "cheese")
    phone.profile.forget(item_id="apple")
    phone.record("apple")
    until(phone.is_quiet)
    until(lambda: len({row.id for row in key_rows(phone)} - keys) == 1)
    pc.client = SyncClient(pc.profile, phone.client._url, phone.client._token_provider, timing=QUICK)
    until(lambda: phone.items() == pc.items() == ["apple", "bread", "cheese"])
    pc.profile.forget()
    until(lambda: phone.items() == [] and phone.keys.state() == "ready")
    pc.record("anew")
    until(lambda: phone.items() == ["anew"])
    phone.record("too")
    until(lambda: pc.items() == ["anew", "too"])
    for one in (phone, pc):
        assert not {secret.id for secret in one.keys._vault().secrets} & keys  # nothing that was erased opens again
        assert one.keys.problems() == {}
    pc.client.close()


def key_rows(device):
    rows = SyncStore(device.profile).replica().rows.values()
    return [row for row in rows if row.kind == "key"]


def test_a_lost_devices_profile_comes_back_by_the_recovery_code(open_device):
    phone = open_device("phone", "lost")
    phone.keys.create("phone")
    phone.record("apple")
    first = phone.keys.recovery_code()
    code = phone.keys.recovery_code()
    phone.record("bread")
    phone.profile.forget(item_id="apple")
    until(phone.is_quiet)
    phone.client.close()
    fresh = open_device("new", "lost")
    for wrong, kind in (
        (first, "e2e.recovery_code"),
        ("no code", "usage.recovery_code"),
        ("A" * 20, "e2e.recovery_code"),
    ):
        with pytest.raises((SyncError, UsageError)) as refusal:
            fresh.keys.recover(wrong, "new phone")
        assert refusal.value.code == kind
    fresh.keys.recover(f" {code.lower()} ", "new phone")
    until(lambda: fresh.items() == ["bread"] and fresh.keys.state() == "ready")
    assert [one.label for one in fresh.keys.devices()] == ["new phone", "phone"]
    fresh.keys.remove_device(next(one.id for one in fresh.keys.devices() if not one.is_this))
    fresh.record("cheese")
    until(fresh.is_quiet)
    third = open_device("third", "lost")
    third.keys.recover(code, "third")
    until(lambda: third.items() == ["bread", "cheese"])
    until(lambda: sorted(one.label for one in fresh.keys.devices()) == ["new phone", "third"])


def test_weeks_offline_end_with_the_same_profile_under_the_newest_key(open_device):
    phone, pc = family(open_device, "weeks", "phone", "pc")
    until(lambda: phone.is_quiet() and pc.is_quiet())
    pc.client.close()
    for number in range(700):
        pc.profile.record("view", f"pc-{number}", "pc", NOW_MS + number)
    tablet = open_device("tablet", "weeks")
    pair(phone, tablet, "tablet")
    for number in range(3):
        phone.record(f"item-{number}", "kept")
        phone.profile.forget(item_id=f"item-{number}")
    until(phone.is_quiet)
    pc.client = SyncClient(pc.profile, phone.client._url, phone.client._token_provider, timing=QUICK)
    until(lambda: len(tablet.items()) == 703)
    until(lambda: phone.items() == pc.items() == tablet.items())
    assert all(one.keys.problems() == {} for one in (phone, pc, tablet))
    pc.client.close()


def test_a_profile_that_was_synced_in_the_clear_does_not_become_a_sealed_one(server, tmp_path):
    profile = Profile(tmp_path / "clear.db")
    for purpose in ("personalise", "sync"):
        profile.set_consent(purpose, True)
    client = SyncClient(profile, server[0], lambda: token(server[1], "clear"), timing=QUICK)
    until(lambda: client.status().state == "up_to_date")
    client.close()
    with pytest.raises(UsageError) as refusal:
        seal_profile(profile)
    assert refusal.value.code == "e2e.in_the_clear"
    profile.close()


def test_the_keys_of_an_encrypted_profile_are_in_none_of_its_files(open_device, tmp_path):
    pytest.importorskip("apsw", reason="the extra encrypted (apsw-sqlite3mc) is not installed")
    phone = open_device("phone", "vault", key_provider=lambda: bytes(32))
    phone.keys.create("phone")
    secrets = [one.secret for one in phone.keys._vault().secrets]
    files = [path.read_bytes() for path in tmp_path.glob("vault-phone.db*")]
    assert secrets and not any(secret.encode() in data for secret in secrets for data in files)


def test_without_a_key_what_is_erased_in_part_is_erased_here_and_nothing_is_said(open_device):
    phone, pc = open_device("phone", "unpaired"), open_device("pc", "unpaired")
    phone.keys.create("phone")
    phone.record("apple")
    until(phone.is_quiet)
    pc.record("apple", "bread")
    assert pc.profile.forget(item_id="apple") == 1
    until(lambda: pc.client.status().state == "up_to_date")
    pair(phone, pc, "pc")
    until(lambda: phone.items() == pc.items() == ["apple", "bread"])
