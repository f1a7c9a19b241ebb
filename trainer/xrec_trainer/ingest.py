"""Bring any declared file into rows of text with DuckDB, and count the lines that could not be read."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from xrec_sdk.errors import DataError

from xrec_trainer.sources import CANONICAL_EVENTS, EVENT_COLUMNS, GA4_EVENTS, Files, Source, list_files

SQLITE_ROWS = 50_000
# the end of the year 9999: what lies beyond is in another unit than was declared
LAST_AT_MS = 253_402_300_799_999
UTF8_NAMES = ("utf-8", "utf8", "utf-8-sig", "utf_8")


@dataclass
class Reading:
    """One file as a query of the mapped columns as text and ``broken`` (bool); ``rejected`` is filled after it ran."""

    path: Path
    sql: str
    rejected: Counter[str] = field(default_factory=Counter)
    first_rejected: str = ""
    rejects: str | None = None


def connect(work: Path, memory_limit: str, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """Open an in-memory DuckDB that spills into ``work`` above ``memory_limit`` and reckons in UTC."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "temp_directory": str(work / "spill"),
        "preserve_insertion_order": False,
    }
    if threads:
        config["threads"] = threads
    connection = duckdb.connect(config=config)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    return connection


def quoted(text: str) -> str:
    """Return ``text`` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def literal(path: Path) -> str:
    """Return ``path`` as an SQL string that a reader takes for one file, whatever glob signs it holds."""
    return quoted("".join(f"[{sign}]" if sign in "[*?" else sign for sign in str(path)))


def named(name: str) -> str:
    """Return ``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def read_file(
    connection: duckdb.DuckDBPyConnection, where: Files, path: Path, work: Path, extra: dict[str, str] | None = None
) -> Reading:
    """Return the query that reads ``path``; ``extra`` are further columns (ours -> theirs)."""
    columns = {**where.columns, **(extra or {})}
    if where.format in ("csv", "jsonl"):
        # DuckDB reads UTF-8; anything else is rewritten, its unreadable lines kept unreadable so that they're counted
        readable = path if where.encoding.lower() in UTF8_NAMES else _as_utf8(path, where.encoding, work)
        read = _read_csv if where.format == "csv" else _read_jsonl
        return read(connection, where, path, readable, columns)
    if where.format == "sqlite":
        return _read_sqlite(where, path, work, columns)
    return _read_parquet(connection, path, columns)


def finish(connection: duckdb.DuckDBPyConnection, reading: Reading) -> None:
    """Count what the file's reader rejected, now that the query ran; a line with two faults counts once."""
    if reading.rejects is None:
        return
    table = named(reading.rejects)
    rows = connection.execute(
        f"SELECT line, max(error_type = 'INVALID ENCODING'), max(error_message ILIKE '%unterminated quote%'), "
        f"any_value(csv_line), any_value(error_message) FROM {table} GROUP BY file_id, line ORDER BY line"
    ).fetchall()
    for line, is_encoding, is_open, text, message in rows:
        if is_open:
            # such a quote takes all lines after it into one value, so that they can't be counted
            raise DataError(
                "data.quote_open",
                f"{reading.path}, line {line}: a quote is never closed, which would hide every line after it "
                f'({str(text)[:80]!r}); correct the line, or declare quote = "" if quotes mean nothing in this file',
            )
        reading.rejected["bad_encoding" if is_encoding else "broken_line"] += 1
        if not reading.first_rejected:
            reading.first_rejected = f"line {line}: {message} ({str(text)[:80]!r})"
    connection.execute(f"DROP TABLE {table}")
    connection.execute(f"DROP TABLE {named(reading.rejects + '_scan')}")


def _missing(path: Path, column: str, found: Sequence[str]) -> DataError:
    shown = ", ".join(found[:40]) or "none"
    return DataError(
        "data.column_missing", f"{path} has no column {column!r}; it has {shown}; correct columns in sources.toml"
    )


def _open_binary(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _as_utf8(path: Path, encoding: str, work: Path) -> Path:
    target = work / f"utf8-{len(list(work.iterdir()))}.txt"
    try:
        with _open_binary(path) as stream, target.open("wb") as out:
            if encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
                with io.TextIOWrapper(stream, encoding, errors="strict", newline="") as text:
                    for line_text in text:
                        out.write(line_text.encode())
                return target
            for line in stream:
                try:
                    out.write(line.decode(encoding).encode())
                except UnicodeDecodeError:
                    out.write(b"\xff" + line)
    except (OSError, EOFError, UnicodeError) as cause:
        raise DataError("data.file_broken", f"{path} can't be read as {encoding}: {cause}") from cause
    return target


def _rejecting(connection: duckdb.DuckDBPyConnection) -> tuple[str, str]:
    count = number_of(connection, "SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'rejected_%'")
    name = f"rejected_{count}"
    return name, f"store_rejects=true, rejects_table={quoted(name)}, rejects_scan={quoted(name + '_scan')}"


def _read_csv(
    connection: duckdb.DuckDBPyConnection, where: Files, path: Path, readable: Path, columns: dict[str, str]
) -> Reading:
    try:
        with _open_binary(readable) as stream:
            text = io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="")
            header = next(_csv_rows(text, where), [])
    except (OSError, EOFError) as cause:
        raise DataError("data.file_broken", f"{path} can't be read: {cause}") from cause
    header = [name.strip() for name in header]
    if not header:
        return Reading(path, _nothing(columns))
    parts = []
    for ours, theirs in columns.items():
        if theirs not in header:
            raise _missing(path, theirs, header)
        parts.append(f"c{header.index(theirs)} AS {named(ours)}")
    rejects, options = _rejecting(connection)
    types = ", ".join(f"'c{number}': 'VARCHAR'" for number in range(len(header)))
    sql = (
        f"SELECT {', '.join(parts)}, false AS broken FROM read_csv({literal(readable)}, auto_detect=false, "
        f"header=true, delim={quoted(where.delimiter)}, quote={quoted(where.quote)}, "
        f"escape={quoted(where.quote)}, columns={{{types}}}, {options})"
    )
    return Reading(path, sql, rejects=rejects)


def _csv_rows(text: io.TextIOWrapper, where: Files) -> Iterator[list[str]]:
    if where.quote:
        return csv.reader(text, delimiter=where.delimiter, quotechar=where.quote)
    return csv.reader(text, delimiter=where.delimiter, quoting=csv.QUOTE_NONE)


def _nothing(columns: dict[str, str]) -> str:
    nulls = ", ".join(f"NULL::VARCHAR AS {named(ours)}" for ours in columns)
    return f"SELECT {nulls}, false AS broken WHERE false"


def _read_jsonl(
    connection: duckdb.DuckDBPyConnection, where: Files, path: Path, readable: Path, columns: dict[str, str]
) -> Reading:
    found = _json_keys(path, readable, set(columns.values()))
    for theirs in columns.values():
        if found and not theirs.startswith("$") and theirs not in found:
            raise _missing(path, theirs, sorted(found))
    parts = []
    for ours, theirs in columns.items():
        key = theirs if theirs.startswith("$") else '$."' + theirs.replace('"', '\\"') + '"'
        parts.append(f"json_extract_string(document, {quoted(key)}) AS {named(ours)}")
    rejects, options = _rejecting(connection)
    # each line is read whole: a CSV of one column with a separator that no JSON text may hold
    sql = (
        f"SELECT {', '.join(parts)}, document IS NULL AS broken FROM (SELECT CASE WHEN json_valid(line) THEN "
        f"CASE WHEN json_type(line) = 'OBJECT' THEN line END END AS document FROM read_csv({literal(readable)}, "
        f"auto_detect=false, header=false, delim='\x01', quote='', escape='', columns={{'line': 'VARCHAR'}}, "
        f"{options}) WHERE trim(line) <> '')"
    )
    return Reading(path, sql, rejects=rejects)


def _json_keys(path: Path, readable: Path, wanted: set[str]) -> set[str]:
    keys: set[str] = set()
    try:
        with _open_binary(readable) as stream:
            for line in stream:
                if wanted <= keys:
                    break
                try:
                    document = json.loads(line)
                except ValueError:
                    continue
                if isinstance(document, dict):
                    keys.update(document)
    except (OSError, EOFError) as cause:
        raise DataError("data.file_broken", f"{path} can't be read: {cause}") from cause
    return keys


def _read_parquet(connection: duckdb.DuckDBPyConnection, path: Path, columns: dict[str, str]) -> Reading:
    file = f"read_parquet({literal(path)})"
    try:
        found = [str(row[0]) for row in connection.execute(f"DESCRIBE SELECT * FROM {file}").fetchall()]
    except duckdb.Error as cause:
        raise DataError("data.file_broken", f"{path} can't be read as Parquet: {cause}") from cause
    for theirs in columns.values():
        if theirs not in found:
            raise _missing(path, theirs, found)
    parts = ", ".join(f"CAST({named(theirs)} AS VARCHAR) AS {named(ours)}" for ours, theirs in columns.items())
    return Reading(path, f"SELECT {parts}, false AS broken FROM {file}")


def _read_sqlite(where: Files, path: Path, work: Path, columns: dict[str, str]) -> Reading:
    # the standard library reads it: DuckDB would fetch its own reader from the network
    target = work / f"sqlite-{len(list(work.iterdir()))}.parquet"
    schema = pa.schema([(ours, pa.string()) for ours in columns])
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            found = [str(row[1]) for row in connection.execute(f"PRAGMA table_info({named(where.table or '')})")]
            if not found:
                tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                raise DataError("data.table_missing", f"{path} has no table {where.table!r}; it has {tables}")
            for theirs in columns.values():
                if theirs not in found:
                    raise _missing(path, theirs, found)
            with pq.ParquetWriter(target, schema) as writer:
                for batch in _batches(connection, where.table or "", list(columns.values())):
                    arrays = [pa.array(values, pa.string()) for values in zip(*batch, strict=True)]
                    writer.write_table(pa.table(arrays, schema=schema))
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeError) as cause:
        raise DataError("data.file_broken", f"{path} can't be read as SQLite: {cause}") from cause
    selected = ", ".join(named(ours) for ours in columns)
    return Reading(path, f"SELECT {selected}, false AS broken FROM read_parquet({literal(target)})")


def _batches(connection: sqlite3.Connection, table: str, columns: list[str]) -> Iterator[list[tuple[str | None, ...]]]:
    selected = ", ".join(f"CAST({named(column)} AS TEXT)" for column in columns)
    rows = connection.execute(f"SELECT {selected} FROM {named(table)}")
    while batch := rows.fetchmany(SQLITE_ROWS):
        yield batch


@dataclass
class Staged:
    """One source after reading: its typed rows are in files, and what never became a row is counted."""

    source: Source
    files: int
    empty_files: int
    rows: int
    rejected: Counter[str]


def stage(connection: duckdb.DuckDBPyConnection, source: Source, number: int, root: Path, work: Path) -> Staged:
    """Read the files of ``source`` into staged-*.parquet of ``work``: typed events, source, problem, broken."""
    paths = list_files(source.where, root)
    staged = Staged(source, len(paths), 0, 0, Counter())
    if not number_of(connection, f"SELECT count(*) FROM pg_timezone_names() WHERE name = {quoted(source.time_zone)}"):
        raise DataError("data.sources", f"source {source.name}: time_zone {source.time_zone!r} is not known")
    for index, path in enumerate(paths):
        reading = read_file(connection, source.where, path, work)
        target = work / f"staged-{number:04}-{index:06}.parquet"
        rows = copy(connection, _typed(source, reading.sql), target, reading)
        check_lines(connection, source.where, target, reading, rows)
        _check_events(connection, source, target, path)
        read = rows + sum(reading.rejected.values())
        staged.empty_files += read == 0
        staged.rows += read
        staged.rejected += reading.rejected
    return staged


def copy(connection: duckdb.DuckDBPyConnection, sql: str, target: Path, reading: Reading) -> int:
    """Write what ``sql`` gives to ``target``, count what the reader rejected, and return the rows written."""
    try:
        rows = number_of(connection, f"COPY ({sql}) TO {quoted(str(target))} (FORMAT parquet)")
        finish(connection, reading)
    except (duckdb.IOException, duckdb.InvalidInputException, duckdb.ConversionException) as cause:
        raise DataError("data.file_broken", f"{reading.path} can't be read: {cause}") from cause
    return rows


def check_lines(connection: duckdb.DuckDBPyConnection, where: Files, target: Path, reading: Reading, rows: int) -> None:
    """Raise DataError where ``target``, the copy of a file, has broken lines or no rows and ``where`` allows none."""
    rejected = sum(reading.rejected.values())
    if rows + rejected == 0 and where.empty_file == "error":
        raise DataError("data.file_empty", f'{reading.path} has no rows; remove it or declare empty_file = "drop"')
    if where.broken_line == "drop":
        return
    found = number_of(connection, f"SELECT count(*) FROM read_parquet({literal(target)}) WHERE broken")
    if rejected + found:
        raise DataError(
            "data.broken_line",
            f"{reading.path} has {rejected + found} lines that can't be read; first "
            f"{reading.first_rejected or 'one that is not a JSON object'}; "
            f'correct them or the encoding ({where.encoding}), or declare broken_line = "drop"',
        )


def _check_events(connection: duckdb.DuckDBPyConnection, source: Source, target: Path, path: Path) -> None:
    if source.unknown_event != "error":
        return
    found = connection.execute(
        f"SELECT event, count(*) FROM read_parquet({literal(target)}) WHERE problem = 'unknown_event' "
        f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20"
    ).fetchall()
    if found:
        names = ", ".join(f"{name!r} ({count} rows)" for name, count in found)
        raise DataError(
            "data.event_unknown",
            f"{path} has events that are not known: {names}; map them under events of source {source.name!r}, "
            f'or declare unknown_event = "drop" or "keep"',
        )


def number_of(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    """Return the one number that ``sql`` gives."""
    # a result that is not read to its end would keep the connection in use
    rows = connection.execute(sql).fetchall()
    return int(rows[0][0]) if rows else 0


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
        f"WHEN at_ms IS NULL OR abs(at_ms) > {LAST_AT_MS} THEN 'bad_time'",
        "WHEN value IS NOT NULL AND (number IS NULL OR NOT isfinite(number)) THEN 'bad_value'",
        "WHEN position IS NOT NULL AND try_cast(position AS INTEGER) IS NULL THEN 'bad_position'",
        "WHEN item_id IS NULL AND event <> 'search' THEN 'missing_item_id'",
    ]
    names = {name: name for name in CANONICAL_EVENTS} | GA4_EVENTS | dict(source.events)
    cases = " ".join(f"WHEN {quoted(theirs)} THEN {quoted(ours)}" for theirs, ours in names.items())
    return (
        f"SELECT user_id, item_id, event, at_ms, device, query, number AS value, session_id, "
        f"try_cast(position AS INTEGER) AS position, recommendation_id, {quoted(source.name)} AS source, "
        f"CASE {' '.join(problems)} END AS problem, broken FROM ("
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
