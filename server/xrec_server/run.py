"""Run the application in uvicorn: one process, stopped by a signal only when all that it was asked is answered."""

from __future__ import annotations

import json
import socket

import uvicorn

from xrec_server.app import build
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
    listener = socket.create_server((host, port), backlog=config.backlog, reuse_port=False)
    address = {"event": "listening", "host": host, "port": listener.getsockname()[1]}
    print(json.dumps(address), flush=True)
    _Server(config).run([listener])
