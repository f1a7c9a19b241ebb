"""The ledger in a SQLite file of its own, apart from the database and its backups."""

from __future__ import annotations

from pathlib import Path

from xrec_sdk.sync_server import Ledger
from xrec_sdk.sync_tables import ROW, row_of, row_values

from xrec_server.rows import ledger_of
from xrec_server.schema import connect, migrate_sqlite
from xrec_server.store import LedgerLines

_HEAD = "generation, epoch, erased_by, forgotten"
_PUT_HEAD = f"INSERT OR REPLACE INTO profiles (id, {_HEAD}) VALUES (?, ?, ?, ?, ?)"
_PUT_ROW = f"INSERT OR REPLACE INTO rows (profile, {ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class SqliteLedger:
    """The ledger's file; used by one thread at a time. Its commits always reach the disk (synchronous=FULL)."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)
        try:
            self._connection.execute("PRAGMA synchronous=FULL").fetchall()
            migrate_sqlite(self._connection, "ledger")
        except BaseException:
            self._connection.close()
            raise

    def put(self, profile: str, lines: LedgerLines) -> None:
        """Write lines; the transaction that this begins ends with ``commit``."""
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
        head = (lines.generation, lines.epoch, lines.erased_by, lines.forgotten)
        self._connection.execute(_PUT_HEAD, (profile, *head))
        self._connection.executemany(_PUT_ROW, [(profile, *row_values(row)) for row in lines.rows])
        gone = "INSERT OR IGNORE INTO removed (profile, device) VALUES (?, ?)"
        self._connection.executemany(gone, [(profile, device) for device in lines.removed])

    def commit(self) -> None:
        """Commit what was put, if anything was."""
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo what was put and not committed."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def read(self, profile: str) -> Ledger | None:
        """Return a profile's ledger; None where it was never written."""
        head = self._connection.execute(f"SELECT {_HEAD} FROM profiles WHERE id = ?", (profile,)).fetchone()
        rows = self._connection.execute(f"SELECT {ROW} FROM rows WHERE profile = ? ORDER BY seq", (profile,))
        removed = self._connection.execute("SELECT device FROM removed WHERE profile = ?", (profile,))
        return ledger_of(head, [row_of(columns) for columns in rows], [device for (device,) in removed])

    def profiles(self, after: str, limit: int) -> list[str]:
        """Return the ids of profiles that follow ``after``."""
        found = self._connection.execute("SELECT id FROM profiles WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
        return [id for (id,) in found]

    def mark(self) -> int:
        """Return the mark."""
        (mark,) = self._connection.execute("SELECT mark FROM mark").fetchone()
        return int(mark)

    def raise_mark(self, mark: int) -> None:
        """Raise the mark; the database must have it already."""
        self._connection.execute("UPDATE mark SET mark = max(mark, ?)", (mark,))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
