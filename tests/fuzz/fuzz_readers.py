"""Fuzz what reads a bundle's bytes; anything but an XrecError is a finding.

    python tests/fuzz/fuzz_readers.py READER [CORPUS] [-max_total_time=60 and other options of libFuzzer]

READER is manifest, ids, catalog, zip, delta or graph. Needs atheris (pip install atheris). The seeds are files of the
vectors.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["xrec_sdk"]):
    from xrec_sdk.archive import ZipSource
    from xrec_sdk.catalog import Catalog
    from xrec_sdk.delta import Delta, _follow, _unpack
    from xrec_sdk.errors import XrecError
    from xrec_sdk.graphfile import check_graph
    from xrec_sdk.idtable import IdTable
    from xrec_sdk.manifest import FileRecord, parse_manifest, to_bytes

VECTORS = Path(__file__).parents[1] / "vectors"
SHOWN = 50
OLD = memoryview(bytes(range(256)) * 16)


def read_manifest(content: bytes) -> None:
    """A manifest that is read is written and read again as itself."""
    manifest = parse_manifest(content)
    assert parse_manifest(to_bytes(manifest)) == manifest


def read_ids(content: bytes) -> None:
    """Each id that a table gives leads back to its row."""
    ids = IdTable(content)
    for row in range(min(len(ids), SHOWN)):
        found = ids.row(ids.item_id(row))
        assert found is None or ids.item_id(found) == ids.item_id(row)


def read_catalog(content: bytes) -> None:
    """Entries are objects or damage; each category has a name or is none."""
    catalog = Catalog(content)
    for row in range(min(len(catalog), SHOWN)):
        catalog.category_name(row)
        assert isinstance(catalog.entry(row), dict)


def read_zip(content: bytes) -> None:
    """No member is longer than was allowed."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with ZipSource(Path(file.name)) as source:
            for name in source.names():
                assert len(source.read(name, 10_000)) <= 10_001 and "/" not in name


_RECORD = FileRecord("0" * 64, 5000)
_MANIFEST = parse_manifest((VECTORS / "pool.xrec" / "manifest.json").read_bytes())


def read_delta(content: bytes) -> None:
    """No plan makes a file longer than its manifest says."""
    plan, literal = _unpack(Delta(_MANIFEST, b"", b"", memoryview(content)))
    steps = plan.get("files")
    for one in steps.values() if isinstance(steps, dict) else [steps]:
        assert len(_follow(one, OLD, literal, 0, _RECORD)[0]) <= _RECORD.bytes


def read_graph(content: bytes) -> None:
    """A graph passes or is refused."""
    check_graph(content, "encoder.onnx", _MANIFEST.operators)


def seeds(reader: str) -> list[bytes]:
    """Return what the fuzzer begins with."""
    from vectors.recipes import read_folder, write_zip

    folders = [VECTORS / name for name in ("lowpass.xrec", "pool.xrec")]
    if reader == "zip":
        return [write_zip(read_folder(folder), {}) for folder in folders]
    if reader == "delta":
        from xrec_sdk.delta import _HEADER, pack

        steps = [(0, 0, 4), (1, 8, 100), (2, 300, 4)]
        return [pack(b"", b"", b"", {"card.md": steps}, b"12345678")[_HEADER.size :]]
    name = {"manifest": "manifest.json", "ids": "ids.bin", "catalog": "catalog.bin", "graph": "scorer.onnx"}[reader]
    return [(folder / name).read_bytes() for folder in folders]


READERS: dict[str, Callable[[bytes], None]] = {
    "manifest": read_manifest,
    "ids": read_ids,
    "catalog": read_catalog,
    "zip": read_zip,
    "delta": read_delta,
    "graph": read_graph,
}


def main() -> None:
    """Fuzz one reader until libFuzzer's options say stop."""
    reader = sys.argv[1] if len(sys.argv) > 1 else ""
    if reader not in READERS:
        raise SystemExit(f"name one of {', '.join(READERS)}")

    def one(content: bytes) -> None:
        try:
            READERS[reader](content)
        except XrecError:
            return

    with tempfile.TemporaryDirectory(prefix="xrec-fuzz-") as folder:
        for place, content in enumerate(seeds(reader)):
            (Path(folder) / f"seed-{place}").write_bytes(content)
        atheris.Setup([sys.argv[0], *sys.argv[2:], folder, "-max_len=200000"], one)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
