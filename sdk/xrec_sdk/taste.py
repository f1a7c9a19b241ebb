"""What a profile means to a bundle: the known events as codes, the seen items, what buying again adds."""

# E known events, L of them in the history

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xrec_sdk.bundle import Bundle
from xrec_sdk.history import History, gap_code, gaps_between, last_of_each, repeat_bias
from xrec_sdk.manifest import Manifest
from xrec_sdk.profile import Event
from xrec_sdk.query import is_query, query_row

Bias = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Distinct rows, ascending, and what is added to the score of each."""


NO_BIAS: Bias = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)


class Taste(NamedTuple):
    """What a bundle knows of the user; the rows of ``seen`` are forbidden, ``bought`` are rows and times, (2, B).

    ``events`` are the last known ones that count, oldest first, one more than the history holds; ``codes`` (4, E) are
    their rows, below 0 of searches, and their codes of event, device and gap, ``at_ms`` (E,) their times.
    """

    events: tuple[Event, ...] = ()
    codes: NDArray[np.int32] = np.zeros((4, 0), dtype=np.int32)
    at_ms: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    seen: Bias = NO_BIAS
    bought: NDArray[np.int64] = np.zeros((2, 0), dtype=np.int64)


def add_events(taste: Taste, events: Sequence[Event], bundle: Bundle) -> Taste:
    """Return the taste with further events, oldest first; those of unknown items or types are left out of the history.

    Raises ValueError where one is older than the last of the taste: begin with an empty one then.
    """
    if events and taste.events and _time(events[0]) < _time(taste.events[-1]):
        raise ValueError("the events are older than those of the taste")
    manifest = bundle.manifest
    vocabulary = manifest.vocabulary
    again = manifest.repeat.events if manifest.repeat else ()
    known, codes, seen, bought = [], [], [], []
    before_ms = taste.events[-1].at_ms if taste.events else None
    for event in events:
        row = bundle.ids.row(event.item_id)
        if row is None and vocabulary.query_buckets and is_query(event.item_id):
            row = query_row(event.item_id)
        if row is None:
            continue
        if row >= 0 and event.event in manifest.seen_events:
            seen.append(row)
        if row >= 0 and event.event in again:
            bought.append((row, event.at_ms))
        code = vocabulary.code_of_event.get(event.event)
        if code is not None:
            gap = 0 if before_ms is None else gap_code(event.at_ms - before_ms, vocabulary.gap_edges_ms)
            before_ms = event.at_ms
            known.append(event)
            codes.append((row, code, vocabulary.code_of_device.get(event.device, 0), gap))
    most = vocabulary.max_history + 1
    if not vocabulary.distinct_items:
        known, codes = known[-most:], codes[-most:]
    counted, all_codes, at_ms = taste.events, taste.codes, taste.at_ms
    if known:
        counted = (*counted, *known)
        all_codes = np.concatenate([all_codes, np.array(codes, dtype=np.int32).T], axis=1)
        at_ms = np.concatenate([at_ms, np.array([event.at_ms for event in known], dtype=np.int64)])
    if known and vocabulary.distinct_items:
        last = last_of_each(all_codes[0])
        if len(last) < len(counted):
            counted, all_codes, at_ms = (
                tuple(counted[place] for place in last.tolist()),
                all_codes[:, last],
                at_ms[last],
            )
            all_codes[3] = gaps_between(at_ms, vocabulary.gap_edges_ms)
    return Taste(
        events=counted[-most:],
        codes=all_codes[:, -most:],
        at_ms=at_ms[-most:],
        seen=forbid(taste.seen, np.array(seen, dtype=np.int32)) if seen else taste.seen,
        bought=np.concatenate([taste.bought, np.array(bought, dtype=np.int64).T], axis=1) if bought else taste.bought,
    )


def _time(event: Event) -> tuple[int, str]:
    return event.at_ms, event.id


def history_of(taste: Taste, manifest: Manifest) -> History:
    """Return the encoded history, the last ``max_history`` known events."""
    vocabulary = manifest.vocabulary
    history = History(*taste.codes[:, -vocabulary.max_history :])
    return _with_queries(history, taste.events[-len(history) :]) if vocabulary.query_buckets else history


def _with_queries(history: History, events: Sequence[Event]) -> History:
    """Return the history of these events, as many, with the queries of its searches."""
    rows = history.rows.tolist()
    if not rows or min(rows) >= 0:
        return history
    return replace(history, queries=tuple(event.item_id for event, row in zip(events, rows, strict=True) if row < 0))


class Without(NamedTuple):
    """Histories of one length L, one for each of A events had it not happened; ``places`` are theirs in the taste.

    ``places`` (A, L); ``codes`` (4, A, L) as in the taste; ``queries`` of the rows below 0, history after history.
    """

    places: NDArray[np.int64]
    codes: NDArray[np.int32]
    queries: list[str]


def histories_without(taste: Taste, manifest: Manifest, places: NDArray[np.int64]) -> Without:
    """Return, for each of these places (A,) in the taste's events, the history had that event not happened.

    Where the profile holds more than ``max_history`` events that count, the next older one takes the free place; with
    distinct items, an item leaves with its last event.
    """
    vocabulary, total = manifest.vocabulary, len(taste.at_ms)
    kept = np.arange(max(0, total - vocabulary.max_history - 1), total - 1)
    kept = kept + (kept >= places[:, None])
    codes = taste.codes[:, kept]
    codes[3] = gaps_between(taste.at_ms[kept], vocabulary.gap_edges_ms)
    queries = [taste.events[place].item_id for place in kept[codes[0] < 0].tolist()]
    return Without(kept, codes, queries)


def again_bias(taste: Taste, manifest: Manifest, now_ms: int) -> Bias:
    """Return what items gain for having been bought before; empty where the bundle has no such rule."""
    if manifest.repeat is None or not taste.bought.size:
        return NO_BIAS
    rows, at_ms = taste.bought
    return repeat_bias(rows, at_ms, now_ms, manifest.repeat)


def forbid(bias: Bias, rows: NDArray[np.int32]) -> Bias:
    """Return the bias with these rows forbidden (-inf); rows may repeat."""
    if not len(rows):
        return bias
    joined = np.concatenate([rows, bias[0]], dtype=np.int32)
    values = np.concatenate([np.full(len(rows), -np.inf, dtype=np.float32), bias[1]])
    distinct, first = np.unique(joined, return_index=True)
    return distinct, values[first]
