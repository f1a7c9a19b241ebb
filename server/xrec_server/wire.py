"""Bytes in, bytes out: a request's body is read within its bounds and decoded, an answer is encoded and compressed."""

from __future__ import annotations

import gzip
import zlib
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from xrec_sdk import sync

from xrec_server.errors import Refused

T = TypeVar("T")
GZIP_FROM_BYTES = 1_024
_encoder = msgspec.json.Encoder()


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return a body, inflated; Refused with 413 where it is longer than ``max_bytes`` before or after."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise Refused(415, "server.encoding", f"Content-Encoding is {encoding[:32]!r}; expected gzip or none")
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:18]) > max_bytes:
        raise _too_large(max_bytes)
    parts, length = [], 0
    try:
        async for part in request.stream():
            length += len(part)
            if length > max_bytes:
                raise _too_large(max_bytes)
            parts.append(part)
    except ClientDisconnect:
        raise Refused(400, "server.disconnected", "the client went away before its body had come") from None
    body = b"".join(parts)
    return inflate(body, max_bytes) if encoding == "gzip" else body


def inflate(body: bytes, max_bytes: int) -> bytes:
    """Return a gzip body inflated, never more than ``max_bytes``; Refused where it is longer, cut or malformed."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        inflated = inflater.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise Refused(400, sync.MALFORMED, f"the body is not gzip: {error}") from error
    if len(inflated) > max_bytes:
        raise _too_large(max_bytes)
    if not inflater.eof or inflater.unused_data:
        raise Refused(400, sync.MALFORMED, "the gzip body is cut, or more follows it")
    return inflated


def _too_large(max_bytes: int) -> Refused:
    return Refused(413, sync.TOO_LARGE, f"the body is longer than {max_bytes} bytes: send less at a time")


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Return the message of a body; Refused with 400 where it is not one."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # msgspec names the place, and never the value.
        raise Refused(400, sync.MALFORMED, f"the body is not the JSON that was expected: {error}") from error


def answer(
    request: Request,
    value: Any,
    *,
    status: int = 200,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a value as JSON, compressed from 1 kB on where the client takes gzip; ``code`` is for the log."""
    if code:
        request.scope["xrec.code"] = code
    body, headers = _encoder.encode(value), {"Cache-Control": "no-store", **(headers or {})}
    if len(body) >= GZIP_FROM_BYTES:
        headers["Vary"] = "Accept-Encoding"
        if "gzip" in request.headers.get("accept-encoding", ""):
            body = gzip.compress(body, compresslevel=1, mtime=0)
            headers["Content-Encoding"] = "gzip"
    return Response(body, status, headers, media_type="application/json")


def refusal(request: Request, refused: Refused) -> Response:
    """Return what a refused request is told: its code, and the message."""
    headers = {} if refused.retry_after_s is None else {"Retry-After": str(refused.retry_after_s)}
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = {"code": refused.code, "message": str(refused)}
    return answer(request, body, status=refused.status, code=refused.code, headers=headers)
