"""A server that is killed in the midst of pushes loses nothing that it acknowledged and doubles nothing."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from served import Client, event, granted, settings, token

KILLS, DEVICES, OPS = 3, 3, 7
SEED = 20_261_124


class Process:
    """`xrec-server serve` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        given = settings(folder)
        words = [sys.executable, "-c", "from xrec_server.cli import main; main()", "serve", "--port", "0"]
        for name in ("database", "ledger", "keys", "secret"):
            words += [f"--{name}", str(getattr(given, name))]
        words += ["--events-per-minute", "1000000"]
        self.log = (folder / "server.log").open("ab")
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self.log)
        assert self.process.stdout
        self.port: int = json.loads(self.process.stdout.readline())["port"]

    def stop(self, signal_number: int) -> int:
        os.kill(self.process.pid, signal_number)
        self.process.communicate(timeout=60)
        self.log.close()
        return self.process.returncode


class Device:
    """Pushes until the server is gone, then goes on where the acknowledgements ended."""

    def __init__(self, client: Client) -> None:
        self.client, self.name = client, client.register()
        self.said: list[dict[str, Any]] = []
        self.acked = 0

    def push_until_the_server_dies(self) -> None:
        while True:
            if self.acked == len(self.said):
                self.said += [event() for _ in range(OPS)] if self.said else granted()
            try:
                answer = self.client.push(self.name, self.acked + 1, self.said[self.acked :]).json
            except (OSError, http.client.HTTPException):
                return
            assert answer["code"] is None and answer["rejected"] == []
            self.acked = answer["acks"][-1][0]


def test_kill_9_in_the_midst_of_pushes_loses_no_acknowledged_event_and_doubles_none(tmp_path: Path) -> None:
    luck = random.Random(SEED)
    server = Process(tmp_path)
    devices = [Device(Client(server.port, token(tmp_path, f"user {number}"))) for number in range(DEVICES)]
    for _ in range(KILLS):
        threads = [threading.Thread(target=device.push_until_the_server_dies) for device in devices]
        before = sum(device.acked for device in devices)
        for thread in threads:
            thread.start()
        while sum(device.acked for device in devices) < before + 60:
            time.sleep(0.001)
        time.sleep(luck.uniform(0, 0.1))
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        for thread in threads:
            thread.join()
        server = Process(tmp_path)
        for device in devices:
            device.client.port = server.port
    for device in devices:
        check(device)
    assert server.stop(signal.SIGTERM) == -signal.SIGTERM
    lines = [json.loads(line) for line in (tmp_path / "server.log").read_text().splitlines()]
    assert not [line for line in lines if line["level"] == "error"]


def check(device: Device) -> None:
    export = device.client.ask("GET", "/v1/profile/export").json
    held = [row["id"] for row in export["rows"] if row["kind"] == "event"]
    said = [op["id"] for op in device.said if op["kind"] == "event"]
    acked = [op["id"] for op in device.said[: device.acked] if op["kind"] == "event"]
    assert len(held) == len(set(held)) and set(acked) <= set(held) <= set(said)
    assert len(acked) >= 20
    again = device.client.push(device.name, device.acked + 1, device.said[device.acked :]).json
    assert again["code"] is None and again["high_water"] == len(device.said)
    rows = device.client.ask("GET", "/v1/profile/export").json["rows"]
    assert sorted(row["id"] for row in rows if row["kind"] == "event") == sorted(said)
    assert [row["seq"] for row in rows] == sorted({row["seq"] for row in rows})
