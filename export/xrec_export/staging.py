"""Write a bundle's folder beside its target and put it in place whole, or leave nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from xrec_sdk.disk import write_synced
from xrec_sdk.errors import UsageError
from xrec_sdk.manifest import FileRecord
from xrec_sdk.signature import sign


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of ``target`` at the end, or is removed where the block raises.

    A bundle that stands there is replaced. Raises UsageError ``usage.out`` where something else does.
    """
    if not target.parent.is_dir():
        raise UsageError("usage.out", f"the folder of {target} does not exist")
    if target.is_symlink() or (target.exists() and not (target / "manifest.json").is_file()):
        raise UsageError("usage.out", f"{target} exists and is not a bundle; choose another name")
    stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield stage
        _put_in_place(stage, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files and wait until they are on the disk."""
    for name, content in files.items():
        write_synced(folder / name, content)


def signed(manifest_bytes: bytes, private_pem: bytes) -> dict[str, bytes]:
    """Return manifest.json and its signature."""
    return {"manifest.json": manifest_bytes, "manifest.sig": sign(manifest_bytes, private_pem)}


def records(files: Mapping[str, bytes]) -> dict[str, FileRecord]:
    """Return what a manifest says of each file."""
    return {name: FileRecord(hashlib.sha256(content).hexdigest(), len(content)) for name, content in files.items()}


def _put_in_place(stage: Path, target: Path) -> None:
    os.chmod(stage, 0o755)
    if not target.exists():
        os.replace(stage, target)
        return
    # A folder that is not empty can't be replaced in one step; the old bundle steps aside and returns if that fails.
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    os.replace(target, aside / target.name)
    try:
        os.replace(stage, target)
    except OSError:
        os.replace(aside / target.name, target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
