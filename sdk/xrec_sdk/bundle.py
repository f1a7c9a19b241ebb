"""Open a bundle without trusting it: nothing of it is used before its signature, names, sizes and hashes have passed.

A bundle is a folder or one uncompressed zip of it. Files are read into memory once and the read bytes are the ones that
are checked and used; those that grow with the items are mapped, and checked in the mapping.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from xrec_sdk.catalog import Catalog
from xrec_sdk.errors import BundleDamaged, BundleUntrusted, UsageError
from xrec_sdk.graphfile import check_graph
from xrec_sdk.idtable import IdTable
from xrec_sdk.manifest import (
    BLOCK_ITEMS,
    MAX_MANIFEST_BYTES,
    RANKER_FEATURES,
    TABLE_DTYPES,
    FileRecord,
    Manifest,
    parse_manifest,
)
from xrec_sdk.signature import MAX_SIGNATURE_FILE_BYTES, check_trusted_keys, verify

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
MAPPED = ("catalog.bin", "ids.bin", "items.bin")
"""The files that grow with the items: in a mapping their pages belong to the system, which may drop them."""


class Source(Protocol):
    """Where the files of a bundle come from; reading anything but a plain file raises BundleDamaged."""

    def names(self) -> set[str]:
        """Return the name of each file."""

    def read(self, name: str, max_bytes: int) -> memoryview:
        """Return the bytes of a file; raise BundleDamaged ``bundle.size_mismatch`` where it has more."""

    def map(self, name: str, max_bytes: int) -> memoryview:
        """Return the bytes of a file mapped read-only, or read where mapping is not possible."""


@dataclass(frozen=True)
class Bundle:
    """A bundle that has passed every check.

    ``table`` is int8 [nb, d, 128] with ``scale`` float32 [nb, 128], or float32 or float16 [nb, 128, d] without one;
    ``bias`` and ``prior`` are float32 [nb, 128]; all are views of the mapped items.bin. A prior that the bundle lacks
    is zero; a bias of -inf is of an item that is not offered. ``features`` is float32 [2, 128 nb], None without a
    ranker; ``key`` is the pinned key that signed it, None where unsigned bundles were allowed.
    """

    manifest: Manifest
    ids: IdTable
    catalog: Catalog
    table: NDArray[Any]
    scale: NDArray[np.float32] | None
    bias: NDArray[np.float32]
    prior: NDArray[np.float32]
    encoder: bytes
    scorer: bytes
    conformance: bytes
    card: str
    key: str | None
    features: NDArray[np.float32] | None = None

    def item_vector(self, row: int) -> NDArray[np.float32]:
        """Return the item vector of one row, (d,) float32: a view into the table needs no index arrays."""
        block, lane = divmod(row, BLOCK_ITEMS)
        if self.scale is None:
            return self.table[block, lane].astype(np.float32)  # type: ignore[no-any-return]
        vector: NDArray[np.float32] = np.multiply(self.table[block, :, lane], self.scale[block, lane], dtype=np.float32)
        return vector

    def item_vectors(self, rows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the item vectors of these rows, (R, d) float32."""
        blocks, lanes = np.divmod(rows, BLOCK_ITEMS)
        vectors: NDArray[np.float32]
        if self.scale is None:
            vectors = self.table[blocks, lanes].astype(np.float32)
        else:
            vectors = self.table[blocks, :, lanes] * self.scale[blocks, lanes, None]
        return vectors


class Checked(NamedTuple):
    """The files that a manifest names, as their hashes say, and the key that signed it.

    ``sig_bytes`` are those of manifest.sig where a key was pinned, else None.
    """

    manifest_bytes: bytes
    sig_bytes: bytes | None
    manifest: Manifest
    files: Mapping[str, memoryview]
    key: str | None


def open_bundle(
    path: str | os.PathLike[str],
    *,
    trusted_keys: Sequence[str] = (),
    allow_unsigned: bool = False,
    minimum_release: int = 0,
) -> Bundle:
    """Open the bundle at a folder or zip file and return it checked.

    ``trusted_keys`` are the public keys that the app pins. ``allow_unsigned`` admits a bundle that has no signature;
    one that has a signature still needs a pinned key, unless no key is pinned at all. ``minimum_release`` is the newest
    release that this app has loaded before. Raises BundleDamaged, BundleUntrusted, BundleUnsupported or UsageError.
    """
    checked = read_checked(
        path, trusted_keys=trusted_keys, allow_unsigned=allow_unsigned, minimum_release=minimum_release
    )
    return _assemble(checked)


def read_checked(
    path: str | os.PathLike[str], *, trusted_keys: Sequence[str], allow_unsigned: bool, minimum_release: int
) -> Checked:
    """Return the files of a bundle whose signature, names, sizes and hashes hold; the arguments of open_bundle."""
    check_trusted_keys(trusted_keys)
    if not trusted_keys and not allow_unsigned:
        raise UsageError("usage.trusted_keys", "pin at least one key in trusted_keys, or say allow_unsigned=True")
    with ExitStack() as stack:
        source = _source(Path(path), stack)
        names = source.names()
        manifest_bytes = bytes(_read_first(source, names, MANIFEST, MAX_MANIFEST_BYTES, "bundle.manifest_size"))
        sig_bytes = _read_signature(source, names, trusted_keys, allow_unsigned)
        key = None if sig_bytes is None else verify(manifest_bytes, sig_bytes, trusted_keys)
        manifest = parse_manifest(manifest_bytes)
        if manifest.release < minimum_release:
            raise BundleUntrusted(
                "bundle.rollback",
                f"the bundle is release {manifest.release}; release {minimum_release} was loaded before",
            )
        _check_names(names, manifest)
        return Checked(manifest_bytes, sig_bytes, manifest, _read_all(source, manifest), key)


def _source(path: Path, stack: ExitStack) -> Source:
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError) as cause:
        raise BundleDamaged("bundle.not_found", f"there is no bundle at {path.name!r}") from cause
    if stat.S_ISDIR(mode):
        return FolderSource(path)
    if stat.S_ISREG(mode):
        from xrec_sdk.archive import ZipSource  # a start from a folder does without zipfile

        return stack.enter_context(ZipSource(path))
    raise BundleDamaged("bundle.not_plain", "the bundle is neither a folder nor a zip file (links are not followed)")


class FolderSource:
    """The files of a bundle's folder; links, folders and devices in it are refused."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> set[str]:
        """Return the name of each entry; raise BundleDamaged where one is not a plain file."""
        try:
            with os.scandir(self._folder) as entries:
                names = set()
                for entry in entries:
                    if entry.is_symlink() or not entry.is_file(follow_symlinks=False):
                        raise BundleDamaged("bundle.not_plain", f"{entry.name!r} in the bundle is not a plain file")
                    names.add(entry.name)
                return names
        except OSError as cause:
            raise BundleDamaged("bundle.unreadable", "the bundle's folder can't be read") from cause

    def read(self, name: str, max_bytes: int) -> memoryview:
        """Return the bytes of a file."""
        descriptor = self._open(name, max_bytes)
        try:
            with open(descriptor, "rb") as file:
                # The size that was checked may have grown since; never read past the limit.
                return memoryview(file.read(max_bytes + 1))
        except OSError as cause:
            raise BundleDamaged("bundle.unreadable", f"{name} can't be read") from cause

    def map(self, name: str, max_bytes: int) -> memoryview:
        """Return the bytes of a file mapped read-only."""
        descriptor = self._open(name, max_bytes)
        try:
            return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as cause:
            raise BundleDamaged("bundle.unreadable", f"{name} can't be mapped") from cause
        finally:
            os.close(descriptor)

    def _open(self, name: str, max_bytes: int) -> int:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            descriptor = os.open(self._folder / name, flags | getattr(os, "O_NONBLOCK", 0))
        except OSError as cause:
            raise BundleDamaged("bundle.unreadable", f"{name} can't be opened") from cause
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise BundleDamaged("bundle.not_plain", f"{name} is not a plain file")
        if status.st_size > max_bytes:
            os.close(descriptor)
            raise BundleDamaged(
                "bundle.size_mismatch", f"{name} has {status.st_size} bytes, at most {max_bytes} expected"
            )
        return descriptor


def _read_first(source: Source, names: set[str], name: str, max_bytes: int, code: str) -> memoryview:
    # Nothing has said yet how long manifest.json and manifest.sig are, so that too long has a code of its own.
    if name not in names:
        raise BundleDamaged("bundle.file_missing", f"the bundle has no {name}")
    try:
        content = source.read(name, max_bytes)
    except BundleDamaged as cause:
        if cause.code != "bundle.size_mismatch":
            raise
        raise BundleDamaged(code, f"{name} has more than {max_bytes} bytes") from cause
    if len(content) > max_bytes:
        raise BundleDamaged(code, f"{name} has more than {max_bytes} bytes")
    return content


def _read_signature(source: Source, names: set[str], trusted_keys: Sequence[str], allow_unsigned: bool) -> bytes | None:
    """Return what must verify, None where nothing must."""
    if SIGNATURE not in names:
        if allow_unsigned:
            return None
        raise BundleUntrusted("bundle.unsigned", "the bundle has no manifest.sig")
    if not trusted_keys:
        return None
    return bytes(_read_first(source, names, SIGNATURE, MAX_SIGNATURE_FILE_BYTES, "bundle.signature_malformed"))


def _check_names(names: set[str], manifest: Manifest) -> None:
    expected = {*manifest.files, MANIFEST}
    if missing := expected - names:
        raise BundleDamaged("bundle.file_missing", f"the bundle has no {', '.join(sorted(missing))}")
    if extra := names - expected - {SIGNATURE}:
        raise BundleDamaged(
            "bundle.file_extra", f"the bundle holds {sorted(extra)[0]!r}, which its manifest does not name"
        )


def _read_all(source: Source, manifest: Manifest) -> dict[str, memoryview]:
    contents = {}
    for name, record in manifest.files.items():
        read = source.map if name in MAPPED else source.read
        contents[name] = read(name, record.bytes)
        _check_file(name, contents[name], record)
    return contents


def _check_file(name: str, content: memoryview, record: FileRecord) -> None:
    if len(content) != record.bytes:
        raise BundleDamaged(
            "bundle.size_mismatch", f"{name} has {len(content)} bytes, its manifest says {record.bytes}"
        )
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise BundleDamaged("bundle.hash_mismatch", f"{name} is not the file that its manifest names")


def _assemble(checked: Checked) -> Bundle:
    manifest, contents = checked.manifest, checked.files
    encoder, scorer = bytes(contents["encoder.onnx"]), bytes(contents["scorer.onnx"])
    check_graph(encoder, "encoder.onnx", manifest.operators)
    check_graph(scorer, "scorer.onnx", manifest.operators)
    ids, catalog = IdTable(contents["ids.bin"]), Catalog(contents["catalog.bin"])
    for name, count in (("ids.bin", len(ids)), ("catalog.bin", len(catalog))):
        if count != manifest.item_count:
            raise BundleDamaged("bundle.count_mismatch", f"{name} holds {count} items, not {manifest.item_count}")
    blocks, items, sections = manifest.block_count, contents["items.bin"], manifest.items
    table = np.frombuffer(
        items, TABLE_DTYPES[manifest.table_format], blocks * BLOCK_ITEMS * manifest.width, sections.table.offset
    )
    scale = np.frombuffer(items, "<f4", blocks * BLOCK_ITEMS, sections.scale.offset) if sections.scale else None
    bias = np.frombuffer(items, "<f4", blocks * BLOCK_ITEMS, sections.bias.offset)
    prior = (
        np.frombuffer(items, "<f4", blocks * BLOCK_ITEMS, sections.prior.offset)
        if sections.prior
        else np.zeros(blocks * BLOCK_ITEMS, dtype=np.float32)
    )
    features = None
    if sections.features:
        features = np.frombuffer(items, "<f4", RANKER_FEATURES * blocks * BLOCK_ITEMS, sections.features.offset)
        features = features.reshape(RANKER_FEATURES, -1)
        if not np.isfinite(features).all():
            raise BundleDamaged("bundle.items_malformed", "items.bin holds a feature that is not finite")
    # Of floats a sum in float64 is finite where each is, and needs no array of their number.
    if scale is None and not np.isfinite(table.sum(dtype=np.float64)):
        raise BundleDamaged("bundle.items_malformed", "items.bin holds a number of the table that is not finite")
    if not np.isfinite(prior).all():
        raise BundleDamaged("bundle.items_malformed", "items.bin holds a prior that is not finite")
    if scale is not None and not np.isfinite(scale).all():
        raise BundleDamaged("bundle.items_malformed", "items.bin holds a scale that is not finite")
    # -inf too for an item that is known from histories and no longer offered.
    if not (bias[: manifest.item_count] < np.inf).all() or not np.isneginf(bias[manifest.item_count :]).all():
        raise BundleDamaged("bundle.items_malformed", "items.bin holds a bias of inf or NaN, or a pad row without -inf")
    try:
        card = str(contents["card.md"], "utf-8")
    except UnicodeDecodeError as cause:
        raise BundleDamaged("bundle.card_malformed", "card.md is not UTF-8") from cause
    return Bundle(
        manifest=manifest,
        ids=ids,
        catalog=catalog,
        table=table.reshape((blocks, BLOCK_ITEMS, -1) if scale is None else (blocks, -1, BLOCK_ITEMS)),
        scale=None if scale is None else scale.reshape(blocks, BLOCK_ITEMS),
        bias=bias.reshape(blocks, BLOCK_ITEMS),
        prior=prior.reshape(blocks, BLOCK_ITEMS),
        encoder=encoder,
        scorer=scorer,
        conformance=bytes(contents["conformance.json"]),
        card=card,
        key=checked.key,
        features=features,
    )
