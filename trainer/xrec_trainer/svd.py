"""Item rows to start training from: the leading singular vectors of the user-item matrix.

PureSVD (Cremonesi, Koren and Turrin, "Performance of Recommender Algorithms on Top-N Recommendation Tasks", RecSys
2010). A model that starts here has only to improve on it; one that starts from noise must find it first.
"""

# U users, N items, D width

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import svds
from torch import Tensor

from xrec_trainer.baselines import users_by_items
from xrec_trainer.dataset import Log

ENTRY_SIZE = 0.05
"""The root mean square of the rows' entries; small beside 1, as for other initial embeddings."""


def svd_rows(log: Log, train_mask: NDArray[np.bool_], width: int) -> Tensor:
    """Return (N, D) float32 from the events of ``train_mask`` (E,); columns beyond the matrix's rank are zero."""
    matrix = users_by_items(log, train_mask)
    rows = np.zeros((log.item_count, width), dtype=np.float32)
    rank = min(width, min(matrix.shape) - 1)
    if rank > 0:
        _, strength, vectors = svds(matrix, k=rank, v0=np.ones(min(matrix.shape), dtype=np.float32))
        strongest_first = vectors[np.argsort(-strength)]
        sign = np.sign(strongest_first.sum(axis=1, keepdims=True))  # a singular vector has no sign of its own
        rows[:, :rank] = (strongest_first * np.where(sign == 0, 1, sign)).T
    return torch.from_numpy(rows * np.float32(ENTRY_SIZE * log.item_count**0.5))
