"""Measure what a bundle costs on this machine: cold start, latency and memory, each in processes of their own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from xrec_sdk.bundle import open_bundle
from xrec_sdk.errors import GateError
from xrec_sdk.history import MINUTE_MS
from xrec_sdk.profile import Profile

STARTS = 5
CALLS = 500


@dataclass(frozen=True)
class Speed:
    """What was measured: medians of ``starts`` fresh processes, and of one that answered ``calls`` times each way.

    ``cold_start_ms`` is import to first answer, ``import_ms`` its part before the bundle is opened. ``again`` is
    recommend(k=10) asked again, ``after_event`` after a new event. The anonymous memory is the process's after its
    answers, and what it gained since the imports; None where the system does not say.
    """

    machine: str
    threads: int
    starts: int
    calls: int
    cold_start_ms: float
    import_ms: float
    again_p50_ms: float
    again_p99_ms: float
    after_event_p50_ms: float
    after_event_p99_ms: float
    anonymous_bytes: int | None
    anonymous_added_bytes: int | None


def measure_speed(path: Path, key: str, *, threads: int = 1, starts: int = STARTS, calls: int = CALLS) -> Speed:
    """Measure the bundle at ``path``, which ``key`` signed, with a profile of a full history.

    The processes find their modules compiled, as an installed package's are, also where Python is told to write no
    bytecode (``PYTHONDONTWRITEBYTECODE``).
    """
    with tempfile.TemporaryDirectory(prefix="xrec-speed-") as name:
        profile, compiled = Path(name) / "profile.db", Path(name) / "compiled"
        _fill(profile, path, key)
        _probe(path, profile, key, threads, 0, compiled)  # this one compiles what it imports, and does not count
        begun = [_probe(path, profile, key, threads, 0, compiled) for _ in range(starts)]
        asked = _probe(path, profile, key, threads, calls, compiled)
    again, after_event = (np.quantile(asked[name], [0.5, 0.99]) for name in ("again_ms", "after_event_ms"))
    return Speed(
        machine=machine(),
        threads=threads,
        starts=starts,
        calls=calls,
        cold_start_ms=median(one["cold_start_ms"] for one in begun),
        import_ms=median(one["import_ms"] for one in begun),
        again_p50_ms=float(again[0]),
        again_p99_ms=float(again[1]),
        after_event_p50_ms=float(after_event[0]),
        after_event_p99_ms=float(after_event[1]),
        anonymous_bytes=asked["anonymous_bytes"],
        anonymous_added_bytes=asked["anonymous_added_bytes"],
    )


def machine() -> str:
    """Return the name of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _fill(profile: Path, path: Path, key: str) -> None:
    """Write a profile of as many events as the bundle's history holds, on items drawn with seed 0."""
    bundle = open_bundle(path, trusted_keys=[key])
    vocabulary, random = bundle.manifest.vocabulary, np.random.default_rng(0)
    written, begin_ms = Profile(profile), time.time_ns() // 1_000_000 - vocabulary.max_history * MINUTE_MS
    written.set_consent("personalise", True)
    for place, row in enumerate(random.integers(0, len(bundle.ids), size=vocabulary.max_history).tolist()):
        event = vocabulary.events[place % len(vocabulary.events)]
        written.record(event, bundle.ids.item_id(row), "probe", begin_ms + place * MINUTE_MS)
    written.close()


def _probe(path: Path, profile: Path, key: str, threads: int, calls: int, compiled: Path) -> dict[str, Any]:
    """Return what a fresh process says; it keeps bytecode in ``compiled`` and finds what an earlier one kept there."""
    words = [sys.executable, "-m", "xrec_export.probe", str(path), str(profile), key, str(threads), str(calls)]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(compiled)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise GateError("gate.budget", f"the bundle did not answer in a process of its own: {done.stderr[-2000:]}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said
