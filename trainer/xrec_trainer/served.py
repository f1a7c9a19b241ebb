"""What would be served at moments of users, the features of it that the ranker reads, and what the user then did."""

# C moments, n examples (a moment and an item of its lists), D width, N items

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from xrec_sdk.context import context_vector
from xrec_sdk.history import last_of_each

from xrec_trainer.cases import Cases, at_moments, case_bias
from xrec_trainer.dataset import Log
from xrec_trainer.ranker import Examples
from xrec_trainer.ranking import CASES_AT_A_TIME, user_vectors
from xrec_trainer.run import Run

BIAS_LIMIT = 1000.0
"""What a bias counts at most for the ranker, so that a forbidden item, which has -inf, gives no NaN."""
LOGIT_LIMIT = 16.0
"""Beyond this a float32 probability is 0 or 1, which nothing is."""


@dataclass(frozen=True)
class Served:
    """Lists at moments: ``case_of`` (n,) int64, ``row`` (n,) int64, each pair once, and whether the user took it.

    ``place_all`` and ``place_new`` (n,) int64 are the item's place from 0 in the list with and without what the user
    had, -1 where it is not in it. ``pairs`` (n, 3) float32 are the score without prior and bias, the prior, the bias.
    ``users`` (C, D) and ``contexts`` (C, 5) belong to the moments.
    """

    cases: Cases
    users: Tensor
    contexts: Tensor
    case_of: Tensor
    row: Tensor
    place_all: NDArray[np.int64]
    place_new: NDArray[np.int64]
    pairs: Tensor
    labels: NDArray[np.float64]

    @property
    def user(self) -> NDArray[np.int32]:
        """The user of each example, (n,)."""
        user: NDArray[np.int32] = self.cases.user[self.case_of.numpy()]
        return user


def item_features(run: Run) -> Tensor:
    """Return what the ranker knows of an item besides its row, (N, 2) float32: log of its training events and price.

    An item without a price counts as one of the mean log price.
    """
    log, entries = run.log, run.catalogue.entries
    counts = np.bincount(log.item[run.study.train_mask], minlength=log.item_count)
    prices = np.array([_price(entry.get("price")) for entry in entries])
    is_priced = ~np.isnan(prices)
    logs = np.zeros(len(prices))
    logs[is_priced] = np.log1p(prices[is_priced])
    logs[~is_priced] = logs[is_priced].mean() if is_priced.any() else 0
    return torch.from_numpy(np.stack([np.log1p(counts), logs], axis=1).astype(np.float32))


def _price(found: object) -> float:
    is_number = isinstance(found, (int, float)) and not isinstance(found, bool) and 0 <= found < float("inf")
    return float(found) if is_number else float("nan")  # type: ignore[arg-type]


def context_features(contexts: Tensor, device_count: int) -> Tensor:
    """Return (C, device_count + 5) float32: the device as one of many, the hour as a point of a circle, logs of counts.

    ``contexts`` are (C, 5), of xrec_sdk.context.
    """
    device, hour, *amounts = contexts.unbind(dim=1)
    angle = hour * (2 * np.pi / 24)
    known = device[:, None] == torch.arange(device_count)
    return torch.cat(
        [known.float(), torch.stack([angle.sin(), angle.cos(), *(amount.log1p() for amount in amounts)], dim=1)], dim=1
    )


def serve(run: Run, start_ms: int, last_ms: int, horizon_ms: int, *, moments: int, depth: int, seed: int) -> Served:
    """List the best ``depth`` items, with and without what the user had, at random moments of [start, last].

    Every user is asked as often as every other, some not at all where there are more users than ``moments``.
    """
    random = np.random.default_rng(seed)
    users = np.tile(np.arange(len(run.log.users)), max(1, moments // len(run.log.users)))
    if len(users) > moments:
        users = np.sort(random.choice(users, size=moments, replace=False))
    now_ms = random.integers(start_ms, last_ms + 1, size=len(users))
    targets = frozenset(run.vocabulary.event_codes(run.config.targets))
    cases = at_moments(run.log, users, now_ms, horizon_ms, targets)
    vectors = user_vectors(run.model, run.log, cases)
    contexts = torch.from_numpy(np.stack([_context(run.log, cases, case) for case in range(len(cases))]))
    return _list(run, cases, vectors, contexts, min(depth, run.log.item_count), targets)


def _context(log: Log, cases: Cases, case: int) -> NDArray[np.float32]:
    history = cases.history(case)
    if log.vocabulary.distinct_items:
        history = history[last_of_each(log.item[history])]
    at_ms = log.at_ms[history[-log.vocabulary.max_history :]]
    return context_vector(at_ms, int(cases.device[case]), int(cases.now_ms[case]))


@torch.no_grad()
def _list(run: Run, cases: Cases, users: Tensor, contexts: Tensor, depth: int, targets: frozenset[int]) -> Served:
    items, apart = run.model.items(), replace(cases, seen_events=targets)
    parts = []
    for case in range(len(cases)):
        begin = case - case % CASES_AT_A_TIME
        if case == begin:
            products = users[begin : begin + CASES_AT_A_TIME] @ items.table.T
            scores = products + items.prior
        biases = torch.zeros(len(items.table))
        rows, values = case_bias(run.log, cases, case, run.repeat)
        biases[torch.from_numpy(rows.astype(np.int64))] = torch.from_numpy(values)
        had = apart.left_out(run.log, case)
        new = scores[case - begin].clone()
        new[torch.from_numpy(had.astype(np.int64))] = -torch.inf
        best = (scores[case - begin] + biases).topk(depth).indices.numpy()
        best_new = new.topk(min(depth, len(new) - len(had))).indices.numpy()
        row = np.union1d(best, best_new)
        pairs = torch.stack([products[case - begin][row], items.prior[row], biases[row]], dim=1)
        labels = np.isin(row, cases.answers(case)).astype(np.float64)
        parts.append((np.full(len(row), case), row, _places(row, best), _places(row, best_new), pairs, labels))
    case_of, row, place_all, place_new, pairs, labels = zip(*parts, strict=True)
    return Served(
        cases,
        users,
        contexts,
        torch.from_numpy(np.concatenate(case_of)),
        torch.from_numpy(np.concatenate(row)),
        np.concatenate(place_all),
        np.concatenate(place_new),
        torch.cat(pairs),
        np.concatenate(labels),
    )


def _places(rows: NDArray[np.int64], best: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each of the ascending rows in a list, -1 where it is not in it; all of the list are rows."""
    places = np.full(len(rows), -1, dtype=np.int64)
    places[np.searchsorted(rows, best)] = np.arange(len(best))
    return places


def examples(run: Run, served: Served, features: Tensor) -> Examples:
    """Return what the ranker learns from or is asked; ``features`` (N, 2) are of ``item_features``."""
    return Examples(
        users=torch.cat([served.users, context_features(served.contexts, run.vocabulary.device_count)], dim=1),
        user_of=served.case_of,
        items=torch.cat([run.model.item_table().detach(), features], dim=1),
        item_of=served.row,
        pairs=served.pairs.clamp(-BIAS_LIMIT, BIAS_LIMIT),
        labels=torch.from_numpy(served.labels.astype(np.float32)),
    )
