"""What searches bring on a generated log: the same model with and without them, through prepare, fit and evaluate.

No public log at hand has queries, so this shows that the way works from the typed text to the ranking, and nothing of
what searches bring to a shop. Of 2,000 users each has two favourite shelves of 24; a visit is a purchase from a
favourite (70 %) or from any shelf, and three visits of five begin with a search for the shelf, misspelt one time in
three by a letter left out. Run `python benchmarks/searches.py --out build/searches`.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SEED = 17
USERS, SHELF_ITEMS = 2_000, 25
THINGS = ("tea", "shoes", "lamp", "hose", "手机壳", "coffee", "chair", "红茶")
KINDS = ("green", "cheap", "garden")
SPELLINGS = ("{}", "best {}", "{} sale", "buy {} online")
SOURCES = """\
[[source]]
name = "shop"
files = "events.csv"
columns = { user_id = "user", item_id = "item", event = "event", at = "at", query = "query" }
constants = { device = "phone" }
time_unit = "s"
"""
Row = tuple[str, str, str, int, str]


def visits() -> Iterator[Row]:
    """Yield user, item, event, time and query."""
    random = np.random.default_rng(SEED)
    shelves = [f"{kind} {thing}" for thing in THINGS for kind in KINDS]
    popularity = 1 / np.arange(1, SHELF_ITEMS + 1)
    for user in range(USERS):
        favourites, at = random.permutation(len(shelves))[:2], 1_700_000_000
        for _ in range(int(random.integers(4, 14))):
            at += int(random.integers(86_400, 10 * 86_400))
            is_favourite = random.random() < 0.7
            shelf = int(random.choice(favourites)) if is_favourite else int(random.integers(len(shelves)))
            if random.random() < 0.6:
                text = str(random.choice(SPELLINGS)).format(shelves[shelf])
                if random.random() < 1 / 3:
                    place = int(random.integers(len(text)))
                    text = text[:place] + text[place + 1 :]
                yield f"u{user}", "", "search", at, text
            item = int(random.choice(SHELF_ITEMS, p=popularity / popularity.sum()))
            yield f"u{user}", f"i{shelf}-{item}", "purchase", at + 120, ""


def main() -> None:
    """Write the log, then run xrec's own commands on it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    with (out / "events.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("user", "item", "event", "at", "query"), *visits()])
    (out / "sources.toml").write_text(SOURCES, encoding="utf-8")
    tool = str(Path(sys.executable).parent / "xrec-train")
    subprocess.run([tool, "prepare", out / "sources.toml", "--out", out / "data"], check=True, capture_output=True)
    for queries in ("false", "true"):
        for seed in range(1, arguments.seeds + 1):
            run = out / f"run-{queries}-{seed}"
            settings = ("max_epochs=30", "neighbours=0", f"queries={queries}", f"seed={seed}")
            words = [part for setting in settings for part in ("--setting", setting)]
            fit = [tool, "fit", out / "data", "--out", run, "--split", "leave-one-out", *words]
            subprocess.run(fit, check=True, capture_output=True)
            subprocess.run([tool, "evaluate", run], check=True, capture_output=True)
            found = json.loads((run / "metrics.json").read_text())["tasks"]["all"]["models"]
            for name in ("xrec", "buy_again"):
                mean, low, high = (found[name]["ndcg@10"][part] for part in ("mean", "low", "high"))
                print(
                    f"queries={queries} seed={seed} {name}: test NDCG@10 {mean:.4f} [{low:.4f}, {high:.4f}]", flush=True
                )


if __name__ == "__main__":
    main()
