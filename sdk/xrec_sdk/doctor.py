"""Look at a profile's file and at the SQLite under it, and say what is well and what is not."""

from __future__ import annotations

from typing import NamedTuple

from xrec_sdk.profile import Profile
from xrec_sdk.store import Connection

# https://sqlite.org/wal.html, "The WAL-reset bug": two connections that checkpoint at once can damage the file.
_WAL_RESET_MENDED = (3, 51, 3)


class Finding(NamedTuple):
    """One thing that was looked at; ``text`` says what was found and what is done about it."""

    name: str
    is_well: bool
    text: str


def doctor(profile: Profile) -> list[Finding]:
    """Return what is found of an open profile; reads the whole file, so not for every start."""
    store = profile.store
    checks = ("integrity_check", "journal_mode", "secure_delete")
    found = store.read(lambda connection: {name: _ask(connection, name) for name in checks})
    integrity = found["integrity_check"]
    return [
        _wal_reset(store.engine.name, store.engine.version),
        Finding("integrity", integrity == "ok", f"SQLite's integrity_check says {integrity!r}"),
        Finding(
            "log", found["journal_mode"] in ("wal", "memory"), f"the journal is {found['journal_mode']!r}; expected wal"
        ),
        Finding("erasure", found["secure_delete"] in ("1", "2"), "what is deleted is overwritten"),
        Finding("durability", True, _DURABILITIES[store.durability]),
    ]


def _ask(connection: Connection, name: str) -> str:
    return str(connection.execute(f"PRAGMA {name}").fetchall()[0][0])


_DURABILITIES = {
    "process": "an event survives the death of the process; a power cut may take the last second",
    "power": "an event survives a power cut",
}


def _wal_reset(name: str, version: str) -> Finding:
    if tuple(int(part) for part in version.split(".")) >= _WAL_RESET_MENDED:
        return Finding("sqlite", True, f"{name} {version} is free of the WAL-reset bug")
    return Finding(
        "sqlite",
        True,
        f"{name} {version} may have the WAL-reset bug (mended in 3.51.3), which this SDK avoids: automatic checkpoints"
        " are off, and it makes them one process at a time under a lock; no other program may write to the file",
    )
