"""Look at what a server needs before it is started, or while it runs: libraries, files, keys, clock, free space."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from xrec_server.errors import ServerError
from xrec_server.identity import load_keys, load_secret
from xrec_server.schema import migrations
from xrec_server.store import refuse_a_backup

LIBRARIES = ("starlette", "msgspec", "uvicorn", "httptools", "joserfc")
LEAST_FREE_BYTES = 1 << 30
WAL_BUG_ENDS = (3, 51, 3)
MAX_AHEAD_MS = 300_000


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; a server can run well where none ``is_wrong``."""

    name: str
    found: str
    is_wrong: bool = False


def examine(database: str, ledger: str, keys: Path | None, secret: Path | None) -> list[Finding]:
    """Return what was found; nothing is written, and a server that runs is not disturbed."""
    found = [Finding("python", platform.python_version()), *map(_library, LIBRARIES), _sqlite()]
    if keys:
        found.append(_tried("keys", lambda: f"{len(load_keys(keys).keys)} public keys in {keys}"))
    if secret:
        found += [_tried("secret", lambda: f"{len(load_secret(secret))} bytes in {secret}"), *_readable(secret)]
    return [*found, *_files(Path(database), Path(ledger))]


def _library(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed; pip install 'xrec[server]'", is_wrong=True)


def _sqlite() -> Finding:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= WAL_BUG_ENDS:
        return Finding("sqlite", version)
    limit = "before 3.51.3 two writers can damage a WAL file: the server has one, so open the file read-only beside it"
    return Finding("sqlite", f"{version}; {limit}")


def _tried(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, look())
    except (ServerError, sqlite3.Error, OSError) as error:
        return Finding(name, str(error), is_wrong=True)


def _readable(secret: Path) -> Iterator[Finding]:
    if secret.exists() and secret.stat().st_mode & 0o077:
        yield Finding("secret mode", f"others can read {secret}: chmod 600 it", is_wrong=True)


def _files(database: Path, ledger: Path) -> Iterator[Finding]:
    yield _tried("database", lambda: _version(database, "sqlite"))
    yield _tried("ledger", lambda: _version(ledger, "ledger"))
    if database.exists() and ledger.exists():
        yield _tried("marks", lambda: _marks(database, ledger))
        yield _tried("clock", lambda: _clock(database))
    for name, path in (("database disk", database), ("ledger disk", ledger)):
        yield _disk(name, path)
    folders = [_folder(path) for path in (database, ledger)]
    if all(folder.exists() for folder in folders) and len({folder.stat().st_dev for folder in folders}) == 1:
        yield Finding("ledger apart", "the ledger is on the database's disk: one loss can take both; move it")


def _version(path: Path, folder: str) -> str:
    known = migrations(folder)[-1][0]
    if not path.exists():
        if not _folder(path).is_dir():
            raise ServerError("server.database", f"the folder of {path} is not there")
        return f"{path} is not there yet; `serve` makes it, version {known}"
    with closing(_read(path)) as file:
        (version,) = file.execute("PRAGMA user_version").fetchone()
        (mode,) = file.execute("PRAGMA journal_mode").fetchone()
    if version > known:
        raise ServerError("server.newer_database", f"{path} is of version {version}; this server knows {known}")
    waiting = "" if version == known else f", {known - version} migrations wait for `serve`"
    return f"{path}: version {version} of {known}{waiting}, journal {mode}"


def _marks(database: Path, ledger: Path) -> str:
    with closing(_read(ledger)) as file:
        (ledger_mark,) = file.execute("SELECT mark FROM mark").fetchone()
    with closing(_read(database)) as file:
        (database_mark,) = file.execute("SELECT mark FROM mark").fetchone()
        (profiles,) = file.execute("SELECT count(*) FROM profiles").fetchone()
    refuse_a_backup(ledger_mark, database_mark, has_profiles=profiles > 0)
    return f"database {database_mark}, ledger {ledger_mark}: they belong together; {profiles} profiles"


def _clock(database: Path) -> str:
    with closing(_read(database)) as file:
        (last_ms,) = file.execute("SELECT coalesce(max(contact_ms), 0) FROM devices").fetchone()
    ahead_ms = last_ms - time.time_ns() // 1_000_000
    if ahead_ms > MAX_AHEAD_MS:
        raise ServerError("server.clock", f"a device was heard {ahead_ms // 1000} s from now: set this machine's clock")
    return "no device was heard of in the future"


def _read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)


def _disk(name: str, path: Path) -> Finding:
    try:
        free = shutil.disk_usage(_folder(path)).free
    except OSError as error:
        return Finding(name, str(error), is_wrong=True)
    found = f"{free / 2**30:.1f} GiB free"
    if free < LEAST_FREE_BYTES:
        return Finding(name, f"{found}; at least 1 GiB is needed", is_wrong=True)
    return Finding(name, found)


def _folder(path: Path) -> Path:
    return path.absolute().parent
