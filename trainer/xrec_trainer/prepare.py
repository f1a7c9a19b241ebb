"""Turn the logs of several platforms into one folder of clean events and items, with a report of every dropped row."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import narwhals as nw
import pyarrow as pa
from xrec_sdk.errors import UsageError
from xrec_sdk.query import PREFIX, reduce_query

from xrec_trainer.identity import resolve
from xrec_trainer.ingest import (
    Staged,
    check_lines,
    connect,
    copy,
    literal,
    number_of,
    quoted,
    read_file,
    stage,
)
from xrec_trainer.quality import QualityReport, SourceQuality
from xrec_trainer.sources import ITEM_COLUMNS, Files, Items, Sources, list_files, read_sources
from xrec_trainer.transform import Frame, apply_rules, merge_identity, rules_of, standardize_value

MEMORY_LIMIT = "1GB"
FORMAT = 1
Progress = Callable[[str], None]


def prepare(
    sources: Path, out: Path, *, progress: Progress | None = None, memory_limit: str = MEMORY_LIMIT
) -> QualityReport:
    """Read what ``sources`` (a sources.toml) declares and write the data set ``out``, whole or not at all.

    An earlier data set at ``out`` is replaced; any other folder that holds something is refused
    (UsageError ``data.out_taken``). Raises DataError where a file or sources.toml must be corrected.
    """
    say = progress or (lambda message: None)
    declared = read_sources(sources)
    _check_out(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        work = folder / "work"
        work.mkdir()
        connection = connect(work, memory_limit)
        try:
            report = _fill(connection, declared, folder, work, say)
        finally:
            connection.close()
        shutil.rmtree(work)
        folder.chmod(0o755)
        _replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _check_out(out: Path) -> None:
    if not out.exists() or (out.is_dir() and (not any(out.iterdir()) or (out / "dataset.json").is_file())):
        return
    raise UsageError("data.out_taken", f"{out} is not a data set and holds something; choose another folder for --out")


def _replace(folder: Path, out: Path) -> None:
    if not out.exists():
        folder.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
    out.rename(old / "dataset")
    folder.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _fill(
    connection: duckdb.DuckDBPyConnection, declared: Sources, folder: Path, work: Path, say: Progress
) -> QualityReport:
    staged = []
    for number, source in enumerate(declared.sources):
        say(f"reading {source.name}")
        staged.append(stage(connection, source, number, declared.folder, work))
    frame = _scan(connection, literal(work)[:-1] + "/staged-*.parquet'")
    notes: dict[str, int] = {}
    if declared.identity:
        say("merging identities")
        frame = _merge(connection, declared.identity, declared.folder, work, frame, notes)
    say("cleaning")
    frame, dropped = apply_rules(frame, rules_of(declared.clean), _keeper(connection, work))
    if declared.clean.standardize_value:
        frame = standardize_value(frame)
    say("writing events")
    _write_events(connection, frame, folder / "events.parquet", declared.clean.queries)
    say("writing items")
    items = _write_items(connection, declared.items, declared.folder, folder, work, notes)
    report = QualityReport(_qualities(connection, staged, dropped, folder), notes, items)
    report.check()
    _write_reports(connection, report, folder)
    return report


def _scan(connection: duckdb.DuckDBPyConnection, files: str) -> Frame:
    return nw.from_native(connection.sql(f"SELECT * FROM read_parquet({files})"))


def _keeper(connection: duckdb.DuckDBPyConnection, work: Path) -> Callable[[Frame], Frame]:
    kept: list[Path] = []

    def keep(frame: Frame) -> Frame:
        target = work / f"kept-{len(kept):02}.parquet"
        frame.sink_parquet(target)
        kept.append(target)
        return _scan(connection, literal(target))

    return keep


def _merge(
    connection: duckdb.DuckDBPyConnection, where: Files, root: Path, work: Path, frame: Frame, notes: dict[str, int]
) -> Frame:
    pairs: list[tuple[str, str]] = []
    bad = 0
    for path in list_files(where, root):
        reading = read_file(connection, where, path, work)
        target = work / "identity.parquet"
        ids = "nullif(trim(anonymous_id), '') AS anonymous_id, nullif(trim(user_id), '') AS user_id"
        query = (
            "SELECT *, CASE WHEN broken OR anonymous_id IS NULL OR user_id IS NULL THEN 'broken_line' END AS problem "
        )
        rows = copy(connection, f"{query} FROM (SELECT {ids}, broken FROM ({reading.sql}))", target, reading)
        check_lines(connection, where, target, reading, rows)
        file = f"read_parquet({literal(target)})"
        good = connection.execute(f"SELECT anonymous_id, user_id FROM {file} WHERE problem IS NULL").fetchall()
        pairs += good
        bad += rows - len(good) + sum(reading.rejected.values())
    notes["identity lines dropped"] = bad
    identity = resolve(pairs)
    notes["anonymous ids merged into accounts"] = len(identity.account_of)
    notes["anonymous ids with several accounts, not merged"] = identity.ambiguous
    table = pa.table(
        {"anonymous_id": list(identity.account_of), "account_id": list(identity.account_of.values())},
        schema=pa.schema([("anonymous_id", pa.string()), ("account_id", pa.string())]),
    )
    connection.register("identity", table)
    return merge_identity(frame, nw.from_native(connection.sql("SELECT * FROM identity")))


def _write_events(connection: duckdb.DuckDBPyConnection, frame: Frame, target: Path, queries: str) -> None:
    native = frame.to_native()
    native.create_view("events_out", replace=True)
    connection.create_function("reduced", lru_cache(maxsize=1 << 16)(reduce_query), ["VARCHAR"], "VARCHAR")
    # A device keeps a reduced query in the place of the item.
    is_search = f"coalesce(starts_with(item_id, {quoted(PREFIX)}), false)"
    query = "reduced(query)" if queries == "hash" else "query"
    item = f"CASE WHEN {is_search} THEN NULL ELSE item_id END AS item_id"
    query = f"CASE WHEN {is_search} THEN item_id ELSE {query} END AS query"
    columns = "user_id, item_id, event, at_ms, device, query, value, session_id, position, recommendation_id"
    connection.execute(
        f"COPY (SELECT {columns} FROM (SELECT * REPLACE ({item}, {query}) FROM events_out) "
        f"ORDER BY user_id, at_ms, item_id NULLS FIRST, event, device, query, "
        f"value, session_id, source, position, recommendation_id) "
        f"TO {quoted(str(target))} (FORMAT parquet, COMPRESSION zstd)"
    )


def _write_items(
    connection: duckdb.DuckDBPyConnection,
    items: Items | None,
    root: Path,
    folder: Path,
    work: Path,
    notes: dict[str, int],
) -> SourceQuality | None:
    texts = ", ".join(f"NULL::VARCHAR AS {name}" for name in (*ITEM_COLUMNS, "attributes", "problem"))
    connection.execute(f"CREATE TABLE items AS SELECT {texts} WHERE false")
    quality = _stage_items(connection, items, root, work, notes) if items else None
    good = "SELECT item_id, title, category, price, attributes FROM items WHERE problem IS NULL"
    events, target = literal(folder / "events.parquet"), quoted(str(folder / "items.parquet"))
    written = number_of(
        connection,
        f"COPY (SELECT item_id, title, category, try_cast(price AS DOUBLE) AS "
        f"price, attributes FROM ({good} UNION ALL BY NAME "
        f"SELECT DISTINCT item_id FROM read_parquet({events}) e WHERE item_id IS NOT NULL "
        f"AND NOT EXISTS (SELECT 1 FROM items i WHERE i.item_id = e.item_id AND problem IS NULL)) ORDER BY item_id) "
        f"TO {target} (FORMAT parquet, COMPRESSION zstd)",
    )
    notes["items in events without an entry in the items file"] = written - (quality.kept if quality else 0)
    return quality


def _stage_items(
    connection: duckdb.DuckDBPyConnection, items: Items, root: Path, work: Path, notes: dict[str, int]
) -> SourceQuality:
    paths = list_files(items.where, root)
    # the first of two entries stays, so the order in the file counts here
    connection.execute("SET preserve_insertion_order = true")
    dropped: Counter[str] = Counter()
    empty = 0
    for index, path in enumerate(paths):
        attributes = {f"attribute_{number}": theirs for number, theirs in enumerate(items.attributes.values())}
        reading = read_file(connection, items.where, path, work, attributes)
        target = work / f"items-{index:06}.parquet"
        rows = copy(connection, _item_query(items, reading.sql), target, reading)
        check_lines(connection, items.where, target, reading, rows)
        empty += rows + sum(reading.rejected.values()) == 0
        dropped += reading.rejected
    connection.execute("SET preserve_insertion_order = false")
    rejected = sum(dropped.values())
    files = literal(work)[:-1] + "/items-*.parquet'"
    connection.execute(
        f"CREATE OR REPLACE TABLE items AS SELECT *, CASE WHEN broken THEN 'broken_line' WHEN item_id IS NULL THEN "
        f"'missing_item_id' WHEN row_number() OVER (PARTITION BY item_id ORDER BY filename, line) > 1 THEN 'duplicate' "
        f"END AS problem FROM read_parquet({files}, filename=true)"
    )
    dropped.update(
        dict(connection.execute("SELECT problem, count(*) FROM items WHERE problem IS NOT NULL GROUP BY 1").fetchall())
    )
    notes["item prices that are no number, left empty"] = number_of(
        connection,
        "SELECT count(*) FROM items WHERE problem IS NULL AND price IS NOT NULL AND try_cast(price AS DOUBLE) IS NULL",
    )
    read = number_of(connection, "SELECT count(*) FROM items") + rejected
    kept = number_of(connection, "SELECT count(*) FROM items WHERE problem IS NULL")
    return SourceQuality("items", len(paths), empty, read, kept, dict(sorted(dropped.items())))


def _item_query(items: Items, sql: str) -> str:
    columns = {name: name if name in items.where.columns else "NULL" for name in ITEM_COLUMNS}
    texts = ", ".join(f"nullif(trim({column}::VARCHAR), '') AS {name}" for name, column in columns.items())
    pairs = ", ".join(f"{quoted(name)}, nullif(trim(attribute_{at}), '')" for at, name in enumerate(items.attributes))
    # a merge patch leaves out what is null
    entry = f"nullif(json_merge_patch('{{}}', json_object({pairs}))::VARCHAR, '{{}}')" if pairs else "NULL::VARCHAR"
    return f"SELECT row_number() OVER () AS line, {texts}, {entry} AS attributes, broken FROM ({sql})"


def _qualities(
    connection: duckdb.DuckDBPyConnection, staged: list[Staged], dropped: Counter[tuple[str, str]], folder: Path
) -> tuple[SourceQuality, ...]:
    counted = connection.execute("SELECT source, count(*) FROM events_out GROUP BY 1").fetchall()
    kept = {str(source): int(rows) for source, rows in counted}
    return tuple(
        SourceQuality(
            one.source.name,
            one.files,
            one.empty_files,
            one.rows,
            kept.get(one.source.name, 0),
            dict(
                sorted(
                    (
                        one.rejected
                        + Counter({reason: rows for (name, reason), rows in dropped.items() if name == one.source.name})
                    ).items()
                )
            ),
        )
        for one in staged
    )


def _write_reports(connection: duckdb.DuckDBPyConnection, report: QualityReport, folder: Path) -> None:
    file = f"read_parquet({literal(folder / 'events.parquet')})"
    ((events, users, items, first, last),) = connection.execute(
        f"SELECT count(*), count(DISTINCT user_id), count(DISTINCT item_id), min(at_ms), max(at_ms) FROM {file}"
    ).fetchall()
    by: dict[str, dict[str, int]] = {}
    for column in ("device", "event"):
        rows = connection.execute(f"SELECT {column}, count(*) FROM {file} GROUP BY 1 ORDER BY 1").fetchall()
        by[column] = {str(name): int(count) for name, count in rows}
    dataset: dict[str, Any] = {
        "format": FORMAT,
        "devices": list(by["device"]),
        "events": list(by["event"]),
        "first_at_ms": first,
        "last_at_ms": last,
        "counts": {
            "events": events,
            "users": users,
            "items": items,
            "by_device": by["device"],
            "by_event": by["event"],
        },
    }
    _write_json(folder / "dataset.json", dataset)
    _write_json(folder / "quality.json", report.to_json())
    (folder / "quality.md").write_text(report.to_markdown(), encoding="utf-8")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
