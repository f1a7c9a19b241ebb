"""Make later releases of the vectors' bundle, signed by the key of the vectors, for tests of deltas and updates."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vectors import make_vectors
from vectors.recipes import read_folder
from xrec_sdk.signature import sign

BASE = make_vectors.FOLDER / "lowpass.xrec"


def write_release(
    folder: Path,
    release: int,
    *,
    pem: bytes | None = None,
    name: str | None = None,
    files: dict[str, bytes] | None = None,
) -> Path:
    """Write the bundle of another release into ``folder``, with other files, another name or signed by another key."""
    contents = {**read_folder(BASE), **(files or {})}
    fields = json.loads(contents["manifest.json"])
    fields.update({"release": release, **({} if name is None else {"name": name})})
    for file, record in fields["files"].items():
        record.update(sha256=hashlib.sha256(contents[file]).hexdigest(), bytes=len(contents[file]))
    contents["manifest.json"] = json.dumps(fields).encode()
    contents["manifest.sig"] = sign(contents["manifest.json"], pem or make_vectors.private_pem())
    folder.mkdir()
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return folder
