"""SQLite3 Multiple Ciphers behind the store's seam: every page of the file and of its log is ChaCha20-Poly1305.

Needs the extra ``encrypted`` (apsw-sqlite3mc). The key is 32 random bytes as they are: nothing is derived from a
passphrase, which would take 155 ms at every opening.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from xrec_sdk.errors import ProfileError, UsageError
from xrec_sdk.store import IN_MEMORY, Connection

KEY_BYTES = 32

KeyProvider = Callable[[], bytes]
"""Gives the profile's key, 32 random bytes, from wherever the system keeps secrets; asked once at each opening."""


class EncryptedEngine:
    """SQLite3 Multiple Ciphers with a key; the key stays in memory while the profile is open."""

    name = "apsw-sqlite3mc"

    def __init__(self, key: bytes) -> None:
        try:
            import apsw
        except ImportError as missing:
            message = "an encrypted profile needs apsw-sqlite3mc; pip install 'xrec[encrypted]'"
            raise UsageError("usage.extra_missing", message) from missing
        if not hasattr(apsw, "mc_version"):
            message = "the apsw that is installed does not encrypt; pip install 'xrec[encrypted]' in its place"
            raise UsageError("usage.extra_missing", message)
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            found = f"{len(key)} bytes" if isinstance(key, bytes) else type(key).__name__
            raise ProfileError("profile.key", f"the key is {found}; expected {KEY_BYTES} random bytes")
        self._apsw = apsw
        self._key = key
        self.version: str = apsw.sqlite_lib_version()
        self.errors: tuple[type[Exception], ...] = (apsw.Error,)

    def connect(self, path: str, busy_timeout_s: float) -> Connection:
        """Open the database at ``path`` with the key; what stays in memory needs none."""
        connection = self._apsw.Connection(path)
        connection.set_busy_timeout(int(busy_timeout_s * 1000))
        if path == IN_MEMORY:
            return cast(Connection, connection)
        try:
            connection.execute("PRAGMA cipher='chacha20'").fetchall()
            connection.execute(f"PRAGMA key=\"x'{self._key.hex()}'\"").fetchall()
        except BaseException:
            connection.close()
            raise
        return cast(Connection, connection)
