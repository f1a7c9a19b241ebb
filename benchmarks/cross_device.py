"""What does one history of all devices bring where people shop? H&M's two channels, and groceries on simulated devices.

H&M is real: stores and the web shop are the "devices" (`hm-sample/transactions_train_sample.csv` in `$XREC_DATA`:
0.1 % of the customers of the public Kaggle data set, competition rules; products are articles without their colour).
Groceries are the demo's: real structure, published as simulated, and a split over three devices that the demo simulates
(Markov chain, 40 % of the visits on another device). `python benchmarks/cross_device.py --data hm --out build/hm`, or
`--data groceries --out build/groceries`. benchmarks/globo.py asks the same of news.

One model is trained on merged histories. A case is the first visit after a change of device: its purchases are to be
found with (own) the history of the device in hand, (partly merged) that and the visits on other devices during which
the user had signed in, a seeded 60 %, or (merged) all visits, the oracle. Intervals are paired bootstraps over users.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.history import DAY_MS, MINUTE_MS
from xrec_trainer.baselines import BASELINES, SHOWN
from xrec_trainer.bootstrap import mean_interval, paired_difference
from xrec_trainer.cases import Cases, own_device_histories, sessions_after_switch
from xrec_trainer.config import parse
from xrec_trainer.dataset import Log
from xrec_trainer.fit import fit
from xrec_trainer.metrics import per_case
from xrec_trainer.prepare import prepare
from xrec_trainer.ranking import model_ranker
from xrec_trainer.run import Run

HM_SOURCES = """\
[[source]]
name = "H&M"
files = "purchases.csv"
columns = { user_id = "customer", item_id = "product", at = "day", device = "channel" }
constants = { event = "purchase" }
time_unit = "iso"

[clean]
duplicates = "keep"
"""
IDS_ALONE = ("content=false", "neighbours=0")
HABITS = (*IDS_ALONE, "encoder=pool", "initial_rows=svd", "distinct_items=true", "max_history=200")
GROCERIES = (
    *(*HABITS, "horizon_days=28", "burn_in_days=200", "learns_repeats=false", "min_count=10"),
    *("batch_tokens=51200", "max_epochs=12", "patience=3", "quantized_epochs=1"),
)
SETTINGS = {
    "hm": (
        (*IDS_ALONE, "encoder=lowpass", "batch_tokens=1024", "min_count=2", "test_days=150", "validation_days=60"),
        (*HABITS, "horizon_days=30", "prefixes=8", "min_count=2", "test_days=150", "validation_days=60"),
    ),
    "groceries": (GROCERIES,),
}
SESSION_GAP_MS = {"hm": DAY_MS // 2, "groceries": 30 * MINUTE_MS}
SIGNED_IN = 0.6
METRICS = ("hr@10", "ndcg@10", "recall@10")


def main() -> None:
    """Prepare, train on merged histories, and compare the histories on the visits after a change of device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", choices=sorted(SETTINGS), required=True)
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    data = {"hm": write_hm, "groceries": write_groceries}[arguments.data](out)
    run = train(data, out, SETTINGS[arguments.data])
    gap_ms = SESSION_GAP_MS[arguments.data]
    end_ms = int(run.log.at_ms.max()) + 1
    start_ms = end_ms - int(run.config.test_days * DAY_MS)
    merged = sessions_after_switch(run.log, start_ms, end_ms, gap_ms)
    histories = {
        "own": own_device_histories(run.log, merged),
        "partly merged": list(signed_in(run.log, merged, gap_ms)),
    }
    asked = {"merged": merged, **{name: merged.with_histories(index) for name, index in histories.items()}}
    learned = run.study.train_mask
    rankers = {"xrec": model_ranker(run.model, run.log, run.repeat)}
    rankers |= {name: BASELINES[name](run.log, learned, half_life_days=run.config.half_life_days) for name in SHOWN}
    is_empty = np.diff(asked["own"].history_offsets) == 0
    for name, rank in rankers.items():
        measured = {which: per_case(rank(cases, 10), cases, [10]) for which, cases in asked.items()}
        groups = {"all": is_empty | True, "own device empty": is_empty, "own device has a history": ~is_empty}
        for group, keep in groups.items() if name == "xrec" else [("all", is_empty | True)]:
            if keep.any():
                print_group(f"{name}, {group}", measured, merged.user, keep)


def write_hm(out: Path) -> Path:
    """Write the H&M purchases through ``prepare``."""
    path = Path(os.environ["XREC_DATA"]) / "hm-sample" / "transactions_train_sample.csv"
    with path.open(encoding="utf-8") as source, (out / "purchases.csv").open("w", encoding="utf-8") as target:
        target.write("customer,product,day,channel\n")
        for row in csv.DictReader(source):
            channel = {"1": "store", "2": "web"}[row["sales_channel_id"]]
            target.write(f"{row['customer_id']},p{row['article_id'][:-3]},{row['t_dat']}T12:00:00Z,{channel}\n")
    (out / "sources.toml").write_text(HM_SOURCES, encoding="utf-8")
    prepare(out / "sources.toml", out / "data")
    return out / "data"


def write_groceries(out: Path) -> Path:
    """Write the demo's logs through ``prepare``."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))
    from make_logs import write_logs

    write_logs(out / "logs")
    prepare(out / "logs" / "sources.toml", out / "data")
    return out / "data"


def train(data: Path, out: Path, choices: tuple[tuple[str, ...], ...]) -> Run:
    """Train each choice of settings and return the one that validation prefers."""
    runs = []
    for number, settings in enumerate(choices):
        run = fit(data, out / f"run-{number}", parse({"targets": ("purchase",)}, settings))
        print(
            f"{' '.join(settings)}: validation NDCG@10 {run.validation_ndcg:.4f}, best epoch {run.facts['best_epoch']}",
            flush=True,
        )
        runs.append((run.validation_ndcg, number, run))
    return max(runs)[2]


def signed_in(log: Log, cases: Cases, gap_ms: int) -> Iterator[NDArray[np.int64]]:
    """Yield each case's history without the visits on other devices where the user had not signed in (seed 0)."""
    starts = np.concatenate([[True], (np.diff(log.user) != 0) | (np.diff(log.at_ms) > gap_ms)])
    visit = np.cumsum(starts)
    knows = np.random.default_rng(0).random(visit[-1] + 1) < SIGNED_IN
    for case in range(len(cases)):
        index = cases.history(case)
        yield index[knows[visit[index]] | (log.device[index] == cases.device[case])]


def print_group(
    title: str, measured: dict[str, dict[str, NDArray[np.float64]]], user: NDArray[np.int32], keep: NDArray[np.bool_]
) -> None:
    """Print each history's figures and what it has more than that of the own device."""
    print(f"\n{title}: {keep.sum()} cases, {len(np.unique(user[keep]))} users")
    for metric in METRICS:
        own = measured["own"][metric][keep]
        for which in ("own", "partly merged", "merged"):
            values = measured[which][metric][keep]
            gain = "" if which == "own" else f"  - own {paired_difference(values, own, user[keep]):+.4f}"
            print(f"  {metric:10s} {which:14s} {mean_interval(values, user[keep]):.4f}{gain}", flush=True)


if __name__ == "__main__":
    main()
