"""What is written down of a request: route, method, status, code and time; never a body, an id or an address."""

from __future__ import annotations

import json
import logging
import time
import traceback
from datetime import datetime, timezone
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xrec_server.metrics import Metrics

_log = logging.getLogger("xrec_server")
_METHODS = ("GET", "POST", "DELETE", "OPTIONS", "HEAD")
_FAILED = b'{"code":"server.error","message":"the server failed; its log says where"}'


class Observed:
    """An ASGI application, each request of it counted, timed and logged; an exception becomes a 500 with a code."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start_s, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            _log.error("failed", extra={"fields": {"error": type(error).__name__, "where": _where(error)}})
            if not status:
                await _fail(watched)
        finally:
            self._note(scope, status, time.perf_counter() - start_s)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.metrics.count("xrec_requests_total", route=route, method=method, status=str(status))
        self.metrics.time("xrec_request_seconds", seconds, route=route)
        fields = {"route": route, "method": method, "status": status, "ms": round(seconds * 1e3, 1)}
        if scope.get("xrec.code"):
            self.metrics.count("xrec_answers_total", code=scope["xrec.code"])
            fields["code"] = scope["xrec.code"]
        _log.info("request", extra={"fields": fields})


async def _fail(send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_FAILED))]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": _FAILED})


def _where(error: BaseException) -> list[str]:
    """Return file:line of the frames: what an exception says may hold what a user sent."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames]


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; of an exception its type and place, without what it says."""
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"at": at, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1]:
            line |= {"error": type(record.exc_info[1]).__name__, "where": _where(record.exc_info[1])}
        return json.dumps(line)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the records of this package and of uvicorn to standard error, as lines of JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name, lowest in (("xrec_server", level), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(lowest)
