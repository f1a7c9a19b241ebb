"""Rank the catalogue for cases with a trained model, in full, as the bundle will."""

# C cases, L events, D width, N items

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from xrec_sdk.history import RepeatRule

from xrec_trainer.cases import Cases, Ranker, case_bias
from xrec_trainer.dataset import Log, encode_case
from xrec_trainer.model import Items, Model

CASES_AT_A_TIME = 256


@torch.no_grad()
def user_vectors(model: Model, log: Log, cases: Cases) -> Tensor:
    """Return the user vector of each case, (C, D); zero where the history is empty. Like lengths go together."""
    model.eval()
    table = model.item_table()
    users = torch.zeros(len(cases), table.shape[1])
    encoded = [encode_case(log, cases.history(case)) for case in range(len(cases))]
    lengths = np.array([len(history) for history in encoded])
    for length in np.unique(lengths[lengths > 0]):
        same = np.flatnonzero(lengths == length)
        for begin in range(0, len(same), CASES_AT_A_TIME):
            group = same[begin : begin + CASES_AT_A_TIME]
            rows, *codes = (
                torch.from_numpy(np.stack([getattr(encoded[case], name) for case in group]).astype(np.int64))
                for name in ("rows", "events", "devices", "gaps")
            )
            users[group] = model.encoder(model.history_rows(rows, table), *codes, last_only=True)
    return users


def model_ranker(model: Model, log: Log, rule: RepeatRule | None = None) -> Ranker:
    """Return the ranker of a model; the repeat rule counts only where seen items may be ranked."""

    def rank(cases: Cases, k: int) -> NDArray[np.int32]:
        return rank_users(user_vectors(model, log, cases), model.items(), log, cases, k, rule)

    return rank


@torch.no_grad()
def rank_users(
    users: Tensor, items: Items, log: Log, cases: Cases, k: int, rule: RepeatRule | None
) -> NDArray[np.int32]:
    """Return the (C, k) best rows for user vectors (C, D)."""
    top = np.full((len(cases), k), -1, dtype=np.int32)
    # For nobody the prior alone decides, and equal priors go to the lower row, which topk does not promise.
    nobody = -torch.argsort(torch.argsort(items.prior, descending=True, stable=True)).to(torch.float32)
    for begin in range(0, len(cases), CASES_AT_A_TIME):
        part = users[begin : begin + CASES_AT_A_TIME]
        scores = part @ items.table.T + items.prior
        scores[(part == 0).all(dim=1)] = nobody
        for place in range(len(part)):
            rows, values = case_bias(log, cases, begin + place, rule)
            scores[place, torch.from_numpy(rows.astype(np.int64))] += torch.from_numpy(values)
        best = scores.topk(min(k, len(items.table)), dim=1)
        listed = torch.where(torch.isfinite(best.values), best.indices, -1)
        top[begin : begin + len(part), : listed.shape[1]] = listed.numpy()
    return top
