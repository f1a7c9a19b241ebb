"""What a bundle's writer could try on a device: each is refused by a code, whatever the runtime would have done."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from vectors.recipes import read_folder, write_zip
from vectors.releases import BASE, write_release
from xrec_sdk.bundle import open_bundle
from xrec_sdk.errors import BundleDamaged
from xrec_sdk.graphfile import check_graph

FILES = read_folder(BASE)
OPERATORS = json.loads(FILES["manifest.json"])["operators"]


def refusal(tmp_path: Path, **files: bytes) -> str:
    path = write_release(
        tmp_path / "hostile.xrec", 9, files={name.replace("_", "."): one for name, one in files.items()}
    )
    with pytest.raises(BundleDamaged) as caught:
        open_bundle(path, allow_unsigned=True)
    return caught.value.code


def changed(change: Callable[[Any], None]) -> bytes:
    model = onnx.load_model_from_string(FILES["encoder.onnx"])
    change(model)
    return bytes(model.SerializeToString())


def external(location: str) -> TensorProto:
    tensor = TensorProto(name="leak", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.mark.parametrize("location", ["/etc/hostname", "../../secret", "card.md", "", "items.bin/../x", "./items.bin"])
def test_a_graph_that_reads_another_file_is_refused(location: str, tmp_path: Path) -> None:
    def as_initializer(model: Any) -> None:
        model.graph.initializer.append(external(location))

    def as_constant(model: Any) -> None:
        model.graph.node.append(helper.make_node("Reshape", ["user"], ["x"], value=external(location)))

    assert refusal(tmp_path, encoder_onnx=changed(as_initializer)) == "bundle.graph_malformed"
    with pytest.raises(BundleDamaged):
        check_graph(changed(as_constant), "encoder.onnx", OPERATORS)


def hide(model: Any, depth: int, operator: str, domain: str = "") -> None:
    """Append an operator inside the branch of ``depth`` conditions."""
    node = helper.make_node(operator, [], ["hidden"], domain=domain)
    for _ in range(depth):
        branch = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("hidden", 1, [])])
        node = helper.make_node("Reshape", ["condition"], ["hidden"], then_branch=branch)
    model.graph.node.append(node)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: hide(model, 0, "Exec", "evil.domain"),
        lambda model: hide(model, 0, "Gelu", "com.microsoft"),
        lambda model: hide(model, 0, "If"),
        lambda model: hide(model, 2, "Loop"),
        lambda model: hide(model, 1, "Add", "com.microsoft"),
        lambda model: hide(model, 20, "Add"),
        lambda model: model.opset_import.append(helper.make_opsetid("com.microsoft", 1)),
        lambda model: model.functions.add(name="f", domain="local"),
        lambda model: model.training_info.add(),
        lambda model: model.graph.sparse_initializer.add(),
    ],
)
def test_a_graph_that_asks_for_more_than_the_manifest_names_is_refused(
    change: Callable[[Any], None], tmp_path: Path
) -> None:
    assert refusal(tmp_path, encoder_onnx=changed(change)) == "bundle.graph_malformed"


@pytest.mark.parametrize("name", ["encoder.onnx", "scorer.onnx"])
def test_the_graphs_of_the_vectors_pass_and_no_change_of_one_gives_another_error(name: str) -> None:
    check_graph(FILES[name], name, OPERATORS)
    dice = random.Random(3)
    refused = 0
    for _ in range(400):
        content = bytearray(FILES[name][: dice.randrange(1, len(FILES[name]))])
        content[dice.randrange(min(3000, len(content)))] = dice.randrange(256)
        try:
            check_graph(bytes(content), name, OPERATORS)
        except BundleDamaged:
            refused += 1
    assert refused > 350


def test_tables_of_the_other_byte_order_are_refused(tmp_path: Path) -> None:
    def made(folder: Path) -> Path:
        folder.mkdir()
        return folder

    def swapped(content: bytes) -> bytes:
        numbers = np.frombuffer(content, "<u4", (len(content) - 8) // 4, 8).byteswap().tobytes()
        return content[:8] + numbers + content[8 + len(numbers) :]

    assert refusal(tmp_path, ids_bin=swapped(FILES["ids.bin"])) == "bundle.ids_malformed"
    assert refusal(made(tmp_path / "other"), catalog_bin=swapped(FILES["catalog.bin"])) == "bundle.catalog_malformed"


def test_offsets_that_overlap_are_refused(tmp_path: Path) -> None:
    ids = bytearray(FILES["ids.bin"])
    first, second = struct.unpack_from("<2I", ids, 20)
    struct.pack_into("<2I", ids, 20, second, first)
    assert refusal(tmp_path, ids_bin=bytes(ids)) == "bundle.ids_malformed"


def test_another_number_of_items_is_refused(tmp_path: Path) -> None:
    path = write_release(tmp_path / "hostile.xrec", 9)
    fields = json.loads((path / "manifest.json").read_bytes())
    for count, code in (
        (299, "bundle.count_mismatch"),
        (500, "bundle.manifest_malformed"),
        (10**7, "bundle.manifest_malformed"),
    ):
        fields["item_count"] = count
        (path / "manifest.json").write_text(json.dumps(fields))
        with pytest.raises(BundleDamaged) as caught:
            open_bundle(path, allow_unsigned=True, trusted_keys=[])
        assert caught.value.code == code


def test_a_zip_whose_members_share_their_bytes_is_refused(tmp_path: Path) -> None:
    whole = bytearray(write_zip(FILES, {}))
    begins = [at for at in range(len(whole)) if whole[at : at + 4] == b"PK\x01\x02"]
    for at in begins[1:]:
        whole[at + 42 : at + 46] = whole[begins[0] + 42 : begins[0] + 46]
    (tmp_path / "bomb.zip").write_bytes(whole)
    with pytest.raises(BundleDamaged) as caught:
        open_bundle(tmp_path / "bomb.zip", allow_unsigned=True)
    assert caught.value.code == "bundle.zip_malformed"


def test_a_member_without_a_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nameless.zip").write_bytes(write_zip(FILES, {"rename": {"card.md": ""}}))
    with pytest.raises(BundleDamaged) as caught:
        open_bundle(tmp_path / "nameless.zip", allow_unsigned=True)
    assert caught.value.code == "bundle.zip_path"


def test_a_zip_that_unpacks_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packed.compress(bytes(50_000_000)) + packed.flush()
    whole = bytearray(write_zip({**FILES, "card.md": bomb}, {"compressed": "card.md"}))
    (tmp_path / "bomb.zip").write_bytes(whole)
    with pytest.raises(BundleDamaged) as caught:
        open_bundle(tmp_path / "bomb.zip", allow_unsigned=True)
    assert caught.value.code == "bundle.zip_compressed"


def test_a_link_to_a_file_of_the_right_bytes_is_refused(tmp_path: Path) -> None:
    path = write_release(tmp_path / "hostile.xrec", 9)
    aside = tmp_path / "card.md"
    (path / "card.md").rename(aside)
    (path / "card.md").symlink_to(aside)
    assert (
        hashlib.sha256(aside.read_bytes()).hexdigest()
        == json.loads(FILES["manifest.json"])["files"]["card.md"]["sha256"]
    )
    with pytest.raises(BundleDamaged) as caught:
        open_bundle(path, allow_unsigned=True)
    assert caught.value.code == "bundle.not_plain"
