"""A delta makes the next bundle byte for byte, or nothing at all; what is wrong with it is said and nothing crashes."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vectors import make_vectors
from vectors.recipes import read_folder
from vectors.releases import write_release
from xrec_export.delta_plan import make_delta
from xrec_sdk import delta as deltas
from xrec_sdk.bundle import read_checked
from xrec_sdk.delta import NEW, OLD, SUM, apply_delta
from xrec_sdk.errors import BundleDamaged, BundleError, BundleUntrusted, UsageError, XrecError
from xrec_sdk.signature import generate_key

VECTORS = Path(__file__).parents[1] / "vectors"
KEY = make_vectors.public_key()
BASE = VECTORS / "lowpass.xrec"
SEED = 11


def delta_to(folder: Path, base: Path = BASE, key: str = KEY) -> bytes:
    old, new = (
        read_checked(path, trusted_keys=[KEY, key], allow_unsigned=False, minimum_release=0) for path in (base, folder)
    )
    return make_delta(old, new)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, bytes]:
    card = (BASE / "card.md").read_bytes().replace(b"lowpass", b"another lowpass") + b"more\n"
    folder = write_release(tmp_path / "whole.xrec", 4, files={"card.md": card})
    return folder, delta_to(folder)


def applied(content: bytes, tmp_path: Path, **options: object) -> Path:
    (tmp_path / "delta").write_bytes(content)
    arguments: dict[str, object] = {"trusted_keys": [KEY], **options}
    apply_delta(arguments.pop("base", BASE), tmp_path / "delta", tmp_path / "next.xrec", **arguments)  # type: ignore[arg-type]
    return tmp_path / "next.xrec"


def assert_refused(code: str, content: bytes, tmp_path: Path, **options: object) -> None:
    before = read_folder(BASE)
    with pytest.raises(XrecError) as caught:
        applied(content, tmp_path, **options)
    assert caught.value.code == code
    assert not (tmp_path / "next.xrec").exists() and not [path for path in tmp_path.iterdir() if path.name[0] == "."]
    assert read_folder(BASE) == before


def test_a_delta_makes_the_next_bundle_byte_for_byte(made: tuple[Path, bytes], tmp_path: Path) -> None:
    whole, content = made
    assert read_folder(applied(content, tmp_path)) == read_folder(whole)
    assert len(content) < sum(map(len, read_folder(whole).values())) / 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["delta", "next.xrec", "whole.xrec"]


STATED = json.loads((VECTORS / "deltas.json").read_text(encoding="utf-8"))


def test_the_stated_delta_makes_the_stated_files(tmp_path: Path) -> None:
    made = read_folder(applied(base64.b64decode(STATED["delta"]), tmp_path, base=VECTORS / STATED["base"]))
    assert {name: hashlib.sha256(content).hexdigest() for name, content in made.items()} == STATED["files"]


@pytest.mark.parametrize("stated", STATED["refused"], ids=lambda stated: stated["name"])
def test_the_stated_deltas_are_refused(stated: dict[str, Any], tmp_path: Path) -> None:
    options = {name: stated[name] for name in ("minimum_release", "trusted_keys") if name in stated}
    base = VECTORS / stated.get("base", STATED["base"])
    assert_refused(stated["code"], base64.b64decode(stated["delta"]), tmp_path, base=base, **options)


def test_the_bundle_that_comes_back_is_open_and_the_old_one_can_be_a_zip(
    made: tuple[Path, bytes], tmp_path: Path
) -> None:
    from vectors.recipes import write_zip

    (tmp_path / "base.zip").write_bytes(write_zip(read_folder(BASE), {}))
    (tmp_path / "delta").write_bytes(made[1])
    bundle = apply_delta(tmp_path / "base.zip", tmp_path / "delta", tmp_path / "next.xrec", trusted_keys=[KEY])
    assert bundle.manifest.release == 4 and bundle.key == KEY


@pytest.mark.parametrize("seed", range(4))
def test_any_two_files_give_steps_that_make_the_one_of_the_other(seed: int) -> None:
    dice = random.Random(SEED + seed)
    old = bytearray(dice.randbytes(3000)) + np.arange(900, dtype="<u4").tobytes() + bytes(2000)
    new = bytearray(old)
    for _ in range(dice.randrange(30)):
        at = dice.randrange(len(new))
        kind = dice.randrange(3)
        if kind == 0:
            new[at : at + 4] = dice.randbytes(4)
        elif kind == 1:
            new[at:at] = dice.randbytes(dice.randrange(200))
        else:
            del new[at : at + dice.randrange(200)]
    from xrec_export.delta_plan import _difference, _steps

    for before, after in ((bytes(old), bytes(new)), (b"", bytes(new)), (bytes(old), b""), (bytes(old), bytes(old))):
        rebuilt, at = bytearray(), 0
        for kind, place, size in _steps(before, after):
            fresh = after[at : at + size]
            if kind == OLD:
                fresh = before[place : place + size]
            elif kind == SUM:
                difference = np.frombuffer(_difference(fresh, before, place), np.uint8)
                fresh = (difference + np.frombuffer(before, np.uint8, size, place)).tobytes()
            rebuilt += fresh
            at += size
        assert rebuilt == after


def test_offsets_that_all_move_are_sent_as_a_difference() -> None:
    from xrec_export.delta_plan import _steps

    offsets = np.cumsum(np.random.default_rng(SEED).integers(50, 90, size=4000), dtype="<u4")
    moved = offsets.copy()
    moved[200:] += 5
    assert SUM in {kind for kind, _, _ in _steps(offsets.tobytes(), moved.tobytes())}


def test_a_delta_of_another_key_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    pem, public = generate_key()
    content = delta_to(write_release(tmp_path / "whole.xrec", 4, pem=pem), key=public)
    assert_refused("bundle.key_untrusted", content, tmp_path)
    assert_refused("bundle.key_untrusted", content, tmp_path, trusted_keys=[public])  # the old bundle is not its


def test_a_delta_to_an_older_release_is_refused(tmp_path: Path) -> None:
    assert_refused("bundle.rollback", delta_to(write_release(tmp_path / "whole.xrec", 3)), tmp_path)


def test_a_delta_below_the_floor_is_refused(made: tuple[Path, bytes], tmp_path: Path) -> None:
    assert_refused("bundle.rollback", made[1], tmp_path, minimum_release=5)


def test_a_delta_of_another_bundle_is_refused(made: tuple[Path, bytes], tmp_path: Path) -> None:
    assert_refused("bundle.delta_base", made[1], tmp_path, base=VECTORS / "pool.xrec")


def test_no_key_is_no_trust(made: tuple[Path, bytes], tmp_path: Path) -> None:
    assert_refused("usage.trusted_keys", made[1], tmp_path, trusted_keys=[])


def test_a_target_that_is_there_stays(made: tuple[Path, bytes], tmp_path: Path) -> None:
    (tmp_path / "next.xrec").mkdir()
    with pytest.raises(UsageError) as caught:
        applied(made[1], tmp_path)
    assert caught.value.code == "usage.target" and list((tmp_path / "next.xrec").iterdir()) == []


def with_plan(content: bytes, change: object) -> bytes:
    """Return the delta with another plan, as someone without the key can write it."""
    _, manifest_size, sig_size = struct.unpack_from("<8sII", content)
    at = 16 + manifest_size + sig_size
    unpacked = zlib.decompress(content[at:])
    (size,) = struct.unpack_from("<I", unpacked)
    plan = json.loads(unpacked[4 : 4 + size])
    changed = change(plan) if callable(change) else change
    words = json.dumps(changed).encode()
    return content[:at] + zlib.compress(struct.pack("<I", len(words)) + words + unpacked[4 + size :])


def steps(*made: object) -> object:
    return lambda plan: {**plan, "files": {**plan["files"], "card.md": list(made)}}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ([], "bundle.delta_malformed"),
        ({}, "bundle.delta_base"),
        (lambda plan: {**plan, "files": None}, "bundle.delta_malformed"),
        (lambda plan: {**plan, "files": {**plan["files"], "evil": []}}, "bundle.delta_malformed"),
        (lambda plan: {**plan, "files": {}}, "bundle.delta_malformed"),
        (steps(5), "bundle.delta_malformed"),
        (steps([NEW, 0]), "bundle.delta_malformed"),
        (steps([3, 0, 1]), "bundle.delta_malformed"),
        (steps([OLD, -1, 4]), "bundle.delta_malformed"),
        (steps([OLD, 0, 1.5]), "bundle.delta_malformed"),
        (steps([OLD, 0, 1 << 60]), "bundle.delta_malformed"),
        (steps([OLD, 1 << 60, 8]), "bundle.delta_malformed"),
        (steps(*[[OLD, 0, 500]] * 1000), "bundle.delta_malformed"),
        (steps([SUM, 0, 1 << 20]), "bundle.delta_malformed"),
        (steps(), "bundle.hash_mismatch"),
        (steps([OLD, 0, 9]), "bundle.hash_mismatch"),
    ],
)
def test_a_plan_that_lies_is_refused(change: object, code: str, made: tuple[Path, bytes], tmp_path: Path) -> None:
    assert_refused(code, with_plan(made[1], change), tmp_path)


def test_a_delta_that_unpacks_to_more_than_its_bundle_is_refused(made: tuple[Path, bytes], tmp_path: Path) -> None:
    _, manifest_size, sig_size = struct.unpack_from("<8sII", made[1])
    bomb = made[1][: 16 + manifest_size + sig_size] + zlib.compress(bytes(deltas.MAX_PLAN_BYTES + (1 << 20)), 9)
    assert len(bomb) < 100_000
    assert_refused("bundle.delta_malformed", bomb, tmp_path)


def test_no_change_or_cut_of_a_delta_gives_a_bundle_or_another_error(made: tuple[Path, bytes], tmp_path: Path) -> None:
    whole, content = made
    dice = random.Random(SEED)
    for _ in range(150):
        changed = bytearray(content[: dice.randrange(len(content))] if dice.random() < 0.3 else content)
        if len(changed) == len(content):
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        with pytest.raises(BundleError) as caught:
            applied(bytes(changed), tmp_path)
        assert isinstance(caught.value, (BundleDamaged, BundleUntrusted))
        assert not (tmp_path / "next.xrec").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["delta", whole.name]


def test_applying_a_delta_needs_neither_torch_nor_onnx() -> None:
    import subprocess

    code = (
        "import sys, xrec_sdk.delta; print([n for n in ('torch', 'onnx', 'onnxruntime', 'click') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
