"""What is chosen on validation once a model is trained: the weight of the trend and the repeat rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.history import DAY_MS, RepeatRule

from xrec_trainer.cases import Cases
from xrec_trainer.config import FitConfig
from xrec_trainer.metrics import per_case
from xrec_trainer.model import Items, Model
from xrec_trainer.ranking import rank_users, user_vectors
from xrec_trainer.splits import Study
from xrec_trainer.trend import Trend, trend_prior

MAX_VALIDATION_CASES = 10_000
TREND_WEIGHTS = (0.3, 0.6, 0.9, 1.2)


@dataclass(frozen=True)
class Chosen:
    """What an earlier training chose on validation, for one that has nothing left to choose on (refit.py).

    ``epochs`` with float rows, then ``quantized_epochs`` with int8 rows; ``facts`` are kept in the run as they are.
    """

    epochs: int
    quantized_epochs: int
    trend: Trend | None
    repeat: RepeatRule | None
    facts: dict[str, Any]


def choose_trend(model: Model, study: Study, config: FitConfig, cases: Cases) -> tuple[Trend | None, float]:
    """Choose the weight of the trend by NDCG@10 on ``cases``; return it, None where it does not help, and its NDCG@10.

    A leave-one-out split has no one time that is "now", so it gets none.
    """
    users, table = user_vectors(model, study.log, cases), model.item_table()
    trends: list[Trend | None] = [None]
    if config.split == "time":
        trends += [Trend(weight, config.trend_half_life_days) for weight in TREND_WEIGHTS]
    items = (Items(table, trend_prior(study.log, study.train_mask, trend)) for trend in trends)
    scores = [_ndcg(rank_users(users, candidate, study.log, cases, 10, None), cases) for candidate in items]
    best = int(np.argmax(scores))
    return trends[best], scores[best]


def choose_repeat_rule(model: Model, study: Study, config: FitConfig) -> RepeatRule | None:
    """Choose weight and half-life of the repeat rule by validation NDCG@10 on all targets; None where none helps."""
    cases = sample(study.validation["all"], config.seed, 2_000)
    if len(cases) == 0:
        return None
    users, items = user_vectors(model, study.log, cases), model.items()
    rules: list[RepeatRule | None] = [None]
    for half_life_days in (14, 45, 180):
        rules += [
            RepeatRule(weight, half_life_days * DAY_MS, config.targets) for weight in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
        ]
    return max(rules, key=lambda rule: _ndcg(rank_users(users, items, study.log, cases, 10, rule), cases))


def _ndcg(top: NDArray[np.int32], cases: Cases) -> float:
    return float(np.mean(per_case(top, cases, [10])["ndcg@10"]))


def sample(cases: Cases, seed: int, limit: int = MAX_VALIDATION_CASES) -> Cases:
    """Return ``limit`` of the cases, drawn by ``seed``, or all where there are no more."""
    if len(cases) <= limit:
        return cases
    keep = np.zeros(len(cases), dtype=np.bool_)
    keep[np.random.default_rng(seed).permutation(len(cases))[:limit]] = True
    return cases.only(keep)
