"""Read sources.toml: which files hold the events, the items and the identities, and how to understand them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xrec_sdk.errors import DataError

from xrec_trainer import toml
from xrec_trainer.presets import PRESETS, load_preset

FORMATS = ("csv", "jsonl", "parquet", "sqlite")
TIME_UNITS = ("s", "ms", "us", "iso")
EVENT_COLUMNS = (
    "user_id",
    "item_id",
    "event",
    "at",
    "device",
    "query",
    "value",
    "session_id",
    "position",
    "recommendation_id",
)
REQUIRED_COLUMNS = ("user_id", "event", "at", "device")
ITEM_COLUMNS = ("item_id", "title", "category", "price")
IDENTITY_COLUMNS = ("anonymous_id", "user_id")
CANONICAL_EVENTS = ("impression", "view", "search", "favorite", "cart", "purchase", "rate", "dismiss")
GA4_EVENTS = {
    "view_item": "view",
    "select_item": "view",
    "view_item_list": "impression",
    "add_to_cart": "cart",
    "add_to_wishlist": "favorite",
    "view_search_results": "search",
}


@dataclass(frozen=True)
class Files:
    """Files of one kind and which of their columns is which of ours (``columns``: ours -> theirs)."""

    files: str
    columns: Mapping[str, str]
    format: str = "csv"
    table: str | None = None
    encoding: str = "utf-8"
    delimiter: str = ","
    quote: str = '"'
    broken_line: str = "error"
    empty_file: str = "error"


@dataclass(frozen=True)
class Source:
    """One platform's events. ``missing``: what to fill in where a column has no value, or None to drop the row."""

    name: str
    where: Files
    constants: Mapping[str, str] = field(default_factory=dict)
    events: Mapping[str, str] = field(default_factory=dict)
    time_unit: str = "ms"
    time_zone: str = "UTC"
    unknown_event: str = "error"
    missing: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Items:
    """The catalogue's files; ``attributes`` maps the name of a further attribute to its column."""

    where: Files
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Clean:
    """What is dropped from every source, and how sessions and values are made; bounds are inclusive.

    ``queries``: "hash" keeps of a search the buckets of its n-grams (xrec_sdk.query), "text" what the user typed.
    """

    min_at_ms: int | None = None
    max_at_ms: int | None = None
    max_events_per_day: int | None = None
    min_value: float | None = None
    max_value: float | None = None
    session_minutes: float = 30.0
    duplicates: str = "drop"
    repeated_views: str = "drop"
    queries: str = "hash"
    standardize_value: bool = False


@dataclass(frozen=True)
class Sources:
    """Everything that sources.toml declares; ``folder`` is where its relative paths start."""

    folder: Path
    sources: tuple[Source, ...]
    items: Items | None = None
    identity: Files | None = None
    clean: Clean = field(default_factory=Clean)


def read_sources(path: Path) -> Sources:
    """Read and check ``path``; raises DataError ``data.sources`` that names the key and its line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        document = toml.loads(text)
    except (OSError, UnicodeDecodeError, toml.TOMLDecodeError) as cause:
        raise DataError("data.sources", f"{path} can't be read as TOML: {cause}") from cause
    root = _Table(path, text, "", document)
    root.only("source", "items", "identity", "clean", "preset")
    declared = root.tables("source")
    if not declared:
        root.fail("source", "no [[source]] is declared; declare at least one")
    names_of_domain = _preset_events(root)
    sources = tuple(_source(table, names_of_domain) for table in declared)
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        root.fail("name", f"the names of sources must differ; found {names}")
    items = root.table("items")
    identity = root.table("identity")
    clean = root.table("clean")
    return Sources(
        folder=path.resolve().parent,
        sources=sources,
        items=_items(items) if items else None,
        identity=_identity(identity) if identity else None,
        clean=_clean(clean) if clean else Clean(),
    )


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


_FILE_KEYS = ("files", "columns", "format", "table", "encoding", "delimiter", "quote", "broken_line", "empty_file")


def _files(table: _Table, known: tuple[str, ...], required: tuple[str, ...]) -> Files:
    columns = table.strings("columns", known)
    for name in required:
        if name not in columns:
            table.fail("columns", f"columns.{name} is not mapped; name the column of the file that holds it")
    chosen = table.choice("format", FORMATS, "csv")
    sqlite_table = table.text("table")
    if (chosen == "sqlite") != (sqlite_table is not None):
        table.fail("table", "format sqlite needs table, and only it has one")
    encoding = table.text("encoding") or "utf-8"
    try:
        "".encode(encoding)
    except LookupError:
        table.fail("encoding", f"encoding {encoding!r} is not known; use a name that Python knows, such as gb18030")
    delimiter = table.text("delimiter") or ","
    if len(delimiter) != 1:
        table.fail("delimiter", f"delimiter must be one character; found {delimiter!r}")
    quote = table.values.get("quote", '"')
    if not isinstance(quote, str) or len(quote) > 1:
        table.fail("quote", f"quote must be one character, or empty for none; found {quote!r}")
    return Files(
        files=table.text("files") or table.fail("files", "files is missing; give a path or a glob pattern"),
        columns=columns,
        format=chosen,
        table=sqlite_table,
        encoding=encoding,
        delimiter=delimiter,
        quote=str(quote),
        broken_line=table.choice("broken_line", ("error", "drop"), "error"),
        empty_file=table.choice("empty_file", ("error", "drop"), "error"),
    )


def _preset_events(root: _Table) -> dict[str, str]:
    name = root.text("preset")
    if name is None:
        return {}
    if name not in PRESETS:
        root.fail("preset", f"preset must be one of {', '.join(PRESETS)}; found {name!r}")
    preset = load_preset(name)
    return {**{own: own for own in preset.event_names}, **preset.events}


def _source(table: _Table, names_of_domain: Mapping[str, str]) -> Source:
    table.only("name", *_FILE_KEYS, "constants", "events", "time_unit", "time_zone", "unknown_event", "missing")
    constants = table.strings("constants", tuple(name for name in EVENT_COLUMNS if name != "at"))
    required = tuple(name for name in REQUIRED_COLUMNS if name not in constants)
    where = _files(table, EVENT_COLUMNS, required)
    both = sorted(set(where.columns) & set(constants))
    if both:
        table.fail("constants", f"{both} are both columns and constants; keep one")
    return Source(
        name=table.text("name") or table.fail("name", "a [[source]] needs a name"),
        where=where,
        constants=constants,
        events={**names_of_domain, **table.strings("events", None)},
        time_unit=table.choice("time_unit", TIME_UNITS, "ms"),
        time_zone=table.text("time_zone") or "UTC",
        unknown_event=table.choice("unknown_event", ("error", "drop", "keep"), "error"),
        missing=_missing(table),
    )


def _missing(table: _Table) -> dict[str, str | None]:
    rules: dict[str, str | None] = {}
    rows = table.table("missing")
    if rows is None:
        return rules
    rows.only(*EVENT_COLUMNS)
    for name, rule in rows.values.items():
        if rule == "drop":
            rules[name] = None
        elif isinstance(rule, dict) and set(rule) == {"fill"} and isinstance(rule["fill"], str | int | float):
            rules[name] = str(rule["fill"])
        else:
            rows.fail(name, f'missing.{name} must be "drop" or {{ fill = VALUE }}; found {rule!r}')
    if rules.get("value") is not None:
        try:
            float(rules["value"] or "")
        except ValueError:
            rows.fail("value", f"missing.value must be filled with a number; found {rules['value']!r}")
    return rules


def _items(table: _Table) -> Items:
    table.only(*_FILE_KEYS, "attributes")
    return Items(_files(table, ITEM_COLUMNS, ("item_id",)), table.strings("attributes", None))


def _identity(table: _Table) -> Files:
    table.only(*_FILE_KEYS)
    if "columns" not in table.values:
        table.values["columns"] = {name: name for name in IDENTITY_COLUMNS}
    return _files(table, IDENTITY_COLUMNS, IDENTITY_COLUMNS)


def _clean(table: _Table) -> Clean:
    defaults = Clean()
    table.only(*Clean.__dataclass_fields__)
    clean = Clean(
        min_at_ms=table.whole("min_at_ms", -(2**53)),
        max_at_ms=table.whole("max_at_ms", -(2**53)),
        max_events_per_day=table.whole("max_events_per_day", 1),
        min_value=table.number("min_value"),
        max_value=table.number("max_value"),
        session_minutes=table.number("session_minutes") or defaults.session_minutes,
        duplicates=table.choice("duplicates", ("drop", "keep"), "drop"),
        repeated_views=table.choice("repeated_views", ("drop", "keep"), "drop"),
        queries=table.choice("queries", ("hash", "text"), "hash"),
        standardize_value=table.flag("standardize_value"),
    )
    if not 0.01 <= clean.session_minutes <= 1440:
        table.fail("session_minutes", f"session_minutes must lie between 0.01 and 1440; found {clean.session_minutes}")
    for low, high in (("min_at_ms", "max_at_ms"), ("min_value", "max_value")):
        first, last = getattr(clean, low), getattr(clean, high)
        if first is not None and last is not None and first > last:
            table.fail(low, f"{low} {first} is above {high} {last}")
    return clean


class _Table:
    """One table of the file with what an error needs to say where it is."""

    def __init__(self, path: Path, document: str, name: str, values: dict[str, Any]) -> None:
        self.path, self.document, self.name, self.values = path, document, name, values

    def fail(self, key: str, message: str) -> Any:
        """Raise DataError with the first line that has ``key``, inside this table where it can be told."""
        lines = self.document.splitlines()
        found = [number for number, line in enumerate(lines, 1) if key in line.split("#")[0]]
        headed = [number for number, line in enumerate(lines, 1) if self.name and self.name in line]
        after = [number for number in found if not headed or number >= headed[0]]
        where = f"{self.path}, line {(after or found or headed or [1])[0]}"
        raise DataError("data.sources", f"{where}: {message}")

    def only(self, *known: str) -> None:
        for key in self.values:
            if key not in known:
                self.fail(key, f"unknown key {key!r} in [{self.name or 'the file'}]; known are {', '.join(known)}")

    def table(self, key: str) -> _Table | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.fail(key, f"{key} must be a table; found {value!r}")
        return _Table(self.path, self.document, key, value)

    def tables(self, key: str) -> list[_Table]:
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            self.fail(key, f"{key} must be written [[{key}]], once for each")
        return [_Table(self.path, self.document, str(entry.get("name", key)), entry) for entry in value]

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            self.fail(key, f"{key} must be a text; found {value!r}")
        return value

    def choice(self, key: str, known: tuple[str, ...], default: str) -> str:
        value = self.values.get(key, default)
        if value not in known:
            self.fail(key, f"{key} must be one of {', '.join(known)}; found {value!r}")
        return str(value)

    def strings(self, key: str, known: tuple[str, ...] | None) -> dict[str, str]:
        inner = self.table(key)
        if inner is None:
            return {}
        if known is not None:
            inner.only(*known)
        for name, value in inner.values.items():
            if not isinstance(value, str) or not value:
                inner.fail(name, f"{key}.{name} must be a text; found {value!r}")
        return dict(inner.values)

    def number(self, key: str) -> float | None:
        value = self.values.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value != value):
            self.fail(key, f"{key} must be a number; found {value!r}")
        return None if value is None else float(value)

    def whole(self, key: str, lowest: int) -> int | None:
        value = self.values.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < lowest):
            self.fail(key, f"{key} must be a whole number from {lowest}; found {value!r}")
        return value

    def flag(self, key: str) -> bool:
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            self.fail(key, f"{key} must be true or false; found {value!r}")
        return bool(value)
