"""From scores to lists: histories as a matrix, the best rows of each line, the popular behind what has a score."""

# C cases (c at a time), N items, U users

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from xrec_sdk.history import DAY_MS

from xrec_trainer.cases import Cases, Ranker
from xrec_trainer.dataset import Log, decayed_popularity

SCORES_AT_A_TIME = 4_000_000
Scorer = Callable[[sparse.csr_matrix, NDArray[np.int32]], NDArray[np.float32]]
"""Gives (c, N) scores for (c, N) weighted histories and their users (c,); NaN where it has nothing to say."""


def lines_at_a_time(width: int) -> int:
    """Return how many lines of ``width`` scores are held at once."""
    return max(1, SCORES_AT_A_TIME // max(1, width))


def ranker(
    log: Log,
    train_mask: NDArray[np.bool_],
    score: Scorer,
    *,
    history_half_life_days: float | None,
    half_life_days: float,
) -> Ranker:
    """Return the ranker of a scorer: by score, then what has none by popularity."""
    popular_place = np.empty(log.item_count, dtype=np.float32)
    popular_place[popular_order(log, train_mask, half_life_days)] = np.arange(log.item_count, dtype=np.float32)

    def rank(cases: Cases, k: int) -> NDArray[np.int32]:
        top = np.full((len(cases), k), -1, dtype=np.int32)
        step = lines_at_a_time(log.item_count)
        for begin in range(0, len(cases), step):
            end = min(begin + step, len(cases))
            histories = _histories(log, cases, begin, end, history_half_life_days)
            scores = score(histories, cases.user[begin:end])
            # what has no score stands below all that has one, by popularity
            scores = np.where(np.isnan(scores), -1e6 - popular_place, scores).astype(np.float32)
            if cases.seen_events:
                for case in range(begin, end):
                    scores[case - begin, cases.left_out(log, case)] = -np.inf
            top[begin:end] = best_rows(scores, k)
        return top

    return rank


def _histories(log: Log, cases: Cases, begin: int, end: int, half_life_days: float | None) -> sparse.csr_matrix:
    # (c, N): one, or what the item's last event is worth now
    offsets = cases.history_offsets[begin : end + 1]
    index = cases.history_index[offsets[0] : offsets[-1]]
    case = np.repeat(np.arange(end - begin, dtype=np.int64), np.diff(offsets))
    is_item = log.item[index] >= 0
    index, case = index[is_item], case[is_item]
    # the first in reverse is the last in time
    keys, first = np.unique((case * log.item_count + log.item[index])[::-1], return_index=True)
    last = index[::-1][first]
    worth = np.ones(len(keys), dtype=np.float32)
    if half_life_days is not None:
        age_days = np.maximum(cases.now_ms[begin + keys // log.item_count] - log.at_ms[last], 0) / DAY_MS
        worth = np.exp2(-age_days / half_life_days).astype(np.float32)
    place = (keys // log.item_count, keys % log.item_count)
    return sparse.csr_matrix((worth, place), shape=(end - begin, log.item_count))


def users_by_items(log: Log, train_mask: NDArray[np.bool_]) -> sparse.csr_matrix:
    """Return who had which item in the events of ``train_mask``, (U, N) of ones."""
    user, item = log.user[train_mask], log.item[train_mask]
    matrix = sparse.csr_matrix(
        (np.ones(len(user), dtype=np.float32), (user, item)), shape=(len(log.user_start) - 1, log.item_count)
    )
    matrix.data[:] = 1.0
    return matrix


def votes(product: sparse.csr_matrix) -> NDArray[np.float32]:
    """Return the summed votes (c, N) as scores: NaN where nothing voted."""
    scores: NDArray[np.float32] = product.toarray().astype(np.float32, copy=False)
    scores[scores == 0] = np.nan
    return scores


def factor_scores(
    histories: sparse.csr_matrix,
    items: NDArray[np.float32],
    is_known: NDArray[np.bool_],
    fold_in: Callable[[sparse.csr_matrix], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Return the products (c, N) of item factors (N, D) with those that ``fold_in`` gives of histories, (c, D).

    Items that training did not know have no score and count in no history.
    """
    known = sparse.csr_matrix(histories.multiply(is_known), dtype=np.float32)
    known.eliminate_zeros()
    scores = np.asarray(fold_in(known) @ items.T, dtype=np.float32)
    scores[:, ~is_known] = np.nan
    scores[np.diff(known.indptr) == 0] = np.nan
    return scores


def best_rows(scores: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    """Return the k best columns of each line, (c, N) -> (c, k), best first, ties to the lower, -1 for -inf or none."""
    count, items = scores.shape
    width = min(k, items)
    top = np.full((count, k), -1, dtype=np.int32)
    if count == 0 or width == 0:
        return top
    last = np.partition(scores, items - width, axis=1)[:, items - width, None]
    above, level = scores > last, scores == last
    missing = width - above.sum(axis=1, keepdims=True)
    chosen = above | (level & (np.cumsum(level, axis=1, dtype=np.int32) <= missing))
    rows = np.nonzero(chosen)[1].reshape(count, width)
    values = np.take_along_axis(scores, rows, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    rows, values = np.take_along_axis(rows, order, axis=1), np.take_along_axis(values, order, axis=1)
    top[:, :width] = np.where(np.isneginf(values), -1, rows)
    return top


def popular_order(log: Log, train_mask: NDArray[np.bool_], half_life_days: float) -> NDArray[np.int32]:
    """Return all rows, (N,), the most popular first."""
    counts = decayed_popularity(log.item[train_mask], log.at_ms[train_mask], log.item_count, half_life_days)
    return np.argsort(-counts, kind="stable").astype(np.int32)


def fill(
    places: NDArray[np.int32], first: NDArray[np.int32], order: NDArray[np.int32], skip: NDArray[np.int32]
) -> None:
    """Write into ``places`` (k,) the rows of ``first``, then those of ``order`` that are not in ``skip``."""
    # the first k + len(skip) of the order hold k that are not skipped, if there are so many
    rest = order[: len(places) + len(skip)]
    rows = np.concatenate([first, rest[~np.isin(rest, skip)]])[: len(places)]
    places[: len(rows)] = rows
