"""The user's profile on the device: a bounded SQLite file of events that survives kill -9 and serves several processes.

Nothing is recorded and nothing is read for recommendations before the user has consented to `personalise`. Events of
the user's other devices stand among its own once they have come (sync_view.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from xrec_sdk.errors import ProfileError, UsageError
from xrec_sdk.event import COLUMNS, INSERT_EVENT, PURPOSES
from xrec_sdk.event import Event as Event
from xrec_sdk.eventid import new_event_id, uuid7
from xrec_sdk.schema import VERSION, migrate, version_of
from xrec_sdk.store import BUSY_TIMEOUT_S, Connection, Engine, Store
from xrec_sdk.store_sqlite import SqliteEngine

if TYPE_CHECKING:
    from xrec_sdk.store_encrypted import KeyProvider

MAX_EVENTS = 5000
MAX_TEXT = 512
MAX_AT_MS = (1 << 53) - 1
RETENTION_DAYS = 180
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
DURABILITIES = ("process", "power")
# Shed this many events at once, so that a full profile does not delete at every write.
SHED = 64

_CLAIMED = COLUMNS.replace("at_ms", "coalesce(claimed_ms, at_ms)")
# One statement, so that all comes from one state of the file; without consent it reads no event.
_READ = f"SELECT erasures, place, {COLUMNS} FROM state LEFT JOIN events ON personalise AND place > ? ORDER BY at_ms, id"
_STATE = (
    "SELECT erasures, personalise, sync, epoch, contact_ms, last_dseq, acked, hlc_ms, hlc_counter,"
    " (SELECT max(place) FROM events) FROM state"
)
_CONSENT = "SELECT personalise, sync, train, analytics FROM state"


class Mark(NamedTuple):
    """How far a profile has been read; equal marks stand for the same events."""

    erasures: int
    place: int


def now_ms() -> int:
    """Return the time in UTC milliseconds."""
    return time.time_ns() // 1_000_000


class Profile:
    """The events of one user in the SQLite file at ``path``, or in memory for ``":memory:"``.

    ``key_provider`` gives a key of 32 random bytes, and the file is encrypted with it (extra ``encrypted``).
    ``durability`` is ``"process"``, where a write survives the death of the process (and a power cut all but the last
    second), or ``"power"``, where it survives a power cut. Events are kept for ``retention_days`` after they were
    recorded, ``max_events`` of them. ``clock_ms`` gives the time that this is counted in.

    Methods may be called from any thread and wait at most ten seconds for another writer. Every failure of the file is
    a ProfileError (docs/errors.md lists the codes).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_events: int = MAX_EVENTS,
        *,
        key_provider: KeyProvider | None = None,
        durability: str = "process",
        retention_days: int = RETENTION_DAYS,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self.path = os.fspath(path)
        self.max_events = _check_count("max_events", max_events)
        self.retention_ms = _check_count("retention_days", retention_days) * DAY_MS
        if durability not in DURABILITIES:
            raise UsageError("usage.durability", f"durability is {durability!r}; expected one of {DURABILITIES}")
        self.clock_ms = clock_ms
        self._retired_ms = 0
        # Up to this place the profile is known not to be full, while this many erasures have been counted.
        self._room = (-1, 0)
        self.on_change: Callable[[], None] | None = None
        self.store = Store(self.path, _engine(key_provider), durability)
        try:
            if self.store.read(version_of) < VERSION:
                self.store.write(migrate, is_durable=True)
            self._retire()
        except BaseException:
            self.store.abandon()
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
        """Write an event and return its id; durable once this has returned.

        Raises ProfileError ``profile.no_consent`` before the user has consented to ``personalise``.
        """
        kept = Event(
            new_event_id(),
            _check_time(at_ms),
            _check_text("event", event),
            _check_text("item_id", item_id),
            _check_text("device", device),
            _check_value(value),
            None if recommendation_id is None else _check_text("recommendation_id", recommendation_id),
        )
        now = self.clock_ms()
        self.store.write(lambda connection: self._append(connection, kept, now))
        if now - self._retired_ms > HOUR_MS:
            self._retire()
        if self.on_change:
            self.on_change()
        return kept.id

    def _append(self, connection: Connection, kept: Event, now: int) -> None:
        erasures, personalise, sync, epoch, contact_ms, *standing, last = connection.execute(_STATE).fetchone()
        if not personalise:
            raise ProfileError(
                "profile.no_consent",
                'there is no consent to personalise: ask the user, then set_consent("personalise", True);'
                " nothing was recorded",
            )
        place = (last or 0) + 1
        if sync:
            from xrec_sdk.sync_view import append_event

            order = min(max(kept.at_ms, contact_ms), now)
            append_event(connection, kept, epoch, contact_ms, standing, now)
        else:
            order = kept.at_ms
        claimed = None if order == kept.at_ms else kept.at_ms
        connection.execute(INSERT_EVENT, (place, kept.id, order, *kept[2:], claimed, contact_ms, not sync))
        if place > self._room[1] or erasures != self._room[0]:
            self.shed(connection)

    def shed(self, connection: Connection) -> None:
        """Delete the oldest events where the profile holds more than ``max_events``."""
        count: int = connection.execute("SELECT count(*) FROM events").fetchone()[0]
        if count > self.max_events:
            spare = count - self.max_events + min(SHED, self.max_events // 10)
            oldest = "SELECT place FROM events ORDER BY at_ms, id LIMIT ?"
            connection.execute(f"DELETE FROM events WHERE place IN ({oldest})", (spare,))
            connection.execute("UPDATE state SET erasures = erasures + 1")
            count -= spare
        erasures, last = connection.execute("SELECT erasures, (SELECT max(place) FROM events) FROM state").fetchone()
        self._room = (erasures, (last or 0) + self.max_events - count)

    def set_consent(self, purpose: str, granted: bool, *, policy: str = "") -> None:
        """Keep what the user said to a purpose: ``personalise``, ``sync``, ``train`` or ``analytics``.

        ``policy`` names the text that the user saw. It holds at once and survives a power cut. A grant of ``sync``
        sends what this device has recorded; a withdrawal keeps what is on the device: :meth:`forget` erases it.
        """
        if purpose not in PURPOSES:
            raise UsageError("usage.purpose", f"purpose is {purpose!r}; expected one of {', '.join(PURPOSES)}")
        if not isinstance(granted, bool):
            raise UsageError("usage.granted", f"granted is {granted!r}; expected True or False")
        if policy != "":
            _check_text("policy", policy)
        from xrec_sdk import sync_view

        now = self.clock_ms()
        self.store.write(
            lambda connection: sync_view.set_consent(connection, purpose, granted, policy, now), is_durable=True
        )
        if self.on_change:
            self.on_change()

    def consent(self) -> dict[str, bool]:
        """Return for each purpose whether the user's consent to it stands; False before anything was said."""
        flags = self.store.read(lambda connection: connection.execute(_CONSENT).fetchone())
        return dict(zip(PURPOSES, map(bool, flags), strict=True))

    def events(self) -> list[Event]:
        """Return every event, by time and then by id, oldest first; whoever shows them to the user needs no consent."""
        rows = self.store.read(
            lambda connection: connection.execute(f"SELECT {COLUMNS} FROM events ORDER BY at_ms, id").fetchall()
        )
        return list(map(Event._make, rows))

    def read(self, after: Mark | None = None) -> tuple[Mark, list[Event]]:
        """Return the mark of the profile as it is and its events, by time and then by id, oldest first.

        With ``after``, only those that came since that mark, by whatever process; where events have been erased since
        (the returned mark has other ``erasures``) all that there are. None without consent to ``personalise``.
        """
        with self.store.faults, self.store.turn:
            connection = self.store.connection()
            rows = connection.execute(_READ, (after.place if after else 0,)).fetchall()
            if after and rows[0][0] != after.erasures:
                after = None
                rows = connection.execute(_READ, (0,)).fetchall()
        if rows[0][1] is None:
            return after or Mark(rows[0][0], 0), []
        return Mark(rows[0][0], max(row[1] for row in rows)), [Event._make(row[2:]) for row in rows]

    def export(self) -> list[dict[str, object]]:
        """Return every event as a JSON object, oldest first, with the time that the app claimed."""
        rows = self.store.read(
            lambda connection: connection.execute(f"SELECT {_CLAIMED} FROM events ORDER BY at_ms, id").fetchall()
        )
        return [Event._make(row)._asdict() for row in rows]

    def forget(
        self,
        *,
        item_id: str | None = None,
        event: str | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
    ) -> int:
        """Erase events from the database file and its log, and return how many there were.

        Without arguments every event, else those that meet all that is given: of an item, of an event type, with a time
        in [``from_ms``, ``to_ms``). Where the profile is synced, on every other device too, once they hear of it.
        """
        for name, text in (("item_id", item_id), ("event", event)):
            if text is not None:
                _check_text(name, text)
        for time_ms in (from_ms, to_ms):
            if time_ms is not None:
                _check_time(time_ms)
        from xrec_sdk import sync_view

        named = {"item_id": item_id, "event": event, "from_ms": from_ms, "to_ms": to_ms}
        asked = {name: value for name, value in named.items() if value is not None}
        now = self.clock_ms()
        count = self.store.write(lambda connection: sync_view.erase(connection, asked, now), is_durable=True)
        self.wipe_log()
        if self.on_change:
            self.on_change()
        return count

    def wipe_log(self) -> None:
        """Write the file anew and empty its log: nothing erased is left; ProfileError while a reader is at it."""
        if not self.store.wipe(BUSY_TIMEOUT_S):
            raise ProfileError(
                "profile.busy",
                "the events are deleted, but another reader keeps their bytes in the log; forget() again",
            )

    def _retire(self) -> None:
        """Delete what is older than the retention; what the server holds it retires itself."""
        self._retired_ms = self.clock_ms()
        # Ids begin with the time at which they were made, which is when the event was recorded, whatever it claims.
        first = uuid7(max(0, self._retired_ms - self.retention_ms), 0)
        oldest = "SELECT min(id) FROM events"
        if (self.store.read(lambda connection: connection.execute(oldest).fetchone())[0] or first) < first:
            self.store.write(lambda connection: _delete_before(connection, first))
            self.store.checkpoint("PASSIVE", 0.0)

    def close(self) -> None:
        """Move the log into the database and close every connection; closing twice is harmless."""
        self.store.close()


def _engine(key_provider: KeyProvider | None) -> Engine:
    if key_provider is None:
        return SqliteEngine()
    from xrec_sdk.store_encrypted import EncryptedEngine

    return EncryptedEngine(key_provider())


def _delete_before(connection: Connection, first: str) -> None:
    connection.execute(
        "DELETE FROM events WHERE id < ? AND NOT EXISTS"
        " (SELECT * FROM rows WHERE rows.kind = 'event' AND rows.id = events.id)",
        (first,),
    )
    connection.execute(
        "UPDATE queue SET kind = 'nop', id = '', epoch = 0, hlc_ms = 0, hlc_counter = 0, contact_ms = 0, purpose = '',"
        " body = '', shed_first = 0 WHERE seq IS NULL AND kind = 'event' AND id < ?",
        (first,),
    )
    connection.execute("UPDATE state SET erasures = erasures + 1")


def _check_count(name: str, count: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise UsageError(f"usage.{name}", f"{name} is {count!r}; expected a whole number from 1")
    return count


def _check_text(name: str, text: str) -> str:
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_TEXT or not _is_utf8(text):
        raise UsageError(f"usage.{name}", f"{name} is {text!r}; expected a text of 1 to {MAX_TEXT} characters")
    return text


def _is_utf8(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


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
