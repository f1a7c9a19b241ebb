"""The standard library's SQLite behind the store's seam."""

from __future__ import annotations

import sqlite3

from xrec_sdk.store import Connection


class SqliteEngine:
    """SQLite as this Python was built with it."""

    name = "sqlite3"
    version = sqlite3.sqlite_version
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def connect(self, path: str, busy_timeout_s: float) -> Connection:
        """Open the database at ``path``."""
        # Connections are used by their own thread, but closed by the one that calls close().
        return sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
