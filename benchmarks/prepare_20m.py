"""Prepare 20 million events from three platforms and report wall time, CPU time and the peak of memory.

    python benchmarks/prepare_20m.py [--rows 20000000] [--folder DIR]

The rows are generated with a seed into Parquet and CSV files; the preparation runs in a process of its own, so that its
peak is not that of the generator. The report's accounting and the order of the output are checked before it is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

SHARES = {"app": 0.5, "web": 0.3, "mini": 0.2}
TARGET_GB = 1.5


def generate(folder: Path, rows: int) -> None:
    """Write the files of three platforms and their sources.toml; 1 row in 50 is delivered twice."""
    connection = duckdb.connect(config={"memory_limit": "800MB", "temp_directory": str(folder / "spill")})
    for number, (name, share) in enumerate(SHARES.items()):
        count = int(rows * share)
        # hash() of a running number is a fixed pseudo-random stream: the same rows on every run
        again = "i - CASE WHEN i % 50 = 0 AND i > 0 THEN 1 ELSE 0 END"
        query = (
            f"SELECT 'u' || (d % {rows // 40}) AS uid, "
            f"'i' || CAST(floor(pow((d // 7) % 1000003 / 1000003.0, 3) * 100000) AS INTEGER) AS sku, "
            f"['view_item', 'view_item', 'view_item', 'add_to_cart', 'purchase'][1 + (d // 11) % 5] AS name, "
            f"1700000000000 + (d // 13) % 7776000000 AS ts, (d // 17) % 10000 / 100.0 AS price "
            f"FROM (SELECT (hash({again} + {number} * 1000000007) >> 1)::BIGINT AS d FROM range({count}) t(i))"
        )
        target = folder / (f"{name}.parquet" if name != "mini" else f"{name}.csv")
        form = "FORMAT parquet" if name != "mini" else "FORMAT csv, HEADER"
        connection.execute(f"COPY ({query}) TO '{target}' ({form})")
    connection.close()
    (folder / "sources.toml").write_text("\n".join(_source(name) for name in SHARES), encoding="utf-8")


def _source(name: str) -> str:
    kind = "csv" if name == "mini" else "parquet"
    device = {"app": "phone", "web": "pc", "mini": "mini_program"}[name]
    return (
        f'[[source]]\nname = "{name}"\nfiles = "{name}.{kind}"\nformat = "{kind}"\n'
        f'columns = {{ user_id = "uid", item_id = "sku", event = "name", at = "ts", value = "price" }}\n'
        f'constants = {{ device = "{device}" }}\n'
    )


def check(out: Path) -> dict[str, int]:
    report = json.loads((out / "quality.json").read_text(encoding="utf-8"))
    read = sum(source["read"] for source in report["sources"])
    kept = sum(source["kept"] for source in report["sources"])
    dropped = sum(sum(source["dropped"].values()) for source in report["sources"])
    file = f"read_parquet('{out / 'events.parquet'}', file_row_number=true)"
    misplaced = duckdb.connect(config={"memory_limit": "800MB", "temp_directory": str(out.parent / "spill")}).execute(
        f"SELECT count(*) FROM (SELECT (user_id, at_ms) < lag((user_id, at_ms)) OVER (ORDER BY file_row_number) "
        f"AS wrong FROM {file}) WHERE wrong"
    )
    row = misplaced.fetchone()
    if read != kept + dropped or row is None or row[0]:
        raise SystemExit(f"wrong: read {read}, kept {kept}, dropped {dropped}, misplaced {row}")
    return {"read": read, "kept": kept, "dropped": dropped}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        generate(folder, arguments.rows)
        out = folder / "prepared"
        code = (
            "import sys; from pathlib import Path; from xrec_trainer.prepare import prepare; "
            "prepare(Path(sys.argv[1]), Path(sys.argv[2]))"
        )
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", code, str(folder / "sources.toml"), str(out)])
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        if status:
            raise SystemExit(f"prepare failed with status {status}")
        rows = check(out)
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    report(wall, usage, rows, size)


def report(wall: float, usage: resource.struct_rusage, rows: dict[str, int], size: int) -> None:
    peak_gb = usage.ru_maxrss * 1024 / 1e9
    print(f"machine   {os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}")
    print(f"versions  DuckDB {duckdb.__version__}, memory_limit 1GB")
    print(f"rows      {rows['read']:,} read, {rows['kept']:,} kept, {rows['dropped']:,} dropped")
    print(f"files     {size / 1e9:.2f} GB of Parquet and CSV")
    print(f"wall      {wall:.1f} s")
    print(f"CPU       {usage.ru_utime + usage.ru_stime:.1f} s")
    print(f"peak RSS  {peak_gb:.2f} GB (target below {TARGET_GB})")
    if peak_gb >= TARGET_GB:
        raise SystemExit("the peak is above the target")


if __name__ == "__main__":
    main()
