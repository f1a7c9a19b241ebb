"""What a profile means to a bundle: the known events as codes, the seen items, what buying again adds."""

# E known events, L of them in the history

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrec_sdk.bundle import Bundle
from xrec_sdk.history import History, encode_history, repeat_bias
from xrec_sdk.manifest import Manifest
from xrec_sdk.profile import Event

Bias = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Distinct rows, ascending, and what is added to the score of each."""


@dataclass(frozen=True)
class Taste:
    """The events that a bundle knows, oldest first: four arrays of length E, and the events themselves."""

    events: tuple[Event, ...]
    rows: NDArray[np.int32]
    event_codes: NDArray[np.int32]
    device_codes: NDArray[np.int32]
    at_ms: NDArray[np.int64]
    seen_rows: NDArray[np.int32]
    bought: tuple[NDArray[np.int32], NDArray[np.int64]]


def read_taste(events: Sequence[Event], bundle: Bundle) -> Taste:
    """Return what the bundle knows of a profile's events; unknown items and event types are left out."""
    manifest = bundle.manifest
    event_code = {name: code for code, name in enumerate(manifest.vocabulary.events, start=1)}
    device_code = {name: code for code, name in enumerate(manifest.vocabulary.devices, start=1)}
    on_items = [(event, row) for event in events if (row := bundle.ids.row(event.item_id)) is not None]
    known = [(event, row) for event, row in on_items if event.event in event_code]
    seen = {row for event, row in on_items if event.event in manifest.seen_events}
    again = manifest.repeat.events if manifest.repeat else ()
    bought = [(row, event.at_ms) for event, row in on_items if event.event in again]
    return Taste(
        events=tuple(event for event, _ in known),
        rows=np.asarray([row for _, row in known], dtype=np.int32),
        event_codes=np.asarray([event_code[event.event] for event, _ in known], dtype=np.int32),
        device_codes=np.asarray([device_code.get(event.device, 0) for event, _ in known], dtype=np.int32),
        at_ms=np.asarray([event.at_ms for event, _ in known], dtype=np.int64),
        seen_rows=np.asarray(sorted(seen), dtype=np.int32),
        bought=(
            np.asarray([row for row, _ in bought], dtype=np.int32),
            np.asarray([at_ms for _, at_ms in bought], dtype=np.int64),
        ),
    )


def history_of(taste: Taste, manifest: Manifest) -> History:
    """Return the encoded history, the last ``max_history`` known events."""
    return encode_history(taste.rows, taste.event_codes, taste.device_codes, taste.at_ms, manifest.vocabulary)


def histories_without_one(taste: Taste, manifest: Manifest) -> list[History]:
    """Return, for each of the L events of the history, oldest first, the history had it not happened; one length.

    Where the profile holds more than ``max_history`` events, the next older one takes the free place.
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
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
    return repeat_bias(*taste.bought, now_ms, manifest.repeat)


def forbid(bias: Bias, rows: NDArray[np.int32]) -> Bias:
    """Return the bias with these rows forbidden (-inf); rows may repeat."""
    if not len(rows):
        return bias
    forbidden = np.unique(rows)
    keep = ~np.isin(bias[0], forbidden)
    values = np.concatenate([bias[1][keep], np.full(len(forbidden), -np.inf, dtype=np.float32)])
    joined = np.concatenate([bias[0][keep], forbidden]).astype(np.int32)
    order = np.argsort(joined)
    return joined[order], values[order]
