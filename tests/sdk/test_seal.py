"""What is sealed shows its id and time alone and is bound to them; an erasure finds what it names and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xrec_sdk.seal import key_id, lock, new_secret, seal, seal_criteria, takes_plain, unlock, unseal
from xrec_sdk.sync import LIMITS, ZERO, Op, SyncError
from xrec_sdk.sync_body import check, compact_json, criteria, is_sealed, takes

SECRET, OTHER = bytes(range(32)), bytes(range(1, 33))
RING = {key_id(secret): secret for secret in (SECRET, OTHER)}
ID = "0197a1b2-0000-7000-8000-00000000002a"
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=512)


def body(**changed):
    said = {"id": ID, "at_ms": 1_750_000_000_000, "event": "view", "item_id": "sku-42", "device": "phone"}
    return compact_json({**said, **changed})


def stands(said):
    check(Op(1, "event", ID, 1, ZERO, 0, "personalise", said), LIMITS)


def test_a_sealed_event_stands_opens_again_and_shows_nothing_but_id_and_time():
    for secret in (SECRET, OTHER):
        sealed = seal(secret, body(value=2.5))
        stands(sealed)
        assert is_sealed(sealed) and not is_sealed(body())
        assert not any(word in sealed for word in ("view", "sku-42", "phone", "2.5"))
        assert json.loads(unseal(RING, sealed)) == json.loads(body(value=2.5))


@given(event=TEXT, item_id=TEXT, device=TEXT, value=st.none() | st.floats(allow_nan=False, allow_infinity=False))
def test_whatever_an_event_holds_comes_back(event, item_id, device, value):
    said = body(event=event, item_id=item_id, device=device, value=value)
    assert json.loads(unseal(RING, seal(SECRET, said))) == json.loads(said)


def test_sizes_tell_no_more_than_the_multiple_of_128_bytes():
    lengths = {len(seal(SECRET, body(item_id="x" * length))) for length in range(1, 60)}
    assert len(lengths) == 1
    assert len(seal(SECRET, body(item_id="x" * 200))) not in lengths


def test_the_same_is_sealed_alike_and_nothing_else_is():
    assert seal(SECRET, body()) == seal(SECRET, body())
    others = [seal(OTHER, body()), seal(SECRET, body(item_id="sku-43")), seal(SECRET, body(at_ms=1))]
    parts = [json.loads(one) for one in [seal(SECRET, body()), *others]]
    assert len({one["sealed"][:16] for one in parts}) == 4


def test_two_events_of_one_item_have_no_tag_in_common():
    one, two = (json.loads(seal(SECRET, body(id=id)))["tags"] for id in ("a", "b"))
    assert not set(one.values()) & set(two.values())


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "0197a1b2-0000-7000-8000-00000000002b"},
        {"at_ms": 1_750_000_000_001},
        {"key": key_id(OTHER)},
        {"tags": {"item_id": "A" * 22, "event": "A" * 22}},
        {"tags": []},
        {"tags": {}},
        {"sealed": ""},
        {"sealed": 7},
        {"sealed": "A" * 208},
        {"sealed": "*"},
        {"at_ms": None},
        {"id": None},
    ],
)
def test_a_body_that_was_moved_or_changed_is_noticed(changed):
    moved = compact_json({**json.loads(seal(SECRET, body())), **changed})
    with pytest.raises(SyncError) as refusal:
        unseal(RING, moved)
    assert refusal.value.code == "e2e.tampered"


def test_every_flipped_bit_and_every_cut_of_the_ciphertext_is_noticed():
    sealed = lock(SECRET, "event", b"bound", b"{}")
    assert unlock(SECRET, "event", b"bound", sealed).rstrip() == b"{}"
    damaged = [sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :] for place in range(len(sealed))]
    damaged += [sealed[:end] for end in range(len(sealed))]
    for one in damaged:
        with pytest.raises(ValueError):
            unlock(SECRET, "event", b"bound", one)
    with pytest.raises(ValueError):
        unlock(SECRET, "inside", b"bound", sealed)


def test_an_event_in_the_clear_and_one_of_an_unknown_key_have_codes_of_their_own():
    for said, code in ((body(), "e2e.unsealed"), (seal(new_secret(), body()), "e2e.unknown_key")):
        with pytest.raises(SyncError) as refusal:
            unseal(RING, said)
        assert refusal.value.code == code
    for wrong in ("null", "[]", "7", "{", "[" * 100_000):
        with pytest.raises(SyncError):
            unseal(RING, wrong)


@pytest.mark.parametrize(
    "changed",
    [
        {"item_id": "sku-42"},
        {"device": "phone"},
        {"note": "anything else in the clear"},
        {"tags": {"item_id": "A" * 22}},
        {"tags": {"item_id": "A" * 22, "event": "view"}},
        {"tags": {"item_id": "A" * 22, "event": "A" * 22, "brand": "A" * 22}},
        {"key": "k"},
        {"key": 7},
        {"sealed": "A" * 100},
        {"sealed": "=" * 208},
        {"sealed": None},
        {"at_ms": 1.5},
    ],
)
def test_a_sealed_event_that_says_more_or_less_than_it_may_does_not_stand(changed):
    with pytest.raises(ValueError):
        stands(compact_json({**json.loads(seal(SECRET, body())), **changed}))


def test_an_erasure_finds_what_it_names_under_every_key_that_it_names_and_nothing_else():
    asked = {"item_id": "sku-42", "from_ms": 1_750_000_000_000}
    text = compact_json(seal_criteria(RING, asked))
    assert "sku-42" not in text
    erasure = criteria(text)
    for secret in (SECRET, OTHER):
        assert takes(erasure, seal(secret, body()))
        assert not takes(erasure, seal(secret, body(item_id="sku-43")))
        assert not takes(erasure, seal(secret, body(at_ms=1_749_999_999_999)))
    views = criteria(compact_json(seal_criteria(RING, {"event": "view", "item_id": "sku-42"})))
    assert takes(views, seal(SECRET, body())) and not takes(views, seal(SECRET, body(event="buy")))


FEW = st.sampled_from(["sku-1", "sku-2", "view", "buy", "苹果"])
TIMES = st.integers(0, 4)


@given(
    st.fixed_dictionaries({"event": FEW, "item_id": FEW, "at_ms": TIMES}),
    st.fixed_dictionaries({}, optional={"event": FEW, "item_id": FEW, "from_ms": TIMES, "to_ms": TIMES}),
    st.sampled_from([SECRET, OTHER]),
)
def test_a_sealed_erasure_takes_of_sealed_events_what_it_would_take_in_the_clear(event, asked, secret):
    sealed = criteria(compact_json(seal_criteria(RING, asked)))
    assert takes(sealed, seal(secret, body(**event))) == takes(criteria(compact_json(asked)), body(**event))


def test_what_an_erasure_can_not_tell_apart_it_takes():
    erasure = criteria(compact_json(seal_criteria({key_id(SECRET): SECRET}, {"item_id": "sku-42"})))
    assert takes(erasure, seal(OTHER, body(item_id="sku-43")))
    assert takes(erasure, body(item_id="sku-43"))
    assert takes(criteria('{"item_id":"sku-42"}'), seal(SECRET, body(item_id="sku-43")))


def test_a_device_knows_which_of_its_own_words_a_sealed_erasure_means():
    erasure = criteria(compact_json(seal_criteria(RING, {"item_id": "sku-42", "event": "view"})))
    assert takes_plain(RING, erasure, "view", "sku-42")
    assert not takes_plain(RING, erasure, "view", "sku-43") and not takes_plain(RING, erasure, "buy", "sku-42")
    assert takes_plain({}, erasure, "buy", "sku-43")
    assert takes_plain(RING, criteria("{}"), "view", "sku-42")


@pytest.mark.parametrize("named", [{"k": "short"}, {"A" * 22: 7}, {"A" * 22: "view"}, 7, ["A" * 22]])
def test_an_erasure_of_damaged_trapdoors_does_not_stand(named):
    with pytest.raises(ValueError):
        criteria(compact_json({"item_id": named}))
