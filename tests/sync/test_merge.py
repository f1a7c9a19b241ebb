"""Joins are commutative, associative and idempotent, whatever Hypothesis thinks of (its seed is fixed)."""

from __future__ import annotations

import json

from hypothesis import given, seed, settings
from hypothesis import strategies as st
from xrec_sdk.sync import Hlc, Op, Row
from xrec_sdk.sync_merge import Consent, clamp, consent_of_op, digest_of, join_consent, later, order_ms, tick

DEVICES = st.sampled_from(["a", "b", "c"])
CLOCKS = st.builds(Hlc, st.integers(0, 3), st.integers(0, 2))
VECTORS = st.dictionaries(DEVICES, st.integers(1, 4))
POLICIES = st.sampled_from(["1", "2"])
CONSENTS = st.builds(Consent, st.booleans(), VECTORS, VECTORS, POLICIES, CLOCKS, DEVICES)
ROWS = st.builds(
    lambda hlc, device, body: Row(1, "preference", "size", 1, hlc, device, 1, 0, 0, body), CLOCKS, DEVICES, POLICIES
)


@seed(1)
@settings(max_examples=100, deadline=None, database=None)
@given(CONSENTS, CONSENTS, CONSENTS)
def test_consents_join_in_any_order_and_any_number_of_times(one: Consent, two: Consent, three: Consent) -> None:
    assert join_consent(one, two) == join_consent(two, one)
    assert join_consent(join_consent(one, two), three) == join_consent(one, join_consent(two, three))
    assert join_consent(one, join_consent(one, two)) == join_consent(one, two)


@seed(2)
@settings(max_examples=100, deadline=None, database=None)
@given(ROWS, ROWS, ROWS)
def test_last_writers_join_in_any_order_and_any_number_of_times(one: Row, two: Row, three: Row) -> None:
    assert later(one, two) == later(two, one)
    assert later(later(one, two), three) == later(one, later(two, three))
    assert later(one, one) == one


@seed(3)
@settings(max_examples=100, deadline=None, database=None)
@given(st.lists(ROWS, max_size=6), st.randoms(use_true_random=False))
def test_a_digest_does_not_depend_on_the_order_of_rows(rows: list[Row], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert digest_of(rows) == digest_of(shuffled)


@seed(4)
@settings(max_examples=100, deadline=None, database=None)
@given(CLOCKS, st.integers(0, 5))
def test_a_clock_never_steps_back_and_is_never_far_ahead(hlc: Hlc, now_ms: int) -> None:
    assert tick(hlc, now_ms) > hlc and tick(hlc, now_ms).ms >= now_ms
    assert clamp(hlc, now_ms, 1).ms <= now_ms + 1
    # What was said in sight of a clamped clock, in the same millisecond, stays after it.
    assert tick(clamp(hlc, now_ms, 1), 0) == clamp(tick(clamp(hlc, now_ms, 1), 0), now_ms, 1)


def _say(device: str, dseq: int, is_granted: bool, over: dict[str, int], ms: int) -> Consent:
    body = json.dumps({"granted": is_granted, "over": over, "policy": "1"})
    return consent_of_op(Op(dseq, "consent", "sync", 1, Hlc(ms), 0, "sync", body), device)


def test_of_a_grant_and_a_refusal_at_once_the_refusal_holds_whatever_the_clocks_say() -> None:
    grant, refusal = _say("a", 1, True, {}, 900), _say("b", 7, False, {}, 100)
    assert not join_consent(grant, refusal).is_granted
    assert join_consent(join_consent(grant, refusal), _say("a", 2, True, {"b": 7}, 50)).is_granted


def test_nothing_is_granted_at_first() -> None:
    assert not Consent().is_granted


def test_the_time_for_ranking_lies_between_last_contact_and_now() -> None:
    assert [order_ms(at_ms, 10, 20) for at_ms in (5, 15, 25)] == [10, 15, 20]
