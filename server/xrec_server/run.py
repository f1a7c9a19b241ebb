"""Run the application in uvicorn: one process, stopped by a signal only when all that it was asked is answered."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import closing

import uvicorn

from xrec_server.app import build
from xrec_server.bell import Bell
from xrec_server.errors import ServerError
from xrec_server.observe import log_to_stderr
from xrec_server.service import Service
from xrec_server.settings import Settings
from xrec_server.stores import open_store
from xrec_server.upkeep import restore_all

GRACE_S = 30


class Server(uvicorn.Server):
    """uvicorn's, which wakes the long polls before it waits for its connections."""

    def __init__(self, config: uvicorn.Config, bell: Bell) -> None:
        super().__init__(config)
        self.bell = bell

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer everybody, then stop."""
        self.bell.close()
        await super().shutdown(sockets)


async def open_server(settings: Settings) -> Server:
    """Open the store and return a server, which closes it when it stops."""
    bell = Bell()
    store = await open_store(settings.database, settings.ledger, bell, synchronous=settings.synchronous)
    try:
        app = build(settings, store, bell)
    except BaseException:
        await store.close()
        raise
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
    return Server(config, bell)


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. The one line of standard output is JSON with the address."""
    log_to_stderr()
    with closing(listen(host, port)) as listener:
        asyncio.run(_serve(settings, listener))


async def _serve(settings: Settings, listener: socket.socket) -> None:
    server = await open_server(settings)
    host, port = listener.getsockname()[:2]
    print(json.dumps({"event": "listening", "host": host, "port": port}), flush=True)
    await server.serve([listener])


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; ServerError where there can be none."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # asyncio sets TCP_NODELAY only where the protocol is named; without it each answer waits 40 ms for an ACK.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise ServerError("server.address", f"can't listen on {host}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2_048)
    except OSError as error:
        listener.close()
        raise ServerError("server.address", f"can't listen on {host} port {port}: {error}") from error
    return listener


async def restore(database: str, ledger: str) -> int:
    """Apply the ledger to a database restored from a backup; return how many profiles there are."""
    store = await open_store(database, ledger, Bell(), is_restoring=True)
    try:
        return await restore_all(Service(store))
    finally:
        await store.close()
