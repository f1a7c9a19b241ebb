from __future__ import annotations

import gc
import os
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from xrec_sdk.bundle import open_bundle
from xrec_sdk.errors import BundleDamaged, BundleError, BundleUntrusted, UsageError
from xrec_sdk.history import History
from xrec_sdk.recommender import Recommender
from xrec_sdk.runtime import Runtime
from xrec_sdk.signature import generate_key

FILES = [
    "card.md",
    "catalog.bin",
    "conformance.json",
    "encoder.onnx",
    "ids.bin",
    "items.bin",
    "manifest.json",
    "manifest.sig",
    "scorer.onnx",
]

MEASURE = """
import sys
import onnxruntime
import xrec_sdk.runtime
from xrec_sdk import Runtime, open_bundle

def private_bytes():
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))

xrec_sdk.runtime.packs_anew = lambda: False  # as on a CPU without AMX
bundle = open_bundle(sys.argv[1], trusted_keys=[sys.argv[2]])
before = private_bytes()
runtime = Runtime(bundle)
print(bundle.table.nbytes, private_bytes() - before)
"""


def refusal(path, bundle, **options):
    with pytest.raises(BundleError) as caught:
        open_bundle(path, **{"trusted_keys": [bundle.key], **options})
    return caught.value


def make_zip(bundle, path, *, compression=zipfile.ZIP_STORED, prefix="handmade.xrec/", skip=()):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name in FILES:
            if name not in skip:
                archive.write(bundle.folder / name, prefix + name)
    return path


def test_a_bundle_opens_with_its_arrays_mapped_and_not_copied(shared_bundle):
    bundle = open_bundle(shared_bundle.folder, trusted_keys=[generate_key()[1], shared_bundle.key])
    assert bundle.key == shared_bundle.key
    assert bundle.manifest.item_count == len(bundle.ids) == len(bundle.catalog) == 300
    assert (bundle.table.shape, bundle.scale.shape, bundle.bias.shape) == ((3, 8, 128), (3, 128), (3, 128))
    assert not (bundle.table.flags.owndata or bundle.table.flags.writeable)
    rows = np.asarray([0, 127, 128, 299], dtype=np.int32)
    np.testing.assert_array_equal(bundle.item_vectors(rows), shared_bundle.vectors[rows])
    everything = Runtime(bundle).no_bias()
    np.testing.assert_array_equal(everything, [0.0] * 300 + [-np.inf] * 84)
    assert everything.base is not None and not everything.flags.writeable


@pytest.mark.parametrize("name", FILES)
def test_any_changed_byte_is_refused(own_bundle, name):
    path = own_bundle.folder / name
    whole = path.read_bytes()
    dice = random.Random(name)
    places = {0, len(whole) - 1, *(dice.randrange(len(whole)) for _ in range(25))}
    for place in sorted(places):
        changed = bytearray(whole)
        changed[place] ^= dice.randrange(1, 256)
        path.write_bytes(changed)
        expected = {"manifest.json": "bundle.signature_invalid"}.get(name, "bundle.hash_mismatch")
        refused = refusal(own_bundle.folder, own_bundle)
        if name == "manifest.sig":
            assert isinstance(refused, BundleUntrusted)
        else:
            assert refused.code == expected
    path.write_bytes(whole)
    open_bundle(own_bundle.folder, trusted_keys=[own_bundle.key])


@pytest.mark.parametrize("name", FILES)
def test_a_shorter_a_longer_and_a_missing_file_are_refused(own_bundle, name):
    path = own_bundle.folder / name
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:-1], whole + b"\0"):
        path.write_bytes(content)
        refusal(own_bundle.folder, own_bundle)
    path.unlink()
    expected = "bundle.unsigned" if name == "manifest.sig" else "bundle.file_missing"
    assert refusal(own_bundle.folder, own_bundle).code == expected


def test_a_file_that_the_manifest_does_not_name_is_refused(own_bundle):
    (own_bundle.folder / "extra.bin").write_bytes(b"")
    assert refusal(own_bundle.folder, own_bundle).code == "bundle.file_extra"


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_the_bundle_is_refused(own_bundle, tmp_path, name):
    path = own_bundle.folder / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert refusal(own_bundle.folder, own_bundle).code == "bundle.not_plain"


def test_a_link_to_a_bundle_a_folder_in_it_and_a_pipe_are_refused(own_bundle, tmp_path):
    (tmp_path / "link").symlink_to(own_bundle.folder)
    assert refusal(tmp_path / "link", own_bundle).code == "bundle.not_plain"
    (own_bundle.folder / "inner").mkdir()
    assert refusal(own_bundle.folder, own_bundle).code == "bundle.not_plain"
    (own_bundle.folder / "inner").rmdir()
    (own_bundle.folder / "card.md").unlink()
    os.mkfifo(own_bundle.folder / "card.md")
    assert refusal(own_bundle.folder, own_bundle).code == "bundle.not_plain"
    assert refusal(tmp_path / "nothing", own_bundle).code == "bundle.not_found"


def test_a_bundle_of_another_key_is_refused(shared_bundle):
    assert refusal(shared_bundle.folder, shared_bundle, trusted_keys=[generate_key()[1]]).code == "bundle.key_untrusted"


def test_no_pinned_key_needs_the_word_of_the_app(own_bundle):
    with pytest.raises(UsageError) as caught:
        open_bundle(own_bundle.folder)
    assert caught.value.code == "usage.trusted_keys"
    assert open_bundle(own_bundle.folder, allow_unsigned=True).key is None
    (own_bundle.folder / "manifest.sig").unlink()
    assert open_bundle(own_bundle.folder, allow_unsigned=True).key is None
    assert refusal(own_bundle.folder, own_bundle).code == "bundle.unsigned"


@pytest.mark.parametrize("keys", ["ed25519:x", ["ed25519:x"], ["rsa:AAAA"], [7], ["ed25519:" + "A" * 44]])
def test_a_key_that_is_not_spelt_right_is_a_usage_error(shared_bundle, keys):
    with pytest.raises(UsageError) as caught:
        open_bundle(shared_bundle.folder, trusted_keys=keys)
    assert caught.value.code == "usage.trusted_keys"


def test_an_older_release_than_the_floor_is_refused(shared_bundle):
    assert refusal(shared_bundle.folder, shared_bundle, minimum_release=4).code == "bundle.rollback"
    open_bundle(shared_bundle.folder, trusted_keys=[shared_bundle.key], minimum_release=3)


def test_a_huge_manifest_is_refused_before_it_is_read(own_bundle):
    os.truncate(own_bundle.folder / "manifest.json", 1 << 40)
    assert refusal(own_bundle.folder, own_bundle).code == "bundle.manifest_size"


def test_signed_files_that_do_not_fit_together_are_refused(own_bundle):
    from xrec_sdk.idtable import pack_ids

    (own_bundle.folder / "ids.bin").write_bytes(pack_ids(["a", "b"]))
    own_bundle.resign()
    assert refusal(own_bundle.folder, own_bundle).code == "bundle.count_mismatch"


@pytest.mark.parametrize(("row", "value"), [(0, np.nan), (299, np.inf), (0, np.inf), (300, 0.0), (383, np.nan)])
def test_a_bias_that_can_not_be_is_refused(own_bundle, row, value):
    path = own_bundle.folder / "items.bin"
    content = bytearray(path.read_bytes())
    np.frombuffer(content, np.float32, 384, 2 * 65_536)[row] = value
    path.write_bytes(content)
    own_bundle.resign()
    assert refusal(own_bundle.folder, own_bundle).code == "bundle.items_malformed"


def write_prior(own_bundle, row, value):
    path = own_bundle.folder / "items.bin"
    content = bytearray(path.read_bytes())
    np.frombuffer(content, np.float32, 384, 3 * 65_536)[row] = value
    path.write_bytes(content)
    own_bundle.resign()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_prior_that_is_not_finite_is_refused(own_bundle, value):
    write_prior(own_bundle, 5, value)
    assert refusal(own_bundle.folder, own_bundle).code == "bundle.items_malformed"


def test_a_prior_counts_for_recommendations_and_not_for_similar_items(own_bundle):
    key = [own_bundle.key]
    with Recommender(own_bundle.folder, trusted_keys=key) as before:
        alike = [item.item_id for item in before.similar("sku-7", 5)]
    write_prior(own_bundle, 123, 1000.0)
    with Recommender(own_bundle.folder, trusted_keys=key) as after:
        first = after.recommend(1)[0]
        assert (first.item_id, first.score) == ("sku-123", 1000.0)
        assert after.score(["sku-123", "sku-0"]) == {"sku-123": 1000.0, "sku-0": 0.0}
        after.set_consent("personalise", True)
        after.record("purchase", "sku-7", device="phone")
        assert after.recommend(1)[0].item_id == "sku-123"
        assert after.score(["sku-123"])["sku-123"] > 900
        assert [item.item_id for item in after.similar("sku-7", 5)] == alike


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x0a" * 50])
def test_a_signed_graph_that_is_no_graph_gives_an_error_and_no_crash(own_bundle, content):
    (own_bundle.folder / "encoder.onnx").write_bytes(content)
    own_bundle.resign()
    with pytest.raises(BundleDamaged) as caught:
        Runtime(open_bundle(own_bundle.folder, trusted_keys=[own_bundle.key]))
    assert caught.value.code == "bundle.graph_malformed"


def test_graphs_of_the_wrong_face_are_refused(own_bundle):
    shutil.copy(own_bundle.folder / "scorer.onnx", own_bundle.folder / "encoder.onnx")
    own_bundle.resign()
    with pytest.raises(BundleDamaged) as caught:
        Runtime(open_bundle(own_bundle.folder, trusted_keys=[own_bundle.key]))
    assert caught.value.code == "bundle.graph_malformed"


def test_a_provider_that_is_not_there_falls_back_to_the_cpu(shared_bundle):
    bundle = open_bundle(shared_bundle.folder, trusted_keys=[shared_bundle.key])
    runtime = Runtime(bundle, providers=["NoSuchExecutionProvider"])
    assert runtime.providers == ("CPUExecutionProvider",)
    assert runtime.fallback == "this onnxruntime has no NoSuchExecutionProvider; CPUExecutionProvider is used"
    assert Runtime(bundle).fallback is None


def test_a_host_may_make_its_own_session_options(shared_bundle):
    import onnxruntime

    made = []

    def make_options():
        made.append(onnxruntime.SessionOptions())
        return made[-1]

    bundle = open_bundle(shared_bundle.folder, trusted_keys=[shared_bundle.key])
    nobody = History(*np.zeros((4, 0), dtype=np.int32))
    assert not Runtime(bundle, session_options=make_options).encode(nobody).any()
    assert len(made) == 2


def test_a_bundle_outlives_the_name_that_the_caller_gave_it(shared_bundle):
    runtime = Runtime(open_bundle(shared_bundle.folder, trusted_keys=[shared_bundle.key]))
    gc.collect()
    history = History(*(np.asarray(codes, dtype=np.int32) for codes in ([5], [1], [1], [0])))
    np.testing.assert_allclose(runtime.encode(history), shared_bundle.vectors[5], rtol=1e-6)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from Linux's /proc")
def test_both_sessions_read_the_one_mapped_table(wide_bundle):
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, str(wide_bundle.folder), wide_bundle.key],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    table_bytes, private_bytes = map(int, output.split())
    assert table_bytes > 50_000_000
    assert private_bytes < table_bytes / 4


@pytest.mark.parametrize("prefix", ["", "handmade.xrec/"])
def test_an_uncompressed_zip_opens_like_the_folder(shared_bundle, tmp_path, prefix):
    bundle = open_bundle(make_zip(shared_bundle, tmp_path / "b.zip", prefix=prefix), trusted_keys=[shared_bundle.key])
    rows = np.arange(300, dtype=np.int32)
    np.testing.assert_array_equal(bundle.item_vectors(rows), shared_bundle.vectors)
    top, _ = Runtime(bundle).top(
        np.ones(8, np.float32), 3, Runtime(bundle).no_bias(), rows[:0], np.zeros(0, np.float32)
    )
    assert len(top) == 3


def test_a_compressed_a_cut_and_a_changed_zip_are_refused(shared_bundle, tmp_path):
    path = tmp_path / "b.zip"
    make_zip(shared_bundle, path, compression=zipfile.ZIP_DEFLATED)
    assert refusal(path, shared_bundle).code == "bundle.zip_compressed"
    whole = make_zip(shared_bundle, path).read_bytes()
    dice = random.Random(5)
    for cut in [0, 1, len(whole) - 1, *(dice.randrange(len(whole)) for _ in range(10))]:
        path.write_bytes(whole[:cut])
        assert refusal(path, shared_bundle).code == "bundle.zip_malformed"


def test_no_changed_byte_of_a_zip_gives_other_contents(shared_bundle, tmp_path):
    whole = make_zip(shared_bundle, tmp_path / "b.zip").read_bytes()
    dice = random.Random(6)
    for _ in range(150):
        changed = bytearray(whole)
        # Half of the changes fall in the directory at the end, where names, sizes and flags are.
        low = len(whole) - 1200 if dice.random() < 0.5 else 0
        changed[dice.randrange(low, len(whole))] ^= dice.randrange(1, 256)
        (tmp_path / "b.zip").write_bytes(changed)
        try:
            bundle = open_bundle(tmp_path / "b.zip", trusted_keys=[shared_bundle.key])
        except BundleError:
            continue
        # A time stamp or an attribute may have changed, which nothing reads.
        np.testing.assert_array_equal(bundle.item_vectors(np.arange(300, dtype=np.int32)), shared_bundle.vectors)


@pytest.mark.parametrize(
    ("name", "mode", "code"),
    [
        ("../evil", 0, "bundle.zip_path"),
        ("/etc/evil", 0, "bundle.zip_path"),
        ("C:evil", 0, "bundle.zip_path"),
        ("a\\evil", 0, "bundle.zip_path"),
        ("handmade.xrec/deep/evil", 0, "bundle.zip_path"),
        ("other/evil", 0, "bundle.zip_path"),
        ("handmade.xrec/evil", 0o120777, "bundle.not_plain"),
        ("handmade.xrec/evil", 0o100644, "bundle.file_extra"),
    ],
)
def test_a_hostile_member_of_a_zip_is_refused(shared_bundle, tmp_path, name, mode, code):
    path = make_zip(shared_bundle, tmp_path / "b.zip")
    with zipfile.ZipFile(path, "a") as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        archive.writestr(member, b"evil")
    assert refusal(path, shared_bundle).code == code


def test_a_missing_and_a_repeated_member_are_refused(shared_bundle, tmp_path):
    path = make_zip(shared_bundle, tmp_path / "b.zip", skip=("ids.bin",))
    assert refusal(path, shared_bundle).code == "bundle.file_missing"
    path = make_zip(shared_bundle, tmp_path / "b.zip")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.write(shared_bundle.folder / "ids.bin", "handmade.xrec/ids.bin")
    assert refusal(path, shared_bundle).code == "bundle.zip_malformed"
