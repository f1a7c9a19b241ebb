"""Real cross-device users: the Globo.com clicks of users seen on two or more device groups, through the whole lane.

Put `multidevice_users_clicks.parquet` (users of the public Globo.com news data set, academic use only, with columns
u, d, t, s, i) in `$XREC_DATA/globo-multidevice/`, then run `python benchmarks/globo.py --out build/globo`.

News is read for a day or two, so the origin rolls: before each day a model is trained on the clicks before it and is
asked for the clicks of the day; the cases of all days are pooled. The question is the first click after a change of
device: does the history of all devices rank it better than the history of the device that is now in hand? Intervals are
paired bootstraps over users, each with all their cases. The last day's run becomes a signed bundle, and the SDK
recommends from it for a few of the users on the device that they change to.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import xrec_sdk
from numpy.typing import NDArray
from xrec_sdk.history import DAY_MS, MINUTE_MS
from xrec_trainer import dataset
from xrec_trainer.baselines import BASELINES, SHOWN
from xrec_trainer.bootstrap import Interval, mean_interval, paired_difference
from xrec_trainer.cases import Cases, Ranker, after_switch, by_time, own_device_histories
from xrec_trainer.dataset import Log, RawLog
from xrec_trainer.metrics import per_case
from xrec_trainer.ranking import model_ranker
from xrec_trainer.run import Run, load_run

SOURCES = """\
[[source]]
name = "globo"
files = "{path}"
format = "parquet"
columns = {{ user_id = "u", item_id = "i", at = "t", device = "d", session_id = "s" }}
constants = {{ event = "view" }}
time_unit = "ms"

[clean]
min_at_ms = {first_ms}
max_at_ms = {last_ms}
"""
HOUR_MS = 60 * MINUTE_MS
FIRST_MS = 1_507_345_200_000  # 7 October 2017, midnight in Brasilia
END_MS = 1_508_209_200_000  # 17 October; the log is thin after it
SESSION_GAP_MS = 30 * MINUTE_MS
VALIDATION_MS = HOUR_MS
# These and --learned-hours were chosen on 4, 5 and 6 October, which are not reported.
HALF_LIFE_DAYS = 0.02
SETTINGS: dict[str, object] = {
    "min_count": 1,
    "half_life_days": HALF_LIFE_DAYS,
    "trend_half_life_days": HALF_LIFE_DAYS,
    "test_days": 1,
    "validation_days": VALIDATION_MS / DAY_MS,
    "encoder": "pool",
    "learning_rate": 0.001,
    "dropout": 0.3,
    "max_epochs": 12,
    "quantized_epochs": 1,
    "content": "false",
    "neighbours": 0,
}
METRICS = ("hr@10", "ndcg@10", "mrr@10")
Columns = dict[str, NDArray[Any]]
"""One array for each fact of a case: its user, its device, and each ranker's metrics, named like ``xrec hr@10``."""


def main() -> None:
    """Train and measure day after day, print the pooled tables, then release the last run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--learned-hours", type=float, default=6, help="hours before each day to learn from")
    parser.add_argument(
        "--setting", action="append", default=[], help="NAME=VALUE, for xrec-train fit; may be repeated"
    )
    options = parser.parse_args()
    out, learned_ms = options.out, int(options.learned_hours * HOUR_MS)
    SETTINGS.update(setting.split("=", 1) for setting in options.setting)
    raw = dataset.read(prepare(out / "all", 0, END_MS))
    starts = range(FIRST_MS, END_MS, DAY_MS)
    days = [measure(train(folder_of(out, start_ms), start_ms, learned_ms), raw, start_ms) for start_ms in starts]
    print_tables(
        {task: {name: np.concatenate([day[task][name] for day in days]) for name in days[0][task]} for task in days[0]}
    )
    release(out, folder_of(out, starts[-1]), raw, starts[-1])


def folder_of(out: Path, start_ms: int) -> Path:
    """Return the folder of the day that begins at ``start_ms``."""
    return out / f"{datetime.fromtimestamp(start_ms / 1000, tz=timezone.utc):%m-%d}"


def command(*words: object, quiet: bool = False) -> str:
    """Say and run one of xrec's own commands and return what it printed, which is shown without ``quiet``."""
    tool, *rest = (str(word) for word in words)
    print("\n$", tool, *rest, flush=True)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL if quiet else None}
    done = subprocess.run([Path(sys.executable).parent / tool, *rest], text=True, check=True, **streams)
    if not quiet:
        print(done.stdout, flush=True)
    return done.stdout


def prepare(folder: Path, first_ms: int, end_ms: int) -> Path:
    """Prepare the clicks in [first, end) and return the folder of the data."""
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(os.environ["XREC_DATA"]).resolve() / "globo-multidevice" / "multidevice_users_clicks.parquet"
    sources = SOURCES.format(path=path, first_ms=first_ms, last_ms=end_ms - 1)
    (folder / "sources.toml").write_text(sources, encoding="utf-8")
    command("xrec-train", "prepare", folder / "sources.toml", "--out", folder / "data", quiet=True)
    return folder / "data"


def train(folder: Path, start_ms: int, learned_ms: int) -> Run:
    """Train the model of the day that begins at ``start_ms``."""
    data = prepare(folder, start_ms - learned_ms, start_ms + DAY_MS)
    settings = [word for name, value in SETTINGS.items() for word in ("--setting", f"{name}={value}")]
    command("xrec-train", "fit", data, "--out", folder / "run", "--target", "view", *settings, quiet=True)
    run = load_run(folder / "run")
    facts = run.facts
    print(f"{len(run.catalogue)} items, best epoch {facts['best_epoch']}, trend {facts['trend']}", flush=True)
    return run


def measure(run: Run, raw: RawLog, start_ms: int) -> dict[str, Columns]:
    """Return the measured cases of each task of one day."""
    end_ms = start_ms + DAY_MS
    log, merged, count = first_clicks(run, raw, start_ms)
    print(f"{count} first clicks after a change of device, {len(merged)} of them on items of the catalogue", flush=True)
    own = merged.with_histories(own_device_histories(log, merged))
    learned = log.at_ms < start_ms - VALIDATION_MS
    rankers: dict[str, Ranker] = {"xrec": model_ranker(run.model, log, run.repeat)}
    rankers |= {name: BASELINES[name](log, learned, half_life_days=HALF_LIFE_DAYS) for name in SHOWN}
    views = frozenset([1])
    switches = columns_of(rankers, merged, log)
    switches |= {f"own {name}": values for name, values in columns_of(rankers, own, log).items()}
    switches["own is empty"] = np.diff(own.history_offsets) == 0
    return {
        "all": columns_of(rankers, by_time(log, start_ms, end_ms, views, new_only=False), log),
        "new": columns_of(rankers, by_time(log, start_ms, end_ms, views, new_only=True), log),
        "switch": switches,
    }


def first_clicks(run: Run, raw: RawLog, start_ms: int) -> tuple[Log, Cases, int]:
    """Return the whole log in the run's rows, the day's first clicks after a change of device, and how many there are.

    Changes of device are read from all clicks and counted; the cases are those on items that the catalogue has.
    """
    count = len(raw.item_ids)
    row_of_id = {item_id: row for row, item_id in enumerate(run.catalogue.ids)}
    row_of = np.array([row_of_id.get(item_id, -1) for item_id in raw.item_ids], dtype=np.int32)
    everything = dataset.build_log(raw, np.arange(count, dtype=np.int32), count, run.vocabulary)
    log = dataset.build_log(raw, row_of, len(run.catalogue), run.vocabulary)
    is_known = row_of[everything.item] >= 0
    place = np.cumsum(is_known) - 1
    asked = after_switch(everything, start_ms, start_ms + DAY_MS, SESSION_GAP_MS)
    cases = asked.only(row_of[asked.relevant] >= 0)
    histories = [place[history[is_known[history]]] for history in map(cases.history, range(len(cases)))]
    return log, replace(cases.with_histories(histories), relevant=row_of[cases.relevant]), len(asked)


def columns_of(rankers: dict[str, Ranker], cases: Cases, log: Log) -> Columns:
    """Return who is asked on which device, and how each ranker does."""
    columns: Columns = {"user": np.array(log.users)[cases.user]}
    columns["device"] = np.array(["unknown", *log.vocabulary.devices])[cases.device]
    for name, rank in rankers.items():
        measured = per_case(rank(cases, 10), cases, [10])
        columns |= {f"{name} {metric}": measured[metric] for metric in METRICS}
    return columns


def print_tables(pooled: dict[str, Columns]) -> None:
    """Print every ranker on the usual tasks, then merged against own histories on the first clicks after a change."""
    for task, title in {
        "all": "The day's clicks, repeats included",
        "new": "The day's clicks on items new to the user",
        "switch": "First click after a change of device, merged history",
    }.items():
        columns = pooled[task]
        print(f"\n{title}: {sized(columns)}")
        for name in ("xrec", *BASELINES):
            print(f"  {name:12s}" + "".join(f"  {metric} {mean(columns, name, metric):.4f}" for metric in METRICS))
        for name in BASELINES:
            gains = (difference(columns, "xrec", name, metric) for metric in METRICS)
            print(f"  xrec - {name:12s}" + "".join(f"  {gain:+.4f}" for gain in gains))
    columns = pooled["switch"]
    is_empty = columns["own is empty"]
    groups = {"all": is_empty | True, "own device empty": is_empty, "own device has a history": ~is_empty}
    groups |= {f"to device group {device}": columns["device"] == device for device in np.unique(columns["device"])}
    for group, keep in groups.items():
        asked = {name: values[keep] for name, values in columns.items()}
        print(f"\nMerged against own-device history, {group}: {sized(asked)}")
        for name in ("xrec", "item_knn", "ease") if group == "all" else ("xrec",):
            for metric in METRICS:
                print(
                    f"  {name:12s} {metric:8s} merged {mean(asked, name, metric):.4f}"
                    f"  own {mean(asked, f'own {name}', metric):.4f}"
                    f"  difference {difference(asked, name, f'own {name}', metric):+.4f}"
                )
        for name in BASELINES:
            gains = (f"  {metric} {difference(asked, 'xrec', name, metric):+.4f}" for metric in METRICS)
            print(f"  xrec - {name:12s}" + "".join(gains))


def sized(columns: Columns) -> str:
    """Say how many cases and users there are."""
    return f"{len(columns['user'])} cases, {len(set(columns['user']))} users"


def mean(columns: Columns, name: str, metric: str) -> Interval:
    """Return the mean of a ranker's metric over the cases."""
    return mean_interval(columns[f"{name} {metric}"], codes(columns["user"]))


def difference(columns: Columns, name: str, baseline: str, metric: str) -> Interval:
    """Return the mean of what a ranker has more than another, case by case."""
    return paired_difference(columns[f"{name} {metric}"], columns[f"{baseline} {metric}"], codes(columns["user"]))


def codes(names: NDArray[Any]) -> NDArray[np.int32]:
    """Number users, so that a user has one number on all days."""
    return np.unique(names, return_inverse=True)[1].astype(np.int32)


def release(out: Path, folder: Path, raw: RawLog, start_ms: int) -> None:
    """Evaluate, build and verify the run of a day, then recommend from the bundle for some of its users."""
    key_path, bundle = out / "release.pem", out / "globo.xrec"
    key_path.unlink(missing_ok=True)
    key = json.loads(command("xrec-export", "keygen", key_path, "--json", quiet=True))["public_key"]
    command("xrec-export", "build", folder / "run", "--out", bundle, "--key", key_path)
    command("xrec-export", "verify", bundle, "--key", key)
    command("xrec-train", "evaluate", folder / "run", "--bundle", bundle, "--trusted-key", key)
    run = load_run(folder / "run")
    log, merged, _ = first_clicks(run, raw, start_ms)
    own = own_device_histories(log, merged)
    has_both = np.flatnonzero([len(mine) and len(mine) < len(merged.history(case)) for case, mine in enumerate(own)])
    for case in has_both[np.linspace(0, len(has_both) - 1, min(3, len(has_both))).astype(int)]:
        clicked = run.catalogue.ids[int(merged.answers(case)[0])]
        device = run.vocabulary.devices[merged.device[case] - 1]
        print(f"\nA user changes to device group {device} and clicks on {clicked}")
        for name, history in {"own device": own[case], "merged": merged.history(case)}.items():
            listed = recommend(bundle, key, run, log, history, int(merged.now_ms[case]))
            print(f"  {name:10s} {len(history):3d} clicks -> {' '.join(listed)}")


def recommend(bundle: Path, key: str, run: Run, log: Log, history: NDArray[np.int64], now_ms: int) -> list[str]:
    """Return the ten ids that an app with this history gets from the SDK."""
    with xrec_sdk.Recommender(bundle, trusted_keys=[key], clock_ms=lambda: now_ms) as recommender:
        recommender.set_consent("personalise", True)
        for index in history:
            item_id, device = run.catalogue.ids[log.item[index]], run.vocabulary.devices[log.device[index] - 1]
            recommender.record("view", item_id, device=device, at_ms=int(log.at_ms[index]))
        return [item.item_id for item in recommender.recommend(k=10, filter_seen=False)]


if __name__ == "__main__":
    main()
