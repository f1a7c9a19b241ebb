"""The ways of other libraries to find the ten best of N items for a user vector.

Each function takes the float32 table (N, D) and the threads, and returns a function of a user vector (D,) that gives
the rows of its best ten; what it needs is imported in it. All scan the whole table; none is an approximate index.
"""

# N items, D width

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_shop import K
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from plain_models import session
from xrec_export.quantize import quantize_rows

Scan = Callable[[NDArray[np.float32]], NDArray[Any]]


def _onnx_graph(table: NDArray[np.float32]) -> Any:
    value, node = helper.make_tensor_value_info, helper.make_node
    nodes = [node("MatMul", ["user", "table"], ["scores"]), node("TopK", ["scores", "k"], ["best", "top"])]
    constants = [numpy_helper.from_array(np.ascontiguousarray(table.T), "table")]
    constants.append(numpy_helper.from_array(np.array([K], dtype=np.int64), "k"))
    inputs = [value("user", TensorProto.FLOAT, [1, table.shape[1]])]
    graph = helper.make_graph(nodes, "scan", inputs, [value("top", TensorProto.INT64, [1, K])], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def onnx_float32(table: NDArray[np.float32], threads: int) -> Scan:
    """One MatMul and one TopK in onnxruntime."""
    opened = session(_onnx_graph(table).SerializeToString(), threads)
    return lambda user: opened.run(None, {"user": user[None]})[0][0]  # type: ignore[no-any-return]


def onnx_quantize_dynamic(table: NDArray[np.float32], threads: int) -> Scan:
    """What ``quantize_dynamic`` makes of that graph by its defaults, with int8 weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        quantize_dynamic(_onnx_graph(table), path, weight_type=QuantType.QInt8)
        opened = session(str(path), threads)
    return lambda user: opened.run(None, {"user": user[None]})[0][0]  # type: ignore[no-any-return]


def torch_eager(table: NDArray[np.float32], threads: int) -> Scan:
    """``torch.topk(table @ user)``."""
    torch.set_num_threads(threads)
    held = torch.from_numpy(table)

    def scan(user: NDArray[np.float32]) -> NDArray[Any]:
        with torch.inference_mode():
            return torch.topk(held @ torch.from_numpy(user), K).indices.numpy()

    return scan


def numpy_argpartition(table: NDArray[np.float32], threads: int) -> Scan:
    """A product and argpartition; the threads of the BLAS are the caller's to set."""

    def scan(user: NDArray[np.float32]) -> NDArray[Any]:
        scores = table @ user
        best = np.argpartition(scores, len(scores) - K)[-K:]
        return best[np.argsort(-scores[best])]

    return scan


def _faiss(index: Any, table: NDArray[np.float32], threads: int) -> Scan:
    import faiss

    faiss.omp_set_num_threads(threads)
    index.train(table[:100_000])
    index.add(table)
    return lambda user: index.search(user[None], K)[1][0]  # type: ignore[no-any-return]


def faiss_flat(table: NDArray[np.float32], threads: int) -> Scan:
    """faiss.IndexFlatIP, float32."""
    import faiss

    return _faiss(faiss.IndexFlatIP(table.shape[1]), table, threads)


def faiss_sq8(table: NDArray[np.float32], threads: int) -> Scan:
    """faiss.IndexScalarQuantizer of 8 bits."""
    import faiss

    kind = faiss.ScalarQuantizer.QT_8bit
    return _faiss(faiss.IndexScalarQuantizer(table.shape[1], kind, faiss.METRIC_INNER_PRODUCT), table, threads)


def faiss_sqfp16(table: NDArray[np.float32], threads: int) -> Scan:
    """faiss.IndexScalarQuantizer of float16."""
    import faiss

    kind = faiss.ScalarQuantizer.QT_fp16
    return _faiss(faiss.IndexScalarQuantizer(table.shape[1], kind, faiss.METRIC_INNER_PRODUCT), table, threads)


def usearch_exact(table: NDArray[np.float32], threads: int) -> Scan:
    """usearch's exact search over a float32 matrix."""
    from usearch.index import MetricKind, search

    def scan(user: NDArray[np.float32]) -> NDArray[Any]:
        return search(table, user, K, MetricKind.IP, exact=True, threads=threads).keys  # type: ignore[no-any-return]

    return scan


def implicit_topk(table: NDArray[np.float32], threads: int) -> Scan:
    """The scan under implicit's ``recommend``."""
    from implicit.cpu.topk import topk

    return lambda user: topk(table, user[None], K, num_threads=threads)[0][0]  # type: ignore[no-any-return]


def tflite_int8_weights(table: NDArray[np.float32], threads: int) -> Scan:
    """TFLite by XNNPACK: int8 weights with a scale for each item, activations quantized as they come, float scores."""
    quantized, scale = quantize_rows(table)
    run = _tflite(quantized, scale, None, threads)
    return lambda user: run(user[None])


def tflite_int8(table: NDArray[np.float32], threads: int) -> Scan:
    """TFLite by XNNPACK with int8 in, int8 weights and int8 scores: one scale each, set for users as they are drawn."""
    scale = np.abs(table).max() / np.float32(127)
    user_scale = np.float32(4.5 / 127)  # of 64 normal numbers, one in ten thousand is beyond
    score_scale = np.float32(6 * np.linalg.norm(table, axis=1).mean() / 127)
    quantized = np.rint(table / scale).astype(np.int8)
    run = _tflite(quantized, np.array([scale], dtype=np.float32), (user_scale, score_scale), threads)
    return lambda user: run(np.clip(np.rint(user / user_scale), -127, 127).astype(np.int8)[None])


def _tflite(
    table: NDArray[np.int8], scale: NDArray[np.float32], of_int8: tuple[np.float32, np.float32] | None, threads: int
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return FULLY_CONNECTED and TOPK_V2 over a table; with ``of_int8``, scales of user and scores, both are int8."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=_tflite_model(table, scale, of_int8), num_threads=threads)
    interpreter.allocate_tensors()
    user, rows = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[1]["index"]

    def run(given: NDArray[Any]) -> NDArray[Any]:
        interpreter.set_tensor(user, given)
        interpreter.invoke()
        return interpreter.get_tensor(rows)[0]  # type: ignore[no-any-return]

    return run


def _tflite_model(
    table: NDArray[np.int8], scale: NDArray[np.float32], of_int8: tuple[np.float32, np.float32] | None
) -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    kind, operator = schema.TensorType, schema.BuiltinOperator
    activation = kind.FLOAT32 if of_int8 is None else kind.INT8
    user_scale, score_scale = ([None, None]) if of_int8 is None else ([one] for one in of_int8)
    count, width = table.shape

    def tensor(shape: list[int], of: int, scales: Any = None, buffer: int = 0) -> Any:
        made = schema.TensorT()
        made.shape, made.type, made.buffer = shape, of, buffer
        if scales is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale = np.asarray(scales, dtype=np.float32)
            made.quantization.zeroPoint = np.zeros(len(scales), dtype=np.int64)
        return made

    def node(place: int, inputs: list[int], outputs: list[int], name: str, options: Any) -> Any:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = place, inputs, outputs
        made.builtinOptionsType, made.builtinOptions = getattr(schema.BuiltinOptions, name), options
        return made

    product = schema.FullyConnectedOptionsT()
    product.asymmetricQuantizeInputs = of_int8 is None
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor([1, width], activation, user_scale),
        tensor([count, width], kind.INT8, scale, buffer=1),
        tensor([1, count], activation, score_scale),
        tensor([1], kind.INT32, buffer=2),
        tensor([1, K], activation, score_scale),
        tensor([1, K], kind.INT32),
    ]
    graph.operators = [
        node(0, [0, 1, -1], [2], "FullyConnectedOptions", product),
        node(1, [2, 3], [4, 5], "TopKV2Options", schema.TopKV2OptionsT()),
    ]
    graph.inputs, graph.outputs = [0], [4, 5]
    model = schema.ModelT()
    model.version, model.subgraphs = 3, [graph]
    model.buffers = [schema.BufferT() for _ in range(3)]
    model.buffers[1].data = table.reshape(-1).view(np.uint8)
    model.buffers[2].data = np.array([K], dtype=np.int32).view(np.uint8)
    model.operatorCodes = [schema.OperatorCodeT() for _ in range(2)]
    versions = {operator.FULLY_CONNECTED: 5, operator.TOPK_V2: 2}
    for code, (found, version) in zip(model.operatorCodes, versions.items(), strict=True):
        code.builtinCode = code.deprecatedBuiltinCode = found
        code.version = version
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


SCANS: dict[str, Callable[[NDArray[np.float32], int], Scan]] = {
    "onnxruntime float32": onnx_float32,
    "onnxruntime quantize_dynamic": onnx_quantize_dynamic,
    "torch eager": torch_eager,
    "NumPy": numpy_argpartition,
    "faiss flat float32": faiss_flat,
    "faiss SQ8": faiss_sq8,
    "faiss SQfp16": faiss_sqfp16,
    "usearch exact": usearch_exact,
    "implicit topk": implicit_topk,
    "TFLite int8 weights": tflite_int8_weights,
    "TFLite int8 in and out": tflite_int8,
}
