"""Numbered SQL migrations: each file of a folder is applied once, in order, with the number kept in the database."""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path

from xrec_server.errors import ServerError


def migrations(folder: str) -> list[tuple[int, str]]:
    """Return (number, SQL) of the files ``NNN_name.sql`` of a folder of migrations, by number."""
    files = (resources.files("xrec_server") / "migrations" / folder).iterdir()
    found = [(int(file.name[:3]), file.read_text(encoding="utf-8")) for file in files if file.name.endswith(".sql")]
    return sorted(found)


def connect(path: Path) -> sqlite3.Connection:
    """Open a SQLite file in WAL mode, for one thread at a time."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA busy_timeout=10000").fetchall()
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def migrate_sqlite(connection: sqlite3.Connection, folder: str) -> None:
    """Bring a SQLite file to this version, each migration in a transaction; ``user_version`` is the last number."""
    known = migrations(folder)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > known[-1][0]:
        raise ServerError(
            "server.newer_database",
            f"the {folder} file is of version {version}; this server knows {known[-1][0]}: install a newer xrec",
        )
    for number, sql in known:
        if number > version:
            connection.executescript(f"BEGIN IMMEDIATE; {sql} PRAGMA user_version={number}; COMMIT;")
