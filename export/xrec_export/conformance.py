"""Make the golden cases of a bundle: histories, and the rows and scores that must come out on every device.

The user vector is what the encoder gives here; the list is scored and sorted by NumPy, every row in float32, so that a
scorer that errs does not agree with itself. xrec_sdk.conformance describes the file and checks it.
"""

# N items, D width

from __future__ import annotations

import json
from itertools import cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.conformance import history_of
from xrec_sdk.history import ARRAYS, History, Vocabulary
from xrec_sdk.query import reduce_query
from xrec_sdk.runtime import Runtime

from xrec_export import reference
from xrec_export.ranker_graph import ExportRanker

RELATIVE_TOLERANCE = 1e-4
QUERIES = ("红茶 green tea", "!", "running shoes")
FORBIDDEN = -1e30
"""A finite bias below every score; JSON has no -inf."""


def make(
    vocabulary: Vocabulary,
    table: NDArray[np.float32],
    prior: NDArray[np.float32] | None,
    runtime: Runtime,
    ranker: ExportRanker | None = None,
    is_offered: NDArray[np.bool_] | None = None,
) -> bytes:
    """Return conformance.json for the dequantized rows (N, D), their prior (N,), and a runtime on the same graphs.

    With a ranker each case has a context, and the probabilities that torch gives. No list holds an item that is not
    offered, (N,).
    """
    random = np.random.default_rng(0)
    count = len(table)
    longest = vocabulary.max_history
    lengths = sorted({0, 1, min(2, longest), min(7, longest), longest})
    asked = [*((length, 10) for length in lengths), (min(7, longest), 300)]
    hidden = np.zeros(0, dtype=np.int32) if is_offered is None else np.flatnonzero(~is_offered).astype(np.int32)
    cases = [
        _case(_history(length, count, vocabulary, random), k, table, prior, runtime, hidden, random)
        for length, k in asked
    ]
    if ranker is not None:
        cases = [_with_probabilities(case, table, prior, runtime, ranker, random) for case in cases]
    largest = max(abs(score) for case in cases for score in case["top_scores"] if score > FORBIDDEN / 2)
    document = {"tolerance": RELATIVE_TOLERANCE * max(1.0, largest), "cases": cases}
    return (json.dumps(document, allow_nan=False, separators=(",", ":")) + "\n").encode("utf-8")


def _history(length: int, count: int, vocabulary: Vocabulary, random: np.random.Generator) -> History:
    bounds = (count, vocabulary.event_count, vocabulary.device_count, vocabulary.gap_count)
    rows, *codes = (random.integers(0, bound, size=length, dtype=np.int32) for bound in bounds)
    if not vocabulary.query_buckets:
        return History(rows, *codes)
    rows[::3] = -1
    return History(rows, *codes, queries=tuple(map(reduce_query, islice(cycle(QUERIES), int((rows < 0).sum())))))


def _case(
    history: History,
    k: int,
    table: NDArray[np.float32],
    prior: NDArray[np.float32] | None,
    runtime: Runtime,
    hidden: NDArray[np.int32],
    random: np.random.Generator,
) -> dict[str, Any]:
    count = len(table)
    k = min(k, count)
    scores = reference.score(runtime.encode(history), table, prior)
    scores[hidden] = -np.inf
    # Forbid every second of the best rows and lift a few others, so that a runtime that drops the biases is seen.
    best = reference.top(scores, min(20, count - k))[::2] if len(history) else np.zeros(0, dtype=np.int32)
    best = best[np.isfinite(scores[best])]
    others = np.setdiff1d(random.integers(0, count, size=min(5, len(best)), dtype=np.int32), best)
    rows = np.concatenate([best, others]).astype(np.int32)
    lift = np.float32(np.abs(scores[np.isfinite(scores)]).max(initial=0) / 4)
    values = np.concatenate([np.full(len(best), FORBIDDEN), np.full(len(others), lift)]).astype(np.float32)
    biased = reference.add_biases(scores, rows, values)
    top = reference.top(biased, k)
    top = top[np.isfinite(biased[top])]
    return {
        **{name: getattr(history, name).tolist() for name in ARRAYS},
        **({"queries": list(history.queries)} if history.queries else {}),
        "k": k,
        "bias_rows": rows.tolist(),
        "bias_values": values.astype(float).tolist(),
        "top_rows": top.tolist(),
        "top_scores": biased[top].astype(float).tolist(),
    }


def _with_probabilities(
    case: dict[str, Any],
    table: NDArray[np.float32],
    prior: NDArray[np.float32] | None,
    runtime: Runtime,
    ranker: ExportRanker,
    random: np.random.Generator,
) -> dict[str, Any]:
    history = history_of(case)
    user, context = runtime.encode(history), reference.random_context(len(history), random)
    rows = np.array(case["top_rows"], dtype=np.int32)
    bias = np.array(case["bias_rows"], dtype=np.int32), np.array(case["bias_values"], dtype=np.float32)
    pairs = reference.pairs(user, table[rows], rows, prior, bias)
    found = ranker.reference(user, context, rows, table[rows], pairs)
    return {**case, "context": context.astype(float).tolist(), "top_probabilities": found.astype(float).tolist()}
