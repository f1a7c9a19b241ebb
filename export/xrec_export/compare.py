"""Say what changed between two bundles: items, categories, sizes, model, vocabulary, and what the golden users get."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.bundle import Bundle, open_bundle
from xrec_sdk.conformance import history_of
from xrec_sdk.errors import BundleDamaged
from xrec_sdk.history import ARRAYS, History
from xrec_sdk.runtime import Runtime

TOP = 10
SHOWN = 10
"""So many ids of each kind are listed; the counts are of all."""


def compare(old_path: Path, new_path: Path, keys: Sequence[str] = ()) -> dict[str, object]:
    """Return what is another in the new bundle; signatures are checked where ``keys`` are given, hashes always."""
    old, new = (open_bundle(path, trusted_keys=keys, allow_unsigned=not keys) for path in (old_path, new_path))
    old_ids, new_ids = ([bundle.ids.item_id(row) for row in range(len(bundle.ids))] for bundle in (old, new))
    kept = new.ids.rows(old_ids)  # of each old row the new one, -1 where the item is gone
    old_rows, new_rows = np.flatnonzero(kept >= 0).astype(np.int32), kept[kept >= 0]
    is_changed = [
        old.catalog.entry(row) != new.catalog.entry(other)
        for row, other in zip(old_rows.tolist(), new_rows.tolist(), strict=True)
    ]
    is_offered = [np.isfinite(bundle.bias.reshape(-1)) for bundle in (old, new)]
    withdrawn = old_rows[is_offered[0][old_rows] & ~is_offered[1][new_rows]]
    known = {*old_ids}
    return {
        "old": {"name": old.manifest.name, "release": old.manifest.release, "items": len(old.ids)},
        "new": {"name": new.manifest.name, "release": new.manifest.release, "items": len(new.ids)},
        "items": {
            "added": _listed([item_id for item_id in new_ids if item_id not in known]),
            "removed": _listed([old_ids[row] for row in np.flatnonzero(kept < 0)]),
            "changed": _listed([old_ids[row] for row in old_rows[is_changed]]),
            "no longer offered": _listed([old_ids[row] for row in withdrawn]),
        },
        "categories": _names(old.catalog.category_names, new.catalog.category_names),
        "vocabulary": _vocabulary(old, new),
        "model": _model(old, new, old_rows, new_rows),
        "bytes": _sizes(old, new),
        "golden_overlap": golden_overlap(old, new, kept),
    }


def golden_overlap(old: Bundle, new: Bundle, kept: NDArray[np.int32]) -> float | None:
    """Return the mean share of the old top 10 that the users of the old golden cases get from the new bundle too.

    ``kept`` (N,) is the new row of each old one, -1 where there is none. None where no such user is known to both.
    """
    runtimes, shares = (Runtime(old), Runtime(new)), []
    for case in _cases(old):
        history = history_of(case)
        moved = _moved(history, old, new, kept)
        if not len(moved):
            continue
        lists = [
            _top(runtime, bundle, one)
            for runtime, bundle, one in zip(runtimes, (old, new), (history, moved), strict=True)
        ]
        shares.append(len(lists[0] & lists[1]) / max(1, len(lists[0])))
    return float(np.mean(shares)) if shares else None


def _cases(bundle: Bundle) -> list[dict[str, Any]]:
    try:
        return list(json.loads(bundle.conformance)["cases"])
    except (ValueError, KeyError, TypeError) as cause:
        raise BundleDamaged(
            "bundle.conformance_malformed", f"conformance.json is not as described: {cause!r}"
        ) from cause


def _moved(history: History, old: Bundle, new: Bundle, kept: NDArray[np.int32]) -> History:
    """Return a history in the new bundle's rows and codes; what it does not know is left out, as on a device."""
    before, after = old.manifest.vocabulary, new.manifest.vocabulary
    events, devices = (
        np.array([0, *(1 + names.index(name) if name in names else 0 for name in others)], dtype=np.int32)
        for others, names in ((before.events, after.events), (before.devices, after.devices))
    )
    is_search = history.rows < 0
    rows, codes = np.where(is_search, history.rows, kept[history.rows.clip(min=0)]), events[history.events]
    is_there = np.where(is_search, after.query_buckets > 0, rows >= 0)
    is_known = is_there & ((codes > 0) | (history.events == 0))
    gaps = np.minimum(history.gaps, after.gap_count - 1)
    everything = History(rows[is_known], codes[is_known], devices[history.devices][is_known], gaps[is_known])
    last = [getattr(everything, name)[-after.max_history :] for name in ARRAYS]
    queries = list(compress(history.queries, is_known[is_search]))
    return History(*last, queries=tuple(queries[len(queries) - int((last[0] < 0).sum()) :]))


def _top(runtime: Runtime, bundle: Bundle, history: History) -> set[str]:
    nothing = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
    rows, _ = runtime.top(runtime.encode(history), min(TOP, len(bundle.ids)), runtime.no_bias(), *nothing)
    return {bundle.ids.item_id(row) for row in rows.tolist()}


def _listed(ids: Sequence[str]) -> dict[str, object]:
    return {"count": len(ids), "first": list(ids[:SHOWN])}


def _names(old: Collection[str], new: Collection[str]) -> dict[str, list[str]]:
    return {"added": sorted({*new} - {*old}), "removed": sorted({*old} - {*new})}


def _vocabulary(old: Bundle, new: Bundle) -> dict[str, object]:
    before, after = old.manifest.vocabulary, new.manifest.vocabulary
    said: dict[str, object] = {
        "events": _names(before.events, after.events),
        "devices": _names(before.devices, after.devices),
        "same_order": before.events == after.events and before.devices == after.devices,
    }
    for name in ("gap_edges_ms", "max_history", "distinct_items"):
        if getattr(before, name) != getattr(after, name):
            said[name] = [getattr(before, name), getattr(after, name)]
    return said


def _model(old: Bundle, new: Bundle, old_rows: NDArray[np.int32], new_rows: NDArray[np.int32]) -> dict[str, object]:
    """Return what changed of the model; the scorer holds the number of blocks, and changes with it."""
    is_like = old.manifest.width == new.manifest.width
    moved = (
        int((old.item_vectors(old_rows) != new.item_vectors(new_rows)).any(axis=1).sum()) if is_like else len(old_rows)
    )
    return {
        "encoder": "same" if old.encoder == new.encoder else "changed",
        "scorer": "same" if old.scorer == new.scorer else "changed",
        "width": [old.manifest.width, new.manifest.width],
        "rows_changed": moved,
        "ranker": [old.manifest.ranker is not None, new.manifest.ranker is not None],
    }


def _sizes(old: Bundle, new: Bundle) -> dict[str, list[int]]:
    before, after = ({name: one.bytes for name, one in bundle.manifest.files.items()} for bundle in (old, new))
    sizes = {name: [before.get(name, 0), after.get(name, 0)] for name in sorted({*before, *after})}
    return {**sizes, "total": [sum(before.values()), sum(after.values())]}
