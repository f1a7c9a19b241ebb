"""How long xrec trains until it is as good as a peer's SASRec is at its end: the same file, machine and threads.

    XREC_DATA=... OMP_NUM_THREADS=1 python benchmarks/time_to_quality.py --data lastfm --peer rectools \\
        --peer-python peer/bin/python --out build/time

Both train at once, each in its process with one thread, xrec with its defaults and without attributes, the peer as
benchmarks/peer_rectools.py or peer_recbole.py says, each until its own validation has not improved for ten epochs, or
the peer until ``--peer-limit`` CPU seconds are over. Validation is the same: the last but one item of each of the
file's users, among all items not seen in training. The seconds of xrec include its validation, those of the peer do
not. CPU seconds are given beside the clock's, for a machine that does other work too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from leave_one_out import FILES, write_log

PEERS = {"rectools": "peer_rectools.py", "recbole": "peer_recbole.py"}
EPOCH = re.compile(r"epoch +(\d+) .*validation NDCG@10 ([0-9.]+)")


@dataclass(frozen=True)
class Epoch:
    """What had passed when an epoch ended: seconds of the clock and of the CPU."""

    number: int
    ndcg: float
    wall_s: float
    cpu_s: float


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def follow(command: list[str], epochs: list[Epoch], log: Path, limit_s: float) -> None:
    """Run a training and note each epoch; from ``trained`` to ``epoch`` is evaluation, and taken off."""
    with log.open("w") as kept:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        start, evaluated, paused = time.monotonic(), (0.0, 0.0), None
        assert process.stdout is not None
        for line in process.stdout:
            now = time.monotonic() - start, cpu_s(process.pid)
            kept.write(line)
            kept.flush()
            if line.startswith("trained "):
                paused = now
            elif match := EPOCH.search(line):
                if paused:
                    evaluated = evaluated[0] + now[0] - paused[0], evaluated[1] + now[1] - paused[1]
                    paused = None
                wall, cpu = now[0] - evaluated[0], now[1] - evaluated[1]
                epochs.append(Epoch(int(match[1]), float(match[2]), wall, cpu))
                if cpu > limit_s:
                    process.kill()
                    print(f"{log.stem} was stopped after epoch {match[1]}: its {limit_s:.0f} CPU seconds are over")
                    return
        if process.wait():
            raise SystemExit(f"{command[0]} ended with {process.returncode}; see {log}")


def main() -> None:
    """Run both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=FILES, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--peer-python", required=True, help="python of the peer's own venv")
    parser.add_argument(
        "--peer-limit", type=float, default=math.inf, help="CPU seconds after which the peer is stopped"
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    write_log(arguments.data, out)
    path = Path(os.environ["XREC_DATA"]) / FILES[arguments.data]
    tool = str(Path(sys.executable).parent / "xrec-train")
    subprocess.run([tool, "prepare", out / "sources.toml", "--out", out / "data"], check=True)
    peer = str(Path(__file__).with_name(PEERS[arguments.peer]))
    fit = [tool, "fit", str(out / "data"), "--out", str(out / "run"), "--split", "leave-one-out"]
    # The peer knows no attributes.
    settings = [
        word
        for value in ("filter_seen=true", "content=false", f"seed={arguments.seed}")
        for word in ("--setting", value)
    ]
    commands = {
        "xrec": [*fit, *settings],
        arguments.peer: [arguments.peer_python, peer, str(path), "--seed", str(arguments.seed)],
    }
    found: dict[str, list[Epoch]] = {name: [] for name in commands}
    limits = {"xrec": math.inf, arguments.peer: arguments.peer_limit}
    threads = [
        threading.Thread(target=follow, args=(command, found[name], out / f"{name}.log", limits[name]))
        for name, command in commands.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (out / "epochs.json").write_text(json.dumps({name: [vars(one) for one in each] for name, each in found.items()}))
    best = {name: max(epochs, key=lambda one: one.ndcg) for name, epochs in found.items()}
    for name, one in best.items():
        print(f"{name:16} best {one.ndcg:.4f} in epoch {one.number}: {one.wall_s:.0f} s, CPU {one.cpu_s:.0f} s")
    goal = best[arguments.peer]
    reached = next((one for one in found["xrec"] if one.ndcg >= goal.ndcg), None)
    if reached is None:
        raise SystemExit("xrec did not reach the peer's validation NDCG@10")
    print(
        f"xrec reaches {goal.ndcg:.4f} in epoch {reached.number}: {reached.wall_s:.0f} s, CPU {reached.cpu_s:.0f} s;"
        f" the peer took {goal.wall_s / reached.wall_s:.1f} times as long, CPU {goal.cpu_s / reached.cpu_s:.1f} times"
    )


if __name__ == "__main__":
    main()
