"""Time the JavaScript engines against the Python SDK, one after the other on one bundle, one thread each:

    (cd bindings/js && npm ci --ignore-scripts && npm run build)
    python bindings/js/bench/latency.py --items 20000

The bundle and the cases are those of benchmarks/made_shop.py. It checks that every engine gives the same rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "benchmarks"))

from calls import Asked  # noqa: E402
from made_shop import K, MadeShop, make_case, make_shop  # noqa: E402
from turns import machine  # noqa: E402
from xrec_export.export_model import ParityCase  # noqa: E402
from xrec_sdk.bundle import open_bundle  # noqa: E402
from xrec_sdk.runtime import Runtime  # noqa: E402

WARM = 300
CODES = ("rows", "events", "devices", "gaps")


def quantiles(
    answer: Callable[[ParityCase], object], prepare: Callable[[ParityCase], object], cases: list[Any], rounds: int
) -> list[float]:
    """Return the milliseconds of an answer: median, 99th percentile and least."""
    times = []
    for turn in range(WARM + rounds):
        case = cases[turn % len(cases)]
        prepare(case)
        start = time.perf_counter()
        answer(case)
        times.append((time.perf_counter() - start) * 1e3)
    cuts = statistics.quantiles(times[WARM:], n=100)
    return [cuts[49], cuts[98], min(times[WARM:])]


def measure_python(shop: MadeShop, profile: Path, cases: list[ParityCase], length: int, rounds: int) -> dict[str, Any]:
    """Return what one Python process takes, as bench/ask.mjs says it of the others."""
    start = time.perf_counter()
    runtime = Runtime(open_bundle(shop.path, trusted_keys=[shop.key]))
    loaded = (time.perf_counter() - start) * 1e3
    bias = runtime.no_bias()

    def graphs(case: ParityCase) -> list[int]:
        rows: list[int] = runtime.top(runtime.encode(case.history), K, bias, case.bias_rows, case.bias_values)[
            0
        ].tolist()
        return rows

    asked = Asked(shop, profile, length, threads=1)
    first = [graphs(case) for case in cases]
    return {
        "loaded": loaded,
        "graphs": quantiles(graphs, lambda case: None, cases, rounds),
        "recommend": quantiles(asked.recommend, asked.view, cases, rounds),
        "first": first,
    }


def case_json(case: ParityCase) -> dict[str, Any]:
    """Return a case for JavaScript."""
    history = {name: getattr(case.history, name).tolist() for name in CODES}
    return {"history": history, "bias": case.bias_rows.tolist()}


def measure_javascript(folder: Path, key: str, cases: list[ParityCase], rounds: int) -> dict[str, Any]:
    """Return what bench/engines.ts measures, by the name of the engine."""
    with zipfile.ZipFile(folder / "bundle.zip", "w") as archive:
        for path in sorted((folder / "shop.xrec").iterdir()):
            archive.write(path, f"shop.xrec/{path.name}")
    asked = {"key": key, "rounds": rounds, "cases": [case_json(case) for case in cases]}
    (folder / "asked.json").write_text(json.dumps(asked))
    words = ["node", "build/engines.js", str(folder)]
    printed = subprocess.run(words, cwd=ROOT / "bindings" / "js", stdout=subprocess.PIPE, check=True, text=True).stdout
    return json.loads(printed.splitlines()[-1])  # type: ignore[no-any-return]


def report(found: dict[str, dict[str, Any]]) -> None:
    """Print a line for each engine, and how many lists are the first one's."""
    reference = next(iter(found.values()))["first"]
    for label, said in found.items():
        same = sum(one == other for one, other in zip(said["first"], reference, strict=True))
        print(f"{label:26} load {said['loaded']:5.0f}   {same} of {len(reference)} lists as Python's")
        for way in ("graphs", "recommend"):
            print("  {:12} p50 {:7.3f}  p99 {:7.3f}  least {:7.3f}".format(way, *said[way]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--history", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    cases = [make_case(arguments.items, arguments.history, seed) for seed in range(50)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shop = make_shop(arguments.items, arguments.width, arguments.history, folder)
        python = ("Python, onnxruntime", folder / "first.db"), ("Python again", folder / "second.db")
        found = {}
        for label, profile in python:
            found[label] = measure_python(shop, profile, cases, arguments.history, arguments.rounds)
            if profile == python[0][1]:
                found |= measure_javascript(folder, shop.key, cases, arguments.rounds)
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"machine: {machine()}, Node {node}")
    print(
        f"{arguments.items:,} items x {arguments.width}, history {arguments.history}, k {K}, one thread; milliseconds"
    )
    report(found)


if __name__ == "__main__":
    main()
