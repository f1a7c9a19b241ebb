"""Turn the logs of several platforms into one folder of clean events and items, with a report of every dropped row."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import narwhals as nw
import pyarrow as pa
from xrec_sdk.errors import DataError, UsageError

from xrec_trainer.identity import resolve
from xrec_trainer.ingest import Reading, connect, finish, list_files, named, quoted, read_file
from xrec_trainer.quality import QualityReport, SourceQuality
from xrec_trainer.sources import (
    CANONICAL_EVENTS,
    EVENT_COLUMNS,
    GA4_EVENTS,
    Files,
    Items,
    Source,
    Sources,
    read_sources,
)
from xrec_trainer.transform import Frame, apply_rules, merge_identity, rules_of, standardize_value

MEMORY_LIMIT = "1GB"
FORMAT = 1
Progress = Callable[[str], None]


@dataclass
class Staged:
    """One source after reading: its typed rows are in files, and what never became a row is counted."""

    source: Source
    files: int
    empty_files: int
    rows: int
    rejected: Counter[str]


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
        staged.append(_stage(connection, source, number, declared.folder, work))
    frame = _scan(connection, work / "staged-*.parquet")
    notes: dict[str, int] = {}
    if declared.identity:
        say("merging identities")
        frame = _merge(connection, declared.identity, declared.folder, work, frame, notes)
    say("cleaning")
    frame, dropped = apply_rules(frame, rules_of(declared.clean), _keeper(connection, work))
    if declared.clean.standardize_value:
        frame = standardize_value(frame)
    say("writing events")
    _write_events(connection, frame, folder / "events.parquet")
    say("writing items")
    items = _write_items(connection, declared.items, declared.folder, folder, work, notes)
    report = QualityReport(_qualities(connection, staged, dropped, folder), notes, items)
    report.check()
    _write_reports(connection, report, folder)
    return report


def _stage(connection: duckdb.DuckDBPyConnection, source: Source, number: int, root: Path, work: Path) -> Staged:
    paths = list_files(source.where, root)
    staged = Staged(source, len(paths), 0, 0, Counter())
    zones = connection.execute("SELECT 1 FROM pg_timezone_names() WHERE name = ?", [source.time_zone]).fetchone()
    if zones is None:
        raise DataError("data.sources", f"source {source.name}: time_zone {source.time_zone!r} is not known")
    for index, path in enumerate(paths):
        reading = read_file(connection, source.where, path, work)
        target = work / f"staged-{number:04}-{index:06}.parquet"
        rows = _copy(connection, _typed(source, reading.sql), target, reading)
        _check_staged(connection, source, target, reading, rows)
        read = rows + sum(reading.rejected.values())
        staged.empty_files += read == 0
        staged.rows += read
        staged.rejected += reading.rejected
    return staged


def _copy(connection: duckdb.DuckDBPyConnection, sql: str, target: Path, reading: Reading) -> int:
    try:
        row = connection.execute(f"COPY ({sql}) TO {quoted(str(target))} (FORMAT parquet)").fetchone()
        finish(connection, reading)
    except (duckdb.IOException, duckdb.InvalidInputException, duckdb.ConversionException) as cause:
        raise DataError("data.file_broken", f"{reading.path} can't be read: {cause}") from cause
    return int(row[0]) if row else 0


def _check_staged(
    connection: duckdb.DuckDBPyConnection, source: Source, target: Path, reading: Reading, rows: int
) -> None:
    path, where = reading.path, source.where
    file = f"read_parquet({quoted(str(target))})"
    broken = sum(reading.rejected.values())
    if where.broken_line == "error":
        row = connection.execute(f"SELECT count(*) FROM {file} WHERE problem = 'broken_line'").fetchone()
        broken += row[0] if row else 0
        if broken:
            raise DataError(
                "data.broken_line",
                f"{path} has {broken} lines that can't be read; first {reading.first_rejected or 'not a JSON object'}; "
                f'correct them, the encoding ({where.encoding}), or declare broken_line = "drop"',
            )
    if rows + broken + sum(reading.rejected.values()) == 0 and where.empty_file == "error":
        raise DataError("data.file_empty", f'{path} has no rows; remove it or declare empty_file = "drop"')
    if source.unknown_event == "error":
        found = connection.execute(
            f"SELECT event, count(*) FROM {file} WHERE problem = 'unknown_event' GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20"
        ).fetchall()
        if found:
            names = ", ".join(f"{name!r} ({count} rows)" for name, count in found)
            raise DataError(
                "data.event_unknown",
                f"{path} has events that are not known: {names}; map them in [source.events] of {source.name}, "
                f'or declare unknown_event = "drop" or "keep"',
            )


def _typed(source: Source, sql: str) -> str:
    """Return the query that gives the columns of events.parquet, the source's name, and the problem of a row."""
    texts = ", ".join(f"{_text(source, name)} AS {named(name)}" for name in EVENT_COLUMNS)
    needed = [name for name in ("user_id", "at", "event", "device") if source.missing.get(name) is None]
    drops = [*needed, *(name for name, rule in source.missing.items() if rule is None and name not in needed)]
    problems = [
        "WHEN broken THEN 'broken_line'",
        *(f"WHEN {named(name)} IS NULL THEN 'missing_{name}'" for name in drops),
    ]
    if source.unknown_event != "keep":
        problems.append("WHEN NOT is_known THEN 'unknown_event'")
    problems += [
        "WHEN at_ms IS NULL THEN 'bad_time'",
        "WHEN value IS NOT NULL AND (number IS NULL OR NOT isfinite(number)) THEN 'bad_value'",
        "WHEN item_id IS NULL AND event <> 'search' THEN 'missing_item_id'",
    ]
    names = {name: name for name in CANONICAL_EVENTS} | GA4_EVENTS | dict(source.events)
    cases = " ".join(f"WHEN {quoted(theirs)} THEN {quoted(ours)}" for theirs, ours in names.items())
    return (
        f"SELECT user_id, item_id, event, at_ms, device, query, number AS value, session_id, "
        f"try_cast(position AS INTEGER) AS position, recommendation_id, {quoted(source.name)} AS source, "
        f"CASE {' '.join(problems)} END AS problem FROM ("
        f"SELECT * REPLACE (coalesce(known, event) AS event), known IS NOT NULL AS is_known FROM ("
        f"SELECT *, CASE event {cases} END AS known, {_at_ms(source)} AS at_ms, try_cast(value AS DOUBLE) AS number "
        f"FROM (SELECT {texts}, broken FROM ({sql}))))"
    )


def _text(source: Source, name: str) -> str:
    if name in source.constants:
        return quoted(source.constants[name])
    text = f"nullif(trim({named(name)}), '')" if name in source.where.columns else "NULL::VARCHAR"
    fill = source.missing.get(name)
    return text if fill is None else f"coalesce({text}, {quoted(fill)})"


def _at_ms(source: Source) -> str:
    whole, number = 'try_cast("at" AS BIGINT)', 'try_cast("at" AS DOUBLE)'
    if source.time_unit == "s":
        return f"try_cast(round({number} * 1000) AS BIGINT)"
    if source.time_unit == "ms":
        return f"coalesce({whole}, try_cast(round({number}) AS BIGINT))"
    if source.time_unit == "us":
        return f"coalesce({whole} // 1000, try_cast(floor({number} / 1000) AS BIGINT))"
    # a text with its own offset wins over the declared zone
    offset = "regexp_matches(\"at\", ':\\d\\d(\\.\\d+)?\\s*(Z|z|[+-]\\d\\d(:?\\d\\d)?)$')"
    local = f'timezone({quoted(source.time_zone)}, try_cast("at" AS TIMESTAMP))'
    return f'epoch_ms(CASE WHEN {offset} THEN try_cast("at" AS TIMESTAMPTZ) ELSE {local} END)'


def _scan(connection: duckdb.DuckDBPyConnection, pattern: Path) -> Frame:
    return nw.from_native(connection.sql(f"SELECT * FROM read_parquet({quoted(str(pattern))})"))


def _keeper(connection: duckdb.DuckDBPyConnection, work: Path) -> Callable[[Frame], Frame]:
    kept: list[Path] = []

    def keep(frame: Frame) -> Frame:
        target = work / f"kept-{len(kept):02}.parquet"
        frame.sink_parquet(target)
        kept.append(target)
        return _scan(connection, target)

    return keep


def _merge(
    connection: duckdb.DuckDBPyConnection, where: Files, root: Path, work: Path, frame: Frame, notes: dict[str, int]
) -> Frame:
    pairs: list[tuple[str, str]] = []
    for path in list_files(where, root):
        reading = read_file(connection, where, path, work)
        target = work / "identity.parquet"
        _copy(connection, f"SELECT trim(anonymous_id), trim(user_id), broken FROM ({reading.sql})", target, reading)
        rows = connection.execute(f"SELECT * FROM read_parquet({quoted(str(target))})").fetchall()
        good = [(row[0], row[1]) for row in rows if row[0] and row[1] and not row[2]]
        bad = len(rows) - len(good) + sum(reading.rejected.values())
        if bad and where.broken_line == "error":
            raise DataError(
                "data.broken_line",
                f'{path} has {bad} lines without a pair; correct them or declare broken_line = "drop"',
            )
        notes["identity lines dropped"] = notes.get("identity lines dropped", 0) + bad
        pairs += good
    identity = resolve(pairs)
    notes["anonymous ids merged into accounts"] = len(identity.account_of)
    notes["anonymous ids with several accounts, not merged"] = identity.ambiguous
    table = pa.table(
        {"anonymous_id": list(identity.account_of), "account_id": list(identity.account_of.values())},
        schema=pa.schema([("anonymous_id", pa.string()), ("account_id", pa.string())]),
    )
    connection.register("identity", table)
    return merge_identity(frame, nw.from_native(connection.sql("SELECT * FROM identity")))


def _write_events(connection: duckdb.DuckDBPyConnection, frame: Frame, target: Path) -> None:
    native = frame.to_native()
    native.create_view("events_out", replace=True)
    columns = "user_id, item_id, event, at_ms, device, query, value, session_id, position, recommendation_id"
    connection.execute(
        f"COPY (SELECT {columns} FROM events_out ORDER BY user_id, at_ms, item_id NULLS FIRST, event, device, query, value, "
        f"session_id, source, position, recommendation_id) TO {quoted(str(target))} (FORMAT parquet, COMPRESSION zstd)"
    )


def _write_items(
    connection: duckdb.DuckDBPyConnection,
    items: Items | None,
    root: Path,
    folder: Path,
    work: Path,
    notes: dict[str, int],
) -> SourceQuality | None:
    quality = None
    connection.execute(
        "CREATE TABLE items (item_id VARCHAR, title VARCHAR, category VARCHAR, price DOUBLE, attributes VARCHAR)"
    )
    if items:
        quality = _stage_items(connection, items, root, work, notes)
    events, target = quoted(str(folder / "events.parquet")), quoted(str(folder / "items.parquet"))
    row = connection.execute(
        f"COPY (SELECT item_id, title, category, price, attributes FROM items UNION ALL BY NAME "
        f"SELECT DISTINCT item_id FROM read_parquet({events}) e WHERE item_id IS NOT NULL "
        f"AND NOT EXISTS (SELECT 1 FROM items i WHERE i.item_id = e.item_id) ORDER BY item_id) "
        f"TO {target} (FORMAT parquet, COMPRESSION zstd)"
    ).fetchone()
    described = connection.execute("SELECT count(*) FROM items").fetchone()
    notes["items in events without an entry in the items file"] = (row[0] if row else 0) - (
        described[0] if described else 0
    )
    return quality


def _stage_items(
    connection: duckdb.DuckDBPyConnection, items: Items, root: Path, work: Path, notes: dict[str, int]
) -> SourceQuality:
    paths = list_files(items.where, root)
    attributes = {f"attribute_{number}": theirs for number, theirs in enumerate(items.attributes.values())}
    columns = {
        name: name if name in items.where.columns else "NULL" for name in ("item_id", "title", "category", "price")
    }
    texts = ", ".join(f"nullif(trim({sql}::VARCHAR), '') AS {name}" for name, sql in columns.items())
    pairs = ", ".join(f"{quoted(ours)}, {name}" for ours, name in zip(items.attributes, attributes, strict=True))
    # a merge patch leaves out what is null
    entry = f"nullif(json_merge_patch('{{}}', json_object({pairs}))::VARCHAR, '{{}}')" if pairs else "NULL"
    dropped: Counter[str] = Counter()
    read, empty = 0, 0
    connection.execute(
        "CREATE TABLE item_rows (item_id VARCHAR, title VARCHAR, category VARCHAR, price VARCHAR, attributes VARCHAR, broken BOOLEAN, turn BIGINT)"
    )
    for index, path in enumerate(paths):
        reading = read_file(connection, items.where, path, work, attributes)
        target = work / f"items-{index:06}.parquet"
        rows = _copy(connection, f"SELECT {texts}, {entry} AS attributes, broken FROM ({reading.sql})", target, reading)
        rejected = sum(reading.rejected.values())
        if rejected and items.where.broken_line == "error":
            raise DataError(
                "data.broken_line",
                f'{path} has {rejected} lines that can\'t be read; first {reading.first_rejected}; correct them or declare broken_line = "drop"',
            )
        if rows + rejected == 0 and items.where.empty_file == "error":
            raise DataError("data.file_empty", f'{path} has no rows; remove it or declare empty_file = "drop"')
        connection.execute(f"INSERT INTO item_rows SELECT *, {index} FROM read_parquet({quoted(str(target))})")
        read += rows + rejected
        empty += rows + rejected == 0
        dropped += reading.rejected
    connection.execute(
        "CREATE TABLE judged AS SELECT *, CASE WHEN broken THEN 'broken_line' WHEN item_id IS NULL THEN 'missing_item_id' "
        "WHEN row_number() OVER (PARTITION BY item_id ORDER BY turn, title, category, price, attributes) > 1 THEN 'duplicate' "
        "END AS problem FROM item_rows"
    )
    counts = connection.execute("SELECT problem, count(*) FROM judged WHERE problem IS NOT NULL GROUP BY 1").fetchall()
    dropped.update(dict(counts))
    connection.execute(
        "INSERT INTO items SELECT item_id, title, category, try_cast(price AS DOUBLE), attributes FROM judged WHERE problem IS NULL"
    )
    bad = connection.execute(
        "SELECT count(*) FROM judged WHERE problem IS NULL AND price IS NOT NULL AND try_cast(price AS DOUBLE) IS NULL"
    ).fetchone()
    notes["item prices that are no number, left empty"] = bad[0] if bad else 0
    kept = connection.execute("SELECT count(*) FROM items").fetchone()
    return SourceQuality("items", len(paths), empty, read, kept[0] if kept else 0, dict(sorted(dropped.items())))


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
    file = f"read_parquet({quoted(str(folder / 'events.parquet'))})"
    (events, users, items, first, last) = connection.execute(
        f"SELECT count(*), count(DISTINCT user_id), count(DISTINCT item_id), min(at_ms), max(at_ms) FROM {file}"
    ).fetchone() or (0, 0, 0, None, None)
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
