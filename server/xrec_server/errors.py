"""What the server refuses: an HTTP status, a stable code, and what to do.

XrecError
├── ServerError  the server can't start or can't go on: the operator reads the message
└── Refused      one request is refused: the client reads the code
"""

from __future__ import annotations

from xrec_sdk.errors import XrecError


class ServerError(XrecError):
    """The server's own state is wrong: a setting, a key, a file or the database."""


class Refused(XrecError):
    """A request is refused with an HTTP ``status``; ``retry_after_s`` is when to come again, None for never."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(code, message)
        self.status = status
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[Refused], tuple[int, str, str, int | None]]:  # type: ignore[override]
        return type(self), (self.status, self.code, str(self), self.retry_after_s)
