from __future__ import annotations

import json
import random
import struct
import subprocess
import sys

import numpy as np
import pytest
from xrec_sdk.catalog import Catalog, pack_catalog
from xrec_sdk.errors import BundleDamaged, BundleError, BundleUnsupported, BundleUntrusted, DataError
from xrec_sdk.idtable import IdTable, pack_ids
from xrec_sdk.manifest import parse_manifest, to_bytes
from xrec_sdk.signature import generate_key, sign, verify

IDS = [f"sku-{row}" for row in range(500)] + ["é", "日本語", "x" * 512]


def test_ids_go_to_rows_and_back():
    table = IdTable(pack_ids(IDS))
    assert len(table) == len(IDS)
    assert [table.row(item_id) for item_id in IDS] == list(range(len(IDS)))
    assert [table.item_id(row) for row in range(len(IDS))] == IDS
    assert [table.row(text) for text in ("", "sku-", "sku-500", "\ud800")] == [None] * 4
    assert table.rows(["sku-3", "nothing", "é"]).tolist() == [3, -1, 500]
    for row in (-1, len(IDS)):
        with pytest.raises(IndexError):
            table.item_id(row)


def test_the_bytes_of_ids_are_as_the_format_says():
    packed = pack_ids(["a", "bc"])
    assert packed[:16] == b"XRECIDS1" + struct.pack("<II", 2, 4)
    assert struct.unpack("<3I", packed[16:28]) == (0, 1, 3)
    # crc32("a") = 0xe8b7be43 and crc32("bc") = 0xc2a92b38 both fall in slot 3; the second wraps around to 0.
    assert struct.unpack("<4I", packed[28:44]) == (2, 0, 0, 1)
    assert packed[44:] == b"abc"


@pytest.mark.parametrize("ids", [[], [""], ["x" * 513], ["a", "b", "a"]])
def test_ids_that_cannot_be_packed_are_a_data_error(ids):
    with pytest.raises(DataError):
        pack_ids(ids)


def test_a_catalogue_comes_back():
    catalog = Catalog(pack_catalog([{"title": "é"}, {}, {"n": 1}], ["b", None, "a"]))
    assert [catalog.entry(row) for row in range(3)] == [{"title": "é"}, {}, {"n": 1}]
    assert catalog.category_names == ("a", "b")
    assert catalog.category.tolist() == [1, -1, 0]
    assert [catalog.category_name(row) for row in range(3)] == ["b", None, "a"]
    with pytest.raises(IndexError):
        catalog.entry(3)


@pytest.mark.parametrize(
    ("entries", "names"), [([], []), ([{}], []), ([{"x": float("nan")}], [None]), ([{"x": set()}], [None])]
)
def test_a_catalogue_that_cannot_be_packed_is_a_data_error(entries, names):
    with pytest.raises(DataError):
        pack_catalog(entries, names)


def test_an_entry_that_is_no_object_is_damage():
    packed = pack_catalog([{"a": 1}], [None])
    with pytest.raises(BundleDamaged):
        Catalog(packed.replace(b'{"a":1}', b"[1,2,3]")).entry(0)


@pytest.mark.parametrize("name", ["ids", "catalog"])
def test_every_truncation_is_refused_and_no_change_crashes(name):
    reader = {"ids": IdTable, "catalog": Catalog}[name]
    packed = {"ids": pack_ids(IDS[:40]), "catalog": pack_catalog([{"t": "é"}] * 40, ["c", "d"] * 20)}[name]
    for cut in range(len(packed)):
        with pytest.raises(BundleDamaged):
            reader(packed[:cut])
    dice = random.Random(3)
    for _ in range(1500):
        changed = bytearray(packed)
        for _ in range(dice.choice((1, 1, 4))):
            changed[dice.randrange(len(changed))] = dice.choice((0, 0xFF, 0x80, dice.randrange(256)))
        try:
            opened = reader(bytes(changed))
            for row in range(len(opened)):
                opened.item_id(row) if name == "ids" else opened.entry(row)
            if name == "ids":
                opened.rows(IDS)
        except BundleDamaged:
            continue


def test_slots_that_lie_are_refused():
    packed = bytearray(pack_ids(["a", "bc"]))
    packed[28:44] = struct.pack("<4I", 1, 0, 0, 1)
    with pytest.raises(BundleDamaged) as caught:
        IdTable(packed)
    assert caught.value.code == "bundle.ids_malformed"


@pytest.fixture(scope="module")
def manifest_bytes(shared_bundle):
    return (shared_bundle.folder / "manifest.json").read_bytes()


def test_a_manifest_has_one_spelling(manifest_bytes):
    assert to_bytes(parse_manifest(manifest_bytes)) == manifest_bytes
    spaced = json.dumps({**json.loads(manifest_bytes), "key of a later SDK": [1]}, indent=1).encode()
    assert to_bytes(parse_manifest(spaced)) == manifest_bytes


DAMAGE = {
    "format": "zip",
    "name": "",
    "release": 0,
    "created_at": "yesterday",
    "item_count": 10_000_001,
    "width": 4097,
    "opset": True,
    "operators": ["Add", "Add"],
    "minimum_sdk": "one",
    "seen.filter": 1,
    "seen.events": "purchase",
    "vocabulary.events": [],
    "vocabulary.devices": ["\ud800"],
    "vocabulary.gap_edges_ms": [5, 5],
    "vocabulary.max_history": 0,
    "vocabulary.distinct_items": 1,
    "repeat.weight": 1e7,
    "repeat.half_life_ms": 0,
    "items.table.offset": 1,
    "items.scale.offset": 0,
    "items.table.bytes": 1,
    "items.bias.offset": 65_536 * 1000,
    "items.prior": 0,
    "items.prior.bytes": 1,
    "files.ids.bin": None,
    "files.card.md": {"sha256": "0" * 63, "bytes": 1},
    "files.../evil": {"sha256": "0" * 64, "bytes": 1},
    "files.manifest.json": {"sha256": "0" * 64, "bytes": 1},
    "parity": [],
}


@pytest.mark.parametrize("path", DAMAGE)
def test_a_value_out_of_bounds_is_damage(manifest_bytes, path):
    fields = json.loads(manifest_bytes)
    steps = path.split(".", 1) if path.startswith("files.") else path.split(".")
    inner = fields
    for step in steps[:-1]:
        inner = inner[step]
    inner[steps[-1]] = DAMAGE[path]
    with pytest.raises(BundleDamaged) as caught:
        parse_manifest(json.dumps(fields).encode())
    assert caught.value.code == "bundle.manifest_malformed"


@pytest.mark.parametrize(
    ("change", "code"),
    [({"format_version": 2}, "bundle.format_version"), ({"minimum_sdk": "99.0.0"}, "bundle.sdk_too_old")],
)
def test_a_bundle_for_a_newer_sdk_is_unsupported(manifest_bytes, change, code):
    with pytest.raises(BundleUnsupported) as caught:
        parse_manifest(json.dumps({**json.loads(manifest_bytes), **change}).encode())
    assert caught.value.code == code


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"format":"xrec-bundle","format":"xrec-bundle"}',
        b'{"a":NaN}',
        b"1" * 9999,
    ],
)
def test_what_is_no_json_object_is_damage(text):
    with pytest.raises(BundleDamaged):
        parse_manifest(text)


def test_no_truncated_or_changed_manifest_gives_another_error(manifest_bytes):
    dice = random.Random(4)
    for _ in range(400):
        changed = bytearray(manifest_bytes[: dice.randrange(len(manifest_bytes) + 1)])
        if changed and dice.random() < 0.5:
            changed = bytearray(manifest_bytes)
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        try:
            parse_manifest(bytes(changed))
        except BundleError:
            continue


def test_a_signature_holds_for_its_key_and_bytes_only():
    private_pem, key = generate_key()
    signature = sign(b"manifest", private_pem)
    other = generate_key()[1]
    assert verify(b"manifest", signature, [other, key]) == key
    for content, trusted, code in [
        (b"manifesT", [key], "bundle.signature_invalid"),
        (b"manifest", [other], "bundle.key_untrusted"),
        (b"manifest", [], "bundle.key_untrusted"),
    ]:
        with pytest.raises(BundleUntrusted) as caught:
            verify(content, signature, trusted)
        assert caught.value.code == code


def test_another_spelling_of_the_same_signature_is_refused():
    private_pem, key = generate_key()
    signature = sign(b"manifest", private_pem)
    fields = json.loads(signature)
    spellings = [
        signature + b"\n",
        b" " + signature,
        json.dumps(fields).encode(),
        json.dumps(dict(reversed(fields.items())), separators=(",", ":")).encode(),
        json.dumps({**fields, "more": 1}, separators=(",", ":")).encode(),
        signature.replace(b"ed25519:", b"ed25519:\\u0041"),
        signature.replace(b'=="}', b'="}'),
        signature + b" " * 2000,
        b"",
        b"[]",
        b"null",
        b"{}",
    ]
    for spelling in spellings:
        with pytest.raises(BundleUntrusted) as caught:
            verify(b"manifest", spelling, [key])
        assert caught.value.code == "bundle.signature_malformed"


def test_signing_needs_an_ed25519_key_in_pem():
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    other = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for pem in (b"", b"no pem", other):
        with pytest.raises(DataError) as caught:
            sign(b"manifest", pem)
        assert caught.value.code == "data.private_key"


def test_importing_the_sdk_loads_neither_onnxruntime_nor_cryptography():
    code = (
        "import sys, xrec_sdk; heavy = {'onnxruntime', 'cryptography', 'torch', 'onnx', 'click'};"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}));"
        "print(xrec_sdk.__all__ == sorted(xrec_sdk.__all__))"
    )
    output = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.splitlines() == ["[]", "True"]


def test_numbers_of_the_packed_files_are_little_endian():
    assert np.frombuffer(pack_catalog([{}], ["a"]), "<i4", 1, 16).tolist() == [0]
