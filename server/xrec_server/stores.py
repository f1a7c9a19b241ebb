"""Which store a setting names: the path of a SQLite file, or the URL of a PostgreSQL database."""

from __future__ import annotations

from pathlib import Path

from xrec_server.bell import Bell
from xrec_server.errors import ServerError
from xrec_server.sqlite import SqliteStore, Synchronous
from xrec_server.store import Store


async def open_store(
    database: str, ledger: str, bell: Bell, *, synchronous: Synchronous = "FULL", is_restoring: bool = False
) -> Store:
    """Open the store; ServerError where it can't be, or must not be served (``server.restored``)."""
    if database == ledger:
        raise ServerError("server.setting", "the ledger is the database; it must lie apart from it and its backups")
    return SqliteStore(Path(database), Path(ledger), bell, synchronous=synchronous, is_restoring=is_restoring)
