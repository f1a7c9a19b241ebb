"""Preparation by small files: what is read, in each format and with each mistake."""

from __future__ import annotations

import gzip
import json
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from xrec_sdk.errors import DataError, UsageError
from xrec_trainer.prepare import prepare
from xrec_trainer.quality import QualityReport, SourceQuality

T0 = 1_704_067_200_000  # 2024-01-01T00:00:00Z
ROWS = [("ann", "i1", "view", T0), ("ann", "i2", "add_to_cart", T0 + 1000), ("bob", "i1", "purchase", T0 + 2000)]
NAMES = ("user", "item", "name", "time")
COLUMNS = 'columns = { user_id = "user", item_id = "item", event = "name", at = "time" }\n'


def _toml(files: str, more: str = "", name: str = "app", columns: str = COLUMNS) -> str:
    return f'[[source]]\nname = "{name}"\nfiles = "{files}"\n{columns}constants = {{ device = "phone" }}\n{more}\n'


def _run(folder: Path, toml: str) -> tuple[list[dict[str, Any]], QualityReport]:
    (folder / "sources.toml").write_text(toml, encoding="utf-8")
    report = prepare(folder / "sources.toml", folder / "out")
    return pq.read_table(folder / "out" / "events.parquet").to_pylist(), report


def _csv(*lines: str) -> str:
    return "\n".join(("user,item,name,time", *lines)) + "\n"


def _fails(folder: Path, toml: str, code: str) -> str:
    with pytest.raises(DataError) as caught:
        _run(folder, toml)
    assert caught.value.code == code
    assert not (folder / "out").exists()
    assert not list(folder.glob(".out*"))
    return str(caught.value)


def _write(folder: Path, kind: str) -> str:
    text = _csv(*(",".join(map(str, row)) for row in ROWS))
    lines = "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in ROWS)
    if kind == "csv":
        (folder / "e.csv").write_text(text, encoding="utf-8")
        return _toml("e.csv")
    if kind == "bom":
        (folder / "e.csv").write_text(text.replace("\n", "\r\n"), encoding="utf-8-sig")
        return _toml("e.csv")
    if kind == "csv.gz":
        (folder / "e.csv.gz").write_bytes(gzip.compress(text.encode()))
        return _toml("e.csv.gz")
    if kind == "jsonl":
        (folder / "e.jsonl").write_text(lines, encoding="utf-8")
        return _toml("e.jsonl", 'format = "jsonl"')
    if kind == "jsonl.gz":
        (folder / "e.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
        return _toml("e.jsonl.gz", 'format = "jsonl"')
    if kind == "parquet":
        columns = zip(*ROWS, strict=True)
        pq.write_table(pa.table(dict(zip(NAMES, map(list, columns), strict=True))), folder / "e.parquet")
        return _toml("e.parquet", 'format = "parquet"')
    connection = sqlite3.connect(folder / "e.db")
    connection.execute("CREATE TABLE events (user TEXT, item TEXT, name TEXT, time INTEGER)")
    connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", ROWS)
    connection.commit()
    connection.close()
    return _toml("e.db", 'format = "sqlite"\ntable = "events"')


@pytest.mark.parametrize("kind", ["csv", "bom", "csv.gz", "jsonl", "jsonl.gz", "parquet", "sqlite"])
def test_each_format_gives_the_same_events(tmp_path: Path, kind: str) -> None:
    events, report = _run(tmp_path, _write(tmp_path, kind))
    found = [(row["user_id"], row["item_id"], row["event"], row["at_ms"]) for row in events]
    assert found == [
        ("ann", "i1", "view", T0),
        ("ann", "i2", "cart", T0 + 1000),
        ("bob", "i1", "purchase", T0 + 2000),
    ]
    assert (report.read, report.kept) == (3, 3)


def test_the_columns_are_exactly_those_of_the_format(tmp_path: Path) -> None:
    _run(tmp_path, _write(tmp_path, "csv"))
    schema = pq.read_schema(tmp_path / "out" / "events.parquet")
    expected = {
        "user_id": pa.string(),
        "item_id": pa.string(),
        "event": pa.string(),
        "at_ms": pa.int64(),
        "device": pa.string(),
        "query": pa.string(),
        "value": pa.float64(),
        "session_id": pa.string(),
        "position": pa.int32(),
        "recommendation_id": pa.string(),
    }
    assert dict(zip(schema.names, schema.types, strict=True)) == expected


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "sqlite"])
def test_a_wrong_column_names_the_file_and_what_it_has(tmp_path: Path, kind: str) -> None:
    toml = _write(tmp_path, kind).replace('item_id = "item"', 'item_id = "sku"')
    message = _fails(tmp_path, toml, "data.column_missing")
    assert "'sku'" in message and "item" in message and "e." in message


def test_an_unknown_event_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(_csv(f"ann,i1,ogle,{T0}"))
    assert "'ogle' (1 rows)" in _fails(tmp_path, _toml("e.csv"), "data.event_unknown")


@pytest.mark.parametrize(("rule", "kept"), [("drop", 0), ("keep", 1)])
def test_an_unknown_event_is_dropped_or_kept_as_declared(tmp_path: Path, rule: str, kept: int) -> None:
    (tmp_path / "e.csv").write_text(_csv(f"ann,i1,ogle,{T0}"))
    events, report = _run(tmp_path, _toml("e.csv", f'unknown_event = "{rule}"'))
    assert len(events) == kept
    assert report.sources[0].dropped == ({} if kept else {"unknown_event": 1})


def test_a_declared_event_name_wins_over_the_known_one(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(_csv(f"ann,i1,purchase,{T0}", f"ann,i1,bought,{T0 + 1}"))
    events, _ = _run(tmp_path, _toml("e.csv", 'events = { bought = "purchase", purchase = "cart" }'))
    assert [row["event"] for row in events] == ["cart", "purchase"]


BROKEN = [_csv(f"ann,i1,view,{T0}", "bob,i2"), _csv(f"ann,i1,view,{T0}", f"bob,i2,view,{T0},5")]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_line_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "e.csv").write_text(text)
    assert "line 3" in _fails(tmp_path, _toml("e.csv"), "data.broken_line")


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_line_is_dropped_and_counted_where_declared(tmp_path: Path, text: str) -> None:
    (tmp_path / "e.csv").write_text(text)
    events, report = _run(tmp_path, _toml("e.csv", 'broken_line = "drop"'))
    assert [row["user_id"] for row in events] == ["ann"]
    assert (report.read, report.sources[0].dropped) == (2, {"broken_line": 1})


@pytest.mark.parametrize("rule", ["error", "drop"])
def test_a_quote_that_is_never_closed_hides_no_lines(tmp_path: Path, rule: str) -> None:
    (tmp_path / "e.csv").write_text(_csv(f"ann,i1,view,{T0}", f'bob,"i2,view,{T0}', f"cid,i3,view,{T0}"))
    toml = _toml("e.csv", f'broken_line = "{rule}"')
    assert "line 3" in _fails(tmp_path, toml, "data.quote_open")
    events, _ = _run(tmp_path, toml + "quote = ''\n")
    assert [row["item_id"] for row in events] == ["i1", '"i2', "i3"]


def test_a_quoted_value_may_hold_separators_and_new_lines(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(_csv(f'ann,"i,""1""\nx",view,{T0}'))
    assert _run(tmp_path, _toml("e.csv"))[0][0]["item_id"] == 'i,"1"\nx'


def test_a_line_that_is_no_json_object_is_counted(tmp_path: Path) -> None:
    good = json.dumps(dict(zip(NAMES, ROWS[0], strict=True)))
    (tmp_path / "e.jsonl").write_text(f"{good}\n{{bad\n[1]\n\n3\n{good[:20]}\n")
    toml = _toml("e.jsonl", 'format = "jsonl"\nbroken_line = "drop"')
    _, report = _run(tmp_path, toml)
    assert (report.read, report.sources[0].dropped) == (5, {"broken_line": 4})
    (tmp_path / "again").mkdir()
    (tmp_path / "e.jsonl").rename(tmp_path / "again" / "e.jsonl")
    assert "4 lines" in _fails(tmp_path / "again", toml.replace('"drop"', '"error"'), "data.broken_line")


def test_a_json_path_reads_what_is_nested(tmp_path: Path) -> None:
    document = {"user": "ann", "name": "view", "time": T0, "ecommerce": {"items": [{"item_id": "i7"}]}}
    (tmp_path / "e.jsonl").write_text(json.dumps(document) + "\n")
    columns = COLUMNS.replace('"item"', '"$.ecommerce.items[0].item_id"')
    events, _ = _run(tmp_path, _toml("e.jsonl", 'format = "jsonl"', columns=columns))
    assert events[0]["item_id"] == "i7"


def test_a_line_in_another_encoding_is_counted(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes(_csv(f"ann,i1,view,{T0}").encode() + f"andré,i1,view,{T0}\n".encode("latin-1"))
    _, report = _run(tmp_path, _toml("e.csv", 'broken_line = "drop"'))
    assert (report.read, report.sources[0].dropped) == (2, {"bad_encoding": 1})


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "shift_jis"])
def test_a_declared_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "e.csv").write_bytes(_csv(f"ann,商品,view,{T0}").encode(encoding))
    events, _ = _run(tmp_path, _toml("e.csv", f'encoding = "{encoding}"'))
    assert events[0]["item_id"] == "商品"


def test_a_line_that_the_declared_encoding_cannot_read_is_counted(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes(_csv(f"ann,商品,view,{T0}").encode("gb18030") + b"\xff\xff,i1,view,5\n")
    _, report = _run(tmp_path, _toml("e.csv", 'encoding = "gb18030"\nbroken_line = "drop"'))
    assert (report.read, report.sources[0].dropped) == (2, {"bad_encoding": 1})


@pytest.mark.parametrize("text", ["", "user,item,name,time\n"])
def test_an_empty_file_is_an_error_or_counted(tmp_path: Path, text: str) -> None:
    (tmp_path / "e1.csv").write_text(text)
    assert "e1.csv" in _fails(tmp_path, _toml("e*.csv"), "data.file_empty")
    (tmp_path / "e2.csv").write_text(_csv(f"ann,i1,view,{T0}"))
    _, report = _run(tmp_path, _toml("e*.csv", 'empty_file = "drop"'))
    assert (report.sources[0].files, report.sources[0].empty_files, report.read) == (2, 1, 1)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    assert "'none*.csv'" in _fails(tmp_path, _toml("none*.csv"), "data.file_missing")


@pytest.mark.parametrize("kind", ["parquet", "sqlite", "csv.gz", "jsonl.gz"])
def test_a_damaged_file_is_an_error(tmp_path: Path, kind: str) -> None:
    toml = _write(tmp_path, kind)
    path = next(tmp_path.glob("e.*"))
    path.write_bytes(b"damaged" * 100)
    assert path.name in _fails(tmp_path, toml, "data.file_broken")


def test_a_table_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    toml = _write(tmp_path, "sqlite").replace('table = "events"', 'table = "visits"')
    assert "'events'" in _fails(tmp_path, toml, "data.table_missing")


def test_the_time_stamps_of_a_parquet_file_are_read_in_the_declared_zone(tmp_path: Path) -> None:
    times = pa.array([datetime(2024, 1, 1, 8), None], pa.timestamp("us"))
    table = pa.table({"user": ["ann", "bob"], "item": [1, 2], "name": ["view"] * 2, "time": times})
    pq.write_table(table, tmp_path / "e.parquet")
    more = 'format = "parquet"\ntime_unit = "iso"\ntime_zone = "Asia/Shanghai"'
    events, report = _run(tmp_path, _toml("e.parquet", more))
    assert [(row["item_id"], row["at_ms"]) for row in events] == [("1", T0)]
    assert report.sources[0].dropped == {"missing_at": 1}


def test_a_folder_whose_name_holds_glob_signs_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "a [b] 'c'"
    folder.mkdir()
    (folder / "e.csv").write_text(_csv(f"ann,i1,view,{T0}"))
    assert len(_run(folder, _toml("e.csv"))[0]) == 1


def test_an_earlier_data_set_is_replaced(tmp_path: Path) -> None:
    toml = _write(tmp_path, "csv")
    _run(tmp_path, toml)
    (tmp_path / "e.csv").write_text(_csv(f"zoe,i9,view,{T0}"))
    events, _ = _run(tmp_path, toml)
    assert [row["user_id"] for row in events] == ["zoe"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.csv", "out", "sources.toml"]


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    toml = _write(tmp_path, "csv")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something"):
        _run(tmp_path, toml)
    assert (tmp_path / "out" / "thesis.txt").is_file()


def test_a_failure_leaves_the_earlier_data_set(tmp_path: Path) -> None:
    toml = _write(tmp_path, "csv")
    _run(tmp_path, toml)
    (tmp_path / "e.csv").write_text(BROKEN[0])
    with pytest.raises(DataError):
        _run(tmp_path, toml)
    assert pq.read_table(tmp_path / "out" / "events.parquet").num_rows == 3


def test_a_report_that_does_not_add_up_is_refused() -> None:
    report = QualityReport((SourceQuality("app", 1, 0, 5, 3, {"bad_time": 1}),))
    with pytest.raises(DataError, match="5 rows read, but 3 kept and 1 dropped"):
        report.check()
