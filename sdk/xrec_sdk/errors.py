"""The errors of xrec, by what the caller would do differently.

    XrecError
    ├── UsageError        an argument is wrong: fix the call
    ├── DataError         an input file or a configuration is wrong: fix the file
    ├── BundleError       a bundle can't be used: keep the previous one
    │   ├── BundleDamaged     bytes are missing, changed or malformed: fetch it again
    │   ├── BundleUntrusted   not signed by a pinned key, or older than the floor: never use it
    │   └── BundleUnsupported made for another format or a newer SDK: update the app
    ├── ProfileError      the local profile can't be opened or written
    └── GateError         a release misses a declared tolerance: don't ship it

Each error has a stable ``code`` such as ``bundle.hash_mismatch``, which all bindings share; docs/errors.md lists them.
"""

from __future__ import annotations


class XrecError(Exception):
    """Base of every error that xrec raises on purpose; ``code`` is stable across releases and languages."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[XrecError], tuple[str, str]]:
        return type(self), (self.code, str(self))


class UsageError(XrecError):
    """An argument is wrong; the call must be fixed."""


class DataError(XrecError):
    """An input file or a configuration is wrong; the file must be fixed."""


class BundleError(XrecError):
    """A bundle can't be used; keep the previous one."""


class BundleDamaged(BundleError):
    """Bytes of the bundle are missing, changed or malformed; fetch it again."""


class BundleUntrusted(BundleError):
    """The bundle is not signed by a pinned key, or older than the newest that was loaded; never use it."""


class BundleUnsupported(BundleError):
    """The bundle is of another format version or needs a newer SDK; update the app."""


class ProfileError(XrecError):
    """The local profile can't be opened, read or written."""


class GateError(XrecError):
    """A release misses a declared tolerance; it must not ship."""
