"""Where the contract tests keep profiles: a SQLite folder, and a PostgreSQL database where a server can be started."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Protocol

import pytest


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


def places() -> list[Any]:
    """Return what makes a place in a folder, of each kind, as pytest's parameters."""
    return [pytest.param(SqlitePlace, id="sqlite")]
