"""Read a prepared data set into arrays: a catalogue of items and a log of events in rows and codes."""

# U users, E events, N items

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from xrec_sdk.errors import DataError
from xrec_sdk.history import (
    DAY_MS,
    History,
    RepeatRule,
    Vocabulary,
    encode_history,
    gap_codes,
    repeat_bias,
)
from xrec_sdk.query import is_query, reduce_query


@dataclass(frozen=True)
class Catalogue:
    """The items that a model knows, in row order.

    The first ``warm`` have events to learn from and stand by decayed popularity, most popular first; those after them
    are known by their content alone.
    """

    ids: list[str]
    entries: list[dict[str, object]]
    categories: list[str | None]
    warm: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Log:
    """Every event on a known item, sorted by user, then time; arrays of length E.

    Where searches are read they are among them: the item of one is -1 less the place of its reduced query in
    ``queries``.
    """

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    event: NDArray[np.int32]
    device: NDArray[np.int32]
    gap: NDArray[np.int32]
    at_ms: NDArray[np.int64]
    user_start: NDArray[np.int64]
    users: list[str]
    item_count: int
    vocabulary: Vocabulary
    queries: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class RawLog:
    """A prepared folder's events with their own ids, sorted by user, then time, and its items.

    ``item_ids`` are those of the events, sorted, then those that only ``items`` knows, sorted. The ``item`` of a search
    is -1 less the place of its reduced query in ``queries``.
    """

    users: list[str]
    user: NDArray[np.int32]
    item_ids: list[str]
    item: NDArray[np.int32]
    event_names: list[str]
    event: NDArray[np.int32]
    device_names: list[str]
    device: NDArray[np.int32]
    at_ms: NDArray[np.int64]
    items: dict[str, dict[str, object]]
    queries: tuple[str, ...] = ()

    @property
    def has_content(self) -> NDArray[np.bool_]:
        """Which items have an entry that says something, (items,) bool."""
        return np.array([bool(self.items.get(item_id)) for item_id in self.item_ids], dtype=np.bool_)

    def on(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which events are on the ``chosen`` items (items,); a search is on none, (events,) bool."""
        is_on: NDArray[np.bool_] = chosen[self.item.clip(min=0)] & (self.item >= 0)
        return is_on

    def only(self, keep: NDArray[np.bool_]) -> RawLog:
        """Return the log with the events where ``keep`` holds; the items stay."""
        events = {name: getattr(self, name)[keep] for name in ("user", "item", "event", "device", "at_ms")}
        return replace(self, **events)


def read(folder: Path, *, queries: bool = False) -> RawLog:
    """Read a folder that ``xrec-train prepare`` wrote; searches are left out but with ``queries``.

    Raises DataError ``data.not_prepared`` where the folder is not one, ``data.empty`` where it has no event on an item.
    """
    if not (folder / "events.parquet").is_file() or not (folder / "items.parquet").is_file():
        raise DataError(
            "data.not_prepared",
            f"{folder} has no events.parquet and items.parquet; make it with: "
            "xrec-train prepare sources.toml --out DIR",
        )
    columns = ["user_id", "item_id", "event", "at_ms", "device", *(["query"] if queries else [])]
    table = pq.read_table(folder / "events.parquet", columns=columns)
    is_asked = pc.is_valid(table["item_id"])
    if queries:
        is_asked = pc.or_(is_asked, pc.is_valid(table["query"]))
        table = table.set_column(1, "item_id", pc.coalesce(table["item_id"], _reduced(table["query"])))
    table = table.filter(is_asked)
    if table.num_rows == 0:
        raise DataError("data.empty", f"{folder} has no event on an item; nothing can be learned from it")
    users, user = _codes(table["user_id"])
    item_ids, item = _codes(table["item_id"])
    item_ids, item, searched = _apart(item_ids, item)
    event_names, event = _codes(table["event"])
    device_names, device = _codes(table["device"])
    at_ms = table["at_ms"].to_numpy()
    order = np.lexsort((at_ms, user))
    items = read_items(folder)
    item_ids += sorted(items.keys() - set(item_ids))
    return RawLog(
        users,
        user[order],
        item_ids,
        item[order],
        event_names,
        event[order],
        device_names,
        device[order],
        at_ms[order],
        items,
        searched,
    )


def _reduced(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return queries reduced; those that ``prepare`` has reduced already stay."""
    distinct = column.unique()
    reduced = [text if text is None or is_query(text) else reduce_query(text) for text in distinct.to_pylist()]
    return pc.take(pa.array(reduced, pa.string()), pc.index_in(column, distinct))


def _apart(ids: list[str], item: NDArray[np.int32]) -> tuple[list[str], NDArray[np.int32], tuple[str, ...]]:
    """Return the ids of items, each event's place in them, below 0 of a search, and the reduced queries."""
    is_search = np.array([is_query(one) for one in ids], dtype=np.bool_)
    place = np.where(is_search, -is_search.cumsum(), (~is_search).cumsum() - 1).astype(np.int32)
    searched = tuple(one for one in ids if is_query(one))
    return [one for one in ids if not is_query(one)], place[item], searched


def _codes(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int32]]:
    names, codes = np.unique(np.asarray(column.fill_null("").to_pylist(), dtype=object), return_inverse=True)
    return [str(name) for name in names], codes.astype(np.int32)


def read_items(folder: Path) -> dict[str, dict[str, object]]:
    """Return the entry of each item of a prepared folder, by its id."""
    items: dict[str, dict[str, object]] = {}
    for row in pq.read_table(folder / "items.parquet").to_pylist():
        entry = {key: row[key] for key in ("title", "category", "price") if row.get(key) is not None}
        if row.get("attributes"):
            entry.update(json.loads(row["attributes"]))
        items[row["item_id"]] = entry
    return items


def decayed_popularity(
    item: NDArray[np.int32], at_ms: NDArray[np.int64], item_count: int, half_life_days: float
) -> NDArray[np.float64]:
    """Return the sum over each item's events of ``2 ** (-age / half life)``, (N,); age counts from the last event."""
    age_days = (at_ms.max() - at_ms) / DAY_MS if len(at_ms) else at_ms
    weights = np.exp2(-age_days / half_life_days)
    return np.bincount(item, weights=weights, minlength=item_count).astype(np.float64)


def build_catalogue(
    raw: RawLog, known: NDArray[np.bool_], cold: NDArray[np.bool_], *, min_count: int, half_life_days: float
) -> tuple[Catalogue, NDArray[np.int32]]:
    """Choose the items with at least ``min_count`` events among ``known`` and order them by decayed popularity.

    Those of ``cold`` (raw items,) that have fewer come after them, in the same order. Returns the catalogue and the row
    of each raw item, (raw items,) int32, -1 where it is left out.
    """
    known = known & (raw.item >= 0)
    counts = np.bincount(raw.item[known], minlength=len(raw.item_ids))
    popularity = decayed_popularity(raw.item[known], raw.at_ms[known], len(raw.item_ids), half_life_days)
    is_warm = counts >= max(1, min_count)
    chosen = np.flatnonzero(is_warm | cold)
    if not is_warm.any():
        raise DataError("data.empty", f"no item has {min_count} events or more before the split; lower --min-count")
    chosen = chosen[np.lexsort((chosen, -popularity[chosen], ~is_warm[chosen]))]
    row_of = np.full(len(raw.item_ids), -1, dtype=np.int32)
    row_of[chosen] = np.arange(len(chosen), dtype=np.int32)
    ids = [raw.item_ids[index] for index in chosen]
    entries = [raw.items.get(item_id, {}) for item_id in ids]
    categories = [str(entry["category"]) if entry.get("category") else None for entry in entries]
    return Catalogue(ids, entries, categories, int(is_warm.sum())), row_of


def build_log(raw: RawLog, row_of: NDArray[np.int32], item_count: int, vocabulary: Vocabulary) -> Log:
    """Translate raw events to rows and codes; events of unknown items or types are left out, as on the device."""
    event = _translate(raw.event_names, vocabulary.events)[raw.event]
    item = np.where(raw.item < 0, raw.item, row_of[raw.item.clip(min=0)])
    keep = ((item >= 0) | (raw.item < 0)) & (event > 0)
    user, at_ms = raw.user[keep], raw.at_ms[keep]
    is_first = np.diff(user, prepend=-1) != 0
    return Log(
        user=user,
        item=item[keep],
        event=event[keep],
        device=_translate(raw.device_names, vocabulary.devices)[raw.device[keep]],
        gap=gap_codes(at_ms, is_first, vocabulary.gap_edges_ms),
        at_ms=at_ms,
        user_start=np.searchsorted(user, np.arange(len(raw.users) + 1)).astype(np.int64),
        users=raw.users,
        item_count=item_count,
        vocabulary=vocabulary,
        queries=raw.queries,
    )


def encode_case(log: Log, history: NDArray[np.int64]) -> History:
    """Encode a history, given as log indices, oldest first, exactly as the SDK does on the device."""
    encoded = encode_history(
        log.item[history], log.event[history], log.device[history], log.at_ms[history], log.vocabulary
    )
    if not log.queries:
        return encoded
    return replace(encoded, queries=tuple(log.queries[-1 - row] for row in encoded.rows.tolist() if row < 0))


def repeats(
    log: Log, history: NDArray[np.int64], now_ms: int, rule: RepeatRule
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the rows of a history, given as log indices, that the rule lifts, ascending, and by how much."""
    counted = history[np.isin(log.event[history], log.vocabulary.event_codes(rule.events))]
    return repeat_bias(log.item[counted], log.at_ms[counted], now_ms, rule)


def _translate(names: Sequence[str], known: Sequence[str]) -> NDArray[np.int32]:
    code_of = {name: code for code, name in enumerate(known, start=1)}
    return np.array([code_of.get(name, 0) for name in names], dtype=np.int32)
