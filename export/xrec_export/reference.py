"""The arithmetic that the bundle must reproduce, written plainly in NumPy and torch."""

# N items, D width, E bias entries

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from xrec_sdk.history import History
from xrec_sdk.query import buckets_of


def encode(
    encoder: nn.Module,
    table: NDArray[np.float32],
    history: History,
    query_rows: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return the user vector (D,) that torch computes for a history, from rows of ``table`` (N, D).

    A search's row is the mean of the rows of its buckets, zero where it has none.
    """
    found = table[history.rows.clip(min=0)]
    for place, query in zip(np.flatnonzero(history.rows < 0), history.queries, strict=True):
        buckets = list(buckets_of(query))
        found[place] = 0 if query_rows is None or not buckets else query_rows[buckets].mean(axis=0)
    vectors = torch.from_numpy(found)
    codes = [torch.from_numpy(np.ascontiguousarray(code)) for code in (history.events, history.devices, history.gaps)]
    with torch.no_grad():
        user = encoder(vectors[None], *(code[None] for code in codes))[0]
    return user.numpy().astype(np.float32)  # type: ignore[no-any-return]


def score(
    user: NDArray[np.float32], table: NDArray[np.float32], prior: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Score every row in float32, (N,): the sum over the width in order, then the prior, as in scorer.onnx."""
    scores = np.zeros(len(table), dtype=np.float32)
    for value, column in zip(user, table.T, strict=True):
        scores += column * value
    return scores if prior is None else scores + prior


def pairs(
    user: NDArray[np.float32],
    vectors: NDArray[np.float32],
    rows: NDArray[np.int32],
    prior: NDArray[np.float32] | None,
    bias: tuple[NDArray[np.int32], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Return what the ranker reads of rows (k,) and their vectors (k, D) for this user: score, prior, bias, (k, 3)."""
    gain_of = dict(zip(bias[0].tolist(), bias[1].tolist(), strict=True))
    gains = np.array([gain_of.get(row, 0.0) for row in rows.tolist()], dtype=np.float32)
    return np.stack([score(user, vectors, None), np.zeros_like(gains) if prior is None else prior[rows], gains], axis=1)


def random_context(length: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Return a context as xrec_sdk.context gives it for a history of this length, at a random time."""
    last, first = sorted(random.uniform(0, 400, size=2))
    return np.array([random.integers(0, 3), random.uniform(0, 24), length, last, first], dtype=np.float32)


def add_biases(
    scores: NDArray[np.float32], rows: NDArray[np.int32], values: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the scores with biases on top of distinct rows."""
    biased = scores.copy()
    biased[rows] += values
    return biased


def top(scores: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    """Return the best k rows, best first, ties by lower row; -inf comes last."""
    return np.argsort(-scores, kind="stable")[:k].astype(np.int32)
