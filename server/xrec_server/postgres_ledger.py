"""The ledger in a PostgreSQL database of its own, which is never restored with the profiles."""

from __future__ import annotations

import asyncpg
from xrec_sdk.sync_server import Ledger
from xrec_sdk.sync_tables import ROW, row_of, row_values

from xrec_server.postgres_pool import open_pool
from xrec_server.rows import ledger_of
from xrec_server.store import LedgerLines

_HEAD = "generation, epoch, erased_by, forgotten"
_PUT_HEAD = f"""INSERT INTO ledger_profiles (id, {_HEAD}) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO UPDATE SET
    generation = excluded.generation, epoch = excluded.epoch, erased_by = excluded.erased_by,
    forgotten = excluded.forgotten"""
_PUT_ROW = f"""INSERT INTO ledger_rows (profile, {ROW}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ON CONFLICT (profile, kind, id) DO UPDATE SET seq = excluded.seq, epoch = excluded.epoch, hlc_ms = excluded.hlc_ms,
    hlc_counter = excluded.hlc_counter, device = excluded.device, dseq = excluded.dseq, order_ms = excluded.order_ms,
    received_ms = excluded.received_ms, body = excluded.body"""
_PUT_REMOVED = "INSERT INTO ledger_removed (profile, device) VALUES ($1, $2) ON CONFLICT DO NOTHING"


class PostgresLedger:
    """The ledger; every ``put`` is a transaction of its own, committed when it returns."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str) -> PostgresLedger:
        """Connect, and bring the schema to this version."""
        return cls(await open_pool(url, "postgres_ledger"))

    async def put(self, profile: str, lines: LedgerLines) -> None:
        """Write and commit lines."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                _PUT_HEAD, profile, lines.generation, lines.epoch, lines.erased_by, lines.forgotten
            )
            await connection.executemany(_PUT_ROW, [(profile, *row_values(row)) for row in lines.rows])
            await connection.executemany(_PUT_REMOVED, [(profile, device) for device in lines.removed])

    async def read(self, profile: str) -> Ledger | None:
        """Return a profile's ledger; None where it was never written."""
        async with self._pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
            head = await connection.fetchrow(f"SELECT {_HEAD} FROM ledger_profiles WHERE id = $1", profile)
            rows = await connection.fetch(f"SELECT {ROW} FROM ledger_rows WHERE profile = $1 ORDER BY seq", profile)
            gone = await connection.fetch("SELECT device FROM ledger_removed WHERE profile = $1", profile)
        return ledger_of(head and tuple(head), [row_of(tuple(row)) for row in rows], [device for (device,) in gone])

    async def profiles(self, after: str, limit: int) -> list[str]:
        """Return the ids of profiles that follow ``after``."""
        query = "SELECT id FROM ledger_profiles WHERE id > $1 ORDER BY id LIMIT $2"
        return [id for (id,) in await self._pool.fetch(query, after, limit)]

    async def mark(self) -> int:
        """Return the mark."""
        return int(await self._pool.fetchval("SELECT mark FROM ledger_mark"))

    async def raise_mark(self, mark: int) -> None:
        """Raise the mark; the database must have it already."""
        await self._pool.execute("UPDATE ledger_mark SET mark = greatest(mark, $1)", mark)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()
