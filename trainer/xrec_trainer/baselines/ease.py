"""EASE: the linear item-to-item model with a zero diagonal, in closed form."""

# c cases at a time, N items, M items with a model

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from xrec_trainer.baselines.scoring import lines_at_a_time, ranker, users_by_items
from xrec_trainer.cases import Ranker
from xrec_trainer.dataset import Log


def ease(
    log: Log,
    train_mask: NDArray[np.bool_],
    *,
    regularization: float = 200.0,
    max_items: int = 10_000,
    history_half_life_days: float | None = None,
    half_life_days: float = 30.0,
) -> Ranker:
    """Rank by the linear item-to-item model with a zero diagonal, in closed form (EASE: Steck, WWW 2019).

    ``P = (X'X + regularization I)^-1``, ``B_ij = -P_ij / P_jj``. It holds a dense M x M matrix, so only the
    ``max_items`` most used items have a model (10,000 take 400 MB, and 1.3 GB while they are made); the others come
    after them by popularity.
    """
    matrix = users_by_items(log, train_mask)
    users_of = np.asarray(matrix.sum(axis=0)).ravel()
    chosen = np.sort(np.argsort(-users_of, kind="stable")[:max_items])
    weights = ease_weights(matrix[:, chosen].tocsc(), regularization)

    def score(histories: sparse.csr_matrix, users: NDArray[np.int32]) -> NDArray[np.float32]:
        scores = np.full(histories.shape, np.nan, dtype=np.float32)
        known = histories[:, chosen]
        has_model = np.diff(known.indptr) > 0
        scores[np.ix_(has_model, chosen)] = known[has_model] @ weights  # (c, M) @ (M, M) -> (c, M)
        return scores

    return ranker(log, train_mask, score, history_half_life_days=history_half_life_days, half_life_days=half_life_days)


def ease_weights(matrix: sparse.csc_matrix, regularization: float) -> NDArray[np.float32]:
    """Return the weights between M items from who had what, (U, M) -> (M, M)."""
    items = matrix.shape[1]
    gram = np.empty((items, items), dtype=np.float32)
    transposed = matrix.T.tocsr()
    step = lines_at_a_time(items)
    for begin in range(0, items, step):
        gram[begin : begin + step] = (transposed[begin : begin + step] @ matrix).toarray()
    gram[np.diag_indices(items)] += regularization
    factor = torch.linalg.cholesky(torch.from_numpy(gram))
    del gram
    inverse = inverse_of(factor)
    inverse /= -inverse.diagonal().clone()  # column j by -P_jj
    inverse.fill_diagonal_(0.0)
    return np.asarray(inverse.numpy(), dtype=np.float32)


def inverse_of(factor: torch.Tensor, step: int = 1024) -> torch.Tensor:
    """Return the inverse of a matrix (M, M) from its Cholesky factor, by blocks of ``step`` columns.

    ``(L L')^-1 = W'W with W = L^-1``: several times faster than ``torch.cholesky_inverse`` on a CPU.
    """
    size = len(factor)
    root = torch.zeros_like(factor)
    for begin in range(0, size, step):
        unit = torch.eye(size - begin, min(step, size - begin))
        root[begin:, begin : begin + step] = torch.linalg.solve_triangular(factor[begin:, begin:], unit, upper=False)
    inverse = torch.empty_like(factor)
    for begin in range(0, size, step):
        end = min(begin + step, size)
        block = root[begin:, :end].T @ root[begin:, begin:end]
        inverse[:end, begin:end] = block
        inverse[begin:end, :end] = block.T
    return inverse
