"""Do views, favourites and carts help to say what a user buys next? Tmall 2014, split by time.

Put `t_alibaba_data.csv` (182,880 events of 884 users on 9,531 brands, 15 April to 15 August 2014; columns user_id,
brand_id, type, visit_datetime) in `$XREC_DATA/tmall-2014/`, then run `python benchmarks/tmall.py --out build/tmall`.
The file is not in time order and knows days only: events of one day keep the order of the file.

Three models answer the same cases, ranking all brands: one sees and learns purchases only, one sees all events and
learns purchases, one also learns the other events as weighted targets. Each chooses its settings on the validation
month alone, among the same ones.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from xrec_trainer import dataset
from xrec_trainer.bootstrap import mean_interval, paired_difference
from xrec_trainer.cases import by_time
from xrec_trainer.config import FitConfig, parse
from xrec_trainer.dataset import RawLog
from xrec_trainer.fit import fit
from xrec_trainer.metrics import per_case
from xrec_trainer.prepare import prepare
from xrec_trainer.ranking import rank_users, user_vectors
from xrec_trainer.run import Run

SOURCES = """\
[[source]]
name = "tmall"
files = "events.csv"
columns = { user_id = "user", item_id = "item", event = "event", at = "at" }
constants = { device = "pc" }
time_unit = "iso"

[clean]
duplicates = "keep"
max_events_per_day = 100000
"""
EVENTS = ("view", "purchase", "favorite", "cart")
SETTINGS = (
    *("test_days=30", "validation_days=30", "min_count=1", "half_life_days=30", "trend_half_life_days=7"),
    "neighbours=0",
)
CHOICES = (
    ("encoder=lowpass", "batch_tokens=1024"),
    ("encoder=pool", "initial_rows=svd", "distinct_items=true", "max_history=200", "horizon_days=30", "prefixes=8"),
)
WEIGHTS = "auxiliary_targets=view:{0},favorite:{1},cart:{1}"
MODELS: dict[str, tuple[tuple[str, ...], Sequence[str]]] = {
    "purchases only": (("purchase",), ("",)),
    "all events seen": (EVENTS, ("",)),
    "all events seen and learned": (EVENTS, (WEIGHTS.format(0.1, 0.3), WEIGHTS.format(0.3, 0.6))),
}
METRICS = ("hr@10", "ndcg@10", "recall@10", "mrr@10")


def main() -> None:
    """Write the events, train each model with each choice, and compare the chosen ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    out: Path = arguments.out
    raw = dataset.read(write(out))
    measured = {}
    for name, (events, extras) in MODELS.items():
        data = write_only(out, events)
        candidates = [
            train(data, out, [*choice, *filter(None, [extra])], arguments.seed)
            for choice in CHOICES
            for extra in extras
        ]
        best = max(candidates, key=lambda run: run.validation_ndcg)
        chosen = f"encoder {best.config.encoder}, auxiliary targets {dict(best.config.auxiliary_targets)}"
        print(f"{name}: chosen on validation: {chosen}", flush=True)
        measured[name] = {task: answer(best, raw, new_only=task == "new") for task in ("all", "new")}
    for task in ("all", "new"):
        print_table({name: tasks[task] for name, tasks in measured.items()}, task)


def write(out: Path) -> Path:
    """Write the whole log through ``prepare``; return its folder."""
    out.mkdir(parents=True, exist_ok=True)
    path = Path(os.environ["XREC_DATA"]) / "tmall-2014" / "t_alibaba_data.csv"
    with path.open(encoding="utf-8") as source, (out / "events.csv").open("w", encoding="utf-8") as target:
        target.write("user,item,event,at\n")
        for row in csv.DictReader(source):
            month, day = map(int, row["visit_datetime"].split("-"))
            event = EVENTS[int(row["type"])]
            target.write(f"u{row['user_id']},b{row['brand_id']},{event},2014-{month:02}-{day:02}T00:00:00Z\n")
    (out / "sources.toml").write_text(SOURCES, encoding="utf-8")
    prepare(out / "sources.toml", out / "data")
    return out / "data"


def write_only(out: Path, events: Sequence[str]) -> Path:
    """Return a prepared folder with these events alone."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    folder = out / ("data" if len(events) == len(EVENTS) else "data-" + "-".join(events))
    if not folder.exists():
        folder.mkdir()
        table = pq.read_table(out / "data" / "events.parquet")
        pq.write_table(table.filter(pc.field("event").isin(list(events))), folder / "events.parquet")
        (folder / "items.parquet").write_bytes((out / "data" / "items.parquet").read_bytes())
    return folder


def train(data: Path, out: Path, settings: Sequence[str], seed: int) -> Run:
    """Train one candidate, or take it up where it stopped."""
    config: FitConfig = parse({"targets": ("purchase",)}, [*SETTINGS, *settings, f"seed={seed}"])
    name = "-".join([data.name, *settings]).replace("auxiliary_targets=", "").replace(":", "").replace("=", "-")
    run = fit(data, out / "runs" / name, config)
    print(f"  {data.name:15s} {' '.join(settings)}: validation NDCG@10 {run.validation_ndcg:.4f}", flush=True)
    return run


def answer(run: Run, raw: RawLog, *, new_only: bool) -> dict[str, np.ndarray]:
    """Return the metrics of the test cases that the whole log asks, with the history that the run's log has of them."""
    # Rows of brands that the run does not know come after its own: they can be right and are never listed.
    row_of_id = {item_id: row for row, item_id in enumerate(run.catalogue.ids)}
    for item_id in raw.item_ids:
        row_of_id.setdefault(item_id, len(row_of_id))
    row_of = np.array([row_of_id[item_id] for item_id in raw.item_ids], dtype=np.int32)
    whole = dataset.build_log(raw, row_of, len(row_of_id), replace(run.vocabulary, events=tuple(raw.event_names)))
    end_ms = int(raw.at_ms.max()) + 1
    start_ms = end_ms - int(run.config.test_days * dataset.DAY_MS)
    targets = frozenset(whole.vocabulary.event_codes(["purchase"]))
    asked = by_time(whole, start_ms, end_ms, targets, new_only=new_only)
    start_of = {user: place for place, user in enumerate(run.log.users)}
    histories = []
    for user in asked.user:
        place = start_of.get(whole.users[user])
        span = np.zeros(0, dtype=np.int64)
        if place is not None:
            span = np.arange(run.log.user_start[place], run.log.user_start[place + 1])
            span = span[run.log.at_ms[span] < start_ms]
        histories.append(span)
    bought = frozenset(run.vocabulary.event_codes(["purchase"])) if new_only else frozenset()
    cases = replace(asked.with_histories(histories), seen_events=bought)
    top = rank_users(user_vectors(run.model, run.log, cases), run.model.items(), run.log, cases, 10, run.repeat)
    return {**per_case(top, asked, [10]), "user": asked.user}


def print_table(measured: dict[str, dict[str, np.ndarray]], task: str) -> None:
    """Print each model and what it gains over purchases only."""
    first = next(iter(measured.values()))
    print(f"\n{'All purchases' if task == 'all' else 'Brands new to the user'}: {len(first['user'])} users")
    for name, values in measured.items():
        for metric in METRICS:
            mean = mean_interval(values[metric], values["user"])
            gain = paired_difference(values[metric], first[metric], values["user"])
            line = {"mean": mean, "gain over purchases only": gain}
            shown = "  ".join(f"{key} {each:.4f}" for key, each in line.items())
            print(f"  {name:28s} {metric:10s} {shown}")
    print(json.dumps({name: {m: float(v[m].mean()) for m in METRICS} for name, v in measured.items()}))


if __name__ == "__main__":
    main()
