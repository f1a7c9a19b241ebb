"""What an item's row shares with the items that stand near it in histories: rare items learn from their neighbours.

A warm item's row is its own embedding plus the weighted rows of its nearest items, one step of a graph convolution as
LightGCN takes it (He et al., SIGIR 2020) over the item graph of SR-GNN (Wu et al., AAAI 2019: items that follow each
other are joined), with rows of their own for what is shared. Only training knows of it: its end adds the shared part to
the embeddings, so that the run, the bundle and the device hold one row an item as ever.
"""

# W warm items, K neighbours of an item, E events, D width

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from xrec_trainer.dataset import Log

REACH = 3
"""Events further apart than this many steps of a history are no neighbours."""


def nearest_items(log: Log, train_mask: NDArray[np.bool_], warm: int, count: int) -> sparse.csr_matrix:
    """Return (W, W) float32 with up to ``count`` entries a row: how near the items stand in the histories of training.

    A pair of events ``d`` steps apart counts ``1 / d``; an entry is the sum over all pairs divided by the root of the
    product of both items' sums, as in the normalised adjacency of a graph convolution (Kipf and Welling, ICLR 2017).
    """
    learned = np.flatnonzero(train_mask & (log.item < warm))
    items, users = log.item[learned], log.user[learned]
    graph = sparse.csr_matrix((warm, warm), dtype=np.float32)
    for steps in range(1, REACH + 1):
        left, right = items[:-steps], items[steps:]
        joined = (users[:-steps] == users[steps:]) & (left != right)
        weight = np.full(int(joined.sum()), 1 / steps, dtype=np.float32)
        graph = graph + sparse.csr_matrix((weight, (left[joined], right[joined])), shape=graph.shape)
    graph = sparse.csr_matrix(graph + graph.T)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    root = sparse.diags((1 / np.sqrt(np.where(degree > 0, degree, 1))).astype(np.float32))
    return _strongest(sparse.csr_matrix(root @ graph @ root), count)


def _strongest(graph: sparse.csr_matrix, count: int) -> sparse.csr_matrix:
    """Return the matrix with the ``count`` largest entries of each row; of equal ones the first."""
    row = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    order = np.lexsort((graph.indices, -graph.data, row))
    kept = order[np.arange(len(row)) - graph.indptr[row] < count]
    return sparse.csr_matrix((graph.data[kept], (row[kept], graph.indices[kept])), shape=graph.shape)


class SharedRows(nn.Module):
    """Rows that items share with their neighbours, learned beside their own embeddings."""

    def __init__(self, near: sparse.csr_matrix, width: int) -> None:
        super().__init__()
        self.near, self.near_of = near, sparse.csr_matrix(near.T)
        self.rows = nn.Parameter(torch.randn(near.shape[0], width) * 0.02)

    def forward(self) -> Tensor:
        """Return what each warm item takes over, (W, D)."""
        shared: Tensor = _Product.apply(self.rows, self.near, self.near_of)  # type: ignore[no-untyped-call]
        return shared


class _Product(torch.autograd.Function):
    """A constant matrix (W, W) times rows (W, D); the gradient is its transpose, kept ready, times the rows' own."""

    @staticmethod
    def forward(context: Any, rows: Tensor, near: sparse.csr_matrix, near_of: sparse.csr_matrix) -> Tensor:
        context.near_of = near_of
        return torch.from_numpy(near @ rows.numpy())

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return torch.from_numpy(context.near_of @ gradient.numpy()), None, None
