"""Turn a user's events into the arrays that the encoder reads; training and serving both use this.

Rules: events are in time order; an event whose item or type the bundle does not know is left out by the caller; the
row of a search, where the model reads searches, is below 0 and the same for equal queries; an unknown device is code 0;
with ``distinct_items`` only the last event of each item counts; the gap of an event is the time since the counted event
before it, in buckets; the last ``max_history`` of these events count.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

ARRAYS = ("rows", "events", "devices", "gaps")
"""The arrays of a history by name."""
DEFAULT_GAP_EDGES_MS = (
    MINUTE_MS,
    5 * MINUTE_MS,
    30 * MINUTE_MS,
    2 * HOUR_MS,
    12 * HOUR_MS,
    1 * DAY_MS,
    2 * DAY_MS,
    4 * DAY_MS,
    8 * DAY_MS,
    16 * DAY_MS,
    32 * DAY_MS,
    90 * DAY_MS,
)
"""Upper edges of the time-gap buckets, in milliseconds."""


@dataclass(frozen=True)
class Vocabulary:
    """What a model knows besides items. Codes are positions plus one; 0 is "unknown" (of gaps: "no event before").

    ``query_buckets`` is the number of buckets that searches are read in (query.py), 0 where they are not read.
    """

    events: tuple[str, ...]
    devices: tuple[str, ...]
    gap_edges_ms: tuple[int, ...] = DEFAULT_GAP_EDGES_MS
    max_history: int = 50
    distinct_items: bool = False
    query_buckets: int = 0

    def event_codes(self, names: Collection[str]) -> list[int]:
        """Return the codes of these event types, ascending; names that the vocabulary lacks have none."""
        return [code for code, name in enumerate(self.events, start=1) if name in names]

    @cached_property
    def code_of_event(self) -> dict[str, int]:
        """The code of each event type."""
        return {name: code for code, name in enumerate(self.events, start=1)}

    @cached_property
    def code_of_device(self) -> dict[str, int]:
        """The code of each device."""
        return {name: code for code, name in enumerate(self.devices, start=1)}

    @property
    def event_count(self) -> int:
        """Number of event codes, the unknown one included."""
        return len(self.events) + 1

    @property
    def device_count(self) -> int:
        """Number of device codes, the unknown one included."""
        return len(self.devices) + 1

    @property
    def gap_count(self) -> int:
        """Number of gap codes: none before, one per edge, and longer than the last edge."""
        return len(self.gap_edges_ms) + 2


@dataclass(frozen=True)
class History:
    """One user's encoded history, oldest first: four int32 arrays of the same length L <= max_history.

    ``queries`` are the reduced queries (query.py) of the rows below 0, in their order.
    """

    rows: NDArray[np.int32]
    events: NDArray[np.int32]
    devices: NDArray[np.int32]
    gaps: NDArray[np.int32]
    queries: tuple[str, ...] = field(default=(), kw_only=True)

    def __len__(self) -> int:
        return len(self.rows)


def gap_codes(at_ms: NDArray[np.int64], is_first: NDArray[np.bool_], edges_ms: tuple[int, ...]) -> NDArray[np.int32]:
    """Return the gap code of each event, (E,) int32, for many concatenated histories.

    ``is_first`` marks the events that begin a history.
    """
    codes = gaps_between(at_ms, edges_ms)
    codes[is_first] = 0
    return codes


def gap_code(gap_ms: int, edges_ms: tuple[int, ...]) -> int:
    """Return the code of one gap, as :func:`gaps_between` would."""
    return 1 + bisect_left(edges_ms, gap_ms)


def gaps_between(at_ms: NDArray[np.int64], edges_ms: tuple[int, ...]) -> NDArray[np.int32]:
    """Return the gap code of each event of a history, (..., E) int32, 0 for the first.

    A gap equal to an edge falls in the bucket below it; a negative one (clock skew) in the first, as the edges are
    positive.
    """
    codes = np.zeros(at_ms.shape, dtype=np.int32)
    codes[..., 1:] = 1 + np.asarray(edges_ms, dtype=np.int64).searchsorted(at_ms[..., 1:] - at_ms[..., :-1])
    return codes


def last_of_each(rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the ascending places of the last occurrence of each row, int64."""
    last = {row: place for place, row in enumerate(rows.tolist())}
    return np.sort(np.fromiter(last.values(), dtype=np.int64, count=len(last)))


def encode_history(
    rows: NDArray[np.int32],
    events: NDArray[np.int32],
    devices: NDArray[np.int32],
    at_ms: NDArray[np.int64],
    vocabulary: Vocabulary,
) -> History:
    """Encode one user's known events, oldest first, and keep the last ``max_history``."""
    if vocabulary.distinct_items:
        last = last_of_each(rows)
        rows, events, devices, at_ms = rows[last], events[last], devices[last], at_ms[last]
    gaps = gaps_between(at_ms, vocabulary.gap_edges_ms)
    keep = slice(-vocabulary.max_history, None)  # of the events beyond it, the last still gives a gap
    return History(rows[keep], events[keep], devices[keep], gaps[keep])


@dataclass(frozen=True)
class RepeatRule:
    """How much an item gains for having been bought before: ``weight * log1p(decayed count)``, added to its score.

    The decayed count of an item is the sum over its events of ``2 ** (-age / half_life_ms)``; only events named in
    ``events`` count. It is the recency-and-frequency model of repeat consumption (Anderson et al., WWW 2014).
    """

    weight: float
    half_life_ms: int
    events: tuple[str, ...]


def repeat_bias(
    rows: NDArray[np.int32], at_ms: NDArray[np.int64], now_ms: int, rule: RepeatRule
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the distinct rows, ascending, (R,) int32, and what each gains, (R,) float32.

    ``rows`` and ``at_ms`` hold the events that count. Events in the future count as now.
    """
    distinct, inverse = np.unique(rows, return_inverse=True)
    age = np.maximum(now_ms - at_ms, 0) / rule.half_life_ms
    counts = np.bincount(inverse, weights=np.exp2(-age), minlength=len(distinct))
    return distinct.astype(np.int32), (rule.weight * np.log1p(counts)).astype(np.float32)
