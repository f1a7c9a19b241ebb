"""Which store a setting names: the path of a SQLite file, or the URL of a PostgreSQL database."""

from __future__ import annotations

from pathlib import Path

from xrec_server.bell import Bell
from xrec_server.settings import Settings
from xrec_server.sqlite import SqliteStore
from xrec_server.store import Store


def open_store(settings: Settings, bell: Bell) -> Store:
    """Open the store; ServerError where it can't be."""
    return SqliteStore(Path(settings.database), Path(settings.ledger), bell, synchronous=settings.synchronous)
