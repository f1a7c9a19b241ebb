"""What a request writes of a profile's rows in PostgreSQL, apart from the profile and its devices."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import asyncpg
from xrec_sdk.sync import Key
from xrec_sdk.sync_server import Writes
from xrec_sdk.sync_tables import ROW, row_values

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, asyncio.TimeoutError)
"""What a database that can't be asked raises."""

_ARRAYS = "$2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[]"
_PUT_ROWS = f"""INSERT INTO rows (profile, {ROW})
    SELECT $1, * FROM unnest({_ARRAYS}, $9::bigint[], $10::bigint[], $11::bigint[], $12::text[])
    ON CONFLICT (profile, kind, id) DO UPDATE SET seq = excluded.seq, epoch = excluded.epoch, hlc_ms = excluded.hlc_ms,
    hlc_counter = excluded.hlc_counter, device = excluded.device, dseq = excluded.dseq, order_ms = excluded.order_ms,
    received_ms = excluded.received_ms, body = excluded.body"""
_DROP = """DELETE FROM rows USING unnest($2::text[], $3::text[]) AS gone (kind, id)
    WHERE rows.profile = $1 AND rows.kind = gone.kind AND rows.id = gone.id"""
_PURGE = "DELETE FROM rows WHERE profile = $1 AND kind NOT IN ('consent', 'erase')"
_SAY = "INSERT INTO history (profile, received_ms, device, dseq, purpose, body) VALUES ($1, $2, $3, $4, $5, $6)"
_PUT_FORGOTTEN = """INSERT INTO forgotten (profile, id, received_ms)
    SELECT $1, * FROM unnest($2::text[], $3::bigint[]) ON CONFLICT DO NOTHING"""


async def put_rows(connection: Any, number: int, writes: Writes) -> None:
    """Write what is put, after `write_rest`."""
    if writes.put:
        await connection.execute(_PUT_ROWS, number, *map(list, zip(*map(row_values, writes.put), strict=True)))


async def write_rest(connection: Any, number: int, writes: Writes) -> None:
    """Write all but what is put: the purge, what is dropped, the history, what is forgotten, devices that go."""
    if writes.purge_below_epoch is not None:
        await connection.execute(_PURGE, number)
    if writes.drop:
        await connection.execute(_DROP, number, *columns(writes.drop))
    for one in writes.history:
        await connection.execute(_SAY, number, one.received_ms, one.device, one.dseq, one.purpose, one.body)
    if writes.forgotten:
        ids, times = [row.id for row in writes.forgotten], [row.received_ms for row in writes.forgotten]
        await connection.execute(_PUT_FORGOTTEN, number, ids, times)
    if writes.removed_devices:
        gone = "DELETE FROM devices WHERE profile = $1 AND id = ANY($2)"
        await connection.execute(gone, number, list(writes.removed_devices))


def columns(keys: Collection[Key]) -> tuple[list[str], list[str]]:
    """Return the kinds and the ids of keys."""
    listed = list(keys)
    return [key.kind for key in listed], [key.id for key in listed]
