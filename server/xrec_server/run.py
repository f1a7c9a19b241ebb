"""Run the application in uvicorn: one process, stopped by a signal only when all that it was asked is answered."""

from __future__ import annotations

import json
import socket

import uvicorn

from xrec_server.app import build
from xrec_server.errors import ServerError
from xrec_server.settings import Settings

GRACE_S = 30


class _Server(uvicorn.Server):
    """uvicorn's, which wakes the long polls before it waits for its connections."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.bell.close()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def run(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. The first line of standard output is JSON with the address."""
    app = build(settings)
    config = uvicorn.Config(
        app,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_S,
    )
    listener = _listen(host, port, config.backlog)
    address = {"event": "listening", "host": host, "port": listener.getsockname()[1]}
    print(json.dumps(address), flush=True)
    _Server(config).run([listener])


def _listen(host: str, port: int, backlog: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # asyncio sets TCP_NODELAY only where the protocol is named; without it each answer waits 40 ms for an ACK.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError as error:
        raise ServerError("server.address", f"can't listen on {host} port {port}: {error}") from error
    return listener
