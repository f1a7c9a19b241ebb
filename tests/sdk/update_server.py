"""A folder over HTTP on loopback, with ranges, and with faults that a test sets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class Served:
    """What was asked of the server, as (path, first byte), and what it does wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, int]] = []
        self.cut_targets_after: int | None = None
        self.knows_ranges = True
        self.url = ""


@contextmanager
def serve(folder: Path) -> Iterator[Served]:
    """Serve ``folder`` until the block ends."""
    served = Served(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = served.folder / unquote(self.path).lstrip("/")
            begin = int(self.headers.get("Range", "bytes=0-")[6:-1]) if served.knows_ranges else 0
            served.asked.append((unquote(self.path), begin))
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()[begin:]
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if served.cut_targets_after is not None and "targets/" in self.path:
                content = content[: served.cut_targets_after]
            self.wfile.write(content)

        def log_message(self, *words: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
