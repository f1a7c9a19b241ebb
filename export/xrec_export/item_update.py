"""Apply changes to a bundle's items: new rows from content, rows that move with it, prices, what is offered."""

# N items before, n after, D width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.bundle import Bundle
from xrec_sdk.errors import UsageError
from xrec_trainer.run import Run

from xrec_export.item_changes import Change
from xrec_export.item_tower import content_rows
from xrec_export.quantize import quantize_rows


@dataclass(frozen=True)
class Update:
    """What an update did: items that are new, whose entry changed, whose row moved with it, withdrawn, offered again.

    ``without_content`` counts the new ones of which the item tower knows nothing: a row of zeros.
    """

    base_release: int
    added: int
    changed: int
    moved: int
    withdrawn: int
    offered_again: int
    without_content: int


@dataclass(frozen=True)
class Items:
    """The items after an update: ids, entries, int8 rows (n, D) and scales, and what else stands beside each, (n,)."""

    ids: list[str]
    entries: list[dict[str, object]]
    quantized: NDArray[np.int8]
    scale: NDArray[np.float32]
    prior: NDArray[np.float32]
    features: NDArray[np.float32] | None
    is_offered: NDArray[np.bool_]


def apply_changes(bundle: Bundle, changes: Sequence[Change], run: Run) -> tuple[Items, Update]:
    """Return the bundle's items with the changes, and what they did.

    A row that the bundle knows moves by what its content says now less what it said before, so that what was learned of
    the item's own id stays; a new one is its content alone. Rows whose content stays keep their bits.
    """
    items = _items_of(bundle)
    row_of = {item_id: row for row, item_id in enumerate(items.ids)}
    before, entries, is_offered = items.entries, [dict(entry) for entry in items.entries], items.is_offered.tolist()
    ids = list(items.ids)
    for change in changes:
        row = row_of.setdefault(change.item_id, len(ids))
        if row == len(ids):
            ids.append(change.item_id)
            entries.append({})
            is_offered.append(True)
        entries[row].update(change.fields)
        if change.is_offered is not None:
            is_offered[row] = change.is_offered
    changed = [row for row in range(len(before)) if entries[row] != before[row]]
    added = entries[len(before) :]
    quantized, scale, moved = _rows(
        items, [before[row] for row in changed], [entries[row] for row in changed], changed, run
    )
    fresh = content_rows(run, added) if added else np.zeros((0, quantized.shape[1]), dtype=np.float32)
    fresh_quantized, fresh_scale = quantize_rows(fresh) if added else (quantized[:0], scale[:0])
    offered, was_offered = np.array(is_offered, dtype=np.bool_), items.is_offered
    updated = Items(
        ids=ids,
        entries=entries,
        quantized=np.concatenate([quantized, fresh_quantized]),
        scale=np.concatenate([scale, fresh_scale]),
        prior=np.concatenate([items.prior, np.zeros(len(added), dtype=np.float32)]),
        features=None if items.features is None else _features(items.features, before, entries),
        is_offered=offered,
    )
    return updated, Update(
        base_release=bundle.manifest.release,
        added=len(added),
        changed=len(changed),
        moved=moved,
        withdrawn=int((was_offered & ~offered[: len(before)]).sum()),
        offered_again=int((~was_offered & offered[: len(before)]).sum()),
        without_content=int((~fresh.any(axis=1)).sum()),
    )


def _items_of(bundle: Bundle) -> Items:
    count, width = len(bundle.ids), bundle.manifest.width
    if bundle.scale is None:
        raise UsageError(
            "usage.table_format",
            f"the items are stored in {bundle.manifest.table_format}, and catalogue updates int8 alone; build it anew",
        )
    return Items(
        ids=[bundle.ids.item_id(row) for row in range(count)],
        entries=[bundle.catalog.entry(row) for row in range(count)],
        quantized=bundle.table.transpose(0, 2, 1).reshape(-1, width)[:count],  # (nb, D, 128) -> (N, D)
        scale=bundle.scale.reshape(-1)[:count],
        prior=bundle.prior.reshape(-1)[:count],
        features=None if bundle.features is None else bundle.features[:, :count].T,
        is_offered=np.isfinite(bundle.bias.reshape(-1)[:count]),
    )


def _rows(
    items: Items,
    before: Sequence[dict[str, object]],
    after: Sequence[dict[str, object]],
    changed: Sequence[int],
    run: Run,
) -> tuple[NDArray[np.int8], NDArray[np.float32], int]:
    """Return the int8 rows and scales of the known items, and how many of the ``changed`` ones moved."""
    quantized, scale = items.quantized.copy(), items.scale.copy()
    if not changed:
        return quantized, scale, 0
    step = content_rows(run, after) - content_rows(run, before)
    moved = np.flatnonzero(step.any(axis=1))
    rows = np.array(changed, dtype=np.int64)[moved]
    if len(rows):
        vectors = quantized[rows].astype(np.float32) * scale[rows, None]
        quantized[rows], scale[rows] = quantize_rows(vectors + step[moved])
    return quantized, scale, len(rows)


def _features(
    known: NDArray[np.float32], before: Sequence[dict[str, object]], entries: Sequence[dict[str, object]]
) -> NDArray[np.float32]:
    """Return the ranker's features (n, 2): new items have no training events; a price that is not known is the mean."""
    features = np.zeros((len(entries), known.shape[1]), dtype=np.float32)
    features[: len(known)] = known
    is_priced = [_is_price(entry.get("price")) for entry in before]
    mean = known[is_priced, 1].mean() if any(is_priced) else 0.0
    for row, entry in enumerate(entries):
        if row >= len(before) or entry.get("price") != before[row].get("price"):
            features[row, 1] = np.log1p(float(str(entry["price"]))) if _is_price(entry.get("price")) else mean
    return features


def _is_price(found: object) -> bool:
    return isinstance(found, (int, float)) and not isinstance(found, bool) and 0 <= found < float("inf")
