"""Apply changes to a bundle's items: new rows from content, rows that move with it, prices, what is offered."""

# N items before, n after, D width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.bundle import Bundle
from xrec_trainer.run import Run

from xrec_export.item_changes import Change
from xrec_export.item_tower import content_rows
from xrec_export.quantize import StoredRows, rows_of_blocks, store_rows


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
    """The items after an update: ids, entries, rows (n, D) as they are stored, and what stands beside each, (n,)."""

    ids: list[str]
    entries: list[dict[str, object]]
    rows: StoredRows
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
    table_format = bundle.manifest.table_format
    step = content_rows(run, [entries[row] for row in changed]) - content_rows(run, [before[row] for row in changed])
    is_moved = step.any(axis=1)
    moved = np.array(changed, dtype=np.int64)[is_moved]
    moved_rows = store_rows(table_format, items.rows[moved].vectors() + step[is_moved])
    fresh = content_rows(run, added)
    offered, was_offered = np.array(is_offered, dtype=np.bool_), items.is_offered
    updated = Items(
        ids=ids,
        entries=entries,
        rows=items.rows.replaced(moved, moved_rows).joined(store_rows(table_format, fresh)),
        prior=np.concatenate([items.prior, np.zeros(len(added), dtype=np.float32)]),
        features=None if items.features is None else _features(items.features, before, entries),
        is_offered=offered,
    )
    return updated, Update(
        base_release=bundle.manifest.release,
        added=len(added),
        changed=len(changed),
        moved=len(moved),
        withdrawn=int((was_offered & ~offered[: len(before)]).sum()),
        offered_again=int((~was_offered & offered[: len(before)]).sum()),
        without_content=int((~fresh.any(axis=1)).sum()),
    )


def _items_of(bundle: Bundle) -> Items:
    count = len(bundle.ids)
    return Items(
        ids=[bundle.ids.item_id(row) for row in range(count)],
        entries=[bundle.catalog.entry(row) for row in range(count)],
        rows=rows_of_blocks(bundle.table, bundle.scale, count),
        prior=bundle.prior.reshape(-1)[:count],
        features=None if bundle.features is None else bundle.features[:, :count].T,
        is_offered=np.isfinite(bundle.bias.reshape(-1)[:count]),
    )


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
