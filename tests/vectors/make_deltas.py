"""Write deltas.json: a delta of lowpass.xrec, the hashes of what it makes, and deltas that every language must refuse.

    python tests/vectors/make_deltas.py

Deltas are in Base64; a refused one may be asked for with another base, other keys or a floor.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xrec_export.delta_plan import make_delta
from xrec_sdk.bundle import read_checked
from xrec_sdk.delta import NEW, OLD

sys.path.insert(0, str(Path(__file__).parents[1]))
from vectors import make_vectors
from vectors.recipes import read_folder
from vectors.releases import BASE, write_release

HEAD = struct.Struct("<8sII")


def delta_to(folder: Path) -> bytes:
    """Return the delta that makes the bundle in a folder of the base."""
    old, new = (
        read_checked(path, trusted_keys=[make_vectors.public_key()], allow_unsigned=False, minimum_release=0)
        for path in (BASE, folder)
    )
    return make_delta(old, new)


def packed_at(delta: bytes) -> int:
    """Return where the packed part begins."""
    _, manifest_bytes, signature_bytes = HEAD.unpack_from(delta)
    return HEAD.size + manifest_bytes + signature_bytes


def with_plan(delta: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return the delta with another plan, as someone without the key can write it."""
    at = packed_at(delta)
    unpacked = zlib.decompress(delta[at:])
    (size,) = struct.unpack_from("<I", unpacked)
    words = json.dumps(change(json.loads(unpacked[4 : 4 + size]))).encode()
    return delta[:at] + zlib.compress(struct.pack("<I", len(words)) + words + unpacked[4 + size :], 9)


def steps(*made: object) -> Callable[[dict[str, Any]], object]:
    """Return a change of the steps of one file."""
    return lambda plan: {**plan, "files": {**plan["files"], "card.md": list(made)}}


def refused(delta: bytes, folder: Path) -> list[dict[str, Any]]:
    """Return each delta that is refused, and by which code."""
    malformed, foreign = "bundle.delta_malformed", "ed25519:" + encoded(bytes(32))
    flipped = bytearray(delta)
    flipped[40] ^= 1
    same = delta_to(write_release(folder / "same.xrec", 3))
    plans: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
        "a plan that is a list": (lambda plan: [], malformed),
        "a plan of no base": (lambda plan: {}, "bundle.delta_base"),
        "a plan without files": (lambda plan: {**plan, "files": None}, malformed),
        "a file too many": (lambda plan: {**plan, "files": {**plan["files"], "evil": []}}, malformed),
        "a step that is a number": (steps(5), malformed),
        "a step of two": (steps([NEW, 0]), malformed),
        "a step of a fourth kind": (steps([3, 0, 1]), malformed),
        "a place below 0": (steps([OLD, -1, 4]), malformed),
        "half a byte": (steps([OLD, 0, 1.5]), malformed),
        "past the end of the old file": (steps([OLD, 1 << 50, 8]), malformed),
        "past the end of the new bytes": (steps([NEW, 0, 1 << 30]), malformed),
        "a file too long": (steps(*[[OLD, 0, 100]] * 100), malformed),
        "a file too short": (steps([OLD, 0, 9]), "bundle.hash_mismatch"),
    }
    made: list[tuple[str, bytes, str, dict[str, Any]]] = [
        ("another beginning", b"XRECDLT2" + delta[8:], malformed, {}),
        ("nothing", b"", malformed, {}),
        ("a manifest too long", delta[:8] + struct.pack("<I", 1 << 30) + delta[12:], malformed, {}),
        ("a flipped bit of the manifest", bytes(flipped), "bundle.signature_invalid", {}),
        ("a cut stream", delta[:-20], malformed, {}),
        ("more after the stream", delta + b"more", malformed, {}),
        ("the release at hand", same, "bundle.rollback", {}),
        ("below the floor", delta, "bundle.rollback", {"minimum_release": 5}),
        ("of another bundle", delta, "bundle.delta_base", {"base": "pool.xrec"}),
        ("of another key", delta, "bundle.key_untrusted", {"trusted_keys": [foreign]}),
        ("of no key", delta, "usage.trusted_keys", {"trusted_keys": []}),
        *((name, with_plan(delta, change), code, {}) for name, (change, code) in plans.items()),
    ]
    return [{"name": name, "code": code, **more, "delta": encoded(found)} for name, found, code, more in made]


def encoded(content: bytes) -> str:
    """Return bytes as they stand in the file."""
    return base64.b64encode(content).decode("ascii")


def main() -> None:
    """Write the file beside this one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        card = (BASE / "card.md").read_bytes().replace(b"lowpass", b"another lowpass") + b"more\n"
        items = bytearray((BASE / "items.bin").read_bytes())
        items[:4000:8] = bytes((byte + 1) % 256 for byte in items[:4000:8])  # sent as a difference
        whole = write_release(folder / "next.xrec", 4, files={"card.md": card, "items.bin": bytes(items)})
        delta = delta_to(whole)
        files = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(read_folder(whole).items())}
        document = {"format": 1, "base": BASE.name, "delta": encoded(delta), "files": files}
        lines = ",\n  ".join(map(json.dumps, refused(delta, folder)))
    text = json.dumps(document, indent=1).removesuffix("\n}") + f',\n "refused": [\n  {lines}\n ]\n}}\n'
    Path(__file__).with_name("deltas.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
