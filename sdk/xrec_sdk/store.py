"""The profile's file: connections, transactions, checkpoints, and what each failure of SQLite is called.

One connection per thread. SQLite before 3.51.3 can damage a WAL file when two connections checkpoint at once
(https://sqlite.org/wal.html, "WAL-reset bug"), so automatic checkpoints are off and this file makes them, one process
at a time, under a lock beside the database. The seam to SQLite is `Engine`: the standard library's in store_sqlite.py,
one that encrypts in store_encrypted.py.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar, cast

from xrec_sdk.errors import ProfileError, XrecError
from xrec_sdk.filelock import try_lock

BUSY_TIMEOUT_S = 10.0
BARRIER_EVERY_S = 1.0
CHECKPOINT_EVERY_WRITES = 200
IN_MEMORY = ":memory:"

T = TypeVar("T")


class Cursor(Protocol):
    """What a statement gives."""

    def fetchone(self) -> Any:
        """Return the next row, or None."""

    def fetchall(self) -> list[Any]:
        """Return every row that is left."""


class Connection(Protocol):
    """What this package asks of an open database; statements outside a transaction stand for themselves."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Cursor:
        """Run one statement."""

    def close(self) -> None:
        """Close the database."""


class Engine(Protocol):
    """The seam to a build of SQLite; any thread may close a connection, and only one at a time uses it."""

    name: str
    version: str
    errors: tuple[type[Exception], ...]

    def connect(self, path: str, busy_timeout_s: float) -> Connection:
        """Open the database at ``path``; raise one of ``errors`` where that fails."""


class _Turn:
    """A write that waits for its transaction, and how it ended."""

    def __init__(self, work: Callable[[Connection], Any]) -> None:
        self.work = work
        self.is_done = False
        self.outcome: Any = None
        self.failure: BaseException | None = None


class Store:
    """The SQLite file at ``path``, or one in memory for ``":memory:"``.

    ``durability`` says what a write survives once it has returned: ``"process"``, the death of the process (and a power
    cut all but the last second), or ``"power"``, a power cut too; writes that wait at once then share one commit.
    """

    def __init__(self, path: str, engine: Engine, durability: str) -> None:
        self.path = path
        self.engine = engine
        self.durability = durability
        self._in_memory = path == IN_MEMORY
        self._local = threading.local()
        self._lock = threading.RLock()
        # One connection in memory serves all threads, so that they take turns; a file has a connection per thread.
        self.turn: AbstractContextManager[object] = self._lock if self._in_memory else nullcontext()
        self._connections: list[Connection] = []
        self._pid = os.getpid()
        self._is_closed = False
        self._writes = 0
        self._synced_at = time.monotonic()
        self._waiting: list[_Turn] = []
        self._leading = threading.Lock()
        self.faults = _Faults(engine)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` on this thread's connection; several statements may see several states of the file."""
        with self.faults, self.turn:
            return work(self.connection())

    def read_whole(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in one transaction, so that it sees one state of the file."""
        with self.faults, self.turn:
            connection = self.connection()
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.execute("COMMIT")

    def write(self, work: Callable[[Connection], T], *, is_durable: bool = False) -> T:
        """Run ``work`` in a transaction of its own and return what it gives once that is committed.

        ``work`` raises its XrecErrors before it writes. With ``is_durable`` a power cut takes nothing of it back,
        whatever the durability of the store.
        """
        if self.durability == "power" and not self._in_memory:
            return self._write_together(work)
        now_s = time.monotonic()
        is_synced = is_durable or now_s - self._synced_at >= BARRIER_EVERY_S
        turn = _Turn(work)
        with self.faults, self.turn:
            self._commit(self.connection(), (turn,), is_synced)
            if is_synced:
                self._synced_at = now_s
            self._now_and_then()
        return cast(T, _outcome(turn))

    def _write_together(self, work: Callable[[Connection], T]) -> T:
        """Write durably; of those who wait while another commits, one commits for all."""
        turn = _Turn(work)
        with self._lock:
            self._waiting.append(turn)
        with self._leading:
            if not turn.is_done:
                with self._lock:
                    turns, self._waiting = self._waiting, []
                try:
                    with self.faults:
                        self._commit(self.connection(), turns, True)
                        self._now_and_then()
                except BaseException as failure:
                    for one in turns:
                        one.failure = one.failure or failure
                finally:
                    for one in turns:
                        one.is_done = True
        return cast(T, _outcome(turn))

    def _commit(self, connection: Connection, turns: Sequence[_Turn], is_synced: bool) -> None:
        if is_synced:
            connection.execute("PRAGMA synchronous=FULL")
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                for turn in turns:
                    try:
                        turn.outcome = turn.work(connection)
                    except XrecError as refusal:
                        turn.failure = refusal
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        finally:
            if is_synced:
                connection.execute("PRAGMA synchronous=NORMAL")

    def _now_and_then(self) -> None:
        with self._lock:
            self._writes += 1
            is_due = self._writes % CHECKPOINT_EVERY_WRITES == 0
        if is_due:
            self.checkpoint("PASSIVE", 0.0)

    def checkpoint(self, mode: str, within_s: float) -> bool:
        """Move the log into the database; return whether all of it went, False where another process is at it."""
        if self._in_memory:
            return True
        until = time.monotonic() + within_s
        while True:
            with self.faults, try_lock(Path(f"{self.path}-checkpoint")) as is_free:
                if is_free:
                    busy, _, _ = self.connection().execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
                    if not busy:
                        return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.01)

    def wipe(self, within_s: float) -> bool:
        """Write the file anew without a byte of what was deleted and empty the log; False where others are at it.

        `secure_delete` alone leaves pieces of rows that SQLite moved within a page before they were deleted.
        """
        if self._in_memory:
            return True
        with self.faults:
            try:
                self.connection().execute("VACUUM")
            except self.engine.errors as error:
                if "locked" not in str(error):
                    raise
                return False
        return self.checkpoint("TRUNCATE", within_s)

    def connection(self) -> Connection:
        """Return this thread's connection, opened where it has none."""
        if self._is_closed:
            raise ProfileError("profile.closed", "the profile is closed; open it again")
        if os.getpid() != self._pid:
            raise ProfileError("profile.forked", "the profile was opened before a fork; open it again in the child")
        shared = self._in_memory and self._connections
        connection: Connection | None
        connection = self._connections[0] if shared else getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            with self._lock:
                self._connections.append(connection)
            self._local.connection = connection
        return connection

    def _connect(self) -> Connection:
        connection = self.engine.connect(self.path, BUSY_TIMEOUT_S)
        try:
            self._use_wal(connection)
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint=0").fetchall()
            connection.execute("PRAGMA secure_delete=ON").fetchall()
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA temp_store=MEMORY").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def _use_wal(self, connection: Connection) -> None:
        # SQLite does not wait here, whatever the timeout, where two processes turn a new file into a WAL one at once.
        until = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL").fetchall()
                return
            except self.engine.errors as error:
                if "locked" not in str(error) or time.monotonic() >= until:
                    raise
            time.sleep(0.005)

    def close(self) -> None:
        """Move the log into the database and close every connection; closing twice is harmless."""
        with self._lock:
            if self._is_closed:
                return
            if os.getpid() == self._pid:
                self.checkpoint("TRUNCATE", 0.0)
            self.abandon()

    def abandon(self) -> None:
        """Close every connection and leave the log as it is."""
        self._is_closed = True
        for connection in self._connections:
            connection.close()
        self._connections.clear()


def _outcome(turn: _Turn) -> Any:
    if turn.failure is not None:
        raise turn.failure
    return turn.outcome


class _Faults:
    """Turns the errors of the file into a ProfileError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, XrecError):
            return
        if isinstance(error, self._engine.errors):
            raise _fault(error) from error
        if isinstance(error, OSError):
            raise ProfileError("profile.unavailable", f"the profile can't be opened: {error.strerror}") from error


_CODES = (
    (
        "file is not a database",
        "profile.not_a_database",
        "the file is not a SQLite database; or it is encrypted and this is not its key, or the other way round",
    ),
    ("malformed", "profile.damaged", "the profile's file is damaged; delete it and start anew"),
    ("disk is full", "profile.full", "the disk is full; nothing was written"),
    ("locked", "profile.busy", "another writer held the profile for too long; nothing was written"),
    ("closed", "profile.closed", "the profile is closed; open it again"),
    ("no such", "profile.damaged", "the profile's file lacks a table; delete it and start anew"),
)


def _fault(cause: BaseException) -> ProfileError:
    text = str(cause)
    for part, code, message in _CODES:
        if part in text:
            return ProfileError(code, message)
    return ProfileError("profile.unavailable", f"the profile can't be opened, read or written: {text}")
