"""The network, all of it: one connection to the sync server, bounded in bytes and time, that another thread may cut.

Needs the extra ``sync`` (urllib3), which is loaded when the first request is made.
"""

from __future__ import annotations

import gzip
import json
import socket
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from xrec_sdk.errors import UsageError
from xrec_sdk.sync import LIMITS, SyncError

GZIP_FROM_BYTES = 1_024
CONNECT_S = 10.0
ANSWER_S = 60.0
UNREACHABLE = "sync.unreachable"
UNAUTHORISED = "sync.unauthorised"
REFUSED = "sync.refused"
LOOPBACK = ("localhost", "127.0.0.1", "::1")

TokenProvider = Callable[[], str]
"""Gives the bearer token of the user; asked before the first request and whenever the server no longer takes it."""


class AskError(SyncError):
    """The server could not be asked or did not answer; ``retry_after_s`` is what it said about when to come again."""

    def __init__(self, code: str, message: str, status: int = 0, retry_after_s: float = 0.0) -> None:
        super().__init__(code, message)
        self.status = status
        self.retry_after_s = retry_after_s


def check_url(url: str) -> str:
    """Return the address without a slash at its end; UsageError unless it is https, or http to this machine."""
    parts = urlsplit(url)
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    if not is_safe or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise UsageError("usage.sync_url", f"the sync server is {url!r}; expected https://host, or http to localhost")
    return url.rstrip("/")


class Connection:
    """One connection at a time to the server at ``url``; one thread asks, any may :meth:`cut`."""

    def __init__(self, url: str, token_provider: TokenProvider) -> None:
        self._url = url
        self._token_provider = token_provider
        self._token = ""
        self._pool: Any = None
        self._socket: socket.socket | None = None

    def ask(self, method: str, path: str, body: bytes | None = None, wait_s: float = 0.0) -> bytes:
        """Return the body of a 200 or 204, inflated; AskError for anything else. ``wait_s`` is how long it may take."""
        if self._token:
            try:
                return self._ask(method, path, body, wait_s)
            except AskError as refused:
                if refused.status != 401:
                    raise
        self._token = self._fresh_token()
        return self._ask(method, path, body, wait_s)

    def _fresh_token(self) -> str:
        try:
            token = self._token_provider()
        except Exception as cause:
            raise AskError(UNAUTHORISED, f"the token provider failed: {type(cause).__name__}") from cause
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise AskError(UNAUTHORISED, "the token provider gave no token")
        return token

    def _ask(self, method: str, path: str, body: bytes | None, wait_s: float) -> bytes:
        import urllib3

        if self._pool is None:
            self._pool = _pool(self._url, self._opened)
        headers = {"Authorization": f"Bearer {self._token}", "Accept-Encoding": "gzip"}
        if body is not None:
            headers["Content-Type"] = "application/json"
            if len(body) >= GZIP_FROM_BYTES:
                body, headers["Content-Encoding"] = gzip.compress(body, compresslevel=1, mtime=0), "gzip"
        try:
            answer = self._pool.urlopen(
                method,
                urlsplit(self._url).path + path,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=wait_s + ANSWER_S / 2),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            try:
                is_gzip = answer.headers.get("Content-Encoding", "identity").lower() == "gzip"
                read = _bounded(answer.stream(65_536, decode_content=False), is_gzip)
            except BaseException:
                answer.close()
                raise
            answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as cause:
            raise AskError(UNREACHABLE, f"the sync server can't be reached: {type(cause).__name__}") from cause
        if answer.status not in (200, 204):
            raise _refusal(answer.status, answer.headers.get("Retry-After", ""), read)
        return read

    def _opened(self, opened: socket.socket) -> None:
        self._socket = opened

    def cut(self) -> None:
        """End whatever request is under way, from any thread; it fails as unreachable."""
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it was closed already

    def close(self) -> None:
        """Close the connection."""
        if self._pool is not None:
            self._pool.close()


def _pool(url: str, opened: Callable[[socket.socket], None]) -> Any:
    import urllib3

    pool = urllib3.connection_from_url(url, maxsize=1, retries=False)
    plain: Any = pool.ConnectionCls

    class Watched(plain):  # type: ignore[misc]
        def connect(self) -> None:
            super().connect()
            opened(self.sock)

    pool.ConnectionCls = Watched
    return pool


def _bounded(parts: Iterable[bytes], is_gzip: bool) -> bytes:
    """Return what comes, inflated; AskError where it is too much or takes too long, ValueError where it is cut."""
    until = time.monotonic() + ANSWER_S
    inflater = zlib.decompressobj(wbits=31) if is_gzip else None
    read = bytearray()
    for part in parts:
        try:
            read += inflater.decompress(part, LIMITS.answer_bytes + 1 - len(read)) if inflater else part
        except zlib.error as cause:
            raise ValueError("the answer is not gzip") from cause
        if len(read) > LIMITS.answer_bytes or time.monotonic() > until:
            raise AskError(UNREACHABLE, f"the answer is longer than {LIMITS.answer_bytes} bytes or {ANSWER_S} s")
    if inflater and not inflater.eof:
        raise ValueError("the answer is cut")
    return bytes(read)


def _refusal(status: int, retry_after: str, body: bytes) -> AskError:
    try:
        code = str(json.loads(body)["code"])[:64]
    except (ValueError, KeyError, TypeError, RecursionError):
        code = REFUSED
    if status in (401, 403):
        code = UNAUTHORISED
    wait_s = float(retry_after) if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 7 else 0.0
    return AskError(code, f"the sync server answered with status {status}", status, wait_s)
