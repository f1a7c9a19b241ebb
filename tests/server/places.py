"""Where the contract tests keep profiles: a SQLite folder, and a PostgreSQL database where a server can be started."""

from __future__ import annotations

import sqlite3
import sys
import uuid
from pathlib import Path
from typing import Any, Protocol

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import postgres_server


class Place(Protocol):
    """A database and its ledger, and how an operator takes and restores a backup of the database alone."""

    def address(self) -> tuple[str, str]:
        """Return the database's and the ledger's."""

    def back_up(self, name: str) -> None:
        """Take a backup while the server may run."""

    def restore(self, name: str) -> None:
        """Put a backup in the database's place; no server runs."""

    def lose_the_ledger(self) -> None:
        """Take the ledger away; no server runs."""


class SqlitePlace:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def address(self) -> tuple[str, str]:
        return str(self.folder / "profiles.db"), str(self.folder / "ledger.db")

    def back_up(self, name: str) -> None:
        source, target = (sqlite3.connect(self.folder / one) for one in ("profiles.db", name))
        source.backup(target)
        source.close()
        target.close()

    def restore(self, name: str) -> None:
        for old in self.folder.glob("profiles.db-*"):
            old.unlink()
        (self.folder / name).replace(self.folder / "profiles.db")

    def lose_the_ledger(self) -> None:
        for old in self.folder.glob("ledger.db*"):
            old.unlink()


class PostgresPlace:
    """A database and its ledger's on the tests' own PostgreSQL server; backups are those of pg_dump."""

    def __init__(self, folder: Path) -> None:
        self.port, reason = postgres_server.start()
        if reason:
            pytest.skip(reason)
        self.folder, name = folder, f"xrec_{uuid.uuid4().hex}"
        self.names = (name, f"{name}_ledger")
        for one in self.names:
            self.run("createdb", one)

    def run(self, program: str, *words: str) -> None:
        postgres_server.run(self.port, program, *words)

    def address(self) -> tuple[str, str]:
        database, ledger = (f"postgresql://xrec@127.0.0.1:{self.port}/{name}" for name in self.names)
        return database, ledger

    def back_up(self, name: str) -> None:
        self.run("pg_dump", "-Fc", "-f", str(self.folder / name), self.names[0])

    def restore(self, name: str) -> None:
        self.run("dropdb", "--force", self.names[0])
        self.run("createdb", self.names[0])
        self.run("pg_restore", "-d", self.names[0], str(self.folder / name))

    def lose_the_ledger(self) -> None:
        self.run("dropdb", "--force", self.names[1])
        self.run("createdb", self.names[1])


def places() -> list[Any]:
    """Return what makes a place in a folder, of each kind, as pytest's parameters."""
    return [pytest.param(SqlitePlace, id="sqlite"), pytest.param(PostgresPlace, id="postgres")]
