"""Profiles in PostgreSQL, for several server processes: a profile's row is locked while a request is decided.

Pushes that wait at once share a transaction (postgres_group.py). What changes is told to every process by NOTIFY after
the commit, apart from it: within it, each commit would wait for the one before. A process that dies in between leaves
long polls to their end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import asyncpg
from xrec_sdk.sync import Row
from xrec_sdk.sync_server import Device, History, Profile
from xrec_sdk.sync_tables import ROW, row_of

from xrec_server.bell import Bell
from xrec_server.errors import Refused
from xrec_server.postgres_group import Group, is_plain
from xrec_server.postgres_ledger import PostgresLedger
from xrec_server.postgres_pool import ACQUIRE_S, open_pool
from xrec_server.postgres_rows import FAILURES, columns, put_rows, write_rest
from xrec_server.rows import (
    DEVICE,
    PROFILE,
    device_of,
    device_values,
    profile_of,
    profile_values,
)
from xrec_server.store import Decided, Loaded, Need, erasures_asked, ledger_lines, refuse_a_backup, whole_ledger

T = TypeVar("T")
CHANNEL = "xrec_changes"
TELL_EVERY_S = 0.005

_FIND = f"SELECT number, {PROFILE} FROM profiles WHERE id = $1 FOR UPDATE"
_CREATE = f"INSERT INTO profiles (id, {PROFILE}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING number"
_UPDATE = """UPDATE profiles SET generation = $2, base = $3, epoch = $4, erased_by = $5, seq = $6, floor = $7,
    forgotten = $8, digest = $9, events = $10 WHERE number = $1"""
_PUT_DEVICE = f"""INSERT INTO devices (profile, {DEVICE}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    ON CONFLICT (profile, id) DO UPDATE SET high_water = excluded.high_water, first = excluded.first,
    recent = excluded.recent, passed = excluded.passed, contact_ms = excluded.contact_ms,
    copied_ms = excluded.copied_ms, floor = excluded.floor, letter = excluded.letter"""
_ROWS = f"SELECT {ROW} FROM rows WHERE profile = $1"
# One query for all rows of a push: those of some kinds, and those of some keys.
_SOME = f"""{_ROWS} AND kind = ANY($2) UNION SELECT {", ".join("r." + name for name in ROW.split(", "))}
    FROM unnest($3::text[], $4::text[]) AS wanted (kind, id)
    JOIN rows r ON r.profile = $1 AND r.kind = wanted.kind AND r.id = wanted.id"""
_FORGOTTEN = "SELECT id FROM forgotten WHERE profile = $1 AND id = ANY($2)"


class PostgresStore:
    """The store; ``open`` makes it."""

    def __init__(self, url: str, pool: asyncpg.Pool, ledger: PostgresLedger, bell: Bell) -> None:
        self._url, self._pool, self._ledger, self._bell = url, pool, ledger, bell
        self._group = Group(pool, ledger)
        self._changed: set[str] = set()
        self._has_changed, self._is_lost, self._is_closed = asyncio.Event(), asyncio.Event(), False
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, url: str, ledger_url: str, bell: Bell, *, is_restoring: bool = False) -> PostgresStore:
        """Connect, and bring both schemas to this version; ServerError where it can't be or is a backup."""
        ledger = await PostgresLedger.open(ledger_url)
        try:
            pool = await open_pool(url, "postgres")
        except BaseException:
            await ledger.close()
            raise
        store = cls(url, pool, ledger, bell)
        try:
            if not is_restoring:
                # The ledger's first: another server may raise both in between.
                ledger_mark, mark = await ledger.mark(), await store._mark()
                refuse_a_backup(ledger_mark, mark, has_profiles=bool(await store.profiles("", 1)))
            store._tasks = [asyncio.create_task(store._hear(await store._listen())), asyncio.create_task(store._tell())]
        except BaseException:
            await store.close()
            raise
        return store

    async def transact(self, profile: str, need: Need, decide: Callable[[Loaded], Decided[T]]) -> T:
        """Load, decide, commit the ledger and then the writes, and return the answer."""
        done = await self._group.transact(profile, need, decide) if is_plain(need) else None
        loaded, decided = (done.loaded, done.decided) if done else await self._alone(profile, need, decide)
        if decided.writes and decided.writes.profile.head != loaded.profile.head:
            self._bell.ring(profile)
            self._changed.add(profile)
            self._has_changed.set()
        return decided.answer

    async def _alone(
        self, profile: str, need: Need, decide: Callable[[Loaded], Decided[T]]
    ) -> tuple[Loaded, Decided[T]]:
        try:
            async with self._pool.acquire(timeout=ACQUIRE_S) as connection, connection.transaction():
                number, found = await _locked(connection, profile)
                loaded = await self._load(connection, profile, number, found, need)
                decided = decide(loaded)
                await self._write(connection, profile, number, loaded, decided)
                return loaded, decided
        except FAILURES as error:
            raise Refused(503, "server.store", f"the database says: {type(error).__name__}", 10) from error

    async def profiles(self, after: str, limit: int) -> Sequence[str]:
        """Return the ids of profiles, of the database or of the ledger, that follow ``after`` in order."""
        try:
            query = "SELECT id FROM profiles WHERE id > $1 ORDER BY id LIMIT $2"
            found = {id for (id,) in await self._pool.fetch(query, after, limit)}
            return sorted(found | set(await self._ledger.profiles(after, limit)))[:limit]
        except FAILURES as error:
            raise Refused(503, "server.store", f"the database says: {type(error).__name__}", 10) from error

    async def mark(self) -> None:
        """Raise the mark in the database, then in the ledger, so that an older backup is known for one."""
        ledger = await self._ledger.mark()
        mark = await self._pool.fetchval("UPDATE mark SET mark = greatest(mark, $1) + 1 RETURNING mark", ledger)
        await self._ledger.raise_mark(mark)

    async def wipe(self, after_s: int) -> None:
        """Let PostgreSQL reuse the space of what was erased; when it overwrites that is its own affair."""
        await self._pool.execute("VACUUM rows", timeout=600)

    async def forget(self, before_ms: int) -> None:
        """Drop what is known of forgotten erasures that arrived before this time, of every profile."""
        await self._pool.execute("DELETE FROM forgotten WHERE received_ms < $1", before_ms, timeout=600)

    async def close(self) -> None:
        """Finish what was asked and close the connections."""
        await self._group.close()
        self._is_closed = True
        self._is_lost.set()
        self._has_changed.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pool.close()
        await self._ledger.close()

    async def _mark(self) -> int:
        return int(await self._pool.fetchval("SELECT mark FROM mark"))

    async def _load(
        self, connection: Any, profile: str, number: int | None, found: Profile | None, need: Need
    ) -> Loaded:
        ledger = await self._ledger.read(profile) if need.ledger else None
        if number is None or found is None:
            return Loaded(ledger=ledger)
        devices = {device.id: device for device in await _devices(connection, number, need)}
        rows = {row.seq: row for row in await _rows(connection, number, found, need)}
        history = await _history(connection, number) if need.everything else ()
        forgotten = await _forgotten(connection, number, erasures_asked(need))
        return Loaded(found, True, devices, [rows[seq] for seq in sorted(rows)], history, ledger, forgotten)

    async def _write(
        self, connection: Any, profile: str, number: int | None, loaded: Loaded, decided: Decided[Any]
    ) -> None:
        """Write what was decided, the ledger first and committed."""
        writes = decided.writes
        if writes is None:
            return
        lines = whole_ledger(decided.ledger) if decided.ledger else ledger_lines(loaded, writes)
        if lines:
            await self._ledger.put(profile, lines)
        if number is None:
            number = await connection.fetchval(_CREATE, profile, *profile_values(writes.profile))
        elif writes.profile != loaded.profile:
            await connection.execute(_UPDATE, number, *profile_values(writes.profile))
        for device in (writes.former, writes.device):
            if device:
                await connection.execute(_PUT_DEVICE, number, *device_values(device))
        await write_rest(connection, number, writes)
        await put_rows(connection, number, writes)

    async def _tell(self) -> None:
        """Tell every process which profiles have changed, as many at once as there are."""
        while not self._is_closed:
            await self._has_changed.wait()
            self._has_changed.clear()
            await asyncio.sleep(TELL_EVERY_S)
            changed, self._changed = list(self._changed), set()
            try:
                await self._pool.execute("SELECT pg_notify($1, id) FROM unnest($2::text[]) AS id", CHANNEL, changed)
            except FAILURES:
                await asyncio.sleep(1)

    async def _listen(self) -> Any:
        """Return a connection that rings for what any process has changed."""
        connection = await asyncpg.connect(self._url)
        connection.add_termination_listener(lambda _: self._is_lost.set())
        await connection.add_listener(CHANNEL, lambda _c, _p, _n, profile: self._bell.ring(str(profile)))
        return connection

    async def _hear(self, connection: Any) -> None:
        """Listen anew when the connection is lost, and then ring for everybody: something may have changed."""
        while True:
            await self._is_lost.wait()
            if self._is_closed:
                await connection.close(timeout=2)
                return
            self._is_lost.clear()
            try:
                connection = await self._listen()
                self._bell.ring_all()
            except FAILURES:
                await asyncio.sleep(1)
                self._is_lost.set()


async def _locked(connection: Any, profile: str) -> tuple[int | None, Profile | None]:
    """Return a profile's number and its row, locked; a profile that is not there is locked by its name."""
    found = await connection.fetchrow(_FIND, profile)
    if found is None:
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", profile)
        found = await connection.fetchrow(_FIND, profile)
    if found is None:
        return None, None
    number, *columns = found
    return number, profile_of(columns)


async def _devices(connection: Any, number: int, need: Need) -> list[Device]:
    query = f"SELECT {DEVICE} FROM devices WHERE profile = $1"
    if need.all_devices or need.everything:
        return [device_of(tuple(columns)) for columns in await connection.fetch(query, number)]
    if not need.devices:
        return []
    found = await connection.fetch(f"{query} AND id = ANY($2)", number, list(need.devices))
    return [device_of(tuple(columns)) for columns in found]


async def _rows(connection: Any, number: int, profile: Profile, need: Need) -> list[Row]:
    found = []
    if need.everything:
        found += await connection.fetch(_ROWS, number)
    elif need.kinds or need.keys:
        kinds, ids = columns(need.keys)
        found += await connection.fetch(_SOME, number, list(need.kinds), kinds, ids)
    if need.page:
        found += await connection.fetch(f"{_ROWS} AND seq > $2 ORDER BY seq LIMIT $3", number, *need.page)
    if need.retired:
        received_before_ms, max_events = need.retired
        events, spare = f"{_ROWS} AND kind = 'event'", max(0, profile.events - max_events)
        found += await connection.fetch(f"{events} AND received_ms < $2", number, received_before_ms)
        found += await connection.fetch(f"{events} ORDER BY seq LIMIT $2", number, spare)
    return [row_of(tuple(columns)) for columns in found]


async def _history(connection: Any, number: int) -> tuple[History, ...]:
    query = "SELECT received_ms, device, dseq, purpose, body FROM history WHERE profile = $1 ORDER BY place"
    return tuple(History(*line) for line in await connection.fetch(query, number))


async def _forgotten(connection: Any, number: int, ids: list[str]) -> frozenset[str]:
    found = await connection.fetch(_FORGOTTEN, number, ids) if ids else ()
    return frozenset(id for (id,) in found)
