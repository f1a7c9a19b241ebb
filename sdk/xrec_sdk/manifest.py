"""The manifest of a bundle: read with every bound checked, or written in its one canonical spelling.

Reading is a pure function of bytes; whether the bytes may be trusted is decided before, in signature.py.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

import numpy as np

from xrec_sdk.context import CONTEXT
from xrec_sdk.errors import BundleDamaged, BundleUnsupported
from xrec_sdk.history import RepeatRule, Vocabulary
from xrec_sdk.idtable import MAX_ITEMS
from xrec_sdk.manifest_fields import MAX_NAMES, Fields, fail
from xrec_sdk.query import BUCKETS
from xrec_sdk.version import __version__

FORMAT = "xrec-bundle"
FORMAT_VERSION = 1
BLOCK_ITEMS = 128
SECTION_ALIGNMENT = 65_536
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 1 << 33
MAX_WIDTH = 4096
MAX_HISTORY = 10_000
MAX_FILES = 64
MAX_TIME_MS = 1 << 53
TABLE_DTYPES = {"int8": "|i1", "fp16": "<f2", "fp32": "<f4"}
"""The dtype of a number of the item table in each format of it, as NumPy spells it."""
RANKER_FEATURES = 2
"""Numbers of each item that a ranker reads besides its row: log of its training events and log of its price."""

REQUIRED_FILES = (
    "card.md",
    "catalog.bin",
    "conformance.json",
    "encoder.onnx",
    "ids.bin",
    "items.bin",
    "scorer.onnx",
)
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})")
_CREATED_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)")


class FileRecord(NamedTuple):
    """What a file of the bundle must be: its sha256 in hex and its size."""

    sha256: str
    bytes: int


class Section(NamedTuple):
    """Where a section lies in items.bin."""

    offset: int
    bytes: int


class ItemSections(NamedTuple):
    """The sections of items.bin.

    ``scale`` is None where the table holds floats, ``prior`` where no item has one, ``features`` without a ranker.
    """

    table: Section
    bias: Section
    scale: Section | None = None
    prior: Section | None = None
    features: Section | None = None


class RankerRecord(NamedTuple):
    """What the ranker's probability is of: one of ``events`` with the item within ``horizon_ms`` from now."""

    events: tuple[str, ...]
    horizon_ms: int


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says, checked; docs/bundle-format.md explains each field."""

    name: str
    release: int
    created_at: str
    item_count: int
    width: int
    opset: int
    ir_version: int
    operators: tuple[str, ...]
    vocabulary: Vocabulary
    seen_events: tuple[str, ...]
    filter_seen: bool
    repeat: RepeatRule | None
    items: ItemSections
    files: Mapping[str, FileRecord]
    parity: Mapping[str, object] = field(default_factory=dict)
    model: Mapping[str, object] = field(default_factory=dict)
    ranker: RankerRecord | None = None
    table_format: str = "int8"
    minimum_sdk: str = "0.1.0"
    format_version: int = FORMAT_VERSION

    @property
    def block_count(self) -> int:
        """Number of blocks of 128 items."""
        return -(-self.item_count // BLOCK_ITEMS)

    @property
    def padded_count(self) -> int:
        """Number of rows with the pad rows of the last block."""
        return self.block_count * BLOCK_ITEMS


def section_sizes(
    item_count: int, width: int, *, has_ranker: bool = False, table_format: str = "int8"
) -> dict[str, int]:
    """Return the exact size of each section of items.bin in bytes."""
    padded = -(-item_count // BLOCK_ITEMS) * BLOCK_ITEMS
    sizes = {"table": np.dtype(TABLE_DTYPES[table_format]).itemsize * padded * width}
    if table_format == "int8":
        sizes["scale"] = 4 * padded
    sizes |= {"bias": 4 * padded, "prior": 4 * padded}
    return {**sizes, "features": 4 * RANKER_FEATURES * padded} if has_ranker else sizes


def to_bytes(manifest: Manifest) -> bytes:
    """Return the canonical JSON of a manifest: UTF-8, keys ascending, no spaces; raise as reading does."""
    vocabulary, repeat = manifest.vocabulary, manifest.repeat
    fields: dict[str, object] = {
        "format": FORMAT,
        **{
            name: getattr(manifest, name) for name in ("format_version", "minimum_sdk", "name", "release", "created_at")
        },
        **{name: getattr(manifest, name) for name in ("item_count", "width", "opset", "ir_version", "operators")},
        "vocabulary": {
            "events": vocabulary.events,
            "devices": vocabulary.devices,
            "gap_edges_ms": vocabulary.gap_edges_ms,
            "max_history": vocabulary.max_history,
            "distinct_items": vocabulary.distinct_items,
            **({"query_buckets": vocabulary.query_buckets} if vocabulary.query_buckets else {}),
        },
        "seen": {"events": manifest.seen_events, "filter": manifest.filter_seen},
        "repeat": repeat and {"weight": repeat.weight, "half_life_ms": repeat.half_life_ms, "events": repeat.events},
        "items": {
            name: part and part._asdict()
            for name, part in manifest.items._asdict().items()
            if part is not None or name == "prior"
        },
        "files": {name: record._asdict() for name, record in manifest.files.items()},
        "parity": dict(manifest.parity),
        "model": dict(manifest.model),
    }
    if manifest.table_format != "int8":
        fields["table_format"] = manifest.table_format
    if manifest.ranker is not None:
        ranker = manifest.ranker
        fields["ranker"] = {"events": ranker.events, "horizon_ms": ranker.horizon_ms, "context": CONTEXT}
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    written = text.encode("utf-8")
    parse_manifest(written)
    return written


def parse_manifest(manifest_bytes: bytes) -> Manifest:
    """Return the manifest in these bytes.

    Raises BundleDamaged where a value is missing or out of bounds, BundleUnsupported for another format version or a
    newer SDK than this one.
    """
    top = Fields(_load_json(manifest_bytes), "manifest.json")
    if top.values.get("format") != FORMAT:
        fail(f"format is {top.values.get('format')!r}, expected {FORMAT!r}")
    if top.integer("format_version", 1, 1 << 31) != FORMAT_VERSION:
        raise BundleUnsupported(
            "bundle.format_version",
            f"the bundle is of format {top.values['format_version']}; this SDK reads {FORMAT_VERSION}",
        )
    minimum_sdk = top.text("minimum_sdk", _VERSION)
    if _version(minimum_sdk) > _version(__version__):
        raise BundleUnsupported("bundle.sdk_too_old", f"the bundle needs SDK {minimum_sdk}; this one is {__version__}")
    item_count = top.integer("item_count", 1, MAX_ITEMS)
    width = top.integer("width", 1, MAX_WIDTH)
    files = _files(top.child("files"))
    vocabulary = _vocabulary(top.child("vocabulary"))
    seen = top.child("seen")
    ranker = _ranker(top)
    table_format = _table_format(top)
    sizes = section_sizes(item_count, width, has_ranker=ranker is not None, table_format=table_format)
    return Manifest(
        name=top.text("name"),
        release=top.integer("release", 1, 1 << 53),
        created_at=top.text("created_at", _CREATED_AT),
        item_count=item_count,
        width=width,
        opset=top.integer("opset", 1, 1000),
        ir_version=top.integer("ir_version", 1, 1000),
        operators=top.names("operators"),
        vocabulary=vocabulary,
        seen_events=seen.names("events"),
        filter_seen=seen.boolean("filter"),
        repeat=_repeat(top),
        items=_items(top.child("items"), sizes, files["items.bin"].bytes),
        files=files,
        parity=top.child("parity").values,
        model=top.child("model").values,
        ranker=ranker,
        table_format=table_format,
        minimum_sdk=minimum_sdk,
    )


def _load_json(manifest_bytes: bytes) -> dict[str, object]:
    if len(manifest_bytes) > MAX_MANIFEST_BYTES:
        raise BundleDamaged("bundle.manifest_size", f"manifest.json has more than {MAX_MANIFEST_BYTES} bytes")
    try:
        fields = json.loads(
            manifest_bytes.decode("utf-8"), object_pairs_hook=_distinct_keys, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as cause:
        raise BundleDamaged("bundle.manifest_malformed", f"manifest.json is not JSON: {cause}") from cause
    if not isinstance(fields, dict):
        fail("it is not a JSON object")
    return fields


def _distinct_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key occurs twice")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _vocabulary(fields: Fields) -> Vocabulary:
    edges = fields.values.get("gap_edges_ms")
    if not isinstance(edges, list) or not 1 <= len(edges) <= MAX_NAMES:
        fail("vocabulary.gap_edges_ms must be a list of times")
    for before, edge in zip([0, *edges], edges, strict=False):
        if not isinstance(edge, int) or isinstance(edge, bool) or not before < edge <= MAX_TIME_MS:
            fail("vocabulary.gap_edges_ms must be positive and ascending")
    events = fields.names("events")
    if not events:
        fail("vocabulary.events is empty")
    return Vocabulary(
        events,
        fields.names("devices"),
        tuple(edges),
        fields.integer("max_history", 1, MAX_HISTORY),
        fields.boolean("distinct_items"),
        _query_buckets(fields),
    )


def _query_buckets(fields: Fields) -> int:
    if "query_buckets" not in fields.values:
        return 0
    buckets = fields.integer("query_buckets", 1, 1 << 31)
    if buckets != BUCKETS:
        raise BundleUnsupported(
            "bundle.query_buckets", f"the model reads searches in {buckets} buckets; this SDK knows {BUCKETS}"
        )
    return buckets


def _repeat(top: Fields) -> RepeatRule | None:
    if "repeat" in top.values and top.values["repeat"] is None:
        return None
    fields = top.child("repeat")
    weight = fields.number("weight")
    if not math.isfinite(weight):
        fail("repeat.weight must be finite")
    return RepeatRule(weight, fields.integer("half_life_ms", 1, MAX_TIME_MS), fields.names("events"))


def _table_format(top: Fields) -> str:
    if "table_format" not in top.values:
        return "int8"
    found = top.text("table_format")
    if found not in TABLE_DTYPES:
        raise BundleUnsupported(
            "bundle.table_format", f"the item table is in {found}; this SDK reads {', '.join(TABLE_DTYPES)}"
        )
    return found


def _ranker(top: Fields) -> RankerRecord | None:
    if top.values.get("ranker") is None:
        return None
    fields = top.child("ranker")
    context = fields.names("context")
    if context != CONTEXT:
        raise BundleUnsupported(
            "bundle.ranker_context", f"the ranker reads {', '.join(context)}; this SDK knows {', '.join(CONTEXT)}"
        )
    return RankerRecord(fields.names("events"), fields.integer("horizon_ms", 1, MAX_TIME_MS))


def _files(fields: Fields) -> dict[str, FileRecord]:
    missing = [name for name in REQUIRED_FILES if name not in fields.values]
    if missing or len(fields.values) > MAX_FILES:
        fail(f"files must name {', '.join(missing)}" if missing else f"files names more than {MAX_FILES} files")
    records = {}
    for name in fields.values:
        if not _FILE_NAME.fullmatch(name) or len(name) > 64 or name in ("manifest.json", "manifest.sig"):
            fail(f"files: {name!r} is not the name of a file of a bundle")
        record = fields.child(name)
        records[name] = FileRecord(record.text("sha256", _SHA256), record.integer("bytes", 0, MAX_FILE_BYTES))
    return records


def _items(fields: Fields, sizes: Mapping[str, int], file_bytes: int) -> ItemSections:
    sections = {}
    end = 0
    for name, size in sizes.items():
        if name == "prior" and name in fields.values and fields.values[name] is None:
            continue
        section = fields.child(name)
        offset = section.integer("offset", 0, MAX_FILE_BYTES)
        if section.integer("bytes", 0, MAX_FILE_BYTES) != size:
            fail(f"items.{name}.bytes must be {size}")
        if offset % SECTION_ALIGNMENT or offset < end or offset + size > file_bytes:
            fail(f"items.{name}.offset must be a multiple of {SECTION_ALIGNMENT} after the section before, in the file")
        sections[name] = Section(offset, size)
        end = offset + size
    return ItemSections(**sections)
