"""How much the profile server takes: pushes of 20 events from a client in another process, and idle long polls.

    python benchmarks/server_load.py [--database URL --ledger URL] [--out FILE]

The client is asyncio over plain sockets, with every push made before the clock starts; it checks each answer, and that
the server holds every event that was acknowledged. Both share the cores of one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from xrec_server.development import make_keys, make_token

EVENTS = 20


@dataclass
class Pushed:
    """What one client process saw."""

    events: int
    seconds: float
    latencies_ms: list[float]
    cpu_s: float


class Server:
    """`xrec-server serve` on files of its own, or on the database that is named."""

    def __init__(self, folder: Path, database: str, ledger: str, synchronous: str, port: int = 0) -> None:
        paths = make_keys(folder / "dev")
        words = [sys.executable, "-c", "from xrec_server.cli import main; main()", "serve", "--port", str(port)]
        words += ["--database", database, "--ledger", ledger, "--keys", str(paths["keys"])]
        words += ["--secret", str(paths["secret"]), "--events-per-minute", "100000000", "--synchronous", synchronous]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout
        self.port: int = json.loads(self.process.stdout.readline())["port"]

    def cpu_s(self) -> float:
        """Return the processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        """Return its resident memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

    def stop(self) -> None:
        """Stop it in peace."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


async def ask(reader: Any, writer: Any, head: bytes, body: bytes = b"") -> bytes:
    """Send one request over an open connection and return the body of its answer."""
    writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
    fields = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in fields[:20], fields[:200]
    length = next(line for line in fields.lower().split(b"\r\n") if line.startswith(b"content-length"))
    answer: bytes = await reader.readexactly(int(length.split(b":")[1]))
    return answer


def head(method: str, path: str, token: str) -> bytes:
    """Return a request's first lines."""
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n".encode()


def operations(first: int, now_ms: int) -> list[dict[str, Any]]:
    """Return 20 events, as a phone says them."""
    said = []
    for place in range(EVENTS):
        id = str(uuid.uuid4())
        body = {"id": id, "at_ms": now_ms, "event": "view", "item_id": f"sku-{place % 7}", "device": "phone"}
        common = {"epoch": 1, "hlc": [now_ms, place], "contact_ms": now_ms, "purpose": "personalise"}
        said.append({"dseq": first + place, "kind": "event", "id": id, **common, "body": json.dumps(body)})
    return said


async def user(port: int, token: str, pushes: int, gate: asyncio.Event, latencies_ms: list[float]) -> int:
    """Join, make every push, wait for the gate, push, and check that all is held; return the number of events."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asked = json.dumps({"v": 1, "device": "", "checked": 0, "generation": 1, "floor": 0}).encode()
    device = json.loads(await ask(reader, writer, head("POST", "/v1/profile/register", token), asked))["device"]
    now_ms = time.time_ns() // 1_000_000
    path = head("POST", "/v1/profile/push", token)
    common = {"v": 1, "device": device, "generation": 1, "checked": 0}
    grant = {"epoch": 1, "hlc": [now_ms, 0], "contact_ms": now_ms, "purpose": "sync", "kind": "consent"}
    word = json.dumps({"granted": True, "policy": "1"})
    grants = [{**grant, "dseq": at, "id": id, "body": word} for at, id in enumerate(("sync", "personalise"), 1)]
    await ask(reader, writer, path, json.dumps({**common, "first": 1, "ops": grants}).encode())
    firsts = range(3, 3 + pushes * EVENTS, EVENTS)
    bodies = [json.dumps({**common, "first": first, "ops": operations(first, now_ms)}).encode() for first in firsts]
    gate_passed = gate.wait()
    await gate_passed
    for first, body in zip(firsts, bodies, strict=True):
        began = time.perf_counter()
        answer = await ask(reader, writer, path, body)
        latencies_ms.append((time.perf_counter() - began) * 1e3)
        assert b'"high_water":%d,' % (first + EVENTS - 1) in answer and b'"code":null' in answer
    export = json.loads(await ask(reader, writer, head("GET", "/v1/profile/export", token)))
    assert sum(row["kind"] == "event" for row in export["rows"]) == pushes * EVENTS
    writer.close()
    return pushes * EVENTS


def client(ports: list[int], tokens: list[str], pushes: int, ready: Any, start: Any, results: Any) -> None:
    """Push for each token over a connection of its own, all at once."""

    async def run() -> None:
        gate, latencies_ms = asyncio.Event(), list[float]()
        users = [
            asyncio.create_task(user(ports[at % len(ports)], token, pushes, gate, latencies_ms))
            for at, token in enumerate(tokens)
        ]
        await asyncio.sleep(0)
        while not all_waiting(gate, len(users)):
            await asyncio.sleep(0.05)
        ready.set()
        await asyncio.to_thread(start.wait)
        cpu_s, began = time.process_time(), time.perf_counter()
        gate.set()
        while len(latencies_ms) < len(users) * pushes:
            await asyncio.sleep(0.005)
            for one in users:
                if one.done():
                    one.result()
        seconds = time.perf_counter() - began
        used_s = time.process_time() - cpu_s
        events = sum(await asyncio.gather(*users))
        results.put(Pushed(events, seconds, latencies_ms, used_s))

    asyncio.run(run())


def all_waiting(gate: asyncio.Event, users: int) -> bool:
    """Return whether every user has made its pushes."""
    return len(gate._waiters) == users  # type: ignore[attr-defined]


def push_load(servers: list[Server], folder: Path, users: int, pushes: int) -> tuple[Pushed, float]:
    """Return what the client saw, and the processor time of the servers meanwhile."""
    context = get_context("spawn")
    ready, start, results = context.Event(), context.Event(), context.Queue()
    tokens = [make_token(folder / "dev", f"user {number} of {uuid.uuid4()}") for number in range(users)]
    ports = [server.port for server in servers]
    process = context.Process(target=client, args=(ports, tokens, pushes, ready, start, results))
    process.start()
    assert ready.wait(600)
    used_s = sum(server.cpu_s() for server in servers)
    start.set()
    pushed: Pushed = results.get(timeout=600)
    used_s = sum(server.cpu_s() for server in servers) - used_s
    process.join()
    return pushed, used_s


async def poll(port: int, token: str) -> Any:
    """Join and ask for changes that do not come; return the open connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asked = json.dumps({"v": 1, "device": "", "checked": 0, "generation": 1, "floor": 0}).encode()
    device = json.loads(await ask(reader, writer, head("POST", "/v1/profile/register", token), asked))["device"]
    path = f"/v1/profile/changes?device={device}&generation=1&after=0&wait=55"
    writer.write(head("GET", path, token) + b"\r\n")
    return reader, writer


async def long_polls(server: Server, folder: Path, count: int) -> tuple[float, float]:
    """Return the megabytes that long polls take, and the processor time of ten idle seconds, as a share of a core."""
    tokens = [make_token(folder / "dev", f"poll {number}") for number in range(count)]
    warm = [await poll(server.port, token) for token in tokens[:10]]
    before_mb = server.resident_mb()
    opened = [await poll(server.port, token) for token in tokens[10:]]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    while b"xrec_long_polls %d\n" % count not in await ask(reader, writer, head("GET", "/metrics", "x")):
        await asyncio.sleep(0.1)
    after_mb, used_s = server.resident_mb(), server.cpu_s()
    await asyncio.sleep(10)
    used_s = server.cpu_s() - used_s
    for _, one in [*warm, *opened, (reader, writer)]:
        one.close()
    return after_mb - before_mb, used_s / 10


def report(name: str, pushed: Pushed, used_s: float) -> str:
    """Return a line of figures."""
    ordered = statistics.quantiles(pushed.latencies_ms, n=100)
    pushes = len(pushed.latencies_ms)
    return (
        f"{name:34} {pushed.events / pushed.seconds:8,.0f} events/s   p50 {ordered[49]:6.1f} ms   "
        f"p99 {ordered[98]:6.1f} ms   server {used_s / pushes * 1e3:5.2f} ms CPU a push, "
        f"client {pushed.cpu_s / pushes * 1e3:5.2f}"
    )


def machine() -> str:
    """Return what this ran on."""
    cpu = next(
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    )
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, {cpu}; Python {platform.python_version()}; load {load:.1f} as it began"


def main() -> None:
    """Measure, print, and write the figures down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", help="PostgreSQL URL.  [default: SQLite files, FULL and NORMAL]")
    parser.add_argument("--ledger", default="", help="PostgreSQL URL of the ledger.")
    parser.add_argument("--processes", type=int, default=1, help="Server processes (PostgreSQL).")
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--pushes", type=int, default=150, help="Pushes of each user.")
    parser.add_argument("--polls", type=int, default=1_000)
    parser.add_argument("--note", default="", help="What else ran on the machine.")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    lines = [
        f"# {machine()}. {given.note}",
        f"# {given.users} users push {EVENTS} events at a time, {given.pushes} times each",
    ]
    kinds = ["FULL"] if given.database else ["FULL", "NORMAL"]
    for kind in kinds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            database, ledger = given.database or str(folder / "p.db"), given.ledger or str(folder / "l.db")
            servers = [Server(folder, database, ledger, kind) for _ in range(given.processes)]
            push_load(servers, folder, given.users, 5)
            label = f"PostgreSQL, {given.processes} processes" if given.database else f"SQLite, synchronous={kind}"
            lines.append(report(label, *push_load(servers, folder, given.users, given.pushes)))
            print(lines[-1], flush=True)
            for server in servers:
                server.stop()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(folder, given.database or str(folder / "p.db"), given.ledger or str(folder / "l.db"), "FULL")
        size_mb, share = asyncio.run(long_polls(server, folder, given.polls))
        lines.append(f"{given.polls} idle long polls take {size_mb:.1f} MB and {share:.1%} of a core")
        print(lines[-1])
        server.stop()
    if given.out:
        with given.out.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
