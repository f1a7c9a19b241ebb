"""Build scorer.onnx: a scan of the table finds candidates, float32 re-scores them; ties go to lower rows.

An int8 table is scanned with the user vector in 7 bits, one of floats as it is; all else is the same.
"""

# D width, nb blocks of 128 items, Np = 128 nb, E bias entries, S blocks chosen, M candidates, k answers

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper
from xrec_sdk.context import CONTEXT
from xrec_sdk.manifest import BLOCK_ITEMS, Section

from xrec_export.graph_parts import Graph, flatten, gather_elements, make_model
from xrec_export.quantize import USER_ZERO_POINT, ItemTable
from xrec_export.ranker_graph import Candidates, ExportRanker, add_probabilities

USER_LEVELS = 63
SMALLEST_USER = 1e-25
CANDIDATES_PER_ANSWER = 3
LEAST_CANDIDATES = 32


def build_scorer(items: ItemTable, sections: dict[str, Section], ranker: ExportRanker | None = None) -> onnx.ModelProto:
    """Return scorer.onnx for a table; its big tensors are external data at ``sections`` of items.bin.

    With a ranker it has one more input, ``context``, and one more output, ``top_probabilities``.
    """
    graph = Graph()
    padded = items.blocks * BLOCK_ITEMS
    answers = graph.add("Cast", "k", to=TensorProto.INT64)
    table = graph.external("item_table", items.table, sections["table"])
    scale = None
    if items.scale is not None:
        scale = flatten(graph, graph.external("item_scale", items.scale, sections["scale"]), answers)  # (Np,)

    user_scale = _user_scale(graph)
    has_prior = items.prior is not None
    if scale is None:
        table = graph.add("Cast", table, to=TensorProto.FLOAT) if items.table.dtype == np.float16 else table
        coarse = _scan_floats(graph, table, has_prior=has_prior)
    else:
        coarse = _scan(graph, table, scale, user_scale, has_prior=has_prior)
    wanted = graph.add("Mul", answers, graph.constant([CANDIDATES_PER_ANSWER], np.int64))
    wanted = graph.add("Max", wanted, graph.constant([LEAST_CANDIDATES], np.int64))
    count = graph.add("Min", wanted, graph.constant([padded], np.int64))  # M
    block, lane = _candidates(graph, coarse, count, items.blocks)
    rows = graph.add("Add", graph.add("Mul", block, graph.constant(BLOCK_ITEMS, np.int64)), lane)
    if scale is None:
        last = graph.constant([1], np.int64)
        places = graph.add("Concat", graph.add("Unsqueeze", block, last), graph.add("Unsqueeze", lane, last), axis=1)
        vectors = graph.add("Transpose", graph.add("GatherND", table, places), perm=[1, 0])  # (M, D) -> (D, M)
    else:
        item_scale = graph.add("Gather", scale, rows, axis=0)
        vectors = _vectors(graph, flatten(graph, table, answers), item_scale, block, lane, items.width)
    product = scores = _score_exactly(graph, vectors)
    prior = None
    if items.prior is not None:
        prior = graph.add("Gather", "item_prior", rows, axis=0)
        scores = graph.add("Add", scores, prior)
    bias = _biases(graph, rows)
    scores = _add_biases(graph, scores, rows, bias)

    best, places_of_best = graph.top(scores, answers, largest=True)
    graph.add("Identity", best, out="top_scores")
    top_rows = graph.add("Gather", rows, places_of_best, axis=0)
    graph.add("Cast", top_rows, out="top_rows", to=TensorProto.INT32)
    value = helper.make_tensor_value_info
    inputs, outputs = [], []
    if ranker is not None and items.features is not None:
        features = graph.external("item_features", items.features, sections["features"])
        probabilities = add_probabilities(graph, ranker, features, Candidates(rows, vectors, product, prior, bias))
        graph.add("Gather", probabilities, places_of_best, out="top_probabilities", axis=0)
        inputs = [value("context", TensorProto.FLOAT, [len(CONTEXT)])]
        outputs = [value("top_probabilities", TensorProto.FLOAT, ["top"])]
    return make_model(
        graph,
        "scorer",
        [
            value("user", TensorProto.FLOAT, [1, items.width]),
            value("item_bias", TensorProto.FLOAT, [padded]),
            value("item_prior", TensorProto.FLOAT, [padded]),
            value("bias_rows", TensorProto.INT32, ["E"]),
            value("bias_values", TensorProto.FLOAT, ["E"]),
            value("k", TensorProto.INT32, [1]),
            *inputs,
        ],
        [value("top_rows", TensorProto.INT32, ["top"]), value("top_scores", TensorProto.FLOAT, ["top"]), *outputs],
    )


def _user_scale(graph: Graph) -> str:
    """Return what one of the 63 levels of the user vector stands for, a scalar."""
    size = graph.add("ReduceMax", graph.add("Abs", "user"), keepdims=0)
    size = graph.add("Max", size, graph.constant(SMALLEST_USER, np.float32))  # a zero vector must not divide by zero
    return graph.add("Div", size, graph.constant(USER_LEVELS, np.float32))


def _scan(graph: Graph, table: str, scale: str, user_scale: str, *, has_prior: bool) -> str:
    """Score every row with the user vector in 7 bits, (nb, 128), in units of the user vector's scale.

    Few passes over Np numbers, two more for a prior: ``item_bias`` takes the zero point away and forbids at once, and
    the few biases of the call are divided by that scale instead of multiplying every score by it.
    """
    quantized = graph.add("QuantizeLinear", "user", user_scale, graph.constant(USER_ZERO_POINT, np.uint8))
    products = graph.add("MatMulInteger", quantized, table)  # (1, D) x (nb, D, 128) -> (nb, 1, 128)
    products = graph.add("Reshape", products, graph.constant([-1], np.int64))
    scores = graph.add("Mul", graph.add("Cast", products, to=TensorProto.FLOAT), scale)
    scores = graph.add("Add", scores, "item_bias")
    if has_prior:
        scores = graph.add("Add", scores, graph.add("Div", "item_prior", user_scale))
    values = graph.add("Div", "bias_values", user_scale)
    scores = graph.add("ScatterElements", scores, "bias_rows", values, axis=0, reduction="add")
    return graph.add("Reshape", scores, graph.constant([-1, BLOCK_ITEMS], np.int64))


def _scan_floats(graph: Graph, table: str, *, has_prior: bool) -> str:
    """Score every row in float32, (nb, 128)."""
    user = graph.add("Transpose", "user", perm=[1, 0])
    products = graph.add("MatMul", table, user)  # (nb, 128, D) x (D, 1) -> (nb, 128, 1)
    scores = graph.add("Add", graph.add("Reshape", products, graph.constant([-1], np.int64)), "item_bias")
    if has_prior:
        scores = graph.add("Add", scores, "item_prior")
    scores = graph.add("ScatterElements", scores, "bias_rows", "bias_values", axis=0, reduction="add")
    return graph.add("Reshape", scores, graph.constant([-1, BLOCK_ITEMS], np.int64))


def _candidates(graph: Graph, coarse: str, count: str, blocks: int) -> tuple[str, str]:
    """Return the block and the lane, (M,) int64 each, of the M best rows, rows ascending.

    The best M rows lie in the M blocks of the largest maxima. Chosen blocks are put in order again before the second
    TopK, so that equal scores go to the lower row there too.
    """
    largest = graph.add("ReduceMax", coarse, graph.constant([1], np.int64), keepdims=0)  # (nb,)
    block_count = graph.add("Min", count, graph.constant([blocks], np.int64))
    _, chosen = graph.top(largest, block_count, largest=True)  # (S,)
    chosen, _ = graph.top(chosen, block_count, largest=False)
    scores = graph.add("Reshape", graph.add("Gather", coarse, chosen, axis=0), graph.constant([-1], np.int64))
    _, places = graph.top(scores, count, largest=True)  # (S * 128,) -> (M,)
    places, _ = graph.top(places, count, largest=False)
    block_size = graph.constant(BLOCK_ITEMS, np.int64)
    block = graph.add("Gather", chosen, graph.add("Div", places, block_size), axis=0)
    return block, graph.add("Mod", places, block_size)


def _vectors(graph: Graph, table: str, scale: str, block: str, lane: str, width: int) -> str:
    """Return the float32 vectors of rows (M,), (D, M).

    ``table`` is flat: one element is gathered faster by one index than by three. A row is gathered whole before the
    next, near each other in memory, and the rows are then transposed for the sum.
    """
    first = graph.add("Add", graph.add("Mul", block, graph.constant(width * BLOCK_ITEMS, np.int64)), lane)
    first = graph.add("Unsqueeze", first, graph.constant([1], np.int64))
    index = graph.add("Add", first, graph.constant(np.arange(width) * BLOCK_ITEMS, np.int64))  # (M, D)
    elements = graph.add("Reshape", gather_elements(graph, table, index), graph.constant([-1, width], np.int64))
    quantized = graph.add("Transpose", elements, perm=[1, 0])  # (D, M)
    return graph.add("Mul", graph.add("Cast", quantized, to=TensorProto.FLOAT), scale)


def _score_exactly(graph: Graph, vectors: str) -> str:
    """Score vectors (D, M) in float32, (M,): the sum runs over the width in order, the same on every CPU."""
    products = graph.add("Mul", vectors, graph.add("Transpose", "user", perm=[1, 0]))
    return graph.add("ReduceSum", products, graph.constant([0], np.int64), keepdims=0)


def _biases(graph: Graph, rows: str) -> str:
    """Return the biases of the call for rows (M,), zero for those that have none: each is compared with all E."""
    last = graph.constant([1], np.int64)
    own = graph.add("Unsqueeze", graph.add("Cast", rows, to=TensorProto.INT32), last)
    is_own = graph.add("Equal", own, "bias_rows")  # (M, E)
    values = graph.add("Where", is_own, "bias_values", graph.constant(0, np.float32))
    return graph.add("ReduceSum", values, last, keepdims=0)


def _add_biases(graph: Graph, scores: str, rows: str, bias: str) -> str:
    """Return the scores of rows (M,) with their biases, -inf where ``item_bias`` forbids."""
    scores = graph.add("Add", scores, bias)
    is_forbidden = graph.add("IsInf", graph.add("Gather", "item_bias", rows, axis=0))
    return graph.add("Where", is_forbidden, graph.constant(-np.inf, np.float32), scores)
