"""Real device processes against real server processes over a bad network, killed now and then; then compared.

    python tests/e2e/chaos.py --events 10000 --devices 3 --seed 1
    python tests/e2e/chaos.py --events 10000 --devices 3 --seed 1 --postgres --servers 2

A profile holds 5,000 events: after each 4,000 at most the devices are compared and all is erased everywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xrec_server.development import make_keys

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
sys.path.insert(0, str(Path(__file__).parent))
from places import PostgresPlace, SqlitePlace
from proxy import ChaosProxy

WITHIN_S = 120
MOST_EVENTS = 4_000


class ServerProcess:
    """`xrec-server serve` on one port, killed and started as often as asked."""

    def __init__(self, folder: Path, database: str, ledger: str) -> None:
        paths = make_keys(folder / "keys")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._words = [sys.executable, "-c", "from xrec_server.cli import main; main()", "serve"]
        self._words += ["--port", str(self.port), "--events-per-minute", "1000000"]
        self._words += ["--database", database, "--ledger", ledger]
        self._words += ["--keys", str(paths["keys"]), "--secret", str(paths["secret"])]
        self._log = folder / f"server-{self.port}.log"
        self.start()

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._words, stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout and self.process.stdout.readline(), self._log.read_text()

    def kill(self) -> None:
        """End it as kill -9 does."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=WITHIN_S)


class DeviceProcess:
    """A device of the user, which outlives its process."""

    def __init__(self, folder: Path, name: str, url: str) -> None:
        self.name, self.profile = name, folder / f"{name}.db"
        script = Path(__file__).parent / "device.py"
        self._words = [sys.executable, str(script), str(self.profile), url, str(folder / "keys"), "anna"]
        self._log = folder / "devices.log"
        self.start()

    def start(self) -> None:
        """Start its process."""
        with self._log.open("ab") as log:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(self._words, stdin=pipe, stdout=pipe, stderr=log, text=True)

    def ask(self, **asked: Any) -> Any:
        """Tell it to do something and return its answer."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self._log.read_text()
        return json.loads(line)

    def kill(self) -> None:
        """End its process as kill -9 does."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=WITHIN_S)

    def close(self) -> None:
        """End its process as an app does."""
        self.process.communicate(timeout=WITHIN_S)
        assert self.process.returncode == 0, self._log.read_text()


@dataclass(frozen=True)
class Setting:
    """What is run: how many events on how many devices, by what server processes, and whether these are killed."""

    events: int
    devices: int
    servers: int = 1
    is_postgres: bool = False
    is_killing: bool = True


def run(folder: Path, seed: int, setting: Setting) -> Counter[str]:
    """Let bad things happen, compare and erase until all events are recorded; AssertionError where a promise breaks."""
    luck, place = random.Random(seed), (PostgresPlace if setting.is_postgres else SqlitePlace)(folder)
    servers = [ServerProcess(folder, *place.address()) for _ in range(setting.servers)]
    proxy = ChaosProxy([server.port for server in servers], seed)
    url = f"http://127.0.0.1:{proxy.port}"
    phones = [DeviceProcess(folder, f"device-{number}", url) for number in range(setting.devices)]
    counts: Counter[str] = Counter()
    try:
        while counts["events"] < setting.events:
            wanted = min(MOST_EVENTS, setting.events - counts["events"])
            counts["events"] += once(luck, servers, phones, proxy, wanted, setting.is_killing, counts)
            counts["times compared and erased"] += 1
        counts.update({f"connections {fate}": count for fate, count in proxy.counts.items()})
    finally:
        for phone in phones:
            phone.close()
        proxy.close()
        for server in servers:
            server.kill()
    left = [path.name for path in folder.glob("device-*") if b"SECRET" in path.read_bytes()]
    assert not left, f"erased bytes are left in {left}"
    return counts


def once(
    luck: random.Random,
    servers: list[ServerProcess],
    phones: list[DeviceProcess],
    proxy: ChaosProxy,
    wanted: int,
    is_killing: bool,
    counts: Counter[str],
) -> int:
    """Record, compare, and erase everywhere; return how many events were recorded."""
    proxy.is_calm, killed = False, counts["devices killed"]
    recorded = misfortunes(luck, servers if is_killing else [], phones, wanted, counts)
    proxy.calm()
    seen = [event[0] for event in settle(phones, proxy)[0]["events"]]
    assert set(seen) >= recorded, f"{len(recorded - set(seen))} events are lost"
    assert len(seen) == len(set(seen)) and len(seen) <= len(recorded) + counts["devices killed"] - killed
    proxy.is_calm = False
    erase(luck, phones, proxy)
    return len(recorded)


def misfortunes(
    luck: random.Random, servers: list[ServerProcess], phones: list[DeviceProcess], wanted: int, counts: Counter[str]
) -> set[str]:
    """Record on all devices while servers and they are killed; return the ids that `record()` returned."""
    recorded: set[str] = set()

    def record(times: int) -> None:
        for _ in range(times):
            phone = luck.choice(phones)
            count = min(luck.randint(1, 8), wanted - len(recorded))
            recorded.update(phone.ask(do="record", item=f"SECRET-{phone.name}", count=count))
            time.sleep(luck.uniform(0, 0.05))

    while len(recorded) < wanted:
        record(20)
        if servers:
            server = luck.choice(servers)
            server.kill()
            record(3)
            server.start()
            counts["servers killed"] += 1
        record(20)
        phone = luck.choice(phones)
        phone.kill()
        phone.start()
        counts["devices killed"] += 1
    return recorded


def settle(phones: list[DeviceProcess], proxy: ChaosProxy) -> list[Any]:
    """Wait until all devices have nothing to say and hold the same, and return how they stand."""
    end = time.monotonic() + WITHIN_S
    while True:
        said = [phone.ask(do="status") for phone in phones]
        is_quiet = all(one["state"] == "up_to_date" and one["queued"] == 0 for one in said)
        if (
            is_quiet
            and len({one["digest"] for one in said}) == 1
            and all(one["events"] == said[0]["events"] for one in said)
        ):
            assert not any(one["diverged"] for one in said)
            return said
        short = [{**one, "events": len(one["events"])} for one in said]
        assert time.monotonic() < end, f"not settled: {short} {proxy.counts}"
        time.sleep(0.05)


def erase(luck: random.Random, phones: list[DeviceProcess], proxy: ChaosProxy) -> None:
    """Erase everything on one device while the network is bad; it must reach all."""
    epoch = phones[0].ask(do="status")["epoch"]
    luck.choice(phones).ask(do="forget")
    time.sleep(0.5)
    proxy.calm()
    end = time.monotonic() + WITHIN_S
    while any(one["events"] or one["epoch"] != epoch + 1 for one in settle(phones, proxy)):
        assert time.monotonic() < end, "the erasure did not reach all"
        time.sleep(0.05)


def main() -> None:
    """Run once and say what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("--servers", type=int, default=1, help="processes over one database; SQLite has one")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--servers-stay", action="store_true", help="kill devices only")
    given = parser.parse_args()
    setting = Setting(given.events, given.devices, given.servers, given.postgres, not given.servers_stay)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = run(Path(folder), given.seed, setting)
    for name, count in sorted(counts.items()):
        print(f"{count:7,} {name}")
    print(f"seed {given.seed}, {setting}, {time.monotonic() - began:.0f} s: all equal, nothing lost, erased everywhere")


if __name__ == "__main__":
    main()
