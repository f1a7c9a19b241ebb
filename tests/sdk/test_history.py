from __future__ import annotations

import numpy as np
from xrec_sdk.history import HOUR_MS, MINUTE_MS, Vocabulary, encode_history, last_of_each


def encode(rows, at_ms, **options):
    count = len(rows)
    events, devices = np.arange(1, count + 1, dtype=np.int32), np.ones(count, dtype=np.int32)
    vocabulary = Vocabulary(("view",), ("phone",), **options)
    return encode_history(
        np.asarray(rows, dtype=np.int32), events, devices, np.asarray(at_ms, dtype=np.int64), vocabulary
    )


def test_the_last_events_count_and_gaps_reach_back_to_the_one_before():
    history = encode([5, 6, 5, 7], [0, 30_000, 60_000, 60_000 + HOUR_MS], max_history=3)
    assert history.rows.tolist() == [6, 5, 7]
    assert history.gaps.tolist() == [1, 1, 4]  # 30 s, 30 s, 1 h


def test_distinct_items_stand_once_at_their_last_event():
    history = encode([5, 6, 5, 7], [0, MINUTE_MS, HOUR_MS, HOUR_MS], max_history=50, distinct_items=True)
    assert history.rows.tolist() == [6, 5, 7]
    assert history.events.tolist() == [2, 3, 4]  # the codes of the events that count
    assert history.gaps.tolist() == [0, 4, 1]  # between the events that count


def test_distinct_items_are_chosen_before_the_history_is_cut():
    assert encode([1, 2, 3, 3, 3], [0, 1, 2, 3, 4], max_history=2, distinct_items=True).rows.tolist() == [2, 3]


def test_last_of_each_agrees_with_a_plain_loop():
    random = np.random.default_rng(7)  # seeded
    for count in range(30):
        rows = random.integers(0, 9, size=count).astype(np.int32)
        expected = [place for place in range(count) if rows[place] not in rows[place + 1 :]]
        assert last_of_each(rows).tolist() == expected
