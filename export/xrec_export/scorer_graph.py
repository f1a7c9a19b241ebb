"""Build scorer.onnx: a 7-bit scan of the int8 table finds candidates, float32 re-scores them; ties go to lower rows."""

# D width, nb blocks of 128 items, Np = 128 nb, E bias entries, S blocks chosen, M candidates, k answers

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from xrec_export.graph_parts import Graph, flatten, make_model, split_rows
from xrec_export.quantize import BLOCK, USER_ZERO_POINT, QuantizedTable, Section

USER_LEVELS = 63
SMALLEST_USER = 1e-30
CANDIDATES_PER_ANSWER = 4
LEAST_CANDIDATES = 64


def build_scorer(items: QuantizedTable, sections: dict[str, Section]) -> onnx.ModelProto:
    """Return scorer.onnx for a table; its three big tensors are external data at ``sections`` of items.bin."""
    graph = Graph()
    table = graph.external("item_table", items.table, sections["table"])
    scale = graph.external("item_scale", items.scale, sections["scale"])
    correction = graph.external("item_correction", items.correction, sections["correction"])
    padded = items.blocks * BLOCK

    places = graph.add("Cast", "bias_rows", to=TensorProto.INT64)
    bias = graph.add("ScatterElements", "item_bias", places, "bias_values", axis=0, reduction="add")  # (Np,)
    coarse = _scan(graph, table, scale, correction, bias)
    answers = graph.add("Cast", "k", to=TensorProto.INT64)
    wanted = graph.add("Mul", answers, graph.constant([CANDIDATES_PER_ANSWER], np.int64))
    wanted = graph.add("Max", wanted, graph.constant([LEAST_CANDIDATES], np.int64))
    count = graph.add("Min", wanted, graph.constant([padded], np.int64))  # M
    rows = _candidates(graph, coarse, count, items.blocks)
    scores = _score_exactly(graph, flatten(graph, table, answers), scale, bias, rows, items.width)

    best, places_of_best = graph.top(scores, answers, largest=True)
    graph.add("Identity", best, out="top_scores")
    top_rows = graph.add("Gather", rows, places_of_best, axis=0)
    graph.add("Cast", top_rows, out="top_rows", to=TensorProto.INT32)
    value = helper.make_tensor_value_info
    return make_model(
        graph,
        "scorer",
        [
            value("user", TensorProto.FLOAT, [1, items.width]),
            value("item_bias", TensorProto.FLOAT, [padded]),
            value("bias_rows", TensorProto.INT32, ["E"]),
            value("bias_values", TensorProto.FLOAT, ["E"]),
            value("k", TensorProto.INT32, [1]),
        ],
        [value("top_rows", TensorProto.INT32, ["top"]), value("top_scores", TensorProto.FLOAT, ["top"])],
    )


def _scan(graph: Graph, table: str, scale: str, correction: str, bias: str) -> str:
    """Score every row with the user vector in 7 bits, (nb, 128)."""
    size = graph.add("ReduceMax", graph.add("Abs", "user"), keepdims=0)
    size = graph.add("Max", size, graph.constant(SMALLEST_USER, np.float32))  # a zero vector must not divide by zero
    user_scale = graph.add("Div", size, graph.constant(USER_LEVELS, np.float32))
    levels = graph.add("Round", graph.add("Div", "user", user_scale))
    shifted = graph.add("Add", levels, graph.constant(USER_ZERO_POINT, np.float32))
    quantized = graph.add("Cast", shifted, to=TensorProto.UINT8)
    quantized = graph.add("Unsqueeze", quantized, graph.constant([0], np.int64))  # (1, D) -> (1, 1, D)
    products = graph.add("MatMulInteger", quantized, table)  # (1, 1, D) x (nb, D, 128) -> (nb, 1, 128)
    products = graph.add("Squeeze", products, graph.constant([1], np.int64))
    products = graph.add("Cast", graph.add("Sub", products, correction), to=TensorProto.FLOAT)
    # The two scales multiply one after the other: their product first lets onnxruntime fuse into a slower kernel.
    scores = graph.add("Mul", graph.add("Mul", products, scale), user_scale)
    return graph.add("Add", scores, graph.add("Reshape", bias, graph.constant([-1, BLOCK], np.int64)))


def _candidates(graph: Graph, coarse: str, count: str, blocks: int) -> str:
    """Return the M best rows, (M,) int64 ascending.

    The best M rows lie in the M blocks of the largest maxima. Chosen blocks are put in order again before the second
    TopK, so that equal scores go to the lower row there too.
    """
    largest = graph.add("ReduceMax", coarse, graph.constant([1], np.int64), keepdims=0)  # (nb,)
    block_count = graph.add("Min", count, graph.constant([blocks], np.int64))
    _, chosen = graph.top(largest, block_count, largest=True)  # (S,)
    chosen, _ = graph.top(chosen, block_count, largest=False)
    scores = graph.add("Reshape", graph.add("Gather", coarse, chosen, axis=0), graph.constant([-1], np.int64))
    _, places = graph.top(scores, count, largest=True)  # (S * 128,) -> (M,)
    place, lane = split_rows(graph, places)
    first = graph.add("Mul", graph.add("Gather", chosen, place, axis=0), graph.constant(BLOCK, np.int64))
    rows, _ = graph.top(graph.add("Add", first, lane), count, largest=False)
    return rows


def _score_exactly(graph: Graph, table: str, scale: str, bias: str, rows: str, width: int) -> str:
    """Score rows (M,) in float32, (M,): the sum runs over the width in order, the same on every CPU.

    ``table`` is flat: one element is gathered faster by one index than by three.
    """
    block, lane = split_rows(graph, rows)
    first = graph.add("Add", graph.add("Mul", block, graph.constant(width * BLOCK, np.int64)), lane)
    index = graph.add("Add", graph.constant(np.arange(width)[:, None] * BLOCK, np.int64), first)  # (D, M)
    quantized = graph.add("Cast", graph.add("Gather", table, index, axis=0), to=TensorProto.FLOAT)
    last = graph.constant([-1], np.int64)
    at = graph.add("Concat", graph.add("Unsqueeze", block, last), graph.add("Unsqueeze", lane, last), axis=-1)  # (M, 2)
    item = graph.add("Mul", quantized, graph.add("GatherND", scale, at))
    products = graph.add("Mul", item, graph.add("Transpose", "user", perm=[1, 0]))
    scores = graph.add("ReduceSum", products, graph.constant([0], np.int64), keepdims=0)
    return graph.add("Add", scores, graph.add("Gather", bias, rows, axis=0))
