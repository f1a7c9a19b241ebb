"""What a profile means to a bundle: the known events as codes, the seen items, what buying again adds."""

# E known events, L of them in the history

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from xrec_sdk.bundle import Bundle
from xrec_sdk.history import History, encode_history, last_of_each, repeat_bias
from xrec_sdk.manifest import Manifest
from xrec_sdk.profile import Event

T = TypeVar("T", np.int32, np.int64)
Bias = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Distinct rows, ascending, and what is added to the score of each."""


NO_BIAS: Bias = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)


@dataclass(frozen=True)
class Taste:
    """What a bundle knows of the user; the rows of ``seen`` are forbidden, ``bought`` are rows and times.

    ``events`` are the last known ones that count, oldest first, one more than the history holds, and the arrays are
    theirs.
    """

    events: tuple[Event, ...] = ()
    rows: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    event_codes: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    device_codes: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    at_ms: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    seen: Bias = NO_BIAS
    bought: tuple[NDArray[np.int32], NDArray[np.int64]] = field(
        default_factory=lambda: (np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64))
    )


def add_events(taste: Taste, events: Sequence[Event], bundle: Bundle) -> Taste:
    """Return the taste with further events, oldest first; those of unknown items or types are left out of the history.

    Raises ValueError where one is older than the last of the taste: begin with an empty one then.
    """
    if events and taste.events and _time(events[0]) < _time(taste.events[-1]):
        raise ValueError("the events are older than those of the taste")
    manifest = bundle.manifest
    event_code = {name: code for code, name in enumerate(manifest.vocabulary.events, start=1)}
    device_code = {name: code for code, name in enumerate(manifest.vocabulary.devices, start=1)}
    on_items = [(event, row) for event in events if (row := bundle.ids.row(event.item_id)) is not None]
    seen = [row for event, row in on_items if event.event in manifest.seen_events]
    again = manifest.repeat.events if manifest.repeat else ()
    bought = [(row, event.at_ms) for event, row in on_items if event.event in again]
    vocabulary = manifest.vocabulary
    known = [(event, row) for event, row in on_items if event.event in event_code]
    most = vocabulary.max_history + 1
    if not vocabulary.distinct_items:
        known = known[-most:]
    all_events, all_rows = (*taste.events, *(event for event, _ in known)), _join(taste.rows, [row for _, row in known])
    keep: slice | NDArray[np.int64] = slice(-most, None)
    if vocabulary.distinct_items:
        keep = last_of_each(all_rows)[-most:]
    return Taste(
        events=all_events[keep] if isinstance(keep, slice) else tuple(all_events[place] for place in keep.tolist()),
        rows=all_rows[keep],
        event_codes=_join(taste.event_codes, [event_code[event.event] for event, _ in known])[keep],
        device_codes=_join(taste.device_codes, [device_code.get(event.device, 0) for event, _ in known])[keep],
        at_ms=_join(taste.at_ms, [event.at_ms for event, _ in known])[keep],
        seen=forbid(taste.seen, np.asarray(seen, dtype=np.int32)),
        bought=(
            _join(taste.bought[0], [row for row, _ in bought]),
            _join(taste.bought[1], [at_ms for _, at_ms in bought]),
        ),
    )


def _time(event: Event) -> tuple[int, str]:
    return event.at_ms, event.id


def _join(array: NDArray[T], values: list[int]) -> NDArray[T]:
    return np.concatenate([array, np.asarray(values, dtype=array.dtype)]) if values else array


def history_of(taste: Taste, manifest: Manifest) -> History:
    """Return the encoded history, the last ``max_history`` known events."""
    return encode_history(taste.rows, taste.event_codes, taste.device_codes, taste.at_ms, manifest.vocabulary)


def histories_without_one(taste: Taste, manifest: Manifest) -> list[History]:
    """Return, for each of the L events of the history, oldest first, the history had it not happened; one length.

    Where the profile holds more than ``max_history`` events that count, the next older one takes the free place; with
    distinct items, an item leaves with its last event.
    """
    total, limit = len(taste.rows), manifest.vocabulary.max_history
    first = max(0, total - limit - 1)
    histories = []
    for left_out in range(max(0, total - limit), total):
        kept = np.delete(np.arange(first, total), left_out - first)
        histories.append(
            encode_history(
                taste.rows[kept],
                taste.event_codes[kept],
                taste.device_codes[kept],
                taste.at_ms[kept],
                manifest.vocabulary,
            )
        )
    return histories


def again_bias(taste: Taste, manifest: Manifest, now_ms: int) -> Bias:
    """Return what items gain for having been bought before; empty where the bundle has no such rule."""
    if manifest.repeat is None or not len(taste.bought[0]):
        return NO_BIAS
    return repeat_bias(*taste.bought, now_ms, manifest.repeat)


def forbid(bias: Bias, rows: NDArray[np.int32]) -> Bias:
    """Return the bias with these rows forbidden (-inf); rows may repeat."""
    if not len(rows):
        return bias
    joined = np.concatenate([rows, bias[0]], dtype=np.int32)
    values = np.concatenate([np.full(len(rows), -np.inf, dtype=np.float32), bias[1]])
    distinct, first = np.unique(joined, return_index=True)
    return distinct, values[first]
