"""The rules of preparation give the same rows and counts on PySpark as on DuckDB."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import narwhals as nw
import pyarrow as pa
import pytest
from xrec_trainer.sources import Clean
from xrec_trainer.transform import Frame, apply_rules, merge_identity, rules_of, standardize_value

pytestmark = [pytest.mark.spark, pytest.mark.filterwarnings("default")]

T0 = 1_704_067_200_000
NAMES = ("user_id", "item_id", "event", "at_ms", "device", "query", "value", "session_id", "position")
TYPES = {"at_ms": pa.int64(), "value": pa.float64(), "position": pa.int32(), "broken": pa.bool_()}
COLUMNS = (*NAMES, "recommendation_id", "source", "problem", "broken")
CLEAN = Clean(min_at_ms=T0 + 600_000, max_value=90.0, max_events_per_day=120)
IDENTITY = {"anonymous_id": ["u1"], "account_id": ["u2"]}


def _events() -> list[dict[str, Any]]:
    draw = random.Random(11)
    rows: list[dict[str, Any]] = []
    for _ in range(600):
        row = dict.fromkeys(COLUMNS)
        row |= {
            "user_id": f"u{draw.randrange(6)}",
            "item_id": draw.choice(["x", "y", "z", None]),
            "event": draw.choice(["view", "view", "cart", "search"]),
            "at_ms": T0 + draw.randrange(600) * 60_000,
            "device": draw.choice(["phone", "pc"]),
            "query": draw.choice([None, "shoes"]),
            "value": draw.choice([None, 1.5, 7.25, 99.0]),
            "session_id": draw.choice([None, None, None, "s1"]),
            "source": draw.choice(["app", "web"]),
            "problem": "bad_time" if draw.random() < 0.05 else None,
            "broken": False,
        }
        rows += [row] * draw.choice([1, 1, 3])
    return rows


def _transform(frame: Frame, identity: Frame, keep: Any) -> tuple[list[tuple[Any, ...]], Counter[tuple[str, str]]]:
    merged = merge_identity(frame, identity)
    kept, dropped = apply_rules(merged, rules_of(CLEAN), keep)
    table = standardize_value(kept).collect("pyarrow").to_native()
    rows = [tuple(row[name] for name in COLUMNS[:-2]) for row in table.to_pylist()]
    rounded = [tuple(round(cell, 9) if isinstance(cell, float) else cell for cell in row) for row in rows]
    return sorted(rounded, key=repr), dropped


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    sql = pytest.importorskip("pyspark.sql")
    session = (
        sql.SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.driver.memory", "1g")
        .getOrCreate()
    )
    yield session
    session.stop()


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, TYPES.get(name, pa.string())) for name in COLUMNS]))


def test_spark_and_duckdb_give_the_same_rows_and_counts(spark: Any) -> None:
    import duckdb

    rows = _events()
    connection = duckdb.connect()
    connection.register("events", _table(rows))
    connection.register("identity", pa.table(IDENTITY))
    by_duckdb = _transform(
        nw.from_native(connection.sql("SELECT * FROM events")),
        nw.from_native(connection.sql("SELECT * FROM identity")),
        lambda frame: frame,
    )
    types = {"at_ms": "bigint", "value": "double", "position": "int", "broken": "boolean"}
    schema = ", ".join(f"{name} {types.get(name, 'string')}" for name in COLUMNS)
    frame = spark.createDataFrame([tuple(row[name] for name in COLUMNS) for row in rows], schema)
    identity = spark.createDataFrame([("u1", "u2")], "anonymous_id string, account_id string")
    by_spark = _transform(
        nw.from_native(frame),
        nw.from_native(identity),
        lambda marked: nw.from_native(marked.to_native().cache()),
    )
    assert by_spark[1] == by_duckdb[1]
    assert by_spark[0] == by_duckdb[0]
    assert {reason for _, reason in by_duckdb[1]} == {
        "bad_time",
        "before_min_time",
        "value_above_max",
        "bot",
        "duplicate",
        "repeated_view",
    }
