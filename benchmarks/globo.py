"""Real cross-device users: the Globo.com clicks of users seen on two or more device groups, through the whole lane.

Put `multidevice_users_clicks.parquet` (users of the public Globo.com news data set, academic use only, with columns
u, d, t, s, i) in `$XREC_DATA/globo-multidevice/`, then run `python benchmarks/globo.py --out build/globo`. It prints
the usual evaluation, then NDCG@10 and HR@10 on the first click after each change of device, with the own device's
history and with the merged one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from xrec_sdk.history import DAY_MS, MINUTE_MS
from xrec_trainer.bootstrap import mean_interval, paired_difference
from xrec_trainer.cases import after_switch, own_device_histories
from xrec_trainer.metrics import per_case
from xrec_trainer.ranking import model_ranker
from xrec_trainer.run import load_run

# The log is dense until 17 October 2017 and has 24 stray clicks after it, which would leave the test period empty.
SOURCES = """\
[[source]]
name = "globo"
files = "{path}"
format = "parquet"
columns = {{ user_id = "u", item_id = "i", at = "t", device = "d", session_id = "s" }}
constants = {{ event = "view" }}
time_unit = "ms"

[clean]
max_at_ms = 1508284799999
"""
SETTINGS = ("min_count=5", "test_days=3", "validation_days=3", "half_life_days=1", "patience=4", "dropout=0.3")


def main() -> None:
    """Run the lane, then compare own-device with merged histories."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    path = Path(os.environ["XREC_DATA"]).resolve() / "globo-multidevice" / "multidevice_users_clicks.parquet"
    (out / "sources.toml").write_text(SOURCES.format(path=path))
    settings = [part for setting in SETTINGS for part in ("--setting", setting)]
    tool = str(Path(sys.executable).parent / "xrec-train")
    subprocess.run([tool, "prepare", out / "sources.toml", "--out", out / "data"], check=True)
    subprocess.run([tool, "fit", out / "data", "--out", out / "run", "--target", "view", *settings], check=True)
    subprocess.run([tool, "evaluate", out / "run"], check=True)
    compare_histories(out / "run")


def compare_histories(folder: Path) -> None:
    """Print the metrics of the first click after a switch with own and with merged history, and the difference."""
    run = load_run(folder)
    end_ms = int(run.log.at_ms.max()) + 1
    merged = after_switch(run.log, end_ms - int(run.config.test_days * DAY_MS), end_ms, 30 * MINUTE_MS)
    histories = own_device_histories(run.log, merged)
    own = merged.with_histories(histories)
    rank = model_ranker(run.model, run.log)
    results = {"own device": per_case(rank(own, 10), own, [10]), "merged": per_case(rank(merged, 10), merged, [10])}
    is_empty = np.array([len(history) == 0 for history in histories])
    groups = {"all": np.ones(len(merged), bool), "own device empty": is_empty, "own device has a history": ~is_empty}
    for group, keep in groups.items():
        print(f"\nFirst click after a switch, {group}: {int(keep.sum())} cases, {len(set(merged.user[keep]))} users")
        for metric in ("ndcg@10", "hr@10"):
            for name, found in results.items():
                interval = mean_interval(found[metric][keep], merged.user[keep])
                print(f"  {metric:8s} {name:12s} {interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]")
            gain = paired_difference(
                results["merged"][metric][keep], results["own device"][metric][keep], merged.user[keep]
            )
            print(f"  {metric:8s} merged - own {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")


if __name__ == "__main__":
    main()
