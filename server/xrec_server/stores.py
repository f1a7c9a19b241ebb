"""Which store a setting names: the path of a SQLite file, or the URL of a PostgreSQL database."""

from __future__ import annotations

from pathlib import Path

from xrec_server.bell import Bell
from xrec_server.errors import ServerError
from xrec_server.sqlite import SqliteStore, Synchronous
from xrec_server.store import Store


def is_url(place: str) -> bool:
    """Return whether a setting is the URL of a PostgreSQL database."""
    return place.startswith(("postgresql://", "postgres://"))


async def open_store(
    database: str, ledger: str, bell: Bell, *, synchronous: Synchronous = "FULL", is_restoring: bool = False
) -> Store:
    """Open the store; ServerError where it can't be, or must not be served (``server.restored``)."""
    if database == ledger:
        raise ServerError("server.setting", "the ledger is the database; it must lie apart from it and its backups")
    if is_url(database) != is_url(ledger):
        raise ServerError("server.setting", "the database and the ledger must both be files, or both PostgreSQL URLs")
    if is_url(database):
        from xrec_server.postgres import PostgresStore  # Only who has PostgreSQL needs its driver.

        return await PostgresStore.open(database, ledger, bell, is_restoring=is_restoring)
    return SqliteStore(Path(database), Path(ledger), bell, synchronous=synchronous, is_restoring=is_restoring)
