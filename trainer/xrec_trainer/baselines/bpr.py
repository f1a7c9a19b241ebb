"""BPR: factors of users and items that rank what a user had before what not."""

# D factors, of which the last is the item's own bias

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from xrec_trainer.baselines.scoring import factor_scores, ranker, users_by_items
from xrec_trainer.cases import Ranker
from xrec_trainer.dataset import Log
from xrec_trainer.extras import load

EXTRA = "baselines"


def bpr(
    log: Log,
    train_mask: NDArray[np.bool_],
    *,
    factors: int = 64,
    learning_rate: float = 0.05,
    regularization: float = 0.01,
    iterations: int = 300,
    seed: int = 1,
    half_life_days: float = 30.0,
) -> Ranker:
    """Rank by the product of factors learned from pairs (BPR: Rendle et al., UAI 2009; library ``implicit``).

    Each history is folded in as the mean factors of its items, so users of training and others are treated alike; on
    Beauty and LastFM this ranks validation better than the factors that were learned for the users
    (benchmarks/results/baselines.txt). One thread, so the same seed gives the same factors. Raises UsageError
    ``usage.extra_missing`` without the library.
    """
    library = load("implicit.cpu.bpr", EXTRA)
    matrix = users_by_items(log, train_mask)
    is_known = np.diff(matrix.tocsc().indptr) > 0
    model = library.BayesianPersonalizedRanking(
        factors=factors,
        learning_rate=learning_rate,
        regularization=regularization,
        iterations=iterations,
        num_threads=1,
        random_state=seed,
    )
    model.fit(matrix, show_progress=False)

    def fold_in(known: sparse.csr_matrix) -> NDArray[np.float32]:
        sizes = np.maximum(np.diff(known.indptr), 1)
        folded: NDArray[np.float32] = known @ model.item_factors / sizes[:, None]  # (c, N) @ (N, D) -> (c, D)
        folded[:, -1] = 1.0
        return folded

    def score(histories: sparse.csr_matrix, users: NDArray[np.int32]) -> NDArray[np.float32]:
        return factor_scores(histories, model.item_factors, is_known, fold_in)

    return ranker(log, train_mask, score, history_half_life_days=None, half_life_days=half_life_days)
