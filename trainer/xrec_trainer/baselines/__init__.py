"""The plain methods that stand beside the model; each lives in a file of its own.

Each constructor learns from the events of ``train_mask`` (E,) and gives a ranker. All of them rank only rows below N,
leave out the history where the cases ask for it, give ties to the lower row, and (random apart) fall back to popularity
where they know nothing. To learn from some event types only, narrow ``train_mask``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xrec_sdk.errors import UsageError

from xrec_trainer.baselines.als import als
from xrec_trainer.baselines.bpr import bpr
from xrec_trainer.baselines.buy_again import buy_again
from xrec_trainer.baselines.content import content
from xrec_trainer.baselines.ease import ease
from xrec_trainer.baselines.item_knn import item_knn
from xrec_trainer.baselines.popularity import popularity
from xrec_trainer.baselines.random_order import random_order
from xrec_trainer.baselines.scoring import users_by_items
from xrec_trainer.baselines.user_knn import user_knn
from xrec_trainer.cases import Ranker
from xrec_trainer.config import FitConfig
from xrec_trainer.splits import Study

__all__ = ["BASELINES", "SEEDED", "SHOWN", "baseline", "users_by_items"]

BASELINES: dict[str, Callable[..., Ranker]] = {
    "popularity": popularity,
    "buy_again": buy_again,
    "item_knn": item_knn,
    "user_knn": user_knn,
    "content": content,
    "ease": ease,
    "als": als,
    "bpr": bpr,
    "random": random_order,
}
"""Constructors by name: ``BASELINES[name](log, train_mask, **options)`` gives a ranker."""

SHOWN = ("popularity", "item_knn", "ease", "buy_again")
"""What an evaluation shows unless asked otherwise: quick, and without an extra."""

SEEDED = ("als", "bpr", "random")
"""Those that another seed changes."""


def baseline(name: str, study: Study, config: FitConfig) -> Ranker:
    """Return a baseline learned from the training part of a study; raises UsageError ``usage.baseline``."""
    if name not in BASELINES:
        raise UsageError("usage.baseline", f"no baseline is named {name!r}; there are {', '.join(BASELINES)}")
    options: dict[str, Any] = {"seed": config.seed} if name in SEEDED else {}
    if name == "buy_again":
        options["events"] = config.targets
    if name == "content":
        options["entries"] = study.catalogue.entries
    return BASELINES[name](study.log, study.train_mask, **options)
