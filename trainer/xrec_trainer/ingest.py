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

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from xrec_sdk.errors import DataError

from xrec_trainer.sources import Files

SQLITE_ROWS = 50_000
KEY_SAMPLE_LINES = 1_000
UTF8_NAMES = ("utf-8", "utf8", "utf-8-sig", "utf_8")


@dataclass
class Reading:
    """One file as a query: ``sql`` gives the mapped columns as text and ``broken`` (bool); ``rejected`` is filled after it ran."""

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
    return connection


def quoted(text: str) -> str:
    """Return ``text`` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def named(name: str) -> str:
    """Return ``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def list_files(where: Files, folder: Path) -> list[Path]:
    """Return the files that ``where`` means, in order of name; DataError ``data.file_missing`` where there are none."""
    pattern = Path(where.files)
    if pattern.is_absolute():
        root, relative = Path(pattern.anchor), str(pattern.relative_to(pattern.anchor))
    else:
        root, relative = folder, where.files
    found = sorted(path for path in root.glob(relative) if path.is_file())
    if not found:
        raise DataError(
            "data.file_missing", f"no file matches {where.files!r} in {folder}; correct files in sources.toml"
        )
    return found


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
        f"SELECT line, max(error_type = 'INVALID ENCODING'), any_value(csv_line), any_value(error_message) "
        f"FROM {table} GROUP BY file_id, line ORDER BY line"
    ).fetchall()
    for line, is_encoding, text, message in rows:
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


def _open_binary(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _as_utf8(path: Path, encoding: str, work: Path) -> Path:
    target = work / f"utf8-{abs(hash(str(path)))}.txt"
    try:
        with _open_binary(path) as stream, target.open("wb") as out:
            if encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
                for text in io.TextIOWrapper(stream, encoding, errors="strict", newline=""):
                    out.write(text.encode())
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
    row = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'rejected_%'").fetchone()
    name = f"rejected_{row[0] if row else 0}"
    return name, f"store_rejects=true, rejects_table={quoted(name)}, rejects_scan={quoted(name + '_scan')}"


def _read_csv(
    connection: duckdb.DuckDBPyConnection, where: Files, path: Path, readable: Path, columns: dict[str, str]
) -> Reading:
    try:
        with _open_binary(readable) as stream:
            text = io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="")
            header = next(csv.reader(text, delimiter=where.delimiter), [])
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
        f"SELECT {', '.join(parts)}, false AS broken FROM read_csv({quoted(str(readable))}, auto_detect=false, "
        f"header=true, delim={quoted(where.delimiter)}, quote='\"', escape='\"', columns={{{types}}}, {options})"
    )
    return Reading(path, sql, rejects=rejects)


def _nothing(columns: dict[str, str]) -> str:
    nulls = ", ".join(f"NULL::VARCHAR AS {named(ours)}" for ours in columns)
    return f"SELECT {nulls}, false AS broken WHERE false"


def _read_jsonl(
    connection: duckdb.DuckDBPyConnection, where: Files, path: Path, readable: Path, columns: dict[str, str]
) -> Reading:
    found = _json_keys(path, readable)
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
        f"CASE WHEN json_type(line) = 'OBJECT' THEN line END END AS document FROM read_csv({quoted(str(readable))}, "
        f"auto_detect=false, header=false, delim='\x01', quote='', escape='', columns={{'line': 'VARCHAR'}}, {options}) "
        f"WHERE trim(line) <> '')"
    )
    return Reading(path, sql, rejects=rejects)


def _json_keys(path: Path, readable: Path) -> set[str]:
    keys: set[str] = set()
    try:
        with _open_binary(readable) as stream:
            for number, line in enumerate(stream):
                if number >= KEY_SAMPLE_LINES:
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
    file = f"read_parquet({quoted(str(path))})"
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
    target = work / f"sqlite-{abs(hash(str(path)))}.parquet"
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
    return Reading(path, f"SELECT {selected}, false AS broken FROM read_parquet({quoted(str(target))})")


def _batches(connection: sqlite3.Connection, table: str, columns: list[str]) -> Iterator[list[tuple[str | None, ...]]]:
    selected = ", ".join(f"CAST({named(column)} AS TEXT)" for column in columns)
    rows = connection.execute(f"SELECT {selected} FROM {named(table)}")
    while batch := rows.fetchmany(SQLITE_ROWS):
        yield batch
