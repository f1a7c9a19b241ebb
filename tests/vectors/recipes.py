"""Damage a bundle by a recipe of bad/recipes.json; README.md says what each step does."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Files = dict[str, bytes]


def read_folder(folder: Path) -> Files:
    """Return the files of a bundle's folder by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def damaged_zip(recipe: Mapping[str, Any], folder: Path, bundle: str, sign: Callable[[bytes], bytes]) -> bytes:
    """Return the zip that a recipe makes of a bundle in ``folder``; ``sign`` gives the bytes of manifest.sig."""
    files = read_folder(folder / recipe.get("bundle", bundle))
    for step in recipe["steps"]:
        _apply(step, files, folder)
    if recipe.get("resign") is True:
        fields = json.loads(files["manifest.json"])
        for name, record in fields["files"].items():
            is_touched = any(
                step["op"] == "manifest" and step["path"][:2] == ["files", name] for step in recipe["steps"]
            )
            if name in files and not is_touched:
                record.update(sha256=hashlib.sha256(files[name]).hexdigest(), bytes=len(files[name]))
        files["manifest.json"] = json.dumps(fields).encode()
    if "resign" in recipe:
        files["manifest.sig"] = sign(files["manifest.json"])
    return write_zip(files, recipe.get("zip", {}))


def _apply(step: Mapping[str, Any], files: Files, folder: Path) -> None:
    operation, name = step["op"], step.get("file", "manifest.json")
    content = bytearray(files.get(name, b""))
    at, raw = step.get("at", 0), bytes.fromhex(step.get("hex", ""))
    match operation:
        case "remove":
            del files[name]
            return
        case "flip":
            content[at] ^= step["xor"]
        case "cut":
            del content[step["bytes"] :]
        case "drop":
            del content[at : at + step["bytes"]]
        case "append":
            content += raw
        case "prepend":
            content[:0] = raw
        case "pad":
            content = content.ljust(step["bytes"], b" ")
        case "write":
            content[at : at + len(raw)] = raw
        case "fill":
            content[at : at + step["bytes"]] = raw * step["bytes"]
        case "text":
            content = bytearray(step["text"].encode())
        case "copy":
            content = bytearray((folder / step["bundle"] / step.get("source", name)).read_bytes())
        case "manifest":
            content = bytearray(_set(content, step["path"], step["value"]))
        case _:
            raise ValueError(f"unknown step {operation}")
    files[name] = bytes(content)


def _set(manifest: bytes, path: Sequence[str], value: object) -> bytes:
    fields = json.loads(manifest)
    inner = fields
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(fields).encode()


def write_zip(files: Mapping[str, bytes], faults: Mapping[str, Any]) -> bytes:
    """Return a zip of stored members in one folder, with the faults that a recipe names."""
    prefix = faults.get("folder", "x.xrec/")
    members = [(name, prefix + name, content) for name, content in files.items()]
    members = [(name, faults.get("rename", {}).get(name, path), content) for name, path, content in members]
    members += [member for member in members if member[0] == faults.get("twice")]
    members += [(f"{number}", f"{prefix}{number}", b"") for number in range(faults.get("more", 0))]
    body, directory = bytearray(), bytearray()
    for name, path, content in members:
        raw = path.encode()
        flags = int(name == faults.get("encrypted"))
        method = 8 if name == faults.get("compressed") else 0
        mode = 0o120777 if name == faults.get("link") else 0o100644
        crc = zlib.crc32(content) ^ int(name == faults.get("wrong_crc"))
        sizes = struct.pack("<HHHHIII", 0x800 | flags, method, 0, 0x21, crc, len(content), len(content))
        directory += struct.pack("<IHH", 0x02014B50, 0x0314, 20) + sizes
        directory += struct.pack("<HHHHHII", len(raw), 0, 0, 0, 0, mode << 16, len(body)) + raw
        own = raw[:-1] + b"?" if name == faults.get("misnamed") else raw
        body += struct.pack("<IH", 0x04034B50, 20) + sizes + struct.pack("<HH", len(own), 0) + own + content
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, len(members), len(members), len(directory), len(body), 0)
    whole = bytes(body + directory + end)
    return whole[: faults["cut"]] if "cut" in faults else whole
