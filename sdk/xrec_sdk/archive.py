"""Read a bundle out of one uncompressed zip, refusing everything that a zip can do besides holding files."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path
from types import TracebackType

from xrec_sdk.errors import BundleDamaged

MAX_MEMBERS = 128
_FAULTS = (OSError, zipfile.BadZipFile, zipfile.LargeZipFile, ValueError, EOFError, NotImplementedError, RuntimeError)


class ZipSource:
    """The files of a zip: members stored, not compressed, all at the top or all in one folder ``NAME.xrec/``."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except _FAULTS as cause:
            raise BundleDamaged("bundle.zip_malformed", "the file is not a zip") from cause
        try:
            self._members = _members(self._zip.infolist())
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> ZipSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def names(self) -> set[str]:
        """Return the name of each member inside the bundle's folder."""
        return set(self._members)

    def read(self, name: str, max_bytes: int) -> memoryview:
        """Return the bytes of a member; raise BundleDamaged where it has more than ``max_bytes``."""
        member = self._members[name]
        if member.file_size > max_bytes:
            raise BundleDamaged(
                "bundle.size_mismatch", f"{name} has {member.file_size} bytes, at most {max_bytes} expected"
            )
        try:
            with self._zip.open(member) as file:
                return memoryview(file.read(max_bytes + 1))
        except _FAULTS as cause:
            raise BundleDamaged("bundle.zip_malformed", f"{name} can't be read from the zip") from cause

    def map(self, name: str, max_bytes: int) -> memoryview:
        """Return the bytes of a member, read into memory: a member of a zip isn't aligned for mapping."""
        return self.read(name, max_bytes)


def _members(infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    if len(infos) > MAX_MEMBERS:
        raise BundleDamaged(
            "bundle.zip_malformed", f"the zip holds {len(infos)} members, at most {MAX_MEMBERS} expected"
        )
    files = [info for info in infos if not _is_folder(info)]
    folders = {info.filename.rpartition("/")[0] for info in files}
    if len(folders) > 1 or any("/" in folder for folder in folders):
        raise BundleDamaged("bundle.zip_path", "the files of the zip are not all in one folder")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in files:
        name = info.filename.rpartition("/")[2]
        if name in members:
            raise BundleDamaged("bundle.zip_malformed", f"the zip holds {name!r} twice")
        members[name] = info
    return members


def _is_folder(info: zipfile.ZipInfo) -> bool:
    name, mode = info.filename, info.external_attr >> 16
    # orig_filename is the name before zipfile cut it at a NUL and turned the system's separators into slashes.
    is_plain = name and info.orig_filename == name and not name.startswith("/")
    if not is_plain or "\\" in name or ":" in name or ".." in name.split("/"):
        raise BundleDamaged("bundle.zip_path", f"the zip holds the path {info.orig_filename!r}")
    if info.flag_bits & 0x1:
        raise BundleDamaged("bundle.zip_malformed", f"{name!r} in the zip is encrypted")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise BundleDamaged("bundle.zip_compressed", f"{name!r} in the zip is compressed; a bundle is stored")
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_IFMT(mode) == 0):
        raise BundleDamaged("bundle.not_plain", f"{name!r} in the zip is a link or a device")
    if info.is_dir():
        if info.file_size or name.count("/") != 1:
            raise BundleDamaged("bundle.zip_path", f"the zip holds the folder {name!r}")
        return True
    return False
