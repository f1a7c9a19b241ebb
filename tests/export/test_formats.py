"""A bundle whose items are floats answers as the float model does, without an int8 operator; the gate is the same."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from xrec_export import reference
from xrec_export.build import Release, build_bundle
from xrec_export.certificate import Certificate
from xrec_export.cli import main
from xrec_export.delta_plan import make_delta
from xrec_export.inspect import verify_bundle
from xrec_export.parity import Tolerance
from xrec_export.quantize import FLOATS, store_rows
from xrec_sdk.bundle import Bundle, open_bundle, read_checked
from xrec_sdk.delta import apply_delta
from xrec_sdk.errors import DataError
from xrec_sdk.runtime import Runtime
from xrec_sdk.signature import generate_key

sys.path.insert(0, str(Path(__file__).parent))
from small_models import make_cases, make_model

PEM, PUBLIC = generate_key()
EXACT = Tolerance(min_overlap=0.999, max_ndcg_loss=0.001)
INT8_TYPES = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}


def build(table_format: str, target: Path, number: int = 1, seed: int = 0) -> Certificate:
    release = Release("floats", number, "2026-01-02T03:04:05Z", PEM, table_format)
    return build_bundle(make_model(seed=seed), make_cases(40), target, release=release, tolerance=EXACT)


@pytest.fixture(scope="module", params=FLOATS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("built") / f"{request.param}.xrec"
    build(request.param, target)
    return target


@pytest.fixture
def bundle(built: Path) -> Bundle:
    return open_bundle(built, trusted_keys=[PUBLIC])


def test_the_golden_cases_pass_and_the_manifest_names_the_format(built: Path, bundle: Bundle) -> None:
    assert verify_bundle(built, PUBLIC)["golden_cases"] == 6
    assert bundle.manifest.table_format == built.stem and f"stored in {built.stem}" in bundle.card


def test_no_graph_has_an_int8_operator_or_tensor(bundle: Bundle) -> None:
    assert not {"MatMulInteger", "QuantizeLinear", "DequantizeLinear"} & set(bundle.manifest.operators)
    for graph in (bundle.encoder, bundle.scorer):
        model = onnx.load_model_from_string(graph)
        assert not INT8_TYPES & {tensor.data_type for tensor in model.graph.initializer}


def test_the_table_lies_in_the_file_as_it_is_said(built: Path, bundle: Bundle) -> None:
    section, rows = bundle.manifest.items.table, make_model().item_table
    raw = (built / "items.bin").read_bytes()[section.offset : section.offset + section.bytes]
    kept = np.frombuffer(raw, dtype={"fp16": "<f2", "fp32": "<f4"}[built.stem]).reshape(-1, rows.shape[1])
    np.testing.assert_array_equal(kept[: len(rows)], rows.astype(kept.dtype))
    assert bundle.manifest.items.scale is None and not bundle.table.flags.owndata


def test_one_vector_is_what_many_are(bundle: Bundle) -> None:
    rows = np.array([0, 127, 128, 299], dtype=np.int32)
    for row, vector in zip(rows.tolist(), bundle.item_vectors(rows), strict=True):
        np.testing.assert_array_equal(bundle.item_vector(row), vector)


def test_the_lists_are_those_of_the_float_model(bundle: Bundle) -> None:
    model, runtime = make_model(), Runtime(bundle)
    for case in make_cases(20, seed=5):
        user = reference.encode(model.encoder, bundle.item_vectors(np.arange(300, dtype=np.int32)), case.history)
        scores = reference.score(user, bundle.item_vectors(np.arange(300, dtype=np.int32)), model.prior)
        scores = reference.add_biases(scores, case.bias_rows, case.bias_values)
        found = runtime.encode(case.history)
        np.testing.assert_allclose(found, user, atol=2e-2 if bundle.manifest.table_format == "fp16" else 1e-4)
        rows, listed = runtime.top(found, 10, runtime.no_bias(), case.bias_rows, case.bias_values)
        np.testing.assert_allclose(listed, scores[rows], atol=0.1)
        assert len(np.intersect1d(rows, reference.top(scores, 10))) >= 9


def test_a_table_beyond_float16_is_refused_with_what_to_do() -> None:
    rows = np.full((3, 4), 70_000, dtype=np.float32)
    with pytest.raises(DataError, match="choose fp32") as caught:
        store_rows("fp16", rows)
    assert caught.value.code == "data.item_table"
    np.testing.assert_array_equal(store_rows("fp32", rows).vectors(), rows)


def test_a_delta_makes_a_bundle_of_floats(tmp_path: Path) -> None:
    old, new, made = tmp_path / "old.xrec", tmp_path / "new.xrec", tmp_path / "made.xrec"
    build("fp16", old)
    build("fp16", new, number=2, seed=1)
    checked = [read_checked(one, trusted_keys=[PUBLIC], allow_unsigned=False, minimum_release=0) for one in (old, new)]
    (tmp_path / "delta").write_bytes(make_delta(*checked))
    apply_delta(old, tmp_path / "delta", made, trusted_keys=[PUBLIC])
    for file in new.iterdir():
        assert (made / file.name).read_bytes() == file.read_bytes()


def test_the_command_line_knows_three_formats() -> None:
    answer = CliRunner().invoke(main, ["build", "run", "--out", "x.xrec", "--key", "k.pem", "--format", "int4"])
    assert answer.exit_code == 2 and "'int8', 'fp16', 'fp32'" in answer.output
