"""UserKNN: what the users had whose items are those of the history."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from xrec_trainer.baselines.nearest import nearest
from xrec_trainer.baselines.scoring import ranker, users_by_items, votes
from xrec_trainer.cases import Ranker
from xrec_trainer.dataset import Log


def user_knn(
    log: Log,
    train_mask: NDArray[np.bool_],
    *,
    neighbours: int = 200,
    shrinkage: float = 10.0,
    history_half_life_days: float | None = None,
    half_life_days: float = 30.0,
) -> Ranker:
    """Rank by the summed cosine of the users nearest to the history who had the item.

    User-based collaborative filtering (Herlocker, Konstan, Borchers and Riedl, SIGIR 1999) on who had what: the history
    is compared with what each user had in training, the nearest ``neighbours`` vote, a user never for itself.
    """
    by_user = users_by_items(log, train_mask)

    def score(histories: sparse.csr_matrix, users: NDArray[np.int32]) -> NDArray[np.float32]:
        similarity = nearest(histories, by_user, users, neighbours, shrinkage)
        return votes(similarity @ by_user)  # (c, U) @ (U, N) -> (c, N)

    return ranker(log, train_mask, score, history_half_life_days=history_half_life_days, half_life_days=half_life_days)
