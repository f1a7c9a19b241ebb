"""Measure top lists: the accuracy of each case, and what the lists cover of the catalogue."""

# C cases, K places of a list, N items

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.errors import UsageError

from xrec_trainer.cases import Cases
from xrec_trainer.dataset import Log

NAMES = ("hr", "recall", "precision", "f1", "ndcg", "mrr")
"""Per-case metrics; at place 10 the key is ``ndcg@10``."""

HISTORY_EDGES = (0, 1, 5, 10, 20, 50)
"""Lower edges of the history-length groups; the first one holds users with no history."""


def hits(top: NDArray[np.int32], cases: Cases) -> NDArray[np.bool_]:
    """Return which places hold a relevant row, (C, K) bool. A row that comes twice counts at its first place only."""
    if top.ndim != 2 or len(top) != len(cases):
        raise UsageError("usage.top_shape", f"found top lists of shape {top.shape}, expected ({len(cases)}, K)")
    width = 1 + max(int(top.max(initial=0)), int(cases.relevant.max(initial=0)))
    case_of = np.repeat(np.arange(len(cases), dtype=np.int64), np.diff(cases.relevant_offsets))
    keys = np.arange(len(cases), dtype=np.int64)[:, None] * width + top
    found = np.isin(keys, case_of * width + cases.relevant) & (top >= 0)
    return found & _is_first(top)


def _is_first(top: NDArray[np.int32]) -> NDArray[np.bool_]:
    order = np.argsort(top, axis=1, kind="stable")
    ordered = np.take_along_axis(top, order, axis=1)
    is_first = np.ones(top.shape, dtype=np.bool_)
    np.put_along_axis(is_first, order[:, 1:], ordered[:, 1:] != ordered[:, :-1], axis=1)
    return is_first


def per_case(top: NDArray[np.int32], cases: Cases, ks: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """Return each metric of NAMES at each k, keyed like ``ndcg@10``, an array (C,) of float64.

    Relevance is binary. Precision divides by k even where a list is shorter; the ideal of NDCG holds
    ``min(k, relevant)`` items (as trec_eval's ndcg_cut); MRR is the reciprocal of the first hit's place, 0 below k.
    A case with no relevant item scores 0.
    """
    if not ks or min(ks) < 1 or max(ks) > top.shape[1]:
        raise UsageError("usage.k", f"found k of {list(ks)}, expected one or more within 1..{top.shape[1]}")
    found = hits(top, cases).astype(np.float64)
    relevant = np.diff(cases.relevant_offsets)
    places = np.arange(1, top.shape[1] + 1)
    discount = 1.0 / np.log2(places + 1)
    ideal = np.concatenate([[0.0], np.cumsum(discount)])
    measured: dict[str, NDArray[np.float64]] = {}
    for k in ks:
        count = found[:, :k].sum(axis=1)
        values = {
            "hr": (count > 0).astype(np.float64),
            "recall": count / np.maximum(relevant, 1),
            "precision": count / k,
            # 2pr / (p + r) with p = count / k and r = count / relevant
            "f1": 2 * count / (k + relevant),
            "ndcg": found[:, :k] @ discount[:k] / ideal[np.clip(relevant, 1, k)],
            "mrr": (found[:, :k] / places[:k]).max(axis=1, initial=0.0),
        }
        measured |= {f"{name}@{k}": values[name] for name in NAMES}
    return measured


def means(measured: Mapping[str, NDArray[np.float64]], keep: NDArray[np.bool_] | None = None) -> dict[str, float]:
    """Return the mean of each metric over the cases where ``keep`` (C,) holds; NaN where there is none."""
    chosen = {name: values if keep is None else values[keep] for name, values in measured.items()}
    return {name: float(values.mean()) if len(values) else float("nan") for name, values in chosen.items()}


def by_group(
    measured: Mapping[str, NDArray[np.float64]], group: NDArray[np.int64] | NDArray[np.int32], labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the means of each group that has cases, in label order, with ``cases`` the size of the group.

    ``group`` (C,) holds positions in ``labels``.
    """
    means_of: dict[str, dict[str, float]] = {}
    for position, label in enumerate(labels):
        keep = group == position
        if keep.any():
            means_of[label] = {"cases": float(keep.sum())} | means(measured, keep)
    return means_of


def device_groups(cases: Cases, log: Log) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Return each case's device as a position, (C,), and the labels; 0 is the unknown device."""
    return cases.device, ("unknown", *log.vocabulary.devices)


def history_groups(cases: Cases, edges: Sequence[int] = HISTORY_EDGES) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return each case's history-length bucket, (C,), and the labels, such as ``1-4`` and ``50+``; 0 are cold users."""
    group = np.searchsorted(edges, np.diff(cases.history_offsets), side="right") - 1
    labels = [str(low) if high == low + 1 else f"{low}-{high - 1}" for low, high in pairwise(edges)]
    return group, (*labels, f"{edges[-1]}+")


def cold_users(cases: Cases) -> NDArray[np.bool_]:
    """Return which cases have no history, (C,) bool."""
    return np.asarray(np.diff(cases.history_offsets) == 0)


def list_traits(
    top: NDArray[np.int32],
    popularity: NDArray[np.float64],
    ks: Sequence[int],
    categories: NDArray[np.int64] | None = None,
) -> dict[str, float]:
    """Return what the lists show of the catalogue at each k; ``popularity`` (N,) is any count of training events.

    ``coverage@k``: share of the N items that stand in one list or more. ``popularity@k``: mean over recommended places
    of the item's share of all training events. ``novelty@k``: mean of ``-log2`` of that share, in bits, smoothed by one
    (Vargas and Castells, RecSys 2011). ``gini@k``: inequality of how often items are shown, 0 even, 1 all on one item.
    ``diversity@k``, where ``categories`` (N,) has codes, -1 for none: the share of a list's pairs that lie in different
    categories, on average (intra-list diversity, Ziegler et al., WWW 2005); items of none have no pair.
    """
    share = popularity / max(float(popularity.sum()), 1e-300)
    surprise = -np.log2((popularity + 1.0) / (popularity.sum() + len(popularity)))
    traits = {}
    for k in ks:
        shown = top[:, :k][top[:, :k] >= 0]
        times = np.bincount(shown, minlength=len(popularity))
        traits[f"coverage@{k}"] = float((times > 0).sum() / len(popularity))
        traits[f"popularity@{k}"] = float(share[shown].mean()) if len(shown) else 0.0
        traits[f"novelty@{k}"] = float(surprise[shown].mean()) if len(shown) else 0.0
        traits[f"gini@{k}"] = _gini(times)
        if categories is not None:
            traits[f"diversity@{k}"] = _diversity(np.where(top[:, :k] >= 0, categories[top[:, :k]], -1))
    return traits


def _diversity(categories: NDArray[np.int64]) -> float:
    """Return the mean over lists (B, k) of the share of pairs of different codes; -1 is in no pair."""
    first, second = np.triu_indices(categories.shape[1], 1)
    is_pair = (categories[:, first] >= 0) & (categories[:, second] >= 0)
    differ = (is_pair & (categories[:, first] != categories[:, second])).sum(axis=1)
    pairs = is_pair.sum(axis=1)
    return float((differ[pairs > 0] / pairs[pairs > 0]).mean()) if pairs.any() else 0.0


def _gini(times: NDArray[np.int64]) -> float:
    count, total = len(times), int(times.sum())
    if total == 0:
        return 0.0
    ranks = np.arange(1, count + 1)
    return float((2 * ranks - count - 1) @ np.sort(times) / (count * total))
