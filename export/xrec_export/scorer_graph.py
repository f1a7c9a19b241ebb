"""Build scorer.onnx: a scan of the table finds candidates, float32 re-scores them; ties go to lower rows."""

# D width, nb blocks of 128 items, Np = 128 nb, E bias entries, S blocks chosen, M candidates, k answers

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper
from xrec_sdk.context import CONTEXT
from xrec_sdk.manifest import BLOCK_ITEMS, Section

from xrec_export.graph_parts import Graph, make_model
from xrec_export.item_scan import stored_items
from xrec_export.quantize import ItemTable
from xrec_export.ranker_graph import Candidates, ExportRanker, add_probabilities

CANDIDATES_PER_ANSWER = 3
LEAST_CANDIDATES = 32


def build_scorer(items: ItemTable, sections: dict[str, Section], ranker: ExportRanker | None = None) -> onnx.ModelProto:
    """Return scorer.onnx for a table; its big tensors are external data at ``sections`` of items.bin.

    With a ranker it has one more input, ``context``, and one more output, ``top_probabilities``.
    """
    graph = Graph()
    padded = items.blocks * BLOCK_ITEMS
    answers = graph.add("Cast", "k", to=TensorProto.INT64)
    stored = stored_items(graph, items, sections, answers)
    coarse = stored.scan(has_prior=items.prior is not None)
    wanted = graph.add("Mul", answers, graph.constant([CANDIDATES_PER_ANSWER], np.int64))
    wanted = graph.add("Max", wanted, graph.constant([LEAST_CANDIDATES], np.int64))
    count = graph.add("Min", wanted, graph.constant([padded], np.int64))  # M
    block, lane = _candidates(graph, coarse, count, items.blocks)
    rows = graph.add("Add", graph.add("Mul", block, graph.constant(BLOCK_ITEMS, np.int64)), lane)
    vectors = stored.vectors(rows, block, lane)
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
