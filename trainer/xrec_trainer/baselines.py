"""Rank by the plain methods that every report shows beside the model.

Each constructor learns from the events of ``train_mask`` (E,) and gives a ranker. All of them rank only rows below N,
leave out the history where the cases ask for it, give ties to the lower row, and fall back to popularity where they
know nothing. To learn from some event types only, narrow ``train_mask``.
"""

# C cases (c at a time), N items, M items with a model, k places, U users

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from xrec_sdk.history import DAY_MS, RepeatRule

from xrec_trainer.cases import Cases, Ranker
from xrec_trainer.dataset import Log, decayed_popularity, repeats

SCORES_AT_A_TIME = 4_000_000
Scorer = Callable[[sparse.csr_matrix], NDArray[np.float32]]
"""Gives (c, N) scores for (c, N) weighted histories; NaN where it has nothing to say."""


def popularity(log: Log, train_mask: NDArray[np.bool_], *, half_life_days: float = 30.0) -> Ranker:
    """Rank by events, each worth ``2 ** (-age / half life)`` at the end of training; the same list for everyone."""
    order = _popular_order(log, train_mask, half_life_days)
    nothing = np.zeros(0, dtype=np.int32)

    def rank(cases: Cases, k: int) -> NDArray[np.int32]:
        top = np.full((len(cases), k), -1, dtype=np.int32)
        for case in range(len(cases)):
            seen = log.item[cases.history(case)] if cases.excludes_seen else nothing
            _fill(top[case], nothing, order, seen)
        return top

    return rank


def buy_again(
    log: Log,
    train_mask: NDArray[np.bool_],
    *,
    events: tuple[str, ...] | None = None,
    repeat_half_life_days: float = 30.0,
    half_life_days: float = 30.0,
) -> Ranker:
    """Rank what the user had before by decayed count, then the popular.

    Frequency and recency of repeat consumption (Anderson et al., WWW 2014), the rule of ``repeat_bias``. Only events
    named in ``events`` count (default: all). Where seen items are left out it equals ``popularity``.
    """
    order = _popular_order(log, train_mask, half_life_days)
    names = log.vocabulary.events if events is None else events
    rule = RepeatRule(1.0, int(repeat_half_life_days * DAY_MS), names)

    def rank(cases: Cases, k: int) -> NDArray[np.int32]:
        top = np.full((len(cases), k), -1, dtype=np.int32)
        for case in range(len(cases)):
            history = cases.history(case)
            seen = log.item[history]
            rows, gains = repeats(log, history, int(cases.now_ms[case]), rule)
            first = rows[:0] if cases.excludes_seen else rows[np.lexsort((rows, -gains))][:k]
            _fill(top[case], first, order, seen if cases.excludes_seen else first)
        return top

    return rank


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
    similarity = _nearest(users_by_items(log, train_mask), neighbours, shrinkage)

    def score(histories: sparse.csr_matrix) -> NDArray[np.float32]:
        scores = (histories @ similarity).toarray()  # (c, N) @ (N, N) -> (c, N)
        scores[scores == 0] = np.nan
        return np.asarray(scores, dtype=np.float32)

    return _ranker(log, score, _popular_order(log, train_mask, half_life_days), history_half_life_days)


def ease(
    log: Log,
    train_mask: NDArray[np.bool_],
    *,
    regularization: float = 200.0,
    max_items: int = 10_000,
    history_half_life_days: float | None = None,
    half_life_days: float = 30.0,
) -> Ranker:
    """Rank by the linear item-to-item model with a zero diagonal, in closed form (EASE: Steck, WWW 2019).

    ``P = (X'X + regularization I)^-1``, ``B_ij = -P_ij / P_jj``. It holds a dense M x M matrix, so only the
    ``max_items`` most used items have a model (10,000 take 400 MB, and 1.3 GB while they are made); the others come
    after them by popularity.
    """
    matrix = users_by_items(log, train_mask)
    users_of = np.asarray(matrix.sum(axis=0)).ravel()
    chosen = np.sort(np.argsort(-users_of, kind="stable")[:max_items])
    weights = _ease_weights(matrix[:, chosen].tocsc(), regularization)

    def score(histories: sparse.csr_matrix) -> NDArray[np.float32]:
        scores = np.full(histories.shape, np.nan, dtype=np.float32)
        known = histories[:, chosen]
        has_model = np.diff(known.indptr) > 0
        scores[np.ix_(has_model, chosen)] = known[has_model] @ weights  # (c, M) @ (M, M) -> (c, M)
        return scores

    return _ranker(log, score, _popular_order(log, train_mask, half_life_days), history_half_life_days)


BASELINES: dict[str, Callable[..., Ranker]] = {
    "popularity": popularity,
    "buy_again": buy_again,
    "item_knn": item_knn,
    "ease": ease,
}
"""Constructors by name: ``BASELINES[name](log, train_mask, **options)`` gives a ranker."""


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


def _popular_order(log: Log, train_mask: NDArray[np.bool_], half_life_days: float) -> NDArray[np.int32]:
    counts = decayed_popularity(log.item[train_mask], log.at_ms[train_mask], log.item_count, half_life_days)
    return np.argsort(-counts, kind="stable").astype(np.int32)


def _fill(
    places: NDArray[np.int32], first: NDArray[np.int32], order: NDArray[np.int32], skip: NDArray[np.int32]
) -> None:
    # the first k + len(skip) of the order hold k that are not skipped, if there are so many
    rest = order[: len(places) + len(skip)]
    rows = np.concatenate([first, rest[~np.isin(rest, skip)]])[: len(places)]
    places[: len(rows)] = rows


def users_by_items(log: Log, train_mask: NDArray[np.bool_]) -> sparse.csr_matrix:
    """Return who had which item in the events of ``train_mask``, (U, N) of ones."""
    user, item = log.user[train_mask], log.item[train_mask]
    matrix = sparse.csr_matrix(
        (np.ones(len(user), dtype=np.float32), (user, item)), shape=(len(log.user_start) - 1, log.item_count)
    )
    matrix.data[:] = 1.0
    return matrix


def _nearest(matrix: sparse.csr_matrix, neighbours: int, shrinkage: float) -> sparse.csr_matrix:
    items = matrix.shape[1]
    by_item, root = matrix.T.tocsr(), np.sqrt(np.asarray(matrix.sum(axis=0)).ravel())
    parts = []
    step = max(1, SCORES_AT_A_TIME // max(1, items))
    for begin in range(0, items, step):
        own = np.arange(begin, min(begin + step, items))
        both = (by_item[own] @ matrix).toarray()  # (c, U) @ (U, N) -> (c, N)
        both[own - begin, own] = 0.0
        cosine = both / np.maximum(np.outer(root[own], root) + shrinkage, 1e-12)
        cosine[cosine == 0] = -np.inf
        rows = best_rows(cosine.astype(np.float32), min(neighbours, items))
        line, place = np.nonzero(rows >= 0)
        columns = rows[line, place]
        parts.append(
            sparse.csr_matrix((cosine[line, columns], (line, columns)), shape=(len(own), items), dtype=np.float32)
        )
    return sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix((0, 0), dtype=np.float32)


def _ease_weights(matrix: sparse.csc_matrix, regularization: float) -> NDArray[np.float32]:
    items = matrix.shape[1]
    gram = np.empty((items, items), dtype=np.float32)
    transposed = matrix.T.tocsr()
    step = max(1, SCORES_AT_A_TIME // max(1, items))
    for begin in range(0, items, step):
        gram[begin : begin + step] = (transposed[begin : begin + step] @ matrix).toarray()
    gram[np.diag_indices(items)] += regularization
    factor = torch.linalg.cholesky(torch.from_numpy(gram))
    del gram
    inverse = _inverse(factor)
    inverse /= -inverse.diagonal().clone()  # column j by -P_jj
    inverse.fill_diagonal_(0.0)
    return np.asarray(inverse.numpy(), dtype=np.float32)


def _inverse(factor: torch.Tensor, step: int = 1024) -> torch.Tensor:
    # (L L')^-1 = W'W with W = L^-1, by blocks of columns: several times faster than torch.cholesky_inverse on a CPU
    size = len(factor)
    root = torch.zeros_like(factor)
    for begin in range(0, size, step):
        unit = torch.eye(size - begin, min(step, size - begin))
        root[begin:, begin : begin + step] = torch.linalg.solve_triangular(factor[begin:, begin:], unit, upper=False)
    inverse = torch.empty_like(factor)
    for begin in range(0, size, step):
        end = min(begin + step, size)
        block = root[begin:, :end].T @ root[begin:, begin:end]
        inverse[:end, begin:end] = block
        inverse[begin:end, :end] = block.T
    return inverse


def _histories(log: Log, cases: Cases, begin: int, end: int, half_life_days: float | None) -> sparse.csr_matrix:
    # (c, N): one, or what the item's last event is worth now
    offsets = cases.history_offsets[begin : end + 1]
    index = cases.history_index[offsets[0] : offsets[-1]]
    case = np.repeat(np.arange(end - begin, dtype=np.int64), np.diff(offsets))
    # the first in reverse is the last in time
    keys, first = np.unique((case * log.item_count + log.item[index])[::-1], return_index=True)
    last = index[::-1][first]
    worth = np.ones(len(keys), dtype=np.float32)
    if half_life_days is not None:
        age_days = np.maximum(cases.now_ms[begin + keys // log.item_count] - log.at_ms[last], 0) / DAY_MS
        # never zero: a zero would no longer mark the item as seen
        worth = np.maximum(np.exp2(-age_days / half_life_days), 1e-30).astype(np.float32)
    place = (keys // log.item_count, keys % log.item_count)
    return sparse.csr_matrix((worth, place), shape=(end - begin, log.item_count))


def _ranker(log: Log, score: Scorer, order: NDArray[np.int32], half_life_days: float | None) -> Ranker:
    popular_place = np.empty(log.item_count, dtype=np.float32)
    popular_place[order] = np.arange(log.item_count, dtype=np.float32)

    def rank(cases: Cases, k: int) -> NDArray[np.int32]:
        top = np.full((len(cases), k), -1, dtype=np.int32)
        step = max(1, SCORES_AT_A_TIME // max(1, log.item_count))
        for begin in range(0, len(cases), step):
            end = min(begin + step, len(cases))
            histories = _histories(log, cases, begin, end, half_life_days)
            scores = score(histories)
            # what has no score stands below all that has one, by popularity
            scores = np.where(np.isnan(scores), -1e6 - popular_place, scores).astype(np.float32)
            if cases.excludes_seen:
                scores[histories.nonzero()] = -np.inf
            top[begin:end] = best_rows(scores, k)
        return top

    return rank
