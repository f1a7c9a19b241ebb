"""ALS: factors of users and items by alternating least squares."""

# D factors

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from xrec_trainer.baselines.scoring import factor_scores, ranker, users_by_items
from xrec_trainer.cases import Ranker
from xrec_trainer.dataset import Log
from xrec_trainer.extras import load

EXTRA = "baselines"


def als(
    log: Log,
    train_mask: NDArray[np.bool_],
    *,
    factors: int = 128,
    regularization: float = 10.0,
    confidence: float = 10.0,
    iterations: int = 15,
    seed: int = 1,
    history_half_life_days: float | None = None,
    half_life_days: float = 30.0,
) -> Ranker:
    """Rank by the product of factors that fit who had what (Hu, Koren and Volinsky, ICDM 2008; library ``implicit``).

    What a user had weighs ``confidence``, the rest 1. Each history is folded in: the least-squares solution of its
    factors with those of the items fixed, so users of training and others are treated alike. One thread, so the same
    seed gives the same factors. Raises UsageError ``usage.extra_missing`` without the library.
    """
    library, limits = load("implicit.cpu.als", EXTRA), load("threadpoolctl", EXTRA)
    matrix = users_by_items(log, train_mask)
    is_known = np.diff(matrix.tocsc().indptr) > 0
    with limits.threadpool_limits(1, "blas"):
        model = library.AlternatingLeastSquares(
            factors=factors,
            regularization=regularization,
            alpha=confidence,
            iterations=iterations,
            num_threads=1,
            random_state=seed,
        )
        model.fit(matrix, show_progress=False)

    def fold_in(known: sparse.csr_matrix) -> NDArray[np.float32]:
        folded: NDArray[np.float32] = model.recalculate_user(np.arange(known.shape[0]), known)
        return folded

    def score(histories: sparse.csr_matrix, users: NDArray[np.int32]) -> NDArray[np.float32]:
        return factor_scores(histories, model.item_factors, is_known, fold_in)

    return ranker(log, train_mask, score, history_half_life_days=history_half_life_days, half_life_days=half_life_days)
