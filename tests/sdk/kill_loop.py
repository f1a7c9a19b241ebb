"""Kill the process that records, and cut the power, again and again; what `record()` returned must be there.

python tests/sdk/kill_loop.py --rounds 40 --cuts 250
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from xrec_sdk.profile import Profile

sys.path.insert(0, str(Path(__file__).parent))

KEY = bytes(range(32))
MAX_EVENTS = 1_000_000
WRITER = """
import sys
from xrec_sdk.profile import Profile
key = bytes.fromhex(sys.argv[4])
profile = Profile(sys.argv[1], 1_000_000, key_provider=(lambda: key) if key else None, durability=sys.argv[5])
profile.set_consent("personalise", True)
print("ready", flush=True)
for number in range(int(sys.argv[3])):
    print(profile.record("view", f"{sys.argv[2]}-{number}", "phone", number), flush=True)
"""


def writer(path: Path, name: str, count: int, key: bytes, durability: str) -> subprocess.Popen[str]:
    """Start a process that records and prints the id of each event once `record()` has returned."""
    words = [sys.executable, "-c", WRITER, str(path), name, str(count), key.hex(), durability]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def kill_a_writer(path: Path, name: str, least: int, key: bytes, durability: str) -> list[str]:
    """Let a process record until it has said ``least`` ids, kill it, and return all that it had said whole."""
    process = writer(path, name, 100_000, key, durability)
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(1 + least)]
    os.kill(process.pid, signal.SIGKILL)
    lines += process.stdout.readlines()
    process.stdout.close()
    process.wait()
    return [line.strip() for line in lines[1:] if line.endswith("\n")]


def kills(folder: Path, rounds: int, key: bytes, durability: str, seed: int = 1) -> tuple[int, int]:
    """Kill as many writers of one profile; return how many events were acknowledged and how many of them are lost."""
    luck, path = random.Random(seed), folder / "p.db"
    acknowledged: set[str] = set()
    key_provider: Callable[[], bytes] | None = (lambda: key) if key else None
    lost = 0
    for number in range(rounds):
        acknowledged.update(kill_a_writer(path, f"turn{number}", luck.randint(1, 400), key, durability))
        profile = Profile(path, MAX_EVENTS, key_provider=key_provider)
        lost += len(acknowledged - {event.id for event in profile.events()})
        profile.close()
    return len(acknowledged), lost


def main() -> None:
    """Run every mode and say what was lost; exit 1 where more was than may be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cuts", type=int, default=250)
    given = parser.parse_args()
    from forgetful_disk import Disk, cut_power

    is_broken = False
    for engine, key in (("plain", b""), ("encrypted", KEY)):
        for durability in ("process", "power"):
            with tempfile.TemporaryDirectory() as folder:
                count, lost = kills(Path(folder), given.rounds, key, durability)
            is_broken |= lost > 0
            print(f"kill -9, {engine:9s} {durability:7s} {given.rounds} rounds: {count:,} acknowledged, {lost} lost")
    disk = Disk()
    for durability in ("process", "power"):
        with tempfile.TemporaryDirectory() as folder:
            all_of = [cut_power(disk, Path(folder), seed, durability) for seed in range(given.cuts)]
        lost, early = sum(one.lost for one in all_of), sum(one.lost_before_barrier for one in all_of)
        most_s = max(one.seconds_at_risk for one in all_of)
        is_broken |= early > 0 or most_s >= 1 or (durability == "power" and lost > 0)
        print(
            f"power cut, {durability:7s} {given.cuts} cuts: {sum(one.kept for one in all_of):,} recorded, {lost} lost, "
            f"{early} of them from before the last barrier, at most {most_s:.2f} s after it"
        )
    sys.exit(is_broken)


if __name__ == "__main__":
    main()
