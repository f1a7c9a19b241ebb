"""Profiles in one SQLite file: the embedded store, for one server process.

One connection in one thread writes and reads, so no two checkpoint at once (SQLite before 3.51.3 can damage a WAL
file then: https://sqlite.org/wal.html, "WAL-reset bug"). What is erased is overwritten (``secure_delete``) and the log
emptied before the answer; pieces that this may leave go with ``wipe``.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from xrec_sdk.filelock import try_lock
from xrec_sdk.sync import Key, Row
from xrec_sdk.sync_server import Device, History, Profile, Writes
from xrec_sdk.sync_tables import ROW, row_of, row_values

from xrec_server.bell import Bell
from xrec_server.errors import Refused, ServerError
from xrec_server.rows import (
    DEVICE,
    PROFILE,
    device_of,
    device_values,
    profile_of,
    profile_values,
)
from xrec_server.schema import connect, migrate_sqlite
from xrec_server.sqlite_ledger import SqliteLedger
from xrec_server.store import (
    Decided,
    Loaded,
    Need,
    erasures_asked,
    is_erasure,
    ledger_lines,
    refuse_a_backup,
    whole_ledger,
)
from xrec_server.writer import Writer

_log = logging.getLogger("xrec_server")
T = TypeVar("T")
Synchronous = Literal["FULL", "NORMAL"]

_ROWS = f"SELECT {ROW} FROM rows WHERE profile = ?"
# The planner would rather walk through the whole profile.
_BY_KEY = f"SELECT {ROW} FROM rows INDEXED BY rows_by_key WHERE profile = ? AND kind = ?"
_EVENTS = f"{_ROWS} AND kind = 'event'"
_PUT_PROFILE = f"""INSERT OR REPLACE INTO profiles (number, id, {PROFILE}) VALUES ({"?, " * 10}?)"""
_PUT_DEVICE = f"""INSERT OR REPLACE INTO devices (profile, {DEVICE}) VALUES ({"?, " * 9}?)"""
_PUT_ROW = f"""INSERT INTO rows (profile, {ROW}) VALUES ({"?, " * 11}?) ON CONFLICT (profile, kind, id) DO UPDATE SET
    seq = excluded.seq, epoch = excluded.epoch, hlc_ms = excluded.hlc_ms, hlc_counter = excluded.hlc_counter,
    device = excluded.device, dseq = excluded.dseq, order_ms = excluded.order_ms, received_ms = excluded.received_ms,
    body = excluded.body"""
_PURGE = "DELETE FROM rows WHERE profile = ? AND kind NOT IN ('consent', 'erase')"
_ERASED = "UPDATE mark SET erased_s = CAST(strftime('%s', 'now') AS INTEGER) WHERE erased_s = 0"
_IS_DUE = "SELECT erased_s > 0 AND CAST(strftime('%s', 'now') AS INTEGER) - erased_s >= ? FROM mark"
_DROP = "DELETE FROM rows WHERE profile = ? AND kind = ? AND id = ?"
_FORGOTTEN = "SELECT id FROM forgotten WHERE profile = ? AND id IN (SELECT value FROM json_each(?))"
_PUT_FORGOTTEN = "INSERT OR REPLACE INTO forgotten (profile, id, received_ms) VALUES (?, ?, ?)"
_PUT_HISTORY = "INSERT INTO history (profile, received_ms, device, dseq, purpose, body) VALUES (?, ?, ?, ?, ?, ?)"


class SqliteStore:
    """The store. ``synchronous`` is FULL (an answered push survives a power cut) or NORMAL (it survives a crash)."""

    def __init__(
        self, path: Path, ledger: Path, bell: Bell, *, synchronous: Synchronous = "FULL", is_restoring: bool = False
    ) -> None:
        self._bell = bell
        self._changed: set[str] = set()
        self._must_truncate = self._must_vacuum = False
        with ExitStack() as opened:
            if not opened.enter_context(try_lock(path.with_name(f"{path.name}.lock"))):
                raise ServerError("server.database_in_use", f"another server has {path.name} open: stop that one first")
            try:
                self._connection = opened.enter_context(closing(connect(path)))
                for pragma in (f"synchronous={synchronous}", "secure_delete=ON"):
                    self._connection.execute(f"PRAGMA {pragma}").fetchall()
                migrate_sqlite(self._connection, "sqlite")
                self._ledger = opened.enter_context(closing(SqliteLedger(ledger)))
                if not is_restoring:
                    refuse_a_backup(self._ledger.mark(), self._mark(), has_profiles=bool(self._profiles("", 1)))
            except (sqlite3.Error, OSError) as error:
                raise ServerError("server.database", f"can't open {path} or {ledger}: {error}") from error
            self._opened = opened.pop_all()
        self._writer = Writer(self)

    async def transact(self, profile: str, need: Need, decide: Callable[[Loaded], Decided[T]]) -> T:
        """Load, decide, commit the ledger and then the writes, and return the answer."""
        return await self._run(partial(self._transact, profile, need, decide))

    async def profiles(self, after: str, limit: int) -> Sequence[str]:
        """Return the ids of profiles, of the database or of the ledger, that follow ``after`` in order."""
        return await self._run(partial(self._profiles, after, limit))

    async def mark(self) -> None:
        """Raise the mark, so that a backup from before is known for one; FULL in both files."""
        mark = await self._run(self._raise_mark)
        await self._run(partial(self._ledger.raise_mark, mark))

    async def wipe(self, after_s: int) -> None:
        """Write the file anew where the first erasure since the last time was ``after_s`` seconds ago.

        It takes as long as a copy of the file, and meanwhile requests wait. Without it pieces of what was erased may
        be left in the free space of pages: SQLite moves rows within a page and does not clear where they were.
        """
        await self._run(partial(self._ask_to_wipe, after_s))

    async def forget(self, before_ms: int) -> None:
        """Drop what is known of forgotten erasures that arrived before this time, of every profile."""
        gone = "DELETE FROM forgotten WHERE received_ms < ?"
        await self._run(lambda: self._connection.execute(gone, (before_ms,)).fetchall())

    async def close(self) -> None:
        """Finish what was asked and close the files."""
        self._writer.close()
        self._opened.close()

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await self._writer.run(work)
        except sqlite3.Error as error:
            raise Refused(503, "server.store", f"the database says: {error}", retry_after_s=10) from error

    # What the writer's thread calls.

    def begin(self) -> None:
        """Begin a group."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._changed = set()

    def commit(self) -> Callable[[], None]:
        """Commit the ledger, then the database; empty the log where something was erased."""
        self._ledger.commit()
        self._connection.execute("COMMIT")
        self._tidy()
        return partial(_ring, self._bell, self._changed)

    def _tidy(self) -> None:
        """Write the file anew where that is asked, and empty the log; what fails is tried again by the next group."""
        try:
            if self._must_vacuum:
                self._connection.execute("VACUUM")
                self._connection.execute("UPDATE mark SET erased_s = 0")
                self._must_vacuum, self._must_truncate = False, True
            if self._must_truncate:
                (is_busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                self._must_truncate = bool(is_busy)
        except sqlite3.Error as error:
            # The group is committed: it must be answered.
            _log.error("tidying failed", extra={"fields": {"error": str(error)}})

    def rollback(self) -> None:
        """Undo the group in both files."""
        self._ledger.rollback()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _mark(self) -> int:
        (mark,) = self._connection.execute("SELECT mark FROM mark").fetchone()
        return int(mark)

    def _ask_to_wipe(self, after_s: int) -> None:
        (is_due,) = self._connection.execute(_IS_DUE, (after_s,)).fetchone()
        self._must_vacuum |= bool(is_due)

    def _raise_mark(self) -> int:
        mark = max(self._mark(), self._ledger.mark()) + 1
        self._connection.execute("UPDATE mark SET mark = ?", (mark,))
        self._must_truncate = True  # A checkpoint syncs, with synchronous=NORMAL too.
        return mark

    def _profiles(self, after: str, limit: int) -> list[str]:
        found = self._connection.execute("SELECT id FROM profiles WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
        return sorted({id for (id,) in found} | set(self._ledger.profiles(after, limit)))[:limit]

    def _transact(self, profile: str, need: Need, decide: Callable[[Loaded], Decided[T]]) -> T:
        one = f"SELECT number, {PROFILE} FROM profiles WHERE id = ?"
        found = self._connection.execute(one, (profile,)).fetchone()
        number = found[0] if found else self._next_number()
        loaded = self._load(profile, number, profile_of(found[1:]) if found else None, need)
        decided = decide(loaded)
        if decided.writes:
            lines = whole_ledger(decided.ledger) if decided.ledger else ledger_lines(loaded, decided.writes)
            if lines:
                self._ledger.put(profile, lines)
            self._write(number, profile, loaded, decided.writes)
            if is_erasure(decided):
                self._connection.execute(_ERASED)
        return decided.answer

    def _next_number(self) -> int:
        (number,) = self._connection.execute("SELECT coalesce(max(number), 0) + 1 FROM profiles").fetchone()
        return int(number)

    def _load(self, profile: str, number: int, known: Profile | None, need: Need) -> Loaded:
        ledger = self._ledger.read(profile) if need.ledger else None
        if known is None:
            return Loaded(ledger=ledger)
        devices = {device.id: device for device in self._devices(number, need)}
        rows = {row.seq: row for row in self._rows(number, known, need)}
        history = self._history(number) if need.everything else ()
        forgotten = self._forgotten(number, erasures_asked(need))
        return Loaded(known, True, devices, [rows[seq] for seq in sorted(rows)], history, ledger, forgotten)

    def _devices(self, number: int, need: Need) -> Iterable[Device]:
        if need.all_devices or need.everything:
            found = self._connection.execute(f"SELECT {DEVICE} FROM devices WHERE profile = ?", (number,))
            return map(device_of, found)
        one = f"SELECT {DEVICE} FROM devices WHERE profile = ? AND id = ?"
        return (device_of(columns) for id in need.devices for columns in self._connection.execute(one, (number, id)))

    def _rows(self, number: int, profile: Profile, need: Need) -> Iterable[Row]:
        for query, values in _row_queries(number, profile, need):
            yield from map(row_of, self._connection.execute(query, values))

    def _forgotten(self, number: int, ids: list[str]) -> frozenset[str]:
        if not ids:
            return frozenset()
        found = self._connection.execute(_FORGOTTEN, (number, msgspec.json.encode(ids).decode()))
        return frozenset(id for (id,) in found)

    def _history(self, number: int) -> tuple[History, ...]:
        columns = "SELECT received_ms, device, dseq, purpose, body FROM history WHERE profile = ? ORDER BY rowid"
        return tuple(History(*line) for line in self._connection.execute(columns, (number,)))

    def _write(self, number: int, profile: str, loaded: Loaded, writes: Writes) -> None:
        execute, executemany = self._connection.execute, self._connection.executemany
        if not loaded.is_known or writes.profile != loaded.profile:
            execute(_PUT_PROFILE, (number, profile, *profile_values(writes.profile)))
        for device in (writes.former, writes.device):
            if device:
                execute(_PUT_DEVICE, (number, *device_values(device)))
        if writes.purge_below_epoch is not None:
            execute(_PURGE, (number,))
        executemany(_DROP, [(number, *key) for key in writes.drop])
        executemany(_PUT_ROW, [(number, *row_values(row)) for row in writes.put])
        said = [(number, one.received_ms, one.device, one.dseq, one.purpose, one.body) for one in writes.history]
        executemany(_PUT_HISTORY, said)
        executemany(_PUT_FORGOTTEN, [(number, row.id, row.received_ms) for row in writes.forgotten])
        executemany("DELETE FROM devices WHERE profile = ? AND id = ?", [(number, id) for id in writes.removed_devices])
        self._must_truncate |= bool(writes.drop) or writes.purge_below_epoch is not None
        if writes.profile.head != loaded.profile.head:
            self._changed.add(profile)


def _row_queries(number: int, profile: Profile, need: Need) -> Iterable[tuple[str, tuple[Any, ...]]]:
    if need.everything:
        yield _ROWS, (number,)
        return
    for kind in need.kinds:
        yield _BY_KEY, (number, kind)
    for kind, ids in _by_kind(need.keys):
        some = f"{_BY_KEY} AND id IN (SELECT value FROM json_each(?))"
        yield some, (number, kind, msgspec.json.encode(ids).decode())
    if need.page:
        yield f"{_ROWS} AND seq > ? ORDER BY seq LIMIT ?", (number, *need.page)
    if need.retired:
        received_before_ms, max_events = need.retired
        yield f"{_EVENTS} AND received_ms < ?", (number, received_before_ms)
        yield f"{_EVENTS} ORDER BY seq LIMIT ?", (number, max(0, profile.events - max_events))


def _by_kind(keys: Iterable[Key]) -> Iterable[tuple[str, list[str]]]:
    kinds: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        kinds[key.kind].append(key.id)
    return kinds.items()


def _ring(bell: Bell, profiles: Iterable[str]) -> None:
    for profile in profiles:
        bell.ring(profile)
