"""Connections to a PostgreSQL database, its schema brought to this version when they are opened."""

from __future__ import annotations

import asyncpg

from xrec_server.errors import ServerError
from xrec_server.schema import migrations

# Every query looks up a few rows by an index. Before a table was first analysed the planner takes it for empty and
# would read all of it for each group of pushes; a prepared statement keeps such a plan.
_SETTINGS = {"application_name": "xrec-server", "jit": "off"}
_SETTINGS |= {f"enable_{way}": "off" for way in ("seqscan", "hashjoin", "mergejoin")}
MAX_CONNECTIONS = 12
COMMAND_S = 30
ACQUIRE_S = 15
_LOCK = 0x78726563
"""The advisory lock that migrations are made under: "xrec"."""


async def open_pool(url: str, folder: str) -> asyncpg.Pool:
    """Return a pool of connections; ServerError where the database can't be reached, or is newer."""
    try:
        pool = await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=MAX_CONNECTIONS,
            command_timeout=COMMAND_S,
            server_settings=_SETTINGS,
            reset=_nothing_to_reset,
        )
    except (OSError, ValueError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # The message of a driver may repeat the URL, which has the password.
        raise ServerError("server.database", f"can't reach the PostgreSQL database: {type(error).__name__}") from None
    try:
        await _migrate(pool, folder)
    except BaseException:
        await pool.close()
        raise
    return pool


async def _nothing_to_reset(_: object) -> None:
    """Spare the round trip: no session state is ever set, and asyncpg rolls back what is open before it asks."""


async def _migrate(pool: asyncpg.Pool, folder: str) -> None:
    known, table = migrations(folder), f"{folder}_migrations"
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (number integer PRIMARY KEY)")
        version = await connection.fetchval(f"SELECT coalesce(max(number), 0) FROM {table}")
        if version > known[-1][0]:
            raise ServerError(
                "server.newer_database",
                f"the {folder} schema is of version {version}; this server knows {known[-1][0]}: install a newer xrec",
            )
        for number, sql in known:
            if number > version:
                await connection.execute(sql)
                await connection.execute(f"INSERT INTO {table} VALUES ($1)", number)
