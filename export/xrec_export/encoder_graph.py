"""Build encoder.onnx: a traced encoder whose big weights are stored in the format of the item table."""

# B histories, L events, D width

from __future__ import annotations

import copy
import logging
import warnings
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from xrec_sdk.runtime import CODES

from xrec_export.graph_parts import Graph, make_model
from xrec_export.quantize import FLOATS, quantize_rows

LEAST_INT8_WEIGHTS = 8192
"""Smaller matrices stay float32: they weigh little, and rounding the demo's one of 64 x 64 kept .985 of its top 10.
Filters of a convolution, of three axes, stay so too: the largest that an encoder here has is of 16 x 64 x 5."""


def build_encoder(
    encoder: nn.Module, width: int, query_rows: NDArray[np.float32] | None = None, table_format: str = "int8"
) -> onnx.ModelProto:
    """Return encoder.onnx for a torch module that maps (B, L, D) vectors and (B, L) codes to (B, D).

    With ``query_rows`` (4096, D) it has a further input, the buckets of searches, (B, L, G) int32 with -1 for no more.
    """
    traced = _export(encoder, width)
    graph = Graph("query_")
    value = helper.make_tensor_value_info
    inputs = [value("vectors", TensorProto.FLOAT, ["B", "L", width])]
    inputs += [value(name, TensorProto.INT32, ["B", "L"]) for name in CODES]
    if query_rows is not None:
        inputs.append(value("queries", TensorProto.INT32, ["B", "L", "G"]))
        _rename_input(traced, "vectors", _with_searches(graph, query_rows, table_format))
    if table_format == "int8":
        _store_weights_as_int8(traced, {name for name, _ in encoder.named_parameters()})
    elif table_format == "fp16":
        _store_weights_as_fp16(traced)
    graph.nodes.extend(traced.graph.node)
    graph.initializers.extend(traced.graph.initializer)
    return make_model(graph, "encoder", inputs, [value("user", TensorProto.FLOAT, ["B", width])])


def _with_searches(graph: Graph, query_rows: NDArray[np.float32], table_format: str) -> str:
    """Return the vectors (B, L, D) with the mean of the query's buckets added where there is a query."""
    last, zero = graph.constant([-1], np.int64), graph.constant(0, np.int32)
    place = graph.add("Max", "queries", zero)  # (B, L, G)
    is_there = graph.add("Cast", graph.add("GreaterOrEqual", "queries", zero), to=TensorProto.FLOAT)
    if table_format == "int8":
        stored, scale = quantize_rows(query_rows)
        scales = graph.add("Mul", is_there, graph.add("Gather", graph.constant(scale, np.float32), place))
    else:
        stored, scales = query_rows.astype(FLOATS[table_format]), is_there
    rows = graph.add("Cast", graph.add("Gather", graph.constant(stored, stored.dtype), place), to=TensorProto.FLOAT)
    # (B, L, 1, G) @ (B, L, G, D) -> (B, L, 1, D) -> (B, L, D)
    total = graph.add("MatMul", graph.add("Unsqueeze", scales, graph.constant([-2], np.int64)), rows)
    total = graph.add("Squeeze", total, graph.constant([-2], np.int64))
    count = graph.add("ReduceSum", is_there, last, keepdims=1)
    mean = graph.add("Div", total, graph.add("Max", count, graph.constant(1, np.float32)))
    return graph.add("Add", "vectors", mean)


def _export(encoder: nn.Module, width: int) -> onnx.ModelProto:
    """Trace the module with a dynamic batch and length, without the metadata that names this machine's files."""
    module = copy.deepcopy(encoder).eval()
    # Sizes 0 and 1 would become constants of the graph, and one tensor given twice would become one input.
    codes = [torch.ones(3, 7, dtype=torch.int32) for _ in range(3)]
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (torch.zeros(3, 7, width), *codes),
                dynamo=True,
                opset_version=21,
                input_names=["vectors", *CODES],
                output_names=["user"],
                dynamic_shapes=(dynamic,) * 4,
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model: Any = program.model_proto
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for tensor in model.graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")
    return model  # type: ignore[no-any-return]


def _rename_input(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new


def _store_weights_as_int8(model: onnx.ModelProto, parameters: set[str]) -> None:
    """Replace each big float matrix of weights by int8, a Cast and a product with its scales, one an output channel.

    onnxruntime folds the two nodes while it loads, at every level from BASIC, so the products stay float32 and no CPU
    rounds its activations another way.
    """
    graph = model.graph
    front = []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2 or np.prod(tensor.dims) < LEAST_INT8_WEIGHTS:
            continue
        axis = 0 if tensor.name in parameters else _output_axis(model, tensor.name)
        if axis is None:
            continue
        weights = numpy_helper.to_array(tensor)
        quantized, scale = quantize_rows(weights if axis == 0 else np.ascontiguousarray(weights.T))
        names = {part: f"{tensor.name}.{part}" for part in ("int8", "float", "scale")}
        stored = quantized if axis == 0 else np.ascontiguousarray(quantized.T)
        scales = scale[:, None] if axis == 0 else scale[None, :]
        front.append(helper.make_node("Cast", [names["int8"]], [names["float"]], to=TensorProto.FLOAT))
        front.append(helper.make_node("Mul", [names["float"], names["scale"]], [tensor.name]))
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(stored, names["int8"]))
        graph.initializer.append(numpy_helper.from_array(scales, names["scale"]))
    nodes = [*front, *graph.node]
    graph.ClearField("node")
    graph.node.extend(nodes)


def _store_weights_as_fp16(model: onnx.ModelProto) -> None:
    """Replace each big float tensor of weights by float16 and a Cast, which onnxruntime folds while it loads."""
    graph = model.graph
    front = []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < LEAST_INT8_WEIGHTS:
            continue
        stored = f"{tensor.name}.fp16"
        front.append(helper.make_node("Cast", [stored], [tensor.name], to=TensorProto.FLOAT))
        graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), stored))
        graph.initializer.remove(tensor)
    nodes = [*front, *graph.node]
    graph.ClearField("node")
    graph.node.extend(nodes)


def _output_axis(model: onnx.ModelProto, name: str) -> int | None:
    """Return the axis of output channels of a matrix that the exporter made of parameters, None for other constants.

    A parameter itself has them in the rows, as torch stores Linear and Embedding.
    """
    for node in model.graph.node:
        if name in node.input and node.op_type in ("Gemm", "MatMul"):
            return int(any(attribute.name == "transB" and attribute.i for attribute in node.attribute)) ^ 1
    return None
