"""A PostgreSQL server of the tests' own, on a free port of the loopback; or the reason why there is none."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any


@cache
def start() -> tuple[int, str]:
    """Return the port of a running server and "", or 0 and why there is none; it stops when the process ends."""
    folder = _binaries()
    if folder is None:
        return 0, "no PostgreSQL server is installed (Debian: apt-get install postgresql)"
    try:
        user = pwd.getpwnam("postgres") if os.getuid() == 0 else None
    except KeyError:
        return 0, "PostgreSQL does not run as root, and there is no user postgres"
    data = Path(tempfile.mkdtemp(prefix="xrec-postgres-"))
    if user:
        os.chown(data, user.pw_uid, user.pw_gid)
    who: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if user else {}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {data} -c fsync=off"
    for words in (
        [folder / "initdb", "-D", data / "db", "-A", "trust", "-U", "xrec", "-E", "UTF8", "--locale=C.UTF-8"],
        [folder / "pg_ctl", "-D", data / "db", "-w", "-l", data / "log", "-o", options, "start"],
    ):
        done = subprocess.run(words, capture_output=True, text=True, cwd=data, **who)
        if done.returncode:
            shutil.rmtree(data, ignore_errors=True)
            return 0, f"PostgreSQL does not start: {(done.stderr or done.stdout)[-300:]}"
    atexit.register(_stop, folder, data, who)
    return port, ""


def _stop(folder: Path, data: Path, who: dict[str, Any]) -> None:
    words = [folder / "pg_ctl", "-D", data / "db", "-m", "immediate", "stop"]
    subprocess.run(words, capture_output=True, cwd=data, **who)
    shutil.rmtree(data, ignore_errors=True)


def _binaries() -> Path | None:
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which("pg_ctl")
    for folder in [*([Path(found).resolve().parent] if found else []), *reversed(packaged)]:
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    return None


def run(port: int, program: str, *words: str) -> None:
    """Run one of PostgreSQL's programs against the server."""
    folder = _binaries()
    assert folder
    command = [folder / program, "-h", "127.0.0.1", "-p", str(port), "-U", "xrec", *words]
    subprocess.run(command, check=True, capture_output=True)
