"""The sync tables of a profile: the protocol's simulated histories over SQLite, the narrow append, what is shown."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from xrec_sdk import sync, sync_device, sync_view
from xrec_sdk.event import Event
from xrec_sdk.profile import Profile
from xrec_sdk.sync import Changes, Dead, Head, Hlc, Key, Limits, Op, Page, Queued, Replica, Row, Standing
from xrec_sdk.sync_merge import digest_of, digest_text
from xrec_sdk.sync_store import SyncStore
from xrec_sdk.sync_tables import dead, replica

sys.path.insert(0, str(Path(__file__).parents[1] / "sync"))
import simulator

FOREVER_MS = 1 << 53
NOW_MS = 1_795_000_000_000


def loaded(profile, given, now_ms=FOREVER_MS):
    """Write a whole replica into an empty profile."""
    changes = Changes(given.standing, put_rows=tuple(given.rows.values()), put_queue=tuple(given.queue))
    profile.store.write(lambda connection: sync_view.commit(connection, changes, now_ms))
    return profile


def stored(profile):
    found = profile.store.read(replica)
    return Replica(found.standing, dict(found.rows), list(found.queue))


def shown(profile):
    """Return (time for ranking, id) of every event that was said to other devices."""
    said = "SELECT at_ms, id FROM events WHERE NOT is_local ORDER BY at_ms, id"
    return profile.store.read(lambda connection: connection.execute(said).fetchall())


@dataclass
class StoredPhone(simulator.Phone):
    """A phone of the simulator whose every commit goes through a profile's tables too, and must come out the same."""

    profile: Profile = field(init=False)

    def __post_init__(self):
        self.profile = loaded(Profile(":memory:"), self.replica)

    def commit(self, changes):
        super().commit(changes)
        self.profile.store.write(lambda connection: sync_view.commit(connection, changes, FOREVER_MS))
        assert stored(self.profile) == self.replica
        seen = sync_device.events(self.replica, FOREVER_MS)
        assert shown(self.profile) == [(at_ms, id) for at_ms, id, _ in seen]
        granted = {purpose: sync_device.consent(self.replica, purpose).is_granted for purpose in sync.PURPOSES}
        assert self.profile.consent() == granted


@pytest.mark.parametrize("seed", range(1, 9))
def test_simulated_histories_are_the_same_over_the_tables(seed, monkeypatch):
    monkeypatch.setattr(simulator, "Phone", StoredPhone)
    # A simulated phone says again nothing that it had to take back; the profile does, which has its own tests.
    monkeypatch.setattr(sync_view, "_queue_local", lambda *_: None)
    counts = simulator.history(seed)
    assert counts["events"] > 0


@pytest.mark.parametrize("seed", range(40))
def test_an_appended_event_is_what_the_rule_makes_of_the_whole_queue(seed):
    luck, limits = random.Random(seed), Limits(queue_ops=12)
    profile = Profile(":memory:")
    for purpose in ("personalise", "sync"):
        profile.set_consent(purpose, True)
    expected = stored(profile)
    sent = luck.choice((0, 0, 5))
    acked = luck.randint(0, sent)
    hlc = Hlc(NOW_MS + luck.choice((-10, 0, 10_000)), luck.randint(0, 3))
    standing = replace(expected.standing, sent=sent, acked=acked, hlc=hlc, contact_ms=luck.choice((0, NOW_MS)))
    changes = Changes(replace(standing, epoch=luck.randint(1, 3)))
    profile.store.write(lambda connection: sync_view.commit(connection, changes, NOW_MS))
    for number in range(30):
        event = Event(f"id-{number}", NOW_MS + number, luck.choice(("view", "like")), "sku-é", "phone", 1.5, "r")
        now_ms = NOW_MS + 3 * number
        body = sync_view.event_body(event, event.at_ms)
        said = sync_device.record(stored(profile), "event", event.id, body, "personalise", now_ms, limits)
        expected = applied(stored(profile), said)

        def append(connection, event=event, now_ms=now_ms):
            tail = connection.execute("SELECT last_dseq, acked, hlc_ms, hlc_counter FROM state").fetchone()
            epoch, contact_ms = connection.execute("SELECT epoch, contact_ms FROM state").fetchone()
            sync_view.append_event(connection, event, epoch, contact_ms, tail, now_ms, limits)

        profile.store.write(append)
        assert stored(profile) == expected
    assert expected.standing.shed > 0
    profile.close()


def applied(given, changes):
    phone = simulator.Phone(0, given, 0)
    phone.commit(changes)
    return phone.replica


@pytest.fixture
def profile(tmp_path):
    made = Profile(tmp_path / "p.db", clock_ms=lambda: NOW_MS)
    for purpose in ("personalise", "sync"):
        made.set_consent(purpose, True)
    yield made
    made.close()


def row(seq, item_id="a", at_ms=NOW_MS - 5, event="view", **more):
    body = {"id": f"other-{seq}", "at_ms": at_ms, "event": event, "item_id": item_id, "device": "pc", **more}
    return Row(seq, "event", f"other-{seq}", 1, Hlc(NOW_MS, seq), "d-2", seq, at_ms, NOW_MS, json.dumps(body))


def hear(profile, *rows, epoch=1, erased_by="", more=False, floor=0):
    """Let a page of these rows arrive."""
    local = SyncStore(profile)
    cursor = local.replica().standing.cursor
    end = max((one.seq for one in rows), default=cursor)
    held = [one for one in local.replica().rows.values() if one.epoch >= epoch or one.kind in ("consent", "erase")]
    digest = digest_text(digest_of([*held, *rows]))
    head = Head(epoch=epoch, erased_by=erased_by, seq=end, floor=floor)
    page = Page(head, NOW_MS, 0, cursor, rows, end, more, digest)
    local.change(lambda replica: sync_device.apply_page(replica, page, NOW_MS))


def items(profile):
    return [event.item_id for event in profile.events()]


def test_the_history_that_is_read_is_that_of_all_devices_in_order(profile):
    profile.record("view", "mine", "phone", NOW_MS - 4)
    before, _ = profile.read()
    hear(profile, row(1, "first", NOW_MS - 9), row(2, "last", NOW_MS - 1, value=2.0, recommendation_id="r"))
    after, new = profile.read(before)
    assert [event.item_id for event in new] == ["first", "last"] and after.erasures == before.erasures
    assert items(profile) == ["first", "mine", "last"]
    assert new[1] == Event("other-2", NOW_MS - 1, "view", "last", "pc", 2.0, "r")


def test_an_event_is_ranked_by_the_servers_time_and_exported_with_its_own(profile):
    late = row(1, "late", NOW_MS - 9_000)
    hear(profile, replace(late, order_ms=NOW_MS - 100))
    assert [event.at_ms for event in profile.events()] == [NOW_MS - 100]
    assert [event["at_ms"] for event in profile.export()] == [NOW_MS - 9_000]
    assert profile.forget(to_ms=NOW_MS - 8_000) == 1  # as it was claimed


def test_a_row_that_nobody_can_read_is_kept_but_not_shown(profile):
    bad = [
        replace(row(1), body="not json"),
        replace(row(2), body="[]"),
        replace(row(3), body='{"id": 3}'),
        row(4, value="much"),
    ]
    hear(profile, *bad, row(5, "good"))
    assert items(profile) == ["good"]
    standing = SyncStore(profile).replica().standing
    assert standing.cursor == 5 and not standing.is_diverged and len(SyncStore(profile).replica().rows) == 5


def test_an_erasure_of_everything_on_another_device_leaves_no_byte_in_any_file(profile, tmp_path):
    profile.record("view", "SECRET-mine", "phone", NOW_MS)
    profile.set_consent("sync", False)
    profile.record("view", "SECRET-local", "phone", NOW_MS)
    hear(profile, row(1, "SECRET-other"))
    joined = replace(SyncStore(profile).replica().standing, device="d-1")
    SyncStore(profile).commit(Changes(joined))
    assert len(profile.events()) == 3
    before, _ = profile.read()
    erase = Row(2, "erase", "e-1", 2, Hlc(NOW_MS, 9), "d-2", 2, NOW_MS, NOW_MS, "{}")
    hear(profile, erase, epoch=2, erased_by="e-1")
    assert profile.events() == [] and profile.read(before)[0].erasures > before.erasures
    assert not any(b"SECRET" in path.read_bytes() for path in tmp_path.iterdir())


def test_an_erasure_of_some_on_another_device_takes_what_was_never_said_too(profile):
    profile.set_consent("sync", False)
    profile.record("view", "gone", "phone", NOW_MS)
    profile.record("view", "kept", "phone", NOW_MS)
    hear(profile, Row(1, "erase", "e-1", 1, Hlc(NOW_MS, 9), "d-2", 2, NOW_MS, NOW_MS, '{"item_id":"gone"}'))
    assert items(profile) == ["kept"]


def test_an_own_erasure_works_at_once_and_is_said(profile):
    hear(profile, row(1, "other"))
    profile.record("view", "mine", "phone", NOW_MS)
    assert profile.forget(item_id="other") == 1 and items(profile) == ["mine"]
    hear(profile, row(2, "other"))  # it was on its way
    assert items(profile) == ["mine"]
    assert profile.forget() == 1 and profile.events() == []
    profile.record("view", "after", "phone", NOW_MS)
    assert items(profile) == ["after"]
    said = [one.op for one in SyncStore(profile).replica().queue]
    assert [(op.kind, op.body) for op in said if op.kind == "erase"] == [
        ("erase", '{"item_id":"other"}'),
        ("erase", "{}"),
    ]


def test_an_erasure_before_there_is_any_sync_is_this_devices_alone(tmp_path):
    profile = Profile(":memory:")
    profile.set_consent("personalise", True)
    profile.record("view", "a", "phone", 1)
    assert profile.forget() == 1
    assert [one.op.kind for one in SyncStore(profile).replica().queue] == ["consent"]


def test_nothing_is_queued_without_consent_to_sync_and_a_grant_sends_what_is_here(tmp_path):
    profile = Profile(":memory:", clock_ms=lambda: NOW_MS)
    profile.set_consent("personalise", True)
    ids = [profile.record("view", f"i{number}", "phone", NOW_MS - number) for number in range(3)]
    assert [one.op.kind for one in SyncStore(profile).replica().queue] == ["consent"]
    profile.set_consent("sync", True)
    queue = [one.op for one in SyncStore(profile).replica().queue]
    assert [op.kind for op in queue] == ["consent", "consent", "event", "event", "event"]
    assert [op.id for op in queue[2:]] == ids and [op.dseq for op in queue] == [1, 2, 3, 4, 5]
    assert json.loads(queue[2].body) == {
        **{"id": ids[0], "at_ms": NOW_MS, "event": "view", "item_id": "i0", "device": "phone"}
    }
    assert len(profile.events()) == 3


def test_a_refusal_takes_back_what_is_unsent_keeps_it_here_and_a_grant_sends_it(profile):
    id = profile.record("view", "a", "phone", NOW_MS)
    profile.set_consent("sync", False)
    assert [one.op.kind for one in SyncStore(profile).replica().queue] == ["consent", "consent", "nop", "consent"]
    assert items(profile) == ["a"] and shown(profile) == []
    profile.set_consent("sync", True)
    assert [one.op.id for one in SyncStore(profile).replica().queue if one.op.kind == "event"] == [id]
    assert items(profile) == ["a"]


def test_a_refusal_heard_from_another_device_holds_here(profile):
    profile.record("view", "a", "phone", NOW_MS)
    body = '{"granted":false,"over":{},"policy":"","refused":{"d-2":1},"was_granted":true}'
    hear(profile, Row(1, "consent", "sync", 1, Hlc(NOW_MS, 9), "d-2", 1, NOW_MS, NOW_MS, body))
    assert profile.consent()["sync"] is False and profile.consent()["personalise"] is True
    assert items(profile) == ["a"] and shown(profile) == []


def test_the_dead_are_kept_without_what_was_erased_and_are_bounded(profile):
    op = Op(9, "event", "x", 1, Hlc(1, 0), 0, "personalise", '{"item_id":"a","event":"view","at_ms":1}')
    local = SyncStore(profile)
    local.commit(Changes(local.replica().standing, dead=(Dead(op, sync.ERASED), Dead(op, sync.BAD_BODY))))
    found = profile.store.read(dead)
    assert [(one.code, one.op.body) for one in found] == [(sync.ERASED, ""), (sync.BAD_BODY, op.body)]
    assert local.count()[1] == 2
    profile.forget(item_id="b")
    assert [one.op.body for one in profile.store.read(dead)] == [op.body]  # what can't be read is taken
    profile.forget(item_id="a")
    assert profile.store.read(dead) == []
    many = tuple(Dead(replace(op, dseq=number), sync.BAD_BODY) for number in range(1200))
    local.commit(Changes(local.replica().standing, dead=many))
    assert [one.op.dseq for one in profile.store.read(dead)] == list(range(200, 1200))


def test_a_lease_that_ended_takes_what_was_never_said_too(profile):
    profile.set_consent("sync", False)
    profile.record("view", "local", "phone", NOW_MS)
    hear(profile, row(1, "other"))
    local = SyncStore(profile)
    local.commit(Changes(replace(local.replica().standing, device="d-1", contact_local_ms=NOW_MS)))
    lease_ms = sync.LIMITS.lease_ms
    assert not local.change(lambda replica: sync_device.lease_ended(replica, NOW_MS + lease_ms))
    assert local.change(lambda replica: sync_device.lease_ended(replica, NOW_MS + lease_ms + 1))
    assert profile.events() == [] and local.replica().standing.must_register


def test_what_a_rule_reads_and_what_it_writes_are_one_transaction(profile):
    """A record in another thread waits for the rule, so that no word of it is lost."""
    local, order = SyncStore(profile), []

    def rule(given: Replica) -> Changes:
        order.append(given.standing.last_dseq)
        return Changes(given.standing)

    for number in range(3):
        profile.record("view", f"i{number}", "phone", NOW_MS)
        local.change(rule)
    assert order == [3, 4, 5] and local.replica().standing.last_dseq == 5
    assert isinstance(local.replica().rows.get(Key("event", "none")), type(None))
    assert all(isinstance(one, Queued) for one in local.replica().queue)


def test_a_standing_with_fields_that_this_sdk_adds_reads_an_older_file(profile):
    profile.store.write(lambda connection: connection.execute('UPDATE state SET standing = \'{"device":"d-1"}\''))
    assert SyncStore(profile).replica().standing == replace(
        Standing(device="d-1"), last_dseq=2, hlc=SyncStore(profile).replica().standing.hlc
    )
