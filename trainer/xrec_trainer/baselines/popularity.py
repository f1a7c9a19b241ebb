"""Popularity: the same list for everyone, by decayed count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xrec_trainer.baselines.scoring import fill, popular_order
from xrec_trainer.cases import Cases, Ranker
from xrec_trainer.dataset import Log


def popularity(log: Log, train_mask: NDArray[np.bool_], *, half_life_days: float = 30.0) -> Ranker:
    """Rank by events, each worth ``2 ** (-age / half life)`` at the end of training; the same list for everyone."""
    order = popular_order(log, train_mask, half_life_days)
    nothing = np.zeros(0, dtype=np.int32)

    def rank(cases: Cases, k: int) -> NDArray[np.int32]:
        top = np.full((len(cases), k), -1, dtype=np.int32)
        for case in range(len(cases)):
            fill(top[case], nothing, order, cases.left_out(log, case))
        return top

    return rank
