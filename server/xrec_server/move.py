"""Move profiles and their ledger from SQLite files to empty PostgreSQL databases, while no server runs on either."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import asyncpg
from xrec_sdk.sync_tables import ROW

from xrec_server.bell import Bell
from xrec_server.errors import ServerError
from xrec_server.rows import DEVICE, PROFILE
from xrec_server.store import Store
from xrec_server.stores import is_url, open_store

_DATABASE = {
    "profiles": f"number, id, {PROFILE}",
    "devices": f"profile, {DEVICE}",
    "rows": f"profile, {ROW}",
    "history": "profile, received_ms, device, dseq, purpose, body",
    "forgotten": "profile, id, received_ms",
}
_LEDGER = {
    "profiles": "id, generation, epoch, erased_by, forgotten",
    "removed": "profile, device",
    "rows": f"profile, {ROW}",
}
_NEXT_NUMBER = "SELECT setval(pg_get_serial_sequence('profiles', 'number'), max(number)) FROM profiles"


async def move(database: str, ledger: str, to: str, to_ledger: str) -> int:
    """Copy everything and return how many profiles there are; the files stay as they are.

    Raises ServerError: ``server.setting`` where the places are not files and URLs, ``server.database_in_use``,
    ``server.restored`` and the like as a start of the server would, ``server.not_empty`` where profiles are there.
    """
    if is_url(database) or is_url(ledger) or not is_url(to) or not is_url(to_ledger):
        raise ServerError("server.setting", "expected SQLite files to move from, and PostgreSQL URLs to move to")
    if not Path(database).exists():
        raise ServerError("server.database", f"there is no {database}")
    # Opened as a server does: locked, of this version, and not a backup.
    source = await open_store(database, ledger, Bell())
    try:
        target = await open_store(to, to_ledger, Bell())
        try:
            return await _copied(database, ledger, to, to_ledger, target)
        finally:
            await target.close()
    finally:
        await source.close()


async def _copied(database: str, ledger: str, to: str, to_ledger: str, target: Store) -> int:
    if await target.profiles("", 1):
        raise ServerError("server.not_empty", "the PostgreSQL databases hold profiles; give two that are new")
    try:
        # The ledger first: without it the database would be refused, and it alone holds no profile to serve.
        await _copy(ledger, to_ledger, _LEDGER, "ledger_")
        return await _copy(database, to, _DATABASE, "")
    except (asyncpg.PostgresError, OSError, sqlite3.Error) as error:
        said = f"the copy failed: {type(error).__name__}; begin again with new databases"
        raise ServerError("server.database", said) from error


async def _copy(path: str, url: str, tables: dict[str, str], prefix: str) -> int:
    """Copy tables and the mark in one transaction; return how many profiles there are."""
    connection = await asyncpg.connect(url)
    try:
        with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as opened:
            async with connection.transaction():
                for table, columns in tables.items():
                    found, names = opened.execute(f"SELECT {columns} FROM {table}"), columns.split(", ")
                    await connection.copy_records_to_table(f"{prefix}{table}", records=found, columns=names)
                (mark,) = opened.execute("SELECT mark FROM mark").fetchone()
                await connection.execute(f"UPDATE {prefix}mark SET mark = $1", mark)
                if not prefix:
                    await connection.execute(_NEXT_NUMBER)
                count: int = await connection.fetchval(f"SELECT count(*) FROM {prefix}profiles")
                return count
    finally:
        await connection.close()
