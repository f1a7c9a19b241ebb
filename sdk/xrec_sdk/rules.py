"""Choose the list out of the best rows: a cap per category and diversity, greedily, best first."""

# M rows of the pool, D width, k answers

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray


def cap_categories(categories: NDArray[np.int32], k: int, cap: int) -> list[int]:
    """Return the first ``k`` places of which no category has more than ``cap``; items of no category (-1) are free."""
    chosen: list[int] = []
    counts: Counter[int] = Counter()
    for place, category in enumerate(categories.tolist()):
        if len(chosen) == k:
            break
        if category < 0 or counts[category] < cap:
            counts[category] += 1
            chosen.append(place)
    return chosen


def diversify(
    scores: NDArray[np.float32],
    vectors: NDArray[np.float32],
    categories: NDArray[np.int32],
    k: int,
    cap: int | None,
    diversity: float,
) -> list[int]:
    """Return ``k`` places by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998), ties to the first place.

    Each step takes the place of the largest ``(1 - diversity) * relevance - diversity * similarity``: relevance is the
    score (M,) on a scale from 0 to 1, similarity the largest cosine with an item taken before; vectors are (M, D).
    """
    pool = len(scores)
    spread = float(scores[0] - scores[-1]) if pool else 0.0
    # Equal scores, as with an empty history, are in order of popularity: then the place stands for the relevance.
    relevance = (scores - scores[-1]) / spread if spread > 0 else 1 - np.arange(pool, dtype=np.float32) / max(pool, 1)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = vectors / np.maximum(lengths, np.float32(1e-12))
    similarity = np.zeros(pool, dtype=np.float32)
    is_free = np.ones(pool, dtype=np.bool_)
    counts: Counter[int] = Counter()
    chosen: list[int] = []
    if cap == 0:
        is_free &= categories < 0
    while len(chosen) < k and is_free.any():
        gain = np.where(is_free, (1 - diversity) * relevance - diversity * similarity, -np.inf)
        place = int(gain.argmax())
        chosen.append(place)
        is_free[place] = False
        cosine = directions @ directions[place]
        similarity = cosine if len(chosen) == 1 else np.maximum(similarity, cosine)
        category = int(categories[place])
        counts[category] += 1
        if cap is not None and category >= 0 and counts[category] >= cap:
            is_free &= categories != category
    return chosen
