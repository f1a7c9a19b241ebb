"""The rules of preparation, each by a few rows worked by hand; and that every row is accounted for."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from xrec_sdk.errors import DataError
from xrec_sdk.query import reduce_query
from xrec_trainer.identity import resolve
from xrec_trainer.prepare import prepare
from xrec_trainer.quality import QualityReport

T0 = 1_704_067_200_000  # 2024-01-01T00:00:00Z
MINUTE = 60_000
FIELDS = ("user", "item", "name", "time", "device", "text", "amount", "session")
COLUMNS = (
    'columns = { user_id = "user", item_id = "item", event = "name", at = "time", device = "device", query = "text", '
    'value = "amount", session_id = "session" }\n'
)


def _row(user: str = "ann", item: str = "i1", name: str = "view", time: object = T0, **more: object) -> str:
    values = {"user": user, "item": item, "name": name, "time": time, "device": "phone", **more}
    return ",".join(str(values.get(field, "")) for field in FIELDS)


def _run(
    folder: Path, rows: list[str], source: str = "", rest: str = "", name: str = "app"
) -> tuple[list[dict[str, Any]], QualityReport]:
    (folder / f"{name}.csv").write_text("\n".join((",".join(FIELDS), *rows)) + "\n", encoding="utf-8")
    toml = f'[[source]]\nname = "{name}"\nfiles = "{name}.csv"\n{COLUMNS}{source}\n{rest}\n'
    (folder / "sources.toml").write_text(toml, encoding="utf-8")
    report = prepare(folder / "sources.toml", folder / "out")
    return pq.read_table(folder / "out" / "events.parquet").to_pylist(), report


@pytest.mark.parametrize(
    ("unit", "zone", "time", "at_ms"),
    [
        ("s", "UTC", "1704067200", T0),
        ("s", "UTC", "1704067200.25", T0 + 250),
        ("ms", "UTC", "1704067200000", T0),
        ("ms", "UTC", "1704067200000.0", T0),
        ("us", "UTC", "1704067200000999", T0),
        ("iso", "UTC", "2024-01-01", T0),
        ("iso", "UTC", "2024-01-01 00:00:00.5", T0 + 500),
        ("iso", "Asia/Shanghai", "2024-01-01 08:00:00", T0),
        ("iso", "Asia/Shanghai", "2024-01-01T00:00:00Z", T0),
        ("iso", "Asia/Shanghai", "2024-01-01T01:00:00+01:00", T0),
        ("iso", "Asia/Shanghai", "2024-01-01 05:30:00+0530", T0),
        ("iso", "America/New_York", "2024-07-01 00:00:00", 1_719_806_400_000),
        ("iso", "America/New_York", "2023-12-31 19:00:00", T0),
    ],
)
def test_a_time_becomes_utc_milliseconds(tmp_path: Path, unit: str, zone: str, time: str, at_ms: int) -> None:
    events, _ = _run(tmp_path, [_row(time=time)], f'time_unit = "{unit}"\ntime_zone = "{zone}"')
    assert events[0]["at_ms"] == at_ms


@pytest.mark.parametrize("time", ["soon", "2024-13-01", "1e400", "nan", "99999999999999999999"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "iso"])
def test_a_bad_time_is_dropped_and_counted(tmp_path: Path, unit: str, time: str) -> None:
    events, report = _run(tmp_path, [_row(time=time)], f'time_unit = "{unit}"')
    assert events == []
    assert report.sources[0].dropped == {"bad_time": 1}


def test_an_unknown_time_zone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Mars/Olympus"):
        _run(tmp_path, [_row()], 'time_zone = "Mars/Olympus"')


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (_row(user=""), "missing_user_id"),
        (_row(user="  "), "missing_user_id"),
        (_row(name=""), "missing_event"),
        (_row(time=""), "missing_at"),
        (_row(item=""), "missing_item_id"),
        (_row(device=""), "missing_device"),
        (_row(amount="much"), "bad_value"),
        (_row(amount="inf"), "bad_value"),
        (_row(time=T0 - 1), "before_min_time"),
        (_row(time=T0 + 10**10), "after_max_time"),
        (_row(amount="-1"), "value_below_min"),
        (_row(amount="1001"), "value_above_max"),
    ],
)
def test_an_impossible_row_is_dropped_for_its_reason(tmp_path: Path, row: str, reason: str) -> None:
    clean = f"[clean]\nmin_at_ms = {T0}\nmax_at_ms = {T0 + 10**9}\nmin_value = 0.0\nmax_value = 1000.0"
    events, report = _run(tmp_path, [row, _row(user="bob", amount="1000")], rest=clean)
    assert [event["user_id"] for event in events] == ["bob"]
    assert report.sources[0].dropped == {reason: 1}


def test_a_search_needs_no_item(tmp_path: Path) -> None:
    events, _ = _run(tmp_path, [_row(item="", name="view_search_results", text="red shoes")])
    assert (events[0]["event"], events[0]["item_id"], events[0]["query"]) == ("search", None, reduce_query("red shoes"))


def test_the_text_of_a_search_is_kept_only_where_that_is_declared(tmp_path: Path) -> None:
    events, _ = _run(tmp_path, [_row(item="", name="search", text="red shoes")], rest='[clean]\nqueries = "text"')
    assert events[0]["query"] == "red shoes"


def test_a_search_that_a_device_reduced_is_read_as_one_and_is_no_item(tmp_path: Path) -> None:
    events, _ = _run(tmp_path, [_row(item=reduce_query("red shoes"), name="search", text="")])
    assert (events[0]["item_id"], events[0]["query"]) == (None, reduce_query("red shoes"))


def test_a_missing_value_is_filled_or_its_row_dropped_as_declared(tmp_path: Path) -> None:
    events, _ = _run(tmp_path, [_row(device="")], 'missing = { device = { fill = "pc" }, value = { fill = 2 } }')
    assert (events[0]["device"], events[0]["value"]) == ("pc", 2.0)
    _, report = _run(tmp_path, [_row()], 'missing = { value = "drop" }')
    assert report.sources[0].dropped == {"missing_value": 1}


def test_a_bot_loses_all_its_events(tmp_path: Path) -> None:
    rows = [_row("bot", f"i{n}", time=T0 + n) for n in range(4)] + [_row("bot", time=T0 + 10**9)]
    rows += [_row("ann", f"i{n}", time=T0 + n) for n in range(3)]
    events, report = _run(tmp_path, rows, rest="[clean]\nmax_events_per_day = 3")
    assert {event["user_id"] for event in events} == {"ann"}
    assert report.sources[0].dropped == {"bot": 5}


def test_an_event_delivered_twice_is_kept_once(tmp_path: Path) -> None:
    rows = [_row(name="purchase", amount="3"), _row("bob"), _row(name="purchase", amount="3")]
    rows += [_row(name="purchase", amount="4"), _row(name="purchase", amount="3", device="pc")]
    rows += [_row(name="search", item="", text="a"), _row(name="search", item="", text="b")]
    events, report = _run(tmp_path, rows)
    assert len(events) == 6
    assert report.sources[0].dropped == {"duplicate": 1}
    assert len(_run(tmp_path, rows, rest='[clean]\nduplicates = "keep"')[0]) == 7


def test_only_the_first_view_of_an_item_in_a_session_stays(tmp_path: Path) -> None:
    rows = [_row(time=T0 + minute * MINUTE) for minute in (0, 5, 50)]
    rows += [_row(name="cart", time=T0 + 6 * MINUTE), _row(name="cart", time=T0 + 7 * MINUTE)]
    events, report = _run(tmp_path, rows)
    views = [event["at_ms"] for event in events if event["event"] == "view"]
    assert views == [T0, T0 + 50 * MINUTE]
    assert len(events) == 4
    assert report.sources[0].dropped == {"repeated_view": 1}
    assert len(_run(tmp_path, rows, rest='[clean]\nrepeated_views = "keep"')[0]) == 5


def test_a_session_ends_after_thirty_minutes_without_an_event(tmp_path: Path) -> None:
    minutes = (0, 30, 60.001, 90.002, 95)
    rows = [_row(item=f"i{n}", time=T0 + int(minute * MINUTE)) for n, minute in enumerate(minutes)]
    events, _ = _run(tmp_path, [*rows, _row("bob", "i9", time=T0 + MINUTE)])
    # gaps of ann: exactly 30 min, 30 min and 60 ms, 30 min and 60 ms, less
    assert [event["session_id"] for event in events] == ["ann:1", "ann:1", "ann:2", "ann:3", "ann:3", "bob:1"]


def test_the_session_of_the_source_is_kept(tmp_path: Path) -> None:
    events, _ = _run(tmp_path, [_row(session="s9"), _row(item="i2", time=T0 + 1)])
    assert [event["session_id"] for event in events] == ["s9", "ann:1"]


def test_an_anonymous_id_is_merged_before_duplicates_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("anonymous_id,user_id\ncookie,ann\nold,cookie\nshared,ann\nshared,bob\n")
    rows = [_row(), _row("cookie"), _row("old", "i2"), _row("shared", "i3")]
    events, report = _run(tmp_path, rows, rest='[identity]\nfiles = "ids.csv"')
    assert [(event["user_id"], event["item_id"]) for event in events] == [
        ("ann", "i1"),
        ("ann", "i2"),
        ("shared", "i3"),
    ]
    assert report.notes["anonymous ids merged into accounts"] == 2
    assert report.notes["anonymous ids with several accounts, not merged"] == 1


def test_identities_in_a_circle_are_an_error() -> None:
    with pytest.raises(DataError, match="back to itself"):
        resolve([("a", "b"), ("b", "c"), ("c", "a")])


def test_a_long_chain_of_identities_is_followed() -> None:
    pairs = [(f"a{n}", f"a{n + 1}") for n in range(5000)]
    assert set(resolve(reversed(pairs)).account_of.values()) == {"a5000"}


def test_values_are_standardized_within_their_event(tmp_path: Path) -> None:
    rows = [_row(f"u{n}", name="rate", amount=n) for n in (1, 2, 3)] + [_row("u4", name="purchase", amount=9), _row()]
    events, _ = _run(tmp_path, rows, rest="[clean]\nstandardize_value = true")
    found = {event["user_id"]: event["value"] for event in events}
    # mean 2, standard deviation sqrt(2/3)
    assert [found[user] for user in ("u1", "u2", "u3")] == pytest.approx([-(1.5**0.5), 0.0, 1.5**0.5])
    assert (found["u4"], found["ann"]) == (0.0, None)


def test_events_are_sorted_by_user_time_and_item(tmp_path: Path) -> None:
    rows = [_row("b", "z"), _row("a", "y", time=T0 + 1), _row("a", "x", time=T0 + 1), _row("a", "w", time=T0 + 9)]
    rows += [_row("a", "", "search", text="q", time=T0 + 1)]
    events, _ = _run(tmp_path, rows)
    assert [(event["user_id"], event["item_id"]) for event in events] == [
        ("a", None),
        ("a", "x"),
        ("a", "y"),
        ("a", "w"),
        ("b", "z"),
    ]


def test_items_have_one_row_each_the_first_that_was_declared(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(
        "sku,name,group,cost,maker\nb,Bee,X,2.5,Acme\nb,Zed,,,\na,Ant,,cheap,\n,Nil,,,\n"
    )
    rest = (
        '[items]\nfiles = "items.csv"\nattributes = { brand = "maker" }\n'
        'columns = { item_id = "sku", title = "name", category = "group", price = "cost" }'
    )
    _, report = _run(tmp_path, [_row(item="c"), _row(item="b")], rest=rest)
    assert pq.read_table(tmp_path / "out" / "items.parquet").to_pylist() == [
        {"item_id": "a", "title": "Ant", "category": None, "price": None, "attributes": None},
        {"item_id": "b", "title": "Bee", "category": "X", "price": 2.5, "attributes": '{"brand":"Acme"}'},
        {"item_id": "c", "title": None, "category": None, "price": None, "attributes": None},
    ]
    assert report.items is not None
    assert report.items.dropped == {"duplicate": 1, "missing_item_id": 1}
    assert report.notes["item prices that are no number, left empty"] == 1
    assert report.notes["items in events without an entry in the items file"] == 1


def _messy(seed: int) -> list[str]:
    draw = random.Random(seed)
    pick = draw.choice
    rows = []
    for _ in range(400):
        time = pick([T0 + draw.randrange(3_000) * 1000, "bad", "", T0 - 5])
        row = _row(pick(["a", "b", "c", ""]), pick(["x", "y", ""]), pick(["view", "cart", "search", "odd"]), time)
        rows += [row] * pick([1, 1, 2]) + ["broken,line"] * (draw.random() < 0.02)
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_every_row_read_is_kept_or_dropped_for_a_reason(tmp_path: Path, seed: int) -> None:
    rows = _messy(seed)
    declared = 'unknown_event = "drop"\nbroken_line = "drop"'
    events, report = _run(tmp_path, rows, declared, f"[clean]\nmin_at_ms = {T0}\nmax_events_per_day = 90")
    source = report.sources[0]
    assert source.read == len(rows)
    assert source.kept == len(events)
    assert source.read == source.kept + sum(source.dropped.values())
    saved = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert saved["sources"][0]["dropped"] == dict(source.dropped)
    assert f"| app | 1 | 0 | {source.read:,} | {source.kept:,} |" in (tmp_path / "out" / "quality.md").read_text()


def test_the_same_rows_in_any_order_give_the_same_files(tmp_path: Path) -> None:
    rows = _messy(9)
    declared = 'unknown_event = "drop"\nbroken_line = "drop"'
    contents = []
    for turn in range(3):
        random.Random(turn).shuffle(rows)
        _run(tmp_path, rows, declared)
        contents.append({path.name: path.read_bytes() for path in sorted((tmp_path / "out").iterdir())})
    assert list(contents[0]) == ["dataset.json", "events.parquet", "items.parquet", "quality.json", "quality.md"]
    assert contents[0] == contents[1] == contents[2]


def test_the_summary_says_what_the_data_set_holds(tmp_path: Path) -> None:
    _run(tmp_path, [_row(), _row("bob", "i2", "cart", T0 + 5, device="pc")])
    summary = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (summary["format"], summary["devices"], summary["events"]) == (1, ["pc", "phone"], ["cart", "view"])
    assert (summary["first_at_ms"], summary["last_at_ms"]) == (T0, T0 + 5)
    assert (summary["counts"]["events"], summary["counts"]["users"], summary["counts"]["items"]) == (2, 2, 2)


def test_two_sources_are_counted_apart_and_merged_by_time(tmp_path: Path) -> None:
    _run(tmp_path, [_row(time=T0 + 1, name="cart"), _row("x", time="bad")], name="app")
    first = (tmp_path / "sources.toml").read_text()
    (tmp_path / "web.csv").write_text("u,i,t\nann,i2,1704067200\n")
    second = (
        '[[source]]\nname = "web"\nfiles = "web.csv"\ncolumns = { user_id = "u", item_id = "i", at = "t" }\n'
        'constants = { event = "purchase", device = "pc" }\ntime_unit = "s"\n'
    )
    (tmp_path / "sources.toml").write_text(first + second)
    report = prepare(tmp_path / "sources.toml", tmp_path / "out")
    assert [(source.name, source.read, source.kept) for source in report.sources] == [("app", 2, 1), ("web", 1, 1)]
    events = pq.read_table(tmp_path / "out" / "events.parquet").to_pylist()
    assert [(event["device"], event["event"]) for event in events] == [("pc", "purchase"), ("phone", "cart")]
