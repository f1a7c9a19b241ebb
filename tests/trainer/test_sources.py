"""sources.toml: what it may say, and that a mistake is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from xrec_sdk.errors import DataError
from xrec_trainer.sources import read_sources

GOOD = """\
[[source]]
name = "app"
files = "app.csv"
columns = { user_id = "user", item_id = "item", event = "name", at = "time" }
constants = { device = "phone" }
"""


def _read(folder: Path, text: str):
    path = folder / "sources.toml"
    path.write_text(text, encoding="utf-8")
    return read_sources(path)


def _refused(folder: Path, text: str) -> str:
    with pytest.raises(DataError) as caught:
        _read(folder, text)
    assert caught.value.code == "data.sources"
    return str(caught.value)


def test_a_source_has_defaults(tmp_path: Path) -> None:
    source = _read(tmp_path, GOOD).sources[0]
    assert (source.where.format, source.time_unit, source.time_zone) == ("csv", "ms", "UTC")
    assert (source.unknown_event, source.where.broken_line, source.where.empty_file) == ("error", "error", "error")


def test_missing_rules_drop_or_fill(tmp_path: Path) -> None:
    text = GOOD + 'missing = { item_id = "drop", value = { fill = 0.5 } }\n'
    assert _read(tmp_path, text).sources[0].missing == {"item_id": None, "value": "0.5"}


def test_an_unknown_key_is_named_with_its_line(tmp_path: Path) -> None:
    message = _refused(tmp_path, GOOD + 'timezone = "UTC"\n')
    assert "line 6" in message and "'timezone'" in message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('format = "xlsx"', "csv, jsonl, parquet, sqlite"),
        ('time_unit = "minutes"', "s, ms, us, iso"),
        ('unknown_event = "ignore"', "error, drop, keep"),
        ('broken_line = "skip"', "error, drop"),
        ('encoding = "klingon"', "klingon"),
        ('format = "sqlite"', "needs table"),
        ('table = "events"', "needs table"),
        ("missing = { value = 3 }", "fill"),
        ('missing = { value = { fill = "much" } }', "number"),
        ('delimiter = ";;"', "one character"),
        ("events = { buy = 3 }", "must be a text"),
        ('events = "buy"', "must be a table"),
        ("time_zone = 8", "must be a text"),
    ],
)
def test_a_wrong_value_is_refused(tmp_path: Path, line: str, expected: str) -> None:
    assert expected in _refused(tmp_path, GOOD + line + "\n")


@pytest.mark.parametrize(
    ("clean", "expected"),
    [
        ("max_events_per_day = 0", "whole number from 1"),
        ("max_events_per_day = true", "whole number"),
        ("session_minutes = 2000", "between"),
        ("min_value = 5.0\nmax_value = 1.0", "above"),
        ("min_at_ms = 2\nmax_at_ms = 1", "above"),
        ("min_value = nan", "number"),
        ("bots = 3", "unknown key"),
        ("standardize_value = 1", "true or false"),
    ],
)
def test_a_wrong_bound_is_refused(tmp_path: Path, clean: str, expected: str) -> None:
    assert expected in _refused(tmp_path, GOOD + "[clean]\n" + clean + "\n")


def test_no_source_is_refused(tmp_path: Path) -> None:
    assert "[[source]]" in _refused(tmp_path, "[clean]\nmax_value = 3.0\n")


def test_one_source_in_single_brackets_is_refused(tmp_path: Path) -> None:
    assert "[[source]]" in _refused(tmp_path, GOOD.replace("[[source]]", "[source]"))


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    assert "must differ" in _refused(tmp_path, GOOD + GOOD)


def test_a_column_that_is_also_a_constant_is_refused(tmp_path: Path) -> None:
    assert "both" in _refused(tmp_path, GOOD.replace('device = "phone"', 'device = "phone", event = "view"'))


def test_a_required_column_must_be_mapped(tmp_path: Path) -> None:
    assert "columns.device" in _refused(tmp_path, GOOD.replace('constants = { device = "phone" }\n', ""))


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    assert "TOML" in _refused(tmp_path, "source = [")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_sources(tmp_path / "none.toml")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    assert _read(tmp_path, "\ufeff" + GOOD).sources[0].name == "app"
