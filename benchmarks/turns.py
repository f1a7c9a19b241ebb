"""Time several ways to answer one question in one process, in turns, so that noise and clocks meet all alike."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Times = dict[str, list[float]]
"""Microseconds of each answer, by the name of the way."""
FLUSH_BYTES = 256 << 20
"""Read between two answers where caches are to be cold: several times the last cache of a server."""


@dataclass(frozen=True)
class Way:
    """A way to answer a case; what ``prepare`` does before each answer is not timed."""

    name: str
    answer: Callable[[Any], Any]
    prepare: Callable[[Any], None] = lambda case: None

    def time(self, case: Any) -> float:
        """Return the microseconds of one answer."""
        self.prepare(case)
        start = time.perf_counter()
        self.answer(case)
        return (time.perf_counter() - start) * 1e6


def in_bursts(ways: Sequence[Way], cases: Sequence[Any], rounds: int, burst: int = 9) -> Times:
    """Time ``burst`` answers of each way a round, way after way; the first only warms the caches and does not count."""
    times: Times = {way.name: [] for way in ways}
    for turn in range(-2, rounds):
        for way in ways:
            taken = [way.time(cases[(turn * burst + place) % len(cases)]) for place in range(burst)]
            times[way.name] += taken[1:] if turn >= 0 else []
    return times


def turn_by_turn(ways: Sequence[Way], cases: Sequence[Any], rounds: int) -> Times:
    """Time one answer of each way a round; between them the first way answers, and its data fill the caches."""
    first, *others = ways
    times: Times = {way.name: [] for way in ways}
    for turn in range(-5, rounds):
        case = cases[turn % len(cases)]
        for way in others:
            taken = {first.name: first.time(case), way.name: way.time(case)}
            for name in taken if turn >= 0 else ():
                times[name].append(taken[name])
    return times


def with_cold_caches(ways: Sequence[Way], cases: Sequence[Any], rounds: int) -> Times:
    """Time one answer of each way a round, each after FLUSH_BYTES of other memory were read."""
    other = np.ones(FLUSH_BYTES // 8, dtype=np.int64)
    times: Times = {way.name: [] for way in ways}
    for turn in range(-2, rounds):
        for way in ways:
            other.max()
            taken = way.time(cases[turn % len(cases)])
            times[way.name] += [taken] if turn >= 0 else []
    return times


def reading_once(table: NDArray[Any]) -> Way:
    """Return the way that reads a table once and does nothing else: what memory alone allows, on one core."""
    words = table.reshape(-1).view(np.int64)
    return Way("the table read once", lambda case: words.max())


def machine() -> str:
    """Return the CPU with the instructions that count here, and the versions."""
    model = platform.processor() or platform.machine()
    flags = ""
    if Path("/proc/cpuinfo").exists():
        lines = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        named = {name.strip(): value.strip() for name, value in lines.items()}
        model = named.get("model name", model)
        wanted = ("avx2", "avx512f", "avx512_vnni", "avx_vnni")
        flags = " ".join(flag for flag in named.get("flags", "").split() if flag in wanted)
    return f"{model} ({flags}), Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}"
