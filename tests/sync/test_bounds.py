"""Whatever a push holds, the server answers it and the queue goes on; what it would reject enters no queue."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from simulator import Phone
from xrec_sdk import sync, sync_device, sync_server
from xrec_sdk.sync import Hlc, Key, Op, Push, Replica, Row, Standing
from xrec_sdk.sync_body import check, read_json
from xrec_sdk.sync_merge import Consent, consent_body, digest_text

NOW_MS = 1_750_000_000_000
GRANTED = consent_body(Consent(was_granted=True, policy="1", hlc=Hlc(1), device="d0"))
ROWS = {
    Key("consent", purpose): Row(seq, "consent", purpose, 1, Hlc(1), "d0", seq, 0, 0, GRANTED)
    for seq, purpose in enumerate(("sync", "personalise"), start=1)
}
PROFILE = sync_server.Profile(sync.Head(seq=2))
EVENT = {"id": "e", "at_ms": NOW_MS, "event": "view", "item_id": "x", "device": "phone"}
BODY = json.dumps(EVENT | {"id": "last"})
HALF = "\ud800"

BAD_BODIES = [
    ("event", "[" * 16_000),
    ("event", '{"a":' * 3_000),
    ("preference", "[" * 33 + "]" * 33),
    ("preference", '"\ud800"'),
    ("preference", r'"\ud800"'),
    ("preference", "NaN"),
    ("preference", "[1e999]"),
    ("preference", "9" * 5_000),
    ("preference", ""),
    ("preference", '"' + "x" * 16_384 + '"'),
    ("mood", "no JSON"),
    ("event", json.dumps(EVENT | {"at_ms": True})),
    ("event", json.dumps(EVENT | {"at_ms": -1})),
    ("event", json.dumps(EVENT | {"at_ms": 1 << 53})),
    ("event", json.dumps(EVENT | {"at_ms": 1.0})),
    ("event", json.dumps(EVENT | {"value": True})),
    ("event", json.dumps(EVENT | {"value": float("nan")})),
    ("event", json.dumps(EVENT | {"item_id": ""})),
    ("event", json.dumps(EVENT | {"item_id": "x" * 513})),
    ("event", json.dumps(EVENT | {"device": None})),
    ("event", json.dumps(EVENT | {"recommendation_id": 7})),
    ("event", json.dumps(EVENT | {"id": "another"})),
    ("consent", json.dumps({"granted": 1, "policy": "1"})),
    ("consent", json.dumps({"granted": True, "policy": "1", "over": {"d": True}})),
    ("consent", json.dumps({"granted": True, "policy": "1", "over": {"d": 1 << 53}})),
    ("consent", json.dumps({"granted": True, "policy": "1", "over": {str(n): n for n in range(3_000)}})),
    ("consent", '{"granted":true,"policy":"\\udc00","over":{}}'),
    ("erase", json.dumps({"color": "red"})),
    ("erase", json.dumps({"item_id": 7})),
    ("erase", json.dumps({"from_ms": -1})),
    ("erase", "null"),
]


def push_of(*ops: Op, first: int = 1) -> Push:
    return Push(sync.VERSION, "d1", 1, 2, first, ops)


def op_of(dseq: int, kind: str, body: str, **fields: Any) -> Op:
    given = {"id": "e", "epoch": 1, "hlc": Hlc(NOW_MS), "contact_ms": 0, "purpose": "personalise", **fields}
    return Op(dseq, kind, body=body, **given)


def accept(push: Push) -> tuple[sync.PushAnswer, sync_server.Writes | None]:
    sync_server.wanted(push)
    return sync_server.accept(PROFILE, sync_server.Device("d1"), push, ROWS, NOW_MS)


@pytest.mark.parametrize(("kind", "body"), BAD_BODIES)
def test_a_bad_body_is_rejected_alone_and_the_queue_goes_on(kind: str, body: str) -> None:
    good = op_of(2, "preference", '"red"', id="colour")
    bad = op_of(1, kind, body)
    # An erase is the last of its push.
    answer, writes = accept(push_of(bad) if kind == "erase" else push_of(bad, good))
    assert answer.code is None and writes is not None and writes.device is not None
    assert answer.rejected == ((1, sync.BAD_BODY),)
    if kind == "erase":
        assert writes.put == ()
        answer, writes = sync_server.accept(writes.profile, writes.device, push_of(good, first=2), ROWS, NOW_MS)
    assert answer.code is None and writes is not None
    assert [row.key for row in writes.put] == [good.key]


@pytest.mark.parametrize(("kind", "body"), BAD_BODIES)
def test_a_bad_body_never_enters_a_queue(kind: str, body: str) -> None:
    replica = Replica(Standing(device="d1", last_dseq=4), ROWS, [])
    with pytest.raises(sync.SyncError, match=kind) as caught:
        sync_device.record(replica, kind, "e", body, "personalise", NOW_MS)
    assert caught.value.code == sync.BAD_BODY


@pytest.mark.parametrize(
    "fields",
    [
        {"id": ""},
        {"id": HALF},
        {"id": "a\0b"},
        {"id": "x" * 513},
        {"kind": HALF},
        {"purpose": HALF},
        {"epoch": -1},
        {"contact_ms": 1 << 53},
        {"hlc": Hlc(-1, 0)},
        {"hlc": Hlc(1 << 53, 0)},
        {"hlc": Hlc(NOW_MS, 1 << 31)},
    ],
)
def test_an_operation_out_of_bounds_is_rejected_alone(fields: dict[str, Any]) -> None:
    answer, writes = accept(push_of(op_of(1, **{"kind": "preference", "body": "1", **fields})))
    assert answer.rejected == ((1, sync.BAD_BODY),) and answer.high_water == 1
    assert writes is not None and writes.put == ()


@pytest.mark.parametrize(
    "push",
    [
        Push(1, "d1", 1, 0, 0, ()),
        Push(1, "d1", 1, -1, 1, ()),
        Push(1, "d1", True, 0, 1, ()),
        Push(1, HALF, 1, 0, 1, ()),
        Push(1, "d1", 1, 0, 1 << 53, ()),
        push_of(op_of(2, "preference", "1")),
        push_of(op_of(1, "erase", "{}"), op_of(2, "preference", "1")),
        push_of(op_of(1, "preference", None)),  # type: ignore[arg-type]
        push_of(op_of(1, "preference", "1", epoch=True)),
        push_of(op_of(1, "preference", "1", epoch=1.0)),
    ],
)
def test_a_push_that_is_none_is_refused_whole(push: Push) -> None:
    answer, writes = accept(push)
    assert (answer.code, writes) == (sync.MALFORMED, None)


def test_a_refusal_that_the_server_has_not_can_not_be_covered_beforehand() -> None:
    grant = op_of(1, "consent", '{"granted":true,"policy":"1","over":{"d1":9,"d2":9}}', id="sync")
    refusal = op_of(2, "consent", '{"granted":false,"policy":"1"}', id="sync")
    _, writes = accept(push_of(grant, refusal))
    assert writes is not None
    (row,) = writes.put
    assert not json.loads(row.body)["granted"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.integers(-2, 3) | st.sampled_from([1 << 31, (1 << 53) - 1, 1 << 53, 1 << 70, NOW_MS])
TEXTS = st.sampled_from(["e", "sync", "personalise", "", HALF, "\0", "d1"]) | st.text(st.characters(), max_size=4)
BODIES = (
    JSON.map(json.dumps)
    | TEXTS
    | st.fixed_dictionaries(
        {}, optional={name: JSON for name in (*EVENT, "value", "granted", "policy", "over", "from_ms", "to_ms")}
    ).map(json.dumps)
    | st.sampled_from([body for _, body in BAD_BODIES] + [json.dumps(EVENT), "{}"])
)
KINDS = st.sampled_from(["event", "preference", "consent", "erase", "nop", "mood", HALF])
SAID = st.tuples(KINDS, TEXTS, NUMBERS, st.builds(Hlc, NUMBERS, NUMBERS), NUMBERS, TEXTS, BODIES)


@seed(5)
@settings(max_examples=150, deadline=None, database=None)
@given(st.lists(SAID, max_size=4), NUMBERS, NUMBERS)
def test_no_push_raises_and_what_is_rejected_leaves_nothing(said: list[Any], checked: int, generation: int) -> None:
    ops = [Op(dseq, *fields) for dseq, fields in enumerate(said, start=1)]
    push = Push(sync.VERSION, "d1", generation, checked, 1, tuple(ops))
    answer, writes = accept(push)
    if answer.code:
        assert writes is None
        return
    assert writes is not None and writes.device is not None
    assert answer.high_water == writes.device.high_water == len(ops)
    assert sorted(dseq for dseq, _ in (*answer.acks, *answer.rejected)) == [op.dseq for op in ops]
    good = {op.dseq for op in ops} - {dseq for dseq, _ in answer.rejected}
    assert {row.dseq for row in writes.put} | {line.dseq for line in writes.history} <= good
    for row in writes.put:
        assert all(text.encode() for text in (row.kind, row.id, row.body)) and "\0" not in row.id
        read_json(row.body)
    again, _ = sync_server.accept(writes.profile, writes.device, push, ROWS, NOW_MS)
    assert again.code is None and again.rejected == answer.rejected


@seed(6)
@settings(max_examples=100, deadline=None, database=None)
@given(SAID)
def test_what_a_device_takes_up_the_server_never_calls_a_bad_body(said: Any) -> None:
    kind, id, _, _, _, purpose, body = said
    replica = Replica(Standing(device="d1", epoch=1), ROWS, [])
    try:
        changes = sync_device.record(replica, kind, id, body, purpose, NOW_MS)
    except sync.SyncError:
        return
    (queued,) = changes.put_queue
    check(queued.op, sync.LIMITS)
    answer, _ = accept(push_of(queued.op))
    assert sync.BAD_BODY not in dict(answer.rejected).values() and answer.code is None


class Unread(dict[Any, Any]):
    """Rows or a queue that nobody may walk through."""

    def __iter__(self) -> Any:
        raise AssertionError("it was read")


def test_an_empty_answer_reads_neither_rows_nor_queue() -> None:
    standing = Standing(device="d1", cursor=2, checked=2, digest=7, is_rebuilt=True)
    replica = Replica(standing, Unread(), Unread())  # type: ignore[arg-type]
    head = sync.Head(seq=2)
    page = sync.Page(head, NOW_MS, 0, 2, (), 2, False, digest_text(7))
    assert sync_device.apply_page(replica, page, NOW_MS).standing.contact_ms == NOW_MS
    with pytest.raises(AssertionError, match="it was read"):
        sync_device.apply_page(replica, replace(page, digest=digest_text(8)), NOW_MS)


def test_a_push_is_made_from_the_first_operations_and_reads_no_further() -> None:
    def walked() -> Any:
        for dseq in range(1, 10):
            assert dseq <= 4, "more was read than is sent"
            yield sync.Queued(op_of(dseq, "event", json.dumps(EVENT)))

    class Walked(list[sync.Queued]):
        def __iter__(self) -> Any:
            return walked()

    replica = Replica(Standing(device="d1", last_dseq=9), {}, Walked())
    pushing = sync_device.next_push(replica, sync.Limits(push_ops=3))
    assert pushing is not None and [one.dseq for one in pushing[0].ops] == [1, 2, 3]


def test_a_device_sees_what_it_has_said_until_a_page_brings_it_however_much_that_is() -> None:
    limits = replace(sync.LIMITS, window_ops=5, push_ops=4)
    phone = Phone(0, Replica(Standing(device="d0", cursor=2, is_rebuilt=True), ROWS, ()), 0)
    for number in range(30):
        body = json.dumps(EVENT | {"id": f"e{number}"})
        phone.commit(sync_device.record(phone.replica, "event", f"e{number}", body, "personalise", NOW_MS, limits))
    seq = 2
    while found := sync_device.next_push(phone.replica, limits):
        push, changes = found
        phone.commit(changes)
        acks = tuple((op.dseq, seq + place) for place, op in enumerate(push.ops, 1))
        seq += len(acks)
        answer = sync.PushAnswer(sync.Head(seq=seq), NOW_MS, push.ops[-1].dseq, acks)
        phone.commit(sync_device.pushed(phone.replica, push, answer, NOW_MS, limits))
        assert len(sync_device.events(phone.replica, NOW_MS)) == 30
    assert len(phone.replica.queue) == 30
    phone.commit(sync.Changes(replace(phone.replica.standing, cursor=seq)))
    phone.commit(sync_device.record(phone.replica, "event", "last", BODY, "personalise", NOW_MS, limits))
    push, _ = sync_device.next_push(phone.replica, limits) or pytest.fail("nothing to push")
    answer = sync.PushAnswer(sync.Head(seq=seq + 1), NOW_MS, 31, ((31, seq + 1),))
    phone.commit(sync_device.pushed(phone.replica, push, answer, NOW_MS, limits))
    assert [one.op.dseq for one in phone.replica.queue] == [27, 28, 29, 30, 31]
