"""Set xrec beside other ways to do the same, in one process and in turns, and write a table and a plot of it.

    python benchmarks/side_by_side.py --items 100000 --threads 1 --out benchmarks/results/side_by_side_100k

Two questions: the ten best of N items for a user vector (scans.py), and a whole call from history to list (calls.py).
Each way's lists are held against the exact ones, in float64, before it is timed; its share of them stands in the table.
Hot: answers in bursts of nine, way after way. Cold: before each answer 256 MiB of other memory are read. A library that
is not installed (extra ``bench``) is named so. Set OMP_NUM_THREADS to --threads for NumPy's BLAS.
"""

# N items, D width, L events in a history

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from calls import NAIVE, naive_way, other_ways, overlap, python_around_the_graphs, sdk_ways
from made_shop import K, MadeShop, make_case, make_shop
from numpy.typing import NDArray
from scans import SCANS
from turns import Way, in_bursts, machine, reading_once, with_cold_caches
from xrec_export.speed import measure_speed
from xrec_sdk.bundle import Bundle, open_bundle
from xrec_sdk.runtime import Runtime

XREC_SCAN = "xrec, scorer.onnx"
LEAST_OVERLAP = 0.9
"""A way whose lists hold less of the exact ones answers another question."""


@dataclass(frozen=True)
class Row:
    """One way in the table: its share of the exact lists (None where it gives none) and its microseconds."""

    name: str
    overlap: float | None
    hot: Sequence[float]
    cold: Sequence[float]


def scan_ways(bundle: Bundle, table: NDArray[np.float32], threads: int) -> tuple[list[Way], list[str]]:
    """Return the ways to scan, xrec's first, and the names of those whose library is not here."""
    runtime = Runtime(bundle, num_threads=threads)
    free = runtime.no_bias()
    nothing = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
    ways, missing = [Way(XREC_SCAN, lambda user: runtime.top(user, K, free, *nothing)[0])], []
    for name, make in SCANS.items():
        try:
            ways.append(Way(name, make(table, threads)))
        except ImportError:
            missing.append(name)
    return ways, missing


def exact_scans(table: NDArray[np.float32], users: NDArray[np.float32]) -> list[NDArray[Any]]:
    """Return the ten best rows of each user vector, in float64."""
    lists = []
    for user in users.astype(np.float64):
        scores = np.concatenate([part.astype(np.float64) @ user for part in np.array_split(table, 64)])
        best = np.argpartition(scores, len(scores) - K)[-K:]
        lists.append(best[np.argsort(-scores[best])])
    return lists


def compare(
    ways: list[Way], of_profile: list[Way], exact: list[NDArray[Any]], cases: Sequence[Any], rounds: int, bound: Way
) -> list[Row]:
    """Hold each way's lists against the exact ones, then time all.

    Those ``of_profile`` answer a profile and not the cases; sdk_ways has held one against its graphs.
    """
    shares = {way.name: overlap(way.answer, exact, list(cases)) for way in ways}
    if wrong := {name: share for name, share in shares.items() if share < LEAST_OVERLAP}:
        raise SystemExit(f"these give other lists than the exact ones: {wrong}")
    timed = [*ways, *of_profile, bound]
    print("timing", flush=True)
    hot, cold = in_bursts(timed, cases, rounds), with_cold_caches(timed, cases, 2 * rounds)
    return [Row(way.name, shares.get(way.name), hot[way.name], cold[way.name]) for way in timed]


def table_of(rows: Sequence[Row], base_name: str) -> str:
    """Return the rows as a table: each way's time over that of the bound, the last row, and over that of one way."""
    bound, base = rows[-1], next(row for row in rows if row.name == base_name)
    over = f"over {base_name}"
    lines = [f"  {'':44}{'overlap':>8}{'hot p50':>12}{'p99':>12}{'/ bound':>9}{'cold p50':>12}{'/ bound':>9}  {over}"]
    for row in rows:
        (hot, tail), cold = np.quantile(row.hot, [0.5, 0.99]), np.median(row.cold)
        share = "" if row.overlap is None else f"{row.overlap:.4f}"
        of_bound = hot / np.median(bound.hot), cold / np.median(bound.cold)
        of_base = f"{hot / np.median(base.hot):.2f} hot, {cold / np.median(base.cold):.2f} cold"
        lines.append(
            f"  {row.name:44}{share:>8}{hot:9.0f} us{tail:9.0f} us{of_bound[0]:9.2f}{cold:9.0f} us{of_bound[1]:9.2f}"
            f"  {of_base}"
        )
    return "\n".join(lines)


def plot(tables: dict[str, Sequence[Row]], path: Path) -> None:
    """Draw the medians of each table, hot and cold, as bars on a logarithmic axis."""
    try:
        from matplotlib import rcParams
        from matplotlib.figure import Figure
    except ImportError:
        print("matplotlib is not here: no plot")
        return
    rcParams |= {
        "svg.hashsalt": "xrec",
        "svg.fonttype": "none",
    }  # the same names inside the file each time; text as text
    figure = Figure(figsize=(11, 8), layout="constrained")
    heights = [len(rows) for rows in tables.values()]
    for axes, (title, rows) in zip(figure.subplots(len(tables), height_ratios=heights), tables.items(), strict=True):
        places = np.arange(len(rows))
        for shift, name, color in ((-0.2, "hot", "#3b6ea5"), (0.2, "cold", "#b7c9de")):
            medians = [np.median(getattr(row, name)) for row in rows]
            bars = axes.barh(places + shift, medians, 0.4, label=f"{name} caches", color=color)
            axes.bar_label(bars, [f"{median:,.0f}" for median in medians], padding=2, fontsize=7)
        axes.set_yticks(places, [row.name for row in rows], fontsize=8)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlabel("microseconds, median")
        axes.set_title(title, loc="left", fontsize=10)
        axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def costs(shop: MadeShop, threads: int) -> list[str]:
    """Return what the bundle costs besides the time of a call: size, sessions, first answer, memory."""
    bundle = open_bundle(shop.path, trusted_keys=[shop.key])
    count, width = len(bundle.ids), bundle.manifest.width
    sizes = {file.name: file.stat().st_size for file in shop.path.iterdir()}
    without_text = sum(size for name, size in sizes.items() if name not in ("catalog.bin", "ids.bin"))
    begun = [Way("", lambda _: Runtime(bundle, num_threads=threads)).time(None) for _ in range(7)]
    speed = measure_speed(shop.path, shop.key, threads=threads)
    added = speed.anonymous_added_bytes or 0
    return [
        f"size without ids.bin and catalog.bin: {without_text:,} bytes; N (d + 8) + 500,000 is "
        f"{count * (width + 8) + 500_000:,}; with them {sum(sizes.values()):,}",
        f"both sessions: {np.median(begun) / 1e3:.1f} ms; import to first answer, signature checked: "
        f"{speed.cold_start_ms:.0f} ms, {speed.import_ms:.0f} of them the imports",
        f"anonymous memory added since the imports: {added / 1e6:.1f} MB; 5 MB + 20 N is {5 + 20e-6 * count:.1f} MB; "
        f"the process has {(speed.anonymous_bytes or 0) / 1e6:.0f} MB",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--history", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, help="Write OUT.txt and OUT.svg.")
    given = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != str(given.threads):
        raise SystemExit(f"set OMP_NUM_THREADS={given.threads}: NumPy's BLAS reads it when it is loaded")
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as name:
        said, tables = measure(given, Path(name))
    print("\n".join(said))
    if given.out is not None:
        given.out.with_suffix(".txt").write_text("\n".join(said) + "\n", encoding="utf-8")
        plot(tables, given.out.with_suffix(".svg"))


def measure(given: argparse.Namespace, folder: Path) -> tuple[list[str], dict[str, Sequence[Row]]]:
    """Return the lines of the table file, and the two tables by title."""
    cases = [make_case(given.items, given.history, seed) for seed in range(20)]
    shop = make_shop(given.items, given.width, given.history, folder)
    bundle, table = open_bundle(shop.path, trusted_keys=[shop.key]), shop.model.item_table
    bound = reading_once(bundle.table)
    users = np.random.default_rng(1).normal(size=(len(cases), given.width)).astype(np.float32)
    scans, missing = scan_ways(bundle, table, given.threads)
    scanned = compare(scans, [], exact_scans(table, users), users, given.rounds, bound)
    del scans
    naive = naive_way(shop, folder, given.history, given.threads)
    graphs, *faces = sdk_ways(shop, folder, given.history, given.threads, explain=True)
    others = other_ways(shop, folder, given.threads)
    exact = [others[1].answer(case) for case in cases]  # torch in float32, whose ten best are those of float64 here
    called = compare([graphs, naive, *others], faces, exact, cases, given.rounds, bound)
    around = python_around_the_graphs(shop, folder, given.history, given.threads, cases)
    what = f"{given.items:,} items x {given.width}, {given.threads} thread{'s' if given.threads > 1 else ''}"
    titles = f"The ten best of {what}", f"A whole call, history {given.history}, {given.history} excluded: {what}"
    asked = f"--items {given.items} --threads {given.threads} --rounds {given.rounds}"
    return [
        f"OMP_NUM_THREADS={given.threads} python benchmarks/side_by_side.py {asked}",
        f"machine: {machine()}",
        *[f"not here: {name}" for name in missing],
        "",
        titles[0],
        table_of(scanned, "TFLite int8 weights" if "TFLite int8 weights" not in missing else XREC_SCAN),
        "",
        titles[1],
        table_of(called, NAIVE),
        "",
        *[f"Python around the runs of the graphs, {name}: {us:.0f} us" for name, us in around.items()],
        *costs(shop, given.threads),
    ], dict(zip(titles, (scanned, called), strict=True))


if __name__ == "__main__":
    main()
