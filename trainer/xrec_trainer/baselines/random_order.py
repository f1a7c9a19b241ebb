"""Random: an order by chance for each user, below which nothing should fall."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xrec_trainer.baselines.scoring import fill
from xrec_trainer.cases import Cases, Ranker
from xrec_trainer.dataset import Log


def random_order(log: Log, train_mask: NDArray[np.bool_], *, seed: int = 1) -> Ranker:
    """Rank by chance; a user gets the same order whatever else is asked. Nothing is learned from ``train_mask``."""
    nothing = np.zeros(0, dtype=np.int32)

    def rank(cases: Cases, k: int) -> NDArray[np.int32]:
        top = np.full((len(cases), k), -1, dtype=np.int32)
        for case in range(len(cases)):
            order = np.random.default_rng([seed, int(cases.user[case])]).permutation(log.item_count).astype(np.int32)
            fill(top[case], nothing, order, cases.left_out(log, case))
        return top

    return rank
