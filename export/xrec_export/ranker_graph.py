"""Write the ranker into scorer.onnx: a probability of each candidate, from its row, the user vector and the context."""

# D width, F features of the user, G of an item, H hidden units, M candidates, Np items with pad rows, k answers

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from xrec_sdk.context import CONTEXT
from xrec_trainer.served import BIAS_LIMIT, LOGIT_LIMIT

from xrec_export.graph_parts import Graph

Array = NDArray[np.float32]
Reference = Callable[[Array, Array, NDArray[np.int32], Array, Array], Array]
"""What torch says: user (D,), context (C,), rows (k,), vectors (k, D), and score, prior and bias (k, 3) -> (k,)."""


@dataclass(frozen=True)
class ExportRanker:
    """A trained ranker as plain values: standardization and calibration are folded into its weights.

    ``user_weight`` (F, H) and ``item_weight`` (H, G) with biases (H,) make the hidden units, added up before the relu
    or, where ``is_two_branch``, side by side. F is the width, the
    device codes and 5; G is the width and 5: two of ``item_features`` (N, 2), the score, the prior and the bias.
    ``events`` within ``horizon_ms`` are what the probability is of.
    """

    is_two_branch: bool
    user_weight: NDArray[np.float32]
    user_bias: NDArray[np.float32]
    item_weight: NDArray[np.float32]
    item_bias: NDArray[np.float32]
    out_weight: NDArray[np.float32]
    out_bias: NDArray[np.float32]
    item_features: NDArray[np.float32]
    reference: Reference
    events: tuple[str, ...]
    horizon_ms: int


@dataclass(frozen=True)
class Candidates:
    """Names of the candidates' tensors: rows (M,) int64, vectors (D, M), and (M,) scores, priors and biases."""

    rows: str
    vectors: str
    score: str
    prior: str | None
    bias: str


def add_probabilities(graph: Graph, ranker: ExportRanker, features: str, found: Candidates) -> str:
    """Return the probability of each candidate, (M,); ``features`` names the tensor (2, Np)."""
    one = graph.constant([1, -1], np.int64)
    user = graph.add("MatMul", _user(graph, ranker), graph.constant(ranker.user_weight, np.float32))  # (1, H)
    user = graph.add("Add", user, graph.constant(ranker.user_bias[None], np.float32))
    user = graph.add("Reshape", user, graph.constant([-1, 1], np.int64))  # (H, 1)
    limits = (graph.constant(-BIAS_LIMIT, np.float32), graph.constant(BIAS_LIMIT, np.float32))
    parts = [found.vectors, graph.add("Gather", features, found.rows, axis=1)]
    weights = ranker.item_weight
    for name in (found.score, found.prior, found.bias):
        if name is not None:
            parts.append(graph.add("Reshape", name, one))
    parts[-1] = graph.add("Clip", parts[-1], *limits)
    if found.prior is None:
        weights = np.delete(weights, -2, axis=1)
    item = graph.add("MatMul", graph.constant(weights, np.float32), graph.add("Concat", *parts, axis=0))  # (H, M)
    logits = graph.add("Add", _join(graph, ranker, user, item), graph.constant(ranker.out_bias[:, None], np.float32))
    fresh, had = graph.split(logits, graph.constant([1, 1], np.int64), 2)
    logits = graph.add("Where", graph.add("Greater", found.bias, graph.constant(0, np.float32)), had, fresh)
    limit = graph.constant(LOGIT_LIMIT, np.float32)
    logits = graph.add("Clip", logits, graph.constant(-LOGIT_LIMIT, np.float32), limit)
    return graph.add("Reshape", graph.add("Sigmoid", logits), graph.constant([-1], np.int64))


def _join(graph: Graph, ranker: ExportRanker, user: str, item: str) -> str:
    """Return the logits (2, M) from the hidden units of the user (H, 1) and of the items (H, M), before the relu."""
    hidden = len(ranker.user_bias)
    if not ranker.is_two_branch:
        joined = graph.add("Relu", graph.add("Add", item, user))
        return graph.add("MatMul", graph.constant(ranker.out_weight, np.float32), joined)
    of_user, of_item = (
        graph.constant(part, np.float32) for part in (ranker.out_weight[:, :hidden], ranker.out_weight[:, hidden:])
    )
    user = graph.add("MatMul", of_user, graph.add("Relu", user))  # (2, 1)
    item = graph.add("Relu", graph.add("Add", item, graph.constant(ranker.item_bias[:, None], np.float32)))
    return graph.add("Add", graph.add("MatMul", of_item, item), user)


def _user(graph: Graph, ranker: ExportRanker) -> str:
    """Return the user's features (1, F): the vector, the device as one of many, the hour on a circle, logs of counts.

    The sine of a quarter turn later is the cosine.
    """
    devices = len(ranker.user_weight) - ranker.item_weight.shape[1]  # F - G, where F = D + devices + 5, G = D + 5
    sizes = graph.constant([1, 1, len(CONTEXT) - 2], np.int64)
    device, hour, amounts = graph.split("context", sizes, 3)
    known = graph.add("Equal", device, graph.constant(np.arange(devices), np.float32))
    angle = graph.add("Mul", hour, graph.constant(2 * np.pi / 24, np.float32))
    angles = graph.add("Add", angle, graph.constant([0, np.pi / 2], np.float32))
    logs = graph.add("Log", graph.add("Add", amounts, graph.constant(1, np.float32)))
    context = graph.add(
        "Concat", graph.add("Cast", known, to=TensorProto.FLOAT), graph.add("Sin", angles), logs, axis=0
    )
    return graph.add("Concat", "user", graph.add("Reshape", context, graph.constant([1, -1], np.int64)), axis=1)
