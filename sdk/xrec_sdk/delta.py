"""Apply a delta: make the next release of a bundle from the one at hand and a small signed file.

A delta (docs/bundle-format.md) holds the manifest and the signature of the new bundle and, for each of its files, what
to copy out of the old one and what is new. The signature is checked before anything else is read, every file against
the signed manifest, and the finished folder as any bundle; only then does it take its name. The old folder stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xrec_sdk.bundle import Bundle, Checked, open_bundle, read_checked
from xrec_sdk.disk import write_synced
from xrec_sdk.errors import BundleDamaged, BundleUntrusted, UsageError
from xrec_sdk.manifest import MAX_FILE_BYTES, MAX_MANIFEST_BYTES, FileRecord, Manifest, parse_manifest
from xrec_sdk.signature import MAX_SIGNATURE_FILE_BYTES, check_trusted_keys, verify

MAGIC = b"XRECDLT1"
MAX_PLAN_BYTES = 1 << 26
NEW, OLD, SUM = 0, 1, 2
"""What a step ``[kind, place, bytes]`` of a file's plan appends: the next new bytes, bytes of the old file, or both
added up, each modulo 256."""
Plan = Mapping[str, Sequence[tuple[int, int, int]]]
_CODE = "bundle.delta_malformed"
_HEADER = struct.Struct("<8sII")
_PLAN = struct.Struct("<I")


@dataclass(frozen=True)
class Delta:
    """A delta whose signature holds: the new manifest and its bytes, and what is not yet unpacked."""

    manifest: Manifest
    manifest_bytes: bytes
    sig_bytes: bytes
    packed: memoryview


def apply_delta(
    base: str | os.PathLike[str],
    delta: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    trusted_keys: Sequence[str],
    minimum_release: int = 0,
) -> Bundle:
    """Write the folder ``target`` from the bundle ``base`` and the file ``delta``, and return it opened.

    ``base`` is not changed, and ``target``, which must not exist, appears whole or not at all. Raises as
    :func:`open_bundle` does, for the old bundle, the delta and the new bundle, and besides BundleDamaged
    ``bundle.delta_malformed`` or ``bundle.delta_base`` (the delta is of another bundle), UsageError ``usage.target``.
    """
    path = Path(target)
    if path.exists() or path.is_symlink() or not path.parent.is_dir():
        raise UsageError("usage.target", f"{path.name!r} exists, or its folder does not; name a new folder")
    opened = _open(Path(delta), trusted_keys)
    old = read_checked(base, trusted_keys=trusted_keys, allow_unsigned=False, minimum_release=0)
    if opened.manifest.release < max(minimum_release, old.manifest.release + 1):
        raise BundleUntrusted(
            "bundle.rollback",
            f"the delta gives release {opened.manifest.release}; {old.manifest.release} is there, "
            f"{minimum_release} was loaded before",
        )
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as aside:
        part = Path(aside) / path.name
        part.mkdir()
        write_synced(part / "manifest.json", opened.manifest_bytes)
        write_synced(part / "manifest.sig", opened.sig_bytes)
        for name, content in _rebuilt(opened, old):
            write_synced(part / name, content)
        # Opened and let go of: Windows renames no folder whose files are mapped.
        open_bundle(part, trusted_keys=trusted_keys, minimum_release=minimum_release)
        os.replace(part, path)
    return open_bundle(path, trusted_keys=trusted_keys, minimum_release=minimum_release)


def pack(manifest_bytes: bytes, sig_bytes: bytes, base: bytes, plan: Plan, literal: bytes) -> bytes:
    """Return the bytes of a delta; ``base`` are those of the old manifest.json, ``plan`` the steps of each file."""
    said = {"base": hashlib.sha256(base).hexdigest(), "files": plan}
    words = json.dumps(said, separators=(",", ":")).encode("ascii")
    packed = zlib.compress(_PLAN.pack(len(words)) + words + literal, 9)
    return _HEADER.pack(MAGIC, len(manifest_bytes), len(sig_bytes)) + manifest_bytes + sig_bytes + packed


def _open(path: Path, trusted_keys: Sequence[str]) -> Delta:
    """Read the head of a delta and check its signature; nothing is unpacked."""
    if not check_trusted_keys(trusted_keys):
        raise UsageError("usage.trusted_keys", "pin at least one key in trusted_keys; a delta is always signed")
    try:
        content = memoryview(path.read_bytes())
    except OSError as cause:
        raise BundleDamaged("bundle.not_found", f"there is no delta at {path.name!r}") from cause
    if len(content) < _HEADER.size or content[:8] != MAGIC:
        raise BundleDamaged(_CODE, "the file does not begin with XRECDLT1")
    _, manifest_size, sig_size = _HEADER.unpack_from(content)
    if manifest_size > MAX_MANIFEST_BYTES or sig_size > MAX_SIGNATURE_FILE_BYTES:
        raise BundleDamaged(_CODE, f"the delta says a manifest of {manifest_size} and a signature of {sig_size} bytes")
    sig_at = _HEADER.size + manifest_size
    manifest_bytes, sig_bytes = bytes(content[_HEADER.size : sig_at]), bytes(content[sig_at : sig_at + sig_size])
    verify(manifest_bytes, sig_bytes, trusted_keys)
    return Delta(parse_manifest(manifest_bytes), manifest_bytes, sig_bytes, content[sig_at + sig_size :])


def _rebuilt(delta: Delta, old: Checked) -> Iterator[tuple[str, bytes]]:
    """Yield each file of the new bundle as the plan makes it, its size and hash checked."""
    plan, literal = _unpack(delta)
    if plan.get("base") != hashlib.sha256(old.manifest_bytes).hexdigest():
        raise BundleDamaged("bundle.delta_base", f"the delta is not of release {old.manifest.release} that is at hand")
    steps = plan.get("files")
    if not isinstance(steps, dict) or set(steps) != set(delta.manifest.files):
        raise BundleDamaged(_CODE, "the delta does not make the files that its manifest names")
    at = 0
    for name, record in delta.manifest.files.items():
        content, at = _follow(steps[name], old.files.get(name, memoryview(b"")), literal, at, record)
        if len(content) != record.bytes or hashlib.sha256(content).hexdigest() != record.sha256:
            raise BundleDamaged("bundle.hash_mismatch", f"the delta does not make {name} as its manifest names it")
        yield name, content


def _unpack(delta: Delta) -> tuple[dict[str, Any], memoryview]:
    # What is new can't be more than the files that the signed manifest names, which bounds what is unpacked.
    most = _PLAN.size + MAX_PLAN_BYTES + sum(record.bytes for record in delta.manifest.files.values())
    unpacker = zlib.decompressobj()
    try:
        unpacked = memoryview(unpacker.decompress(delta.packed, min(most, MAX_FILE_BYTES)))
        if not unpacker.eof or unpacker.unused_data:
            raise ValueError("more or less than it says")
        (size,) = _PLAN.unpack_from(unpacked)
        plan = json.loads(bytes(unpacked[_PLAN.size : _PLAN.size + size]))
        if not isinstance(plan, dict):
            raise ValueError("a plan that is no object")
    except (zlib.error, struct.error, ValueError, RecursionError) as cause:
        raise BundleDamaged(_CODE, f"the delta can't be unpacked: {cause}") from cause
    return plan, unpacked[_PLAN.size + size :]


def _follow(steps: object, old: memoryview, literal: memoryview, at: int, record: FileRecord) -> tuple[bytes, int]:
    """Return a file made by its steps, and where in ``literal`` its new bytes end; they begin at ``at``."""
    made = bytearray()
    for kind, place, size in _checked(steps):
        if len(made) + size > record.bytes:
            raise BundleDamaged(_CODE, "the delta makes a file too long")
        fresh, copied = literal[at : at + size], old[place : place + size]
        if (kind != OLD and len(fresh) != size) or (kind != NEW and len(copied) != size):
            raise BundleDamaged(_CODE, "a step of the delta reaches past the end of what there is")
        if kind == SUM:
            made += (np.frombuffer(copied, np.uint8) + np.frombuffer(fresh, np.uint8)).tobytes()
        else:
            made += copied if kind == OLD else fresh
        at += 0 if kind == OLD else size
    return bytes(made), at


def _checked(steps: object) -> Iterator[tuple[int, int, int]]:
    for step in steps if isinstance(steps, list) else [None]:
        match step:
            case [int(kind), int(place), int(size)] if kind in (NEW, OLD, SUM) and place >= 0 and size >= 0:
                yield kind, place, size
            case _:
                raise BundleDamaged(_CODE, "a step of the delta is not [kind, place, bytes]")
