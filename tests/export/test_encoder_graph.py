"""encoder.onnx computes what torch computes with the weights and rows that the bundle stores."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from xrec_export.encoder_graph import build_encoder
from xrec_export.from_run import LastPosition
from xrec_export.graph_parts import operators
from xrec_trainer.config import FitConfig
from xrec_trainer.encoders import ENCODERS

sys.path.insert(0, str(Path(__file__).parent))
from small_models import VOCABULARY, WIDTH, make_encoder, with_int8_weights


@cache
def module(name: str) -> nn.Module:
    if name == "small":
        return make_encoder()
    torch.manual_seed(0)
    return LastPosition(ENCODERS[name](FitConfig(targets=("purchase",), encoder=name), VOCABULARY)).eval()


@cache
def built(name: str = "small") -> onnx.ModelProto:
    return build_encoder(module(name), WIDTH)


@cache
def session(name: str, level: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return onnxruntime.InferenceSession(built(name).SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", ["small", "lowpass"])
@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 2), (1, 20), (3, 7), (20, 19)])
def test_the_graph_computes_what_torch_computes(name: str, level: str, batch: int, length: int) -> None:
    random = np.random.default_rng(batch * 100 + length)
    vectors = random.normal(size=(batch, length, WIDTH)).astype(np.float32)
    codes = [random.integers(0, high, size=(batch, length), dtype=np.int32) for high in (3, 3, VOCABULARY.gap_count)]
    inputs = dict(zip(("vectors", "events", "devices", "gaps"), (vectors, *codes), strict=True))
    (user,) = session(name, level).run(["user"], inputs)
    with torch.no_grad():
        expected = with_int8_weights(module(name))(*map(torch.from_numpy, (vectors, *codes)))
    assert user.dtype == np.float32
    np.testing.assert_allclose(user, expected.numpy(), rtol=0, atol=1e-5)


def test_only_standard_operators_are_used_and_codes_are_int32() -> None:
    model = built()
    assert "MatMul" in operators(model)
    assert model.ir_version == 10 and model.opset_import[0].version == 21
    assert [entry.name for entry in model.graph.input] == ["vectors", "events", "devices", "gaps"]
    kinds = [entry.type.tensor_type.elem_type for entry in model.graph.input]
    assert kinds == [onnx.TensorProto.FLOAT, *[onnx.TensorProto.INT32] * 3]


@pytest.mark.parametrize("name", ["small", "lowpass"])
def test_big_weights_are_stored_as_int8_and_nothing_names_a_file_of_this_machine(name: str) -> None:
    model = built(name)
    big = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 2 and np.prod(tensor.dims) >= 8192]
    assert big and {tensor.data_type for tensor in big} == {onnx.TensorProto.INT8}
    written = model.SerializeToString()
    assert b".py" not in written and b"site-packages" not in written


def test_the_same_module_gives_the_same_bytes() -> None:
    assert build_encoder(make_encoder(), WIDTH).SerializeToString() == built().SerializeToString()
