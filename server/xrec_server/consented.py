"""Read the events of users whose consent to a purpose stands, from one state of a database that a server is at work on.

What is sealed end to end can't be read here and is left out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

from xrec_sdk.sync import Row
from xrec_sdk.sync_body import is_sealed
from xrec_sdk.sync_merge import consent_of_row
from xrec_sdk.sync_tables import ROW, row_of

from xrec_server.errors import ServerError
from xrec_server.stores import is_url

_QUERY = f"""SELECT profiles.id, {", ".join("r." + name for name in ROW.split(", "))}
    FROM rows r JOIN profiles ON profiles.number = r.profile
    WHERE r.kind IN ('event', 'consent') ORDER BY r.profile, r.order_ms, r.seq"""


async def consented(database: str, purpose: str) -> AsyncIterator[tuple[str, list[Row] | None]]:
    """Yield each profile and its events in order of time; None in their place where consent to the purpose is lacking.

    Raises ServerError ``server.database`` where the database can't be read.
    """
    async for profile, rows in _profiles(_postgres(database) if is_url(database) else _sqlite(database)):
        said = [row for row in rows if row.kind == "consent" and row.id == purpose]
        is_granted = bool(said) and consent_of_row(said[0]).is_granted
        events = [row for row in rows if row.kind == "event" and not is_sealed(row.body)]
        yield profile, events if is_granted else None


async def _profiles(found: AsyncIterator[tuple[str, Row]]) -> AsyncIterator[tuple[str, list[Row]]]:
    """Gather the rows of each profile, which follow one another."""
    last, rows = "", list[Row]()
    async for profile, row in found:
        if profile != last and rows:
            yield last, rows
            rows = []
        last = profile
        rows.append(row)
    if rows:
        yield last, rows


async def _sqlite(path: str) -> AsyncIterator[tuple[str, Row]]:
    try:
        with closing(
            sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        ) as opened:
            for profile, *columns in opened.execute(_QUERY):
                yield profile, row_of(columns)
    except sqlite3.Error as error:
        raise ServerError("server.database", f"can't read {path}: {error}") from error


async def _postgres(url: str) -> AsyncIterator[tuple[str, Row]]:
    import asyncpg

    try:
        connection = await asyncpg.connect(url)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                async for profile, *columns in connection.cursor(_QUERY, prefetch=1_000):
                    yield profile, row_of(columns)
        finally:
            await connection.close()
    except (asyncpg.PostgresError, OSError) as error:
        raise ServerError("server.database", f"can't read the database: {error}") from error
