"""What an item gains for being popular now, the same for everyone: the prior of the bundle's scores.

The model learns from the whole log and so knows an item's popularity over all of it. What sells this week is a bias
that moves with time (Koren, "Collaborative Filtering with Temporal Dynamics", KDD 2009); it is taken from the end of
the training part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xrec_trainer.dataset import Log, decayed_popularity


@dataclass(frozen=True)
class Trend:
    """An item gains ``weight * log1p(decayed count)``; an event counts ``2 ** (-age / half life)``."""

    weight: float
    half_life_days: float


def trend_prior(log: Log, train_mask: NDArray[np.bool_], trend: Trend | None) -> Tensor:
    """Return the prior at the end of the events of ``train_mask`` (E,): (N,) float32, zero without a trend."""
    if trend is None:
        return torch.zeros(log.item_count)
    counts = decayed_popularity(log.item[train_mask], log.at_ms[train_mask], log.item_count, trend.half_life_days)
    return torch.from_numpy((trend.weight * np.log1p(counts)).astype(np.float32))
