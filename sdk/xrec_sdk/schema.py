"""The tables of a profile, and the numbered steps that bring an older file to them."""

from __future__ import annotations

from collections.abc import Sequence

from xrec_sdk.errors import ProfileError
from xrec_sdk.store import Connection

APPLICATION_ID = 0x78726563

# events is what the user sees: place counts up with every event, at_ms is its time for ranking, claimed_ms what the app
# claimed where that differs. is_local marks events that were never queued for other devices. state.erasures counts up
# wherever an event that was read may be gone or otherwise; places may begin anew then. rows, queue and dead are the
# device's part of the sync protocol; standing holds what has no column. kept holds what the events up to a place mean
# to one bundle (taste_kept.py). vault has one row where the profile is sealed: its keys.
_STEPS: Sequence[Sequence[str]] = (
    (
        "CREATE TABLE events (place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at_ms INTEGER NOT NULL,"
        " event TEXT NOT NULL, item_id TEXT NOT NULL, device TEXT NOT NULL, value REAL, recommendation_id TEXT)",
        "CREATE INDEX events_in_time ON events (at_ms, id)",
        "CREATE TABLE changes (erasures INTEGER NOT NULL)",
        "INSERT INTO changes VALUES (0)",
    ),
    (
        "ALTER TABLE events ADD COLUMN claimed_ms INTEGER",
        "ALTER TABLE events ADD COLUMN contact_ms INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE events ADD COLUMN is_local INTEGER NOT NULL DEFAULT 1",
        "CREATE INDEX events_local ON events (id) WHERE is_local",
        "CREATE TABLE state (erasures INTEGER NOT NULL, personalise INTEGER NOT NULL DEFAULT 0,"
        " sync INTEGER NOT NULL DEFAULT 0, train INTEGER NOT NULL DEFAULT 0, analytics INTEGER NOT NULL DEFAULT 0,"
        " epoch INTEGER NOT NULL DEFAULT 1, contact_ms INTEGER NOT NULL DEFAULT 0,"
        " last_dseq INTEGER NOT NULL DEFAULT 0, acked INTEGER NOT NULL DEFAULT 0, hlc_ms INTEGER NOT NULL DEFAULT 0,"
        " hlc_counter INTEGER NOT NULL DEFAULT 0, standing TEXT NOT NULL DEFAULT '{}',"
        " policies TEXT NOT NULL DEFAULT '{}')",
        "INSERT INTO state (erasures) SELECT erasures FROM changes",
        "DROP TABLE changes",
        "CREATE TABLE rows (kind TEXT NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL, epoch INTEGER NOT NULL,"
        " hlc_ms INTEGER NOT NULL, hlc_counter INTEGER NOT NULL, device TEXT NOT NULL, dseq INTEGER NOT NULL,"
        " order_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, id))"
        " WITHOUT ROWID",
        "CREATE TABLE queue (dseq INTEGER PRIMARY KEY, seq INTEGER, kind TEXT NOT NULL, id TEXT NOT NULL,"
        " epoch INTEGER NOT NULL, hlc_ms INTEGER NOT NULL, hlc_counter INTEGER NOT NULL, contact_ms INTEGER NOT NULL,"
        " purpose TEXT NOT NULL, body TEXT NOT NULL, shed_first INTEGER NOT NULL DEFAULT 0)",
        # shed_first: 2 a view, 1 another event, 0 what is never shed.
        "CREATE INDEX queue_unsent ON queue (shed_first, dseq) WHERE seq IS NULL AND kind <> 'nop'",
        "CREATE INDEX queue_words ON queue (kind) WHERE kind IN ('consent', 'erase')",
        "CREATE TABLE dead (place INTEGER PRIMARY KEY, code TEXT NOT NULL, dseq INTEGER NOT NULL, kind TEXT NOT NULL,"
        " id TEXT NOT NULL, epoch INTEGER NOT NULL, hlc_ms INTEGER NOT NULL, hlc_counter INTEGER NOT NULL,"
        " contact_ms INTEGER NOT NULL, purpose TEXT NOT NULL, body TEXT NOT NULL)",
    ),
    (
        "CREATE TABLE kept (bundle TEXT NOT NULL, erasures INTEGER NOT NULL, place INTEGER NOT NULL,"
        " content BLOB NOT NULL)",
        "CREATE TRIGGER kept_until_an_erasure AFTER UPDATE OF erasures ON state WHEN new.erasures <> old.erasures"
        " BEGIN DELETE FROM kept; END",
    ),
    ("CREATE TABLE vault (body TEXT NOT NULL)",),
)
VERSION = len(_STEPS)


def version_of(connection: Connection) -> int:
    """Return the schema of the file, 0 of an empty one; ProfileError where it is no profile or a newer one."""
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or version or tables):
        raise ProfileError("profile.not_a_profile", "the file is a SQLite database, but not a profile of xrec")
    if version > VERSION:
        raise ProfileError("profile.newer", f"the profile has schema {version}; this SDK knows {VERSION}")
    return version


def migrate(connection: Connection) -> None:
    """Bring the file to this SDK's schema, within the transaction of the caller."""
    for step in _STEPS[version_of(connection) :]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={VERSION}")
