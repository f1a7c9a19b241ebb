"""The nearest lines of a matrix by cosine, which both neighbourhood methods need."""

# A lines asked (a at a time), O other lines, F columns

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from xrec_trainer.baselines.scoring import best_rows, lines_at_a_time


def nearest(
    asked: sparse.csr_matrix,
    others: sparse.csr_matrix,
    own: NDArray[np.int32],
    neighbours: int,
    shrinkage: float,
) -> sparse.csr_matrix:
    """Return for each line of ``asked`` (A, F) its ``neighbours`` most alike in ``others`` (O, F), as (A, O).

    ``cos(a, o) = a'o / (|a| |o| + shrinkage)``; 0 is no likeness, and ties go to the lower. A line is not its own
    neighbour: ``own`` (A,) names where it stands in ``others``.
    """
    columns, lengths, other_lengths = others.T.tocsr(), _lengths(asked), _lengths(others)
    parts = [sparse.csr_matrix((0, others.shape[0]), dtype=np.float32)]
    step = lines_at_a_time(others.shape[0])
    for begin in range(0, asked.shape[0], step):
        cosine = (asked[begin : begin + step] @ columns).toarray()  # (a, F) @ (F, O) -> (a, O)
        cosine /= np.maximum(np.outer(lengths[begin : begin + step], other_lengths) + shrinkage, 1e-12)
        cosine[np.arange(len(cosine)), own[begin : begin + step]] = 0.0
        cosine[cosine == 0] = -np.inf
        best = best_rows(cosine, min(neighbours, others.shape[0]))
        line, place = np.nonzero(best >= 0)
        likeness = cosine[line, best[line, place]]
        parts.append(sparse.csr_matrix((likeness, (line, best[line, place])), shape=cosine.shape, dtype=np.float32))
    return sparse.vstack(parts, format="csr")


def _lengths(matrix: sparse.csr_matrix) -> NDArray[np.float32]:
    return np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1), dtype=np.float32).ravel())
