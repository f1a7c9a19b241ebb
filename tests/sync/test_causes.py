"""The least history behind each promise that the simulator once saw broken, told step by step."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from faults import RARE, planted
from simulator import Broken, Fact, Phone, World
from xrec_sdk import sync, sync_device
from xrec_sdk.sync import DAY_MS, Key


def world() -> World:
    """Return a world of three devices or four, in which nothing has happened yet (seed 1)."""
    return World(1)


def say_event(world: World, phone: Phone, item: str) -> str:
    id = world.fresh()
    body = json.dumps({"id": id, "at_ms": world.now_ms, "event": "view", "item_id": item, "device": "phone"})
    assert world.say(phone, "event", id, body)
    world.facts[id] = Fact(body, phone.name, phone.issued, phone.replica.standing.device == "")
    return id


def exchange(world: World, phone: Phone, rounds: int = 4) -> None:
    """Let one device ask and hear all there is to hear, over a good network."""
    for _ in range(rounds):
        world.talk(phone, world.ask_page)
        world.talk(phone, world.ask_push)


def ask_unheard(world: World, phone: Phone, ask: Callable[[Phone], None]) -> None:
    """Let the server serve a request whose answer is lost."""
    ask(phone)
    world.deliver(world.wire.pop())
    world.wire.clear()


def copy_of(world: World, phone: Phone) -> Phone:
    """Return a copy of a device that knows nothing of it and goes by the same name."""
    copy = Phone(len(world.phones), phone.replica, phone.skew_ms)
    world.phones.append(copy)
    world.twins |= {phone.name, copy.name}
    return copy


def end(world: World) -> None:
    world.quiesce()
    world.check()


def test_an_erasure_is_not_forgotten_while_a_device_that_the_backup_does_not_know_may_come() -> None:
    w = world()
    keeps, erases, _ = w.phones[:3]
    w.back_up_server(keeps)
    exchange(w, keeps)
    event, kept = say_event(w, keeps, "apple"), say_event(w, keeps, "bread")
    exchange(w, keeps)
    assert {event, kept} <= w.acked
    exchange(w, erases)
    w.say_erase(erases, '{"item_id":"apple"}')
    w.talk(erases, w.ask_push)
    w.restore_server(keeps)
    w.compact(keeps)
    end(w)
    assert [row.id for row in w.server.of_kind("event")] == [kept]


def test_an_erasure_said_again_after_a_restore_does_not_take_what_was_recorded_since() -> None:
    w = world()
    erases, records, _ = w.phones[:3]
    w.back_up_server(erases)
    exchange(w, erases)
    w.say_erase(erases, '{"item_id":"apple"}')
    ask_unheard(w, erases, w.ask_push)
    w.restore_server(erases)
    w.compact(erases)
    exchange(w, records)
    event = say_event(w, records, "apple")
    end(w)
    assert [row.id for row in w.server.of_kind("event")] == [event]


def test_what_was_checked_before_a_restore_stays_checked() -> None:
    """The erasure is forgotten by all; what was said after it and lost by the server comes back, and nothing older."""
    w = world()
    one, other, _ = w.phones[:3]
    exchange(w, one)
    exchange(w, other)
    w.back_up_server(one)
    early = say_event(w, one, "apple")
    exchange(w, one)
    w.say_erase(other, '{"item_id":"apple"}')
    for phone in (other, one, other, one):
        exchange(w, phone)
    w.compact(one)
    assert w.counts["forgotten erasures"] == 1 and early in w.erased
    late = say_event(w, one, "apple")
    exchange(w, one)
    w.restore_server(one)
    end(w)
    assert [row.id for row in w.server.of_kind("event")] == [late]


def test_a_nop_does_not_hide_the_erasure_of_a_copy_under_the_same_number() -> None:
    w = world()
    phone = w.phones[0]
    exchange(w, phone)
    copy = copy_of(w, phone)
    w.say_erase(copy, '{"item_id":"bread"}')
    w.talk(copy, w.ask_push)
    dseq = copy.replica.standing.last_dseq
    say_event(w, phone, "cheese")
    number = phone.replica.standing.last_dseq
    assert number == dseq
    phone.commit(sync.Changes(phone.replica.standing, put_queue=(sync.Queued(sync_device.nop(dseq)),)))
    event = say_event(w, phone, "bread")
    w.talk(phone, w.ask_push)
    assert phone.replica.standing.must_register
    w.note_erased("seen", '{"item_id":"bread"}')
    end(w)
    assert event not in {row.id for row in w.server.of_kind("event")}


def test_a_backup_that_holds_an_erasure_forgotten_since_is_restored_without_it() -> None:
    w = world()
    one = w.phones[0]
    for phone in w.phones:
        exchange(w, phone)
    w.say_erase(one, '{"item_id":"apple"}')
    w.talk(one, w.ask_push)
    w.back_up_server(one)
    for phone in w.phones + w.phones:
        exchange(w, phone)
    w.compact(one)
    assert w.counts["forgotten erasures"] == 1
    w.erase_account(one)
    w.restore_server(one)
    assert {row.seq > w.server.profile.head.forgotten for row in w.server.of_kind("erase")} == {True}
    end(w)


def test_a_refusal_that_a_copy_has_delivered_holds_until_a_page_brings_it() -> None:
    w = world()
    phone = w.phones[0]
    exchange(w, phone)
    w.decide(phone, "sync", False)
    copy = copy_of(w, phone)
    w.talk(copy, w.ask_push)
    phone.commit(sync_device.opened(phone.replica, "another installation"))
    w.talk(phone, w.ask_page)
    assert phone.replica.standing.device not in ("", copy.replica.standing.device)
    assert not sync_device.consent(phone.replica, "sync").is_granted
    end(w)
    assert not sync_device.consent(phone.replica, "sync").is_granted


def test_what_the_server_lost_is_not_taken_for_retired() -> None:
    """Events that others say after a restore are retired; the floor lies above the old seq of what was lost."""
    w = world()
    one, other, _ = w.phones[:3]
    exchange(w, one)
    exchange(w, other)
    w.back_up_server(one)
    lost = say_event(w, one, "apple")
    exchange(w, one)
    w.restore_server(one)
    for _ in range(6):
        say_event(w, other, "bread")
    exchange(w, other)
    w.compact(one)
    assert w.server.profile.head.floor > w.server.profile.head.base
    end(w)
    assert lost in {row.id for row in w.server.of_kind("event")}


def test_a_removed_device_gives_up_the_profile_and_its_unsent_events_but_not_its_erasures() -> None:
    w = world()
    one, other, _ = w.phones[:3]
    exchange(w, one)
    kept = say_event(w, one, "bread")
    taken = say_event(w, one, "apple")
    exchange(w, one)
    exchange(w, other)
    unsent = say_event(w, other, "cheese")
    w.say_erase(other, '{"item_id":"apple"}')
    former = other.replica.standing.device
    w.remove_device(other)
    w.talk(other, w.ask_page)
    assert other.replica.standing.must_register
    assert {key.kind for key in other.replica.rows} <= {"consent", "erase"}
    end(w)
    assert other.replica.standing.device not in ("", former)
    assert {row.id for row in w.server.of_kind("event")} == {kept}
    assert {unsent, taken}.isdisjoint(id for _, id, _ in sync_device.events(other.replica, w.now_ms))


def test_the_account_erases_once_and_knows_who_has_not_heard_of_it() -> None:
    w = world()
    one, other, _ = w.phones[:3]
    for phone in (one, other):
        exchange(w, phone)
    say_event(w, one, "bread")
    exchange(w, one)
    names = {phone.replica.standing.device for phone in (one, other)}
    receipt, writes = w.erase_from_account("asked")
    assert writes is not None and set(receipt.pending) == names
    assert (receipt.id, receipt.at_ms, receipt.epoch) == ("asked", w.now_ms, 2)
    w.server.commit(writes)
    w.note_erased("asked", "{}")
    again, nothing = w.erase_from_account("asked")
    assert (again, nothing) == (receipt, None)
    exchange(w, one)
    left, _ = w.erase_from_account("asked")
    assert left.pending == (other.replica.standing.device,)
    exchange(w, other)
    w.compact(one)
    assert Key("erase", "asked") not in w.server.rows
    assert w.erase_from_account("asked") == (sync.Receipt("asked", 0, 2), None)
    end(w)
    assert not w.server.of_kind("event")
    with pytest.raises(ValueError, match="id is ''"):
        w.erase_from_account("")


def test_an_operation_that_the_transport_never_takes_does_not_wedge_the_queue() -> None:
    w = world()
    w.transport_ops = 4
    phone = w.phones[0]
    exchange(w, phone)
    bad, good = say_event(w, phone, "apple"), say_event(w, phone, "bread")
    dead: list[sync.Dead] = []
    for _ in range(4):
        pushing = sync_device.next_push(phone.replica)
        assert pushing is not None
        push, changes = pushing
        phone.commit(changes)
        if any(op.id == bad for op in push.ops):
            changes = sync_device.refused(phone.replica, push)
            dead += changes.dead
            phone.commit(changes)
        else:
            break
    end(w)
    assert [(one.op.id, one.code) for one in dead] == [(bad, sync.BAD_BODY)]
    assert {row.id for row in w.server.of_kind("event")} == {good}


def test_two_events_under_one_number_are_not_taken_for_one() -> None:
    w = world()
    phone = w.phones[0]
    exchange(w, phone)
    copy = copy_of(w, phone)
    first = say_event(w, copy, "apple")
    w.talk(copy, w.ask_push)
    second = say_event(w, phone, "bread")
    w.talk(phone, w.ask_push)
    end(w)
    assert {row.id for row in w.server.of_kind("event")} == {first, second}


def test_a_device_that_was_set_back_is_not_taken_to_have_checked_what_is_forgotten() -> None:
    """Its older self, put back, would send what its newer self had given up for an erasure."""
    w = world()
    phone, erases, *others = w.phones
    for one in w.phones:
        exchange(w, one)
    event = say_event(w, phone, "apple")
    older = phone.replica
    w.say_erase(erases, '{"item_id":"apple"}')
    w.talk(erases, w.ask_push)
    for one in (phone, erases, *others) * 2:
        w.talk(one, w.ask_page)
    w.compact(phone)
    assert w.counts["forgotten erasures"] == 1
    phone.replica = older
    w.counts["devices restored"] += 1
    end(w)
    assert event in w.erased


def test_a_device_that_was_set_back_does_not_take_again_what_was_said_since_an_erasure_that_is_forgotten() -> None:
    """Its older self has the erasure yet to send, and says it under a new name (seed 403,949)."""
    w = world()
    phone, other, _ = w.phones[:3]
    for one in w.phones:
        exchange(w, one)
    w.say_erase(phone, '{"item_id":"apple"}')
    older = phone.replica
    w.talk(phone, w.ask_push)
    for one in w.phones * 2:
        exchange(w, one)
    w.compact(phone)
    assert w.counts["forgotten erasures"] == 1
    since = say_event(w, other, "apple")
    exchange(w, other)
    phone.replica = older
    phone.commit(sync_device.opened(older, "another installation"))
    w.counts["devices restored"] += 1
    end(w)
    assert [row.id for row in w.server.of_kind("event")] == [since]


def test_the_account_s_erasure_is_done_once_after_it_is_forgotten_and_another_came() -> None:
    w = world()
    phone, other, _ = w.phones[:3]
    w.erase_account(phone)
    (asked,) = w.receipts
    for one in w.phones * 2:
        exchange(w, one)
    w.say_erase(other, "{}")
    for one in (other, *w.phones * 2):
        exchange(w, one)
    w.compact(phone)
    assert w.counts["forgotten erasures"] == 2
    assert w.erase_from_account(asked) == (sync.Receipt(asked, 0, 3), None)


def test_a_late_answer_does_not_set_a_clock_back() -> None:
    """One device's clock runs 400 days ahead, the other's 3 behind; the one who saw the other's word has the last."""
    w = world()
    ahead, behind, _ = w.phones[:3]
    ahead.skew_ms, behind.skew_ms = 400 * DAY_MS, -3 * DAY_MS
    exchange(w, behind)
    w.ask_push(behind)
    w.decide(behind, "train", True)
    w.ask_push(behind)
    w.deliver(w.wire.pop())
    late = w.wire.pop()
    w.now_ms += 10_000
    exchange(w, ahead)
    assert w.say(ahead, "preference", "size", '"theirs"')
    w.talk(ahead, w.ask_push)
    w.talk(behind, w.ask_page)
    w.deliver(late)
    assert w.say(behind, "preference", "size", '"mine"')
    end(w)
    assert w.server.rows[Key("preference", "size")].body == '"mine"'


@pytest.mark.parametrize("name", RARE)
def test_a_planted_fault_is_caught_by_the_least_history_of_its_kind(name: str) -> None:
    with planted(RARE[name]), pytest.raises(AssertionError):
        globals()[f"test_{name}"]()


def test_the_checker_sees_a_loss() -> None:
    w = world()
    phone = w.phones[0]
    exchange(w, phone)
    event = say_event(w, phone, "apple")
    exchange(w, phone)
    row = w.server.rows.pop(Key("event", event))
    for one in w.phones:
        one.commit(sync.Changes(one.replica.standing, drop_rows=(row.key,)))
    with pytest.raises(Broken):
        w.check()
