"""ItemKNN: items whose users are those of the history's items."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from xrec_trainer.baselines.nearest import nearest
from xrec_trainer.baselines.scoring import ranker, users_by_items, votes
from xrec_trainer.cases import Ranker
from xrec_trainer.dataset import Log


def item_knn(
    log: Log,
    train_mask: NDArray[np.bool_],
    *,
    neighbours: int = 200,
    shrinkage: float = 10.0,
    history_half_life_days: float | None = None,
    half_life_days: float = 30.0,
) -> Ranker:
    """Rank by the summed cosine of an item's users with those of the history's items.

    Item-based top-n (Deshpande and Karypis, TOIS 2004): ``cos(i, j) = both / (sqrt(users_i users_j) + shrinkage)``,
    each item of the history votes for its nearest ``neighbours``, never for itself. With ``history_half_life_days`` a
    vote is worth ``2 ** (-age / half life)`` of the item's last event.
    """
    by_item = users_by_items(log, train_mask).T.tocsr()
    similarity = nearest(by_item, by_item, np.arange(log.item_count, dtype=np.int32), neighbours, shrinkage)

    def score(histories: sparse.csr_matrix, users: NDArray[np.int32]) -> NDArray[np.float32]:
        return votes(histories @ similarity)  # (c, N) @ (N, N) -> (c, N)

    return ranker(log, train_mask, score, history_half_life_days=history_half_life_days, half_life_days=half_life_days)
