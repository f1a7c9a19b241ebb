"""Read what changed in a catalogue: new items, other entries, what is offered and what is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from xrec_sdk.errors import DataError

SHOWN = ("title", "category", "price")


@dataclass(frozen=True)
class Change:
    """What is said of an item: ``fields`` replace those of its entry; whether it is offered, None for as it is."""

    item_id: str
    fields: dict[str, object]
    is_offered: bool | None = None


def read_changes(path: Path) -> Sequence[Change]:
    """Read a Parquet file of items: item_id and any of title, category, price, attributes (JSON) and available (bool).

    A value that is null is left as it is. Raises DataError ``data.items``.
    """
    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as cause:
        raise DataError("data.items", f"{path} can't be read as Parquet: {cause}") from cause
    changes = [_change(row, place, path) for place, row in enumerate(rows)]
    if len({change.item_id for change in changes}) != len(changes):
        raise DataError("data.items", f"{path} has an item twice; give each item one row")
    return changes


def _change(row: dict[str, object], place: int, path: Path) -> Change:
    item_id, is_offered, attributes = row.get("item_id"), row.get("available"), row.get("attributes")
    fields = {key: row[key] for key in SHOWN if row.get(key) is not None}
    if not isinstance(item_id, str) or not (is_offered is None or isinstance(is_offered, bool)):
        raise DataError("data.items", f"{path}, row {place}: item_id must be a text, available true, false or null")
    if attributes is not None:
        try:
            found = json.loads(str(attributes))
        except ValueError as cause:
            raise DataError("data.items", f"{path}, row {place}: attributes are not JSON") from cause
        if not isinstance(found, dict):
            raise DataError("data.items", f"{path}, row {place}: attributes are not a JSON object")
        fields.update(found)
    return Change(item_id, fields, is_offered)
