"""Every encoder becomes a bundle that passes the gate, computes what torch computes, and recommends.

The default one is in test_encoder_graph.py.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import xrec_sdk
from torch import nn
from xrec_export.build import Release, build_bundle
from xrec_export.encoder_graph import LEAST_INT8_WEIGHTS
from xrec_export.from_run import LastPosition
from xrec_export.graph_parts import operators
from xrec_export.inspect import verify_bundle
from xrec_export.parity import Tolerance
from xrec_export.quantize import store_rows
from xrec_sdk.signature import generate_key
from xrec_trainer.config import FitConfig
from xrec_trainer.encoders import ENCODERS

sys.path.insert(0, str(Path(__file__).parent))
from small_models import VOCABULARY, make_cases, make_model, with_int8_weights

PEM, PUBLIC = generate_key()
LONG = dataclasses.replace(VOCABULARY, max_history=50)


def module(name: str) -> nn.Module:
    """Return an encoder whose weights all take part; the seed is 3."""
    torch.manual_seed(3)
    encoder = LastPosition(ENCODERS[name](FitConfig(targets=("purchase",), encoder=name), LONG)).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return encoder


@pytest.fixture(scope="module", params=[name for name in ENCODERS if name != "lowpass"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    target = tmp_path_factory.mktemp(request.param) / "small.xrec"
    model = dataclasses.replace(make_model(), encoder=module(request.param), vocabulary=LONG)
    release = Release("small", 1, "2026-01-02T03:04:05Z", PEM)
    build_bundle(model, make_cases(60), target, release=release, tolerance=Tolerance(0.9, 0.2))
    return request.param, target


def session(bundle: Path, level: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return onnxruntime.InferenceSession(bundle / "encoder.onnx", options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"])
def test_the_graph_computes_what_torch_computes(built: tuple[str, Path], level: str) -> None:
    name, bundle = built
    graph, rounded, random = session(bundle, level), with_int8_weights(module(name)), np.random.default_rng(3)
    table = store_rows("int8", make_model().item_table).vectors()
    for batch, length in ((1, 1), (1, 2), (1, 50), (3, 7), (20, 1), (5, 50)):
        highs = (300, 3, 3, LONG.gap_count)
        rows, *codes = (random.integers(0, high, size=(batch, length), dtype=np.int32) for high in highs)
        inputs = dict(zip(("vectors", "events", "devices", "gaps"), (table[rows], *codes), strict=True))
        (user,) = graph.run(["user"], inputs)
        with torch.no_grad():
            expected = rounded(*map(torch.from_numpy, (table[rows], *codes)))
        assert user.dtype == np.float32
        np.testing.assert_allclose(user, expected.numpy(), rtol=0, atol=1e-5, err_msg=f"{batch} x {length}")


def test_the_graph_is_of_standard_operators_with_int8_weights_and_names_no_file(built: tuple[str, Path]) -> None:
    model = onnx.load(built[1] / "encoder.onnx", load_external_data=False)
    assert operators(model) and model.opset_import[0].version == 21
    kinds = [entry.type.tensor_type.elem_type for entry in model.graph.input]
    assert kinds == [onnx.TensorProto.FLOAT, *[onnx.TensorProto.INT32] * 3]
    big = [tensor for tensor in model.graph.initializer if np.prod(tensor.dims) >= LEAST_INT8_WEIGHTS]
    floats = [tensor.name for tensor in big if tensor.data_type == onnx.TensorProto.FLOAT]
    assert floats == [] and all(len(tensor.dims) in (2, 3) for tensor in big)
    assert b".py" not in model.SerializeToString()


def test_the_bundle_passes_its_golden_cases_and_recommends(built: tuple[str, Path]) -> None:
    assert verify_bundle(built[1], PUBLIC)["golden_cases"]
    with xrec_sdk.Recommender(built[1], profile=":memory:", trusted_keys=[PUBLIC]) as recommender:
        recommender.set_consent("personalise", True)
        recommender.record("view", "sku-42", device="phone", at_ms=1_700_000_000_000)
        first = [(item.item_id, item.score) for item in recommender.recommend(k=10)]
        recommender.record("purchase", "sku-7", device="pc", at_ms=1_700_090_000_000)
        then = [(item.item_id, item.score) for item in recommender.recommend(k=10)]
    assert len(first) == len(then) == 10 and first != then
    assert "sku-7" not in dict(then)
