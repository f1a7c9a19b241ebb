"""Messages come back from JSON as they were; what is not one is refused by name, whatever it holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from xrec_sdk import sync, sync_json
from xrec_sdk.sync import (
    ChangesRequest,
    EraseRequest,
    Head,
    Hlc,
    Op,
    Page,
    Push,
    PushAnswer,
    Receipt,
    Registered,
    RegisterRequest,
    Row,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "vectors"))
import make_sync

NUMBERS = st.integers(0, 3) | st.sampled_from([1_750_000_000_000, (1 << 53) - 1])
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
NAMES = TEXTS.filter(bool)
CODES = st.sampled_from([None, sync.GAP, sync.COPIED])
DIGESTS = st.integers(0, (1 << 256) - 1).map(lambda digest: f"{digest:064x}")
CLOCKS = st.builds(Hlc, NUMBERS, NUMBERS)
HEADS = st.builds(Head, NUMBERS, NUMBERS, NUMBERS, TEXTS, NUMBERS, NUMBERS, NUMBERS)
OPS = st.builds(Op, NUMBERS, NAMES, TEXTS, NUMBERS, CLOCKS, NUMBERS, TEXTS, TEXTS)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3).map(tuple)
NAMED = st.lists(st.tuples(NUMBERS, TEXTS), max_size=3).map(tuple)


@st.composite
def pages(draw: st.DrawFn) -> Page:
    kinds = st.sampled_from(["event", "preference", "mood"])
    rows: list[Row] = []
    after = seq = draw(st.integers(0, 9))
    for _ in range(draw(st.integers(0, 3))):
        seq += draw(st.integers(1, 5))
        said = draw(st.tuples(kinds, NAMES, NUMBERS, CLOCKS, TEXTS, NUMBERS, NUMBERS, NUMBERS, TEXTS))
        rows.append(Row(seq, *said))
    end, digest = seq + draw(st.integers(0, 2)), draw(DIGESTS)
    return Page(draw(HEADS), draw(NUMBERS), draw(NUMBERS), after, tuple(rows), end, draw(st.booleans()), digest)


MESSAGES: dict[Callable[[bytes], Any], st.SearchStrategy[Any]] = {
    sync_json.read_push: st.builds(
        Push, NUMBERS, TEXTS, NUMBERS, NUMBERS, NUMBERS, st.lists(OPS, max_size=3).map(tuple)
    ),
    sync_json.read_push_answer: st.builds(PushAnswer, HEADS, NUMBERS, NUMBERS, PAIRS, NAMED, CODES),
    sync_json.read_page: pages(),
    sync_json.read_registered: st.builds(Registered, HEADS, NUMBERS, NAMES, NUMBERS, NAMED, st.booleans()),
    sync_json.read_register_request: st.builds(RegisterRequest, NUMBERS, TEXTS, NUMBERS, NUMBERS, NUMBERS),
    sync_json.read_erase_request: st.builds(EraseRequest, NUMBERS, NAMES),
    sync_json.read_receipt: st.builds(Receipt, NAMES, NUMBERS, NUMBERS, st.lists(TEXTS, max_size=3).map(tuple)),
}
BY_NAME = {read.__name__: read for read in MESSAGES}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("name", BY_NAME)
@seed(7)
@settings(max_examples=50, deadline=None, database=None)
@given(st.data())
def test_a_message_comes_back_as_it_was(name: str, data: st.DataObject) -> None:
    read = BY_NAME[name]
    message = data.draw(MESSAGES[read])
    assert read(sync_json.write(message)) == message


@seed(8)
@settings(max_examples=50, deadline=None, database=None)
@given(st.builds(ChangesRequest, NAMES, NUMBERS, NUMBERS, st.integers(0, 60)))
def test_a_query_comes_back_as_it_was(asked: ChangesRequest) -> None:
    assert sync_json.read_query(sync_json.write_query(asked)) == asked


@pytest.mark.parametrize("name", BY_NAME)
@seed(9)
@settings(max_examples=60, deadline=None, database=None)
@given(st.data())
def test_a_damaged_message_is_refused_or_read_in_full(name: str, data: st.DataObject) -> None:
    """One value anywhere is replaced or taken away; unknown fields are left alone."""
    read = BY_NAME[name]
    plain = json.loads(sync_json.write(data.draw(MESSAGES[read])))
    plain["of a later version"] = 1
    target = plain
    for _ in range(data.draw(st.integers(0, 2))):
        inner = [value for value in (target.values() if isinstance(target, dict) else target) if value]
        inner = [value for value in inner if isinstance(value, dict | list)]
        target = data.draw(st.sampled_from(inner)) if inner else target
    keys: Any = sorted(target) if isinstance(target, dict) else range(len(target))
    key = data.draw(st.sampled_from(list(keys)))
    if isinstance(target, dict) and data.draw(st.booleans()):
        del target[key]
    else:
        target[key] = data.draw(JSON)
    try:
        message = read(json.dumps(plain).encode())
    except sync.SyncError as error:
        assert error.code == sync.BAD_ANSWER
    else:
        assert {field.name for field in fields(message)} <= plain.keys()
        for field in fields(message):
            # True == 1 in Python, but not here.
            assert json.dumps(getattr(message, field.name), default=vars) == json.dumps(
                json.loads(sync_json.write(message))[field.name]
            ) or isinstance(getattr(message, field.name), tuple | Head)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"null", b"[" * 100_000, b'{"v":1', b"\xef\xbb\xbf{}"])
def test_what_is_no_message_is_refused(name: str, data: bytes) -> None:
    with pytest.raises(sync.SyncError) as caught:
        BY_NAME[name](data)
    assert caught.value.code == sync.BAD_ANSWER


def test_a_message_beyond_its_bound_is_not_parsed() -> None:
    with pytest.raises(sync.SyncError, match="256001 bytes long"):
        sync_json.read_push(b" " * 256_001)
    with pytest.raises(sync.SyncError, match="100 bytes long"):
        sync_json.read_page(b" " * 100, max_bytes=99)


@pytest.mark.parametrize("query", ["", "device=d&generation=1", "device=d&generation=1&after=-1", "device=&after=1"])
def test_what_is_no_request_for_changes_is_refused(query: str) -> None:
    with pytest.raises(sync.SyncError):
        sync_json.read_query(query)
    with pytest.raises(sync.SyncError):
        sync_json.read_query("device=d&generation=1&after=1&wait=61")


@pytest.mark.parametrize(
    "change",
    [
        {"rows": "the same twice"},
        {"next": 1},
        {"digest": "no"},
        {"body": '{"item_id":7}', "kind": "erase"},
        {"body": '{"granted":true}', "kind": "consent"},
    ],
)
def test_a_page_that_a_device_could_not_obey_is_refused(change: dict[str, Any]) -> None:
    row = Row(2, "preference", "size", 1, Hlc(1), "d1", 1, 0, 0, "1")
    page = json.loads(sync_json.write(Page(Head(seq=2), 5, 1, 1, (row,), 2, False, "0" * 64)))
    assert sync_json.read_page(json.dumps(page).encode()).rows == (row,)
    if "rows" in change:
        page["rows"] *= 2
    elif "kind" in change:
        page["rows"][0] |= change
    else:
        page |= change
    with pytest.raises(sync.SyncError):
        sync_json.read_page(json.dumps(page).encode())


def vectors(name: str) -> Any:
    return json.loads((make_sync.FOLDER / name).read_text(encoding="utf-8"))


def test_the_vectors_of_messages_are_read_and_written_again() -> None:
    for case in vectors("09-messages.json"):
        if case["type"] == "changes_request":
            assert sync_json.write_query(sync_json.read_query(case["query"])) == case["query"]
        else:
            assert sync_json.write(BY_NAME[f"read_{case['type']}"](case["json"].encode())).decode() == case["json"]


def test_the_vectors_of_bad_messages_are_refused() -> None:
    for case in vectors("10-bad-messages.json"):
        with pytest.raises(sync.SyncError):
            BY_NAME[f"read_{case['type']}"](case["json"].encode())


def test_the_vectors_of_bodies_say_which_stand() -> None:
    stand = [case["stands"] for case in vectors("11-bodies.json")]
    # By hand, in the order of the cases.
    assert stand == [place in (0, 1, 8, 9, 12, 13, 16, 20, 22, 23) for place in range(24)]
