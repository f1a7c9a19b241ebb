"""The sync protocol's tables in the profile's file: rows, queue, standing and the dead, read and written as values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, overload

from xrec_sdk import sync
from xrec_sdk.store import Connection
from xrec_sdk.sync import Changes, Dead, Hlc, Key, Op, Queued, Replica, Row, Standing
from xrec_sdk.sync_body import Criteria, compact_json, takes

KEPT_DEAD = 1000
ROW = "seq, kind, id, epoch, hlc_ms, hlc_counter, device, dseq, order_ms, received_ms, body"
OP = "dseq, kind, id, epoch, hlc_ms, hlc_counter, contact_ms, purpose, body"
_HOT = ("epoch", "contact_ms", "last_dseq", "acked")
_PUT_ROW = f"INSERT OR REPLACE INTO rows ({ROW}) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
PUT_OP = f"INSERT OR REPLACE INTO queue (seq, shed_first, {OP}) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
# As the index queue_words says it, or SQLite does not see that it may be used.
WORDS = "kind IN ('consent', 'erase')"
UNSENT = "seq IS NULL AND kind <> 'nop'"
_ERASED_CODES = (sync.ERASED, sync.OLD_EPOCH, sync.BEHIND, sync.TOO_OLD)


def standing(connection: Connection) -> Standing:
    """Return what the device keeps beside rows and queue."""
    row = connection.execute(f"SELECT standing, hlc_ms, hlc_counter, {', '.join(_HOT)} FROM state").fetchone()
    rest = json.loads(row[0])
    return Standing(**{**rest, **dict(zip(_HOT, row[3:], strict=True)), "hlc": Hlc(*row[1:3])})


def put_standing(connection: Connection, now: Standing) -> None:
    """Write what the device keeps beside rows and queue."""
    rest = asdict(now)
    hlc, hot = rest.pop("hlc"), [rest.pop(name) for name in _HOT]
    connection.execute(
        f"UPDATE state SET standing = ?, hlc_ms = ?, hlc_counter = ?, {', '.join(f'{name} = ?' for name in _HOT)}",
        (compact_json(rest), *hlc, *hot),
    )


class Rows(Mapping[Key, Row]):
    """The rows of a file; one by its key is read alone, all of them once and kept."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._all: dict[Key, Row] | None = None

    def _loaded(self) -> dict[Key, Row]:
        if self._all is None:
            found = map(row_of, self._connection.execute(f"SELECT {ROW} FROM rows").fetchall())
            self._all = {row.key: row for row in found}
        return self._all

    def __getitem__(self, key: Key) -> Row:
        if self._all is not None:
            return self._all[key]
        found = self._connection.execute(f"SELECT {ROW} FROM rows WHERE kind = ? AND id = ?", key).fetchone()
        if found is None:
            raise KeyError(key)
        return row_of(found)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._loaded())


class Queue(Sequence[Queued]):
    """The queue of a file, in order of dseq; read as far as it is walked, and once where all of it is asked for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._all: list[Queued] | None = None

    def _loaded(self) -> list[Queued]:
        if self._all is None:
            self._all = queued(self._connection)
        return self._all

    def __iter__(self) -> Iterator[Queued]:
        if self._all is not None:
            yield from self._all
            return
        found = self._connection.execute(f"SELECT seq, {OP} FROM queue ORDER BY dseq")
        while row := found.fetchone():
            yield Queued(op_of(row[1:]), row[0])

    @overload
    def __getitem__(self, place: int) -> Queued: ...
    @overload
    def __getitem__(self, place: slice) -> list[Queued]: ...
    def __getitem__(self, place: int | slice) -> Queued | list[Queued]:
        return self._loaded()[place]

    def __len__(self) -> int:
        return len(self._loaded())


def row_values(row: Row) -> tuple[Any, ...]:
    """Return a row's columns, as ROW names them; the server's tables have the same."""
    key, times = (row.seq, row.kind, row.id, row.epoch), (row.order_ms, row.received_ms)
    return (*key, *row.hlc, row.device, row.dseq, *times, row.body)


def row_of(found: Sequence[Any]) -> Row:
    """Return the row of its columns."""
    seq, kind, id, epoch, ms, counter, *rest = found
    return Row(seq, kind, id, epoch, Hlc(ms, counter), *rest)


def op_of(found: Sequence[Any]) -> Op:
    """Return the operation of a row of the queue or of the dead."""
    dseq, kind, id, epoch, ms, counter, *rest = found
    return Op(dseq, kind, id, epoch, Hlc(ms, counter), *rest)


def queued(connection: Connection, where: str = "1", values: Sequence[Any] = ()) -> list[Queued]:
    """Return the operations of the queue that meet an SQL condition, in order of dseq."""
    found = connection.execute(f"SELECT seq, {OP} FROM queue WHERE {where} ORDER BY dseq", values).fetchall()
    return [Queued(op_of(row[1:]), row[0]) for row in found]


def replica(connection: Connection) -> Replica:
    """Return the replica; rows and queue are read when they are asked for, so use it within the transaction."""
    return Replica(standing(connection), Rows(connection), Queue(connection))


def dead(connection: Connection) -> list[Dead]:
    """Return the operations that will never be part of the profile, oldest first, the last thousand."""
    found = connection.execute(f"SELECT code, {OP} FROM dead ORDER BY place").fetchall()
    return [Dead(op_of(row[1:]), row[0]) for row in found]


def erasures_said(connection: Connection) -> dict[str, tuple[Op, int | None]]:
    """Return this device's own erasures that are still in the queue, by id, with the seq of those acknowledged."""
    return {one.op.id: (one.op, one.seq) for one in queued(connection, f"{WORDS} AND kind = 'erase'")}


def is_held(connection: Connection, key: Key) -> bool:
    """Return whether the server's row of a key is here."""
    return bool(connection.execute("SELECT 1 FROM rows WHERE kind = ? AND id = ?", key).fetchall())


def write(connection: Connection, changes: Changes, was_cursor: int) -> dict[str, Op | None]:
    """Write rows and queue; return the events that may look otherwise now, with what was queued of them."""
    touched: dict[str, Op | None] = {}
    for key in changes.drop_rows:
        connection.execute("DELETE FROM rows WHERE kind = ? AND id = ?", key)
    for row in changes.put_rows:
        connection.execute(_PUT_ROW, row_values(row))
    keys = (*changes.drop_rows, *(row.key for row in changes.put_rows))
    touched |= {key.id: None for key in keys if key.kind == "event"}
    for dseq in (*changes.drop_queue, *(one.op.dseq for one in changes.put_queue)):
        old = connection.execute(f"SELECT {OP} FROM queue WHERE dseq = ?", (dseq,)).fetchone()
        if old is not None and old[1] == "event":
            touched[old[2]] = op_of(old)
    for dseq in changes.drop_queue:
        connection.execute("DELETE FROM queue WHERE dseq = ?", (dseq,))
    for one in changes.put_queue:
        put_op(connection, one)
        if one.op.kind == "event":
            touched.setdefault(one.op.id, None)
    low, high = sorted((was_cursor, changes.standing.cursor))
    if low != high:
        passed = "kind = 'event' AND seq > ? AND seq <= ?"
        for (id,) in connection.execute(f"SELECT id FROM queue WHERE {passed}", (low, high)).fetchall():
            touched.setdefault(id, None)
    return touched


def put_op(connection: Connection, one: Queued) -> None:
    """Write an operation of the queue."""
    op, shed_first = one.op, 0
    if op.kind == "event":
        shed_first = 2 if json.loads(op.body).get("event") == "view" else 1
    fields = (op.dseq, op.kind, op.id, op.epoch, *op.hlc, op.contact_ms, op.purpose, op.body)
    connection.execute(PUT_OP, (one.seq, shed_first, *fields))


def keep_dead(connection: Connection, found: Sequence[Dead]) -> None:
    """Write operations that will never be part of the profile, without the bodies of what is erased."""
    for one in found:
        op = one.op
        body = "" if one.code in _ERASED_CODES else op.body
        fields = (one.code, op.dseq, op.kind, op.id, op.epoch, *op.hlc, op.contact_ms, op.purpose, body)
        connection.execute(f"INSERT INTO dead (code, {OP}) VALUES (?,?,?,?,?,?,?,?,?,?)", fields)
    if found:
        last = "SELECT max(place) FROM dead"
        connection.execute(f"DELETE FROM dead WHERE place <= ({last}) - ?", (KEPT_DEAD,))


def forget_dead(connection: Connection, erasure: Criteria) -> None:
    """Erase what an erasure takes of the dead."""
    for place, body in connection.execute("SELECT place, body FROM dead WHERE kind = 'event'").fetchall():
        if takes(erasure, body):
            connection.execute("DELETE FROM dead WHERE place = ?", (place,))
    if erasure.is_everything:
        connection.execute("DELETE FROM dead WHERE kind NOT IN ('consent', 'erase')")
