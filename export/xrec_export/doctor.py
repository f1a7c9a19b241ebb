"""Check that this machine can make a release: libraries, CPU, emulator, key, disk."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from xrec_sdk.errors import DataError
from xrec_sdk.packed_scan import packs_anew

from xrec_export.keys import public_key, read_key
from xrec_export.probe import anonymous_bytes
from xrec_export.speed import machine

LIBRARIES = ("numpy", "onnxruntime", "cryptography", "torch", "onnx", "onnxscript", "scipy")
LEAST_FREE_BYTES = 1 << 30
EMULATOR = "qemu-x86_64"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; a release can be made where none ``is_wrong``."""

    name: str
    found: str
    is_wrong: bool = False


def examine(key: Path | None, folder: Path) -> list[Finding]:
    """Return what was found of this machine, of the private key at ``key``, and of the disk that ``folder`` is on."""
    found = [Finding("python", platform.python_version()), *(_library(name) for name in LIBRARIES)]
    found += [Finding("cpu", machine()), _cpu_features()]
    emulator = shutil.which(EMULATOR)
    found.append(
        Finding("emulator", emulator or f"no {EMULATOR}; --emulate needs it (Debian: apt-get install qemu-user)")
    )
    says = "can be measured" if anonymous_bytes() is not None else "can't be measured here; leave it out of budgets"
    found.append(Finding("anonymous memory", says))
    return [*found, *([] if key is None else [_key(key)]), _disk(folder)]


def _library(name: str) -> Finding:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed; pip install 'xrec[export]'", is_wrong=True)
    least = _least(name)
    if _number(version) < _number(least):
        return Finding(name, f"{version}, at least {least} is needed; pip install 'xrec[export]'", is_wrong=True)
    return Finding(name, version)


def _least(name: str) -> str:
    """Return the least version of a library that xrec's own metadata asks for."""
    for line in importlib.metadata.requires("xrec") or ():
        if asked := re.match(rf"{name}\s*>=\s*([\d.]+)", line):
            return asked[1]
    return "0"


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def _cpu_features() -> Finding:
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return Finding("cpu features", "this system does not say")
    has = {
        "AVX2": "avx2" in flags,
        "AVX-512": "avx512f" in flags,
        "VNNI": bool({"avx512_vnni", "avx_vnni"} & flags),
        "AMX": "amx_int8" in flags,
    }
    said = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in has.items())
    blind = "; a CPU with VNNI can't show what saturates without it: use --emulate" if has["VNNI"] else ""
    slow = "; with AMX the SDK scans a packed copy: no phone's latency or memory" if packs_anew() else ""
    return Finding("cpu features", said + blind + slow)


def _key(path: Path) -> Finding:
    try:
        public = public_key(read_key(path))
    except DataError as error:
        return Finding("key", str(error), is_wrong=True)
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        return Finding("key", f"{path} can be read by others (mode {mode:o}); chmod 600 {path}", is_wrong=True)
    return Finding("key", public)


def _disk(folder: Path) -> Finding:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("disk", f"{folder} can't be asked: {error.strerror}", is_wrong=True)
    enough = free >= LEAST_FREE_BYTES
    return Finding(
        "disk", f"{free:,} bytes free{'' if enough else f', at least {LEAST_FREE_BYTES:,} are needed'}", not enough
    )
