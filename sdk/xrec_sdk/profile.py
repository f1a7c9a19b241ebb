"""The user's profile on the device: a bounded SQLite file of events that survives kill -9 and serves several processes.

One connection per thread. SQLite before 3.51.3 can damage a WAL file when two connections checkpoint at once
(https://sqlite.org/wal.html, "WAL-reset bug"), so automatic checkpoints are off and this file makes them, one process
at a time, under a lock beside the database.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from xrec_sdk.errors import ProfileError, UsageError
from xrec_sdk.eventid import new_event_id
from xrec_sdk.filelock import try_lock

MAX_EVENTS = 5000
MAX_TEXT = 512
MAX_AT_MS = 1 << 53
APPLICATION_ID = 0x78726563
SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 10.0
CHECKPOINT_EVERY_WRITES = 200
# Shed this many events at once, so that a full profile does not delete at every write.
SHED = 64

# place counts up with every event; where events have been erased, it may begin anew, and erasures counts up.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at_ms INTEGER NOT NULL, event TEXT NOT NULL,
    item_id TEXT NOT NULL, device TEXT NOT NULL, value REAL, recommendation_id TEXT
);
CREATE INDEX IF NOT EXISTS events_in_time ON events (at_ms, id);
CREATE TABLE IF NOT EXISTS changes (erasures INTEGER NOT NULL);
INSERT INTO changes SELECT 0 WHERE NOT EXISTS (SELECT * FROM changes);
"""
_COLUMNS = "id, at_ms, event, item_id, device, value, recommendation_id"
# One statement, so that both come from one state of the file.
_READ = f"SELECT erasures, place, {_COLUMNS} FROM changes LEFT JOIN events ON place > ? ORDER BY at_ms, id"


@dataclass(frozen=True)
class Event:
    """One thing that the user did, as the profile keeps it."""

    id: str
    at_ms: int
    event: str
    item_id: str
    device: str
    value: float | None = None
    recommendation_id: str | None = None


@dataclass(frozen=True)
class Mark:
    """How far a profile has been read; equal marks stand for the same events."""

    erasures: int
    place: int


class Profile:
    """The events of one user in the SQLite file at ``path``, or in memory for ``":memory:"``.

    Methods may be called from any thread and wait at most ten seconds for another writer. Every failure of the file is
    a ProfileError (docs/errors.md lists the codes).
    """

    def __init__(self, path: str | os.PathLike[str], max_events: int = MAX_EVENTS) -> None:
        if isinstance(max_events, bool) or not isinstance(max_events, int) or max_events < 1:
            raise UsageError("usage.max_events", f"max_events is {max_events!r}; expected a whole number from 1")
        self.path = os.fspath(path)
        self.max_events = max_events
        self._in_memory = self.path == ":memory:"
        self._local = threading.local()
        self._lock = threading.RLock()
        # One connection in memory serves all threads, so that they take turns; a file has a connection per thread.
        self._turn: AbstractContextManager[object] = self._lock if self._in_memory else nullcontext()
        self._connections: list[sqlite3.Connection] = []
        self._pid = os.getpid()
        self._closed = False
        self._writes = 0
        try:
            with _faults:
                self._migrate(self._connection())
        except BaseException:
            self._close_connections()
            raise

    def record(
        self,
        event: str,
        item_id: str,
        device: str,
        at_ms: int,
        value: float | None = None,
        *,
        recommendation_id: str | None = None,
    ) -> str:
        """Write an event and return its id; it survives the death of the process once this has returned."""
        kept = Event(
            id=new_event_id(),
            at_ms=_check_time(at_ms),
            event=_check_text("event", event),
            item_id=_check_text("item_id", item_id),
            device=_check_text("device", device),
            value=_check_value(value),
            recommendation_id=None
            if recommendation_id is None
            else _check_text("recommendation_id", recommendation_id),
        )
        with self._write() as connection:
            connection.execute("INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", tuple(vars(kept).values()))
            self._shed(connection)
        return kept.id

    def events(self) -> list[Event]:
        """Return every event, by time and then by id, oldest first."""
        return self.read()[1]

    def read(self, after: Mark | None = None) -> tuple[Mark, list[Event]]:
        """Return the mark of the profile as it is and its events, by time and then by id, oldest first.

        With ``after``, only those recorded since that mark, by whatever process; where events have been erased since
        (the returned mark has other ``erasures``) all that there are.
        """
        with _faults, self._turn:
            connection = self._connection()
            rows = connection.execute(_READ, (after.place if after else 0,)).fetchall()
            if after and rows[0][0] != after.erasures:
                after = None
                rows = connection.execute(_READ, (0,)).fetchall()
        if after and rows[0][1] is None:
            return after, []
        places = [row[1] for row in rows if row[1] is not None]
        mark = Mark(rows[0][0], max(places, default=after.place if after else 0))
        return mark, [Event(*row[2:]) for row in rows[: len(places)]]

    def export(self) -> list[dict[str, object]]:
        """Return every event as a JSON object, oldest first: all that is kept of the user."""
        return [dict(vars(event)) for event in self.events()]

    def forget(self) -> int:
        """Erase every event from the database file and its log, and return how many there were."""
        with self._write(is_durable=True) as connection:
            count: int = connection.execute("SELECT count(*) FROM events").fetchone()[0]
            connection.execute("DELETE FROM events")
            connection.execute("UPDATE changes SET erasures = erasures + 1")
        if not self._checkpoint("TRUNCATE", time.monotonic() + BUSY_TIMEOUT_S):
            raise ProfileError(
                "profile.busy",
                "the events are deleted, but another reader keeps their bytes in the log; forget() again",
            )
        return count

    def close(self) -> None:
        """Move the log into the database and close every connection; closing twice is harmless."""
        with self._lock:
            if self._closed:
                return
            if not self._in_memory and os.getpid() == self._pid:
                with _faults:
                    self._checkpoint("TRUNCATE", time.monotonic())
            self._close_connections()

    def _close_connections(self) -> None:
        self._closed = True
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def _connection(self) -> sqlite3.Connection:
        if self._closed:
            raise ProfileError("profile.closed", "the profile is closed; open it again")
        if os.getpid() != self._pid:
            raise ProfileError("profile.forked", "the profile was opened before a fork; open it again in the child")
        shared = self._in_memory and self._connections
        connection = self._connections[0] if shared else getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            with self._lock:
                self._connections.append(connection)
            self._local.connection = connection
        return connection

    def _connect(self) -> sqlite3.Connection:
        # Connections are used by their own thread, but closed by the one that calls close().
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            _use_wal(connection)
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("PRAGMA secure_delete=ON").fetchone()
            connection.execute("PRAGMA trusted_schema=OFF")
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        application: int = connection.execute("PRAGMA application_id").fetchone()[0]
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != APPLICATION_ID and (application or version or tables):
            raise ProfileError("profile.not_a_profile", "the file is a SQLite database, but not a profile of xrec")
        if version > SCHEMA_VERSION:
            raise ProfileError("profile.newer", f"the profile has schema {version}; this SDK knows {SCHEMA_VERSION}")
        if version < SCHEMA_VERSION:
            connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id={APPLICATION_ID};"
                f" PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
            )

    @contextmanager
    def _write(self, is_durable: bool = False) -> Iterator[sqlite3.Connection]:
        with _faults, self._turn:
            connection = self._connection()
            if is_durable:
                connection.execute("PRAGMA synchronous=FULL")
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            finally:
                if is_durable:
                    connection.execute("PRAGMA synchronous=NORMAL")
            with self._lock:
                self._writes += 1
                is_due = self._writes % CHECKPOINT_EVERY_WRITES == 0
            if is_due:
                self._checkpoint("PASSIVE", time.monotonic())

    def _shed(self, connection: sqlite3.Connection) -> None:
        count: int = connection.execute("SELECT count(*) FROM events").fetchone()[0]
        if count > self.max_events:
            spare = count - self.max_events + min(SHED, self.max_events // 10)
            oldest = "SELECT place FROM events ORDER BY at_ms, id LIMIT ?"
            connection.execute(f"DELETE FROM events WHERE place IN ({oldest})", (spare,))
            connection.execute("UPDATE changes SET erasures = erasures + 1")

    def _checkpoint(self, mode: str, until: float) -> bool:
        """Move the log into the database; return whether all of it went, False where another process is at it."""
        if self._in_memory:
            return True
        while True:
            with try_lock(Path(f"{self.path}-checkpoint")) as is_free:
                if is_free:
                    busy, _, _ = self._connection().execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
                    if not busy:
                        return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.01)


def _use_wal(connection: sqlite3.Connection) -> None:
    # SQLite does not wait here, whatever the timeout, where two processes turn a new file into a WAL one at once.
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= until:
                raise
        time.sleep(0.005)


class _Faults:
    """Turns the errors of the file into a ProfileError."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite3.Error):
            raise _fault(error) from error
        if isinstance(error, OSError):
            raise ProfileError("profile.unavailable", f"the profile can't be opened: {error.strerror}") from error


_faults = _Faults()

_CODES = (
    ("file is not a database", "profile.not_a_database", "the file is not a SQLite database"),
    ("malformed", "profile.damaged", "the profile's file is damaged; delete it and start anew"),
    ("disk is full", "profile.full", "the disk is full; nothing was written"),
    ("locked", "profile.busy", "another writer held the profile for too long; nothing was written"),
    ("closed", "profile.closed", "the profile is closed; open it again"),
    ("no such", "profile.damaged", "the profile's file lacks a table; delete it and start anew"),
)


def _fault(cause: sqlite3.Error) -> ProfileError:
    text = str(cause)
    for part, code, message in _CODES:
        if part in text:
            return ProfileError(code, message)
    return ProfileError("profile.unavailable", f"the profile can't be opened, read or written: {text}")


def _check_text(name: str, text: str) -> str:
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_TEXT or not _is_utf8(text):
        raise UsageError(f"usage.{name}", f"{name} is {text!r}; expected a text of 1 to {MAX_TEXT} characters")
    return text


def _is_utf8(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _check_time(at_ms: int) -> int:
    if isinstance(at_ms, bool) or not isinstance(at_ms, int) or not 0 <= at_ms <= MAX_AT_MS:
        raise UsageError("usage.at_ms", f"at_ms is {at_ms!r}; expected UTC milliseconds as a whole number")
    return at_ms


def _check_value(value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < float("inf"):
        raise UsageError("usage.value", f"value is {value!r}; expected a finite number or None")
    return float(value)
