"""Evaluate on cold items: known by their content alone, because no event of theirs was learned from as a target."""

# C cases, N items, the first W of them warm, k places

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrec_trainer.bootstrap import mean_interval, paired_difference
from xrec_trainer.cases import Cases, Ranker
from xrec_trainer.metrics import per_case
from xrec_trainer.splits import Study

K = 10
CASES_AT_A_TIME = 100


def cold_cases(study: Study) -> Cases:
    """Return the test cases with a cold item among their right ones, and only those as right; of new items if asked."""
    cases = study.test.get("new", study.test["all"])
    is_cold = cases.relevant >= study.catalogue.warm
    case_of = np.repeat(np.arange(len(cases)), np.diff(cases.relevant_offsets))
    kept = np.bincount(case_of[is_cold], minlength=len(cases))
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    return replace(cases, relevant=cases.relevant[is_cold], relevant_offsets=offsets).only(kept > 0)


def cold_only(rank: Ranker, study: Study) -> Ranker:
    """Return the ranker that lists cold items only, in the order in which ``rank`` lists all."""
    warm, items = study.catalogue.warm, len(study.catalogue)

    def ranked(cases: Cases, k: int) -> NDArray[np.int32]:
        top = np.full((len(cases), k), -1, dtype=np.int32)
        number = np.arange(len(cases))
        for begin in range(0, len(cases), CASES_AT_A_TIME):
            part = cases.only((number >= begin) & (number < begin + CASES_AT_A_TIME))
            for place, rows in enumerate(rank(part, items)):  # (N,)
                cold = rows[rows >= warm][:k]
                top[begin + place, : len(cold)] = cold
        return top

    return ranked


def measure_cold(study: Study, rankers: Mapping[str, Ranker]) -> dict[str, Any]:
    """Return HR@10 and NDCG@10 of each ranker among all items and among the cold, with the first one's differences.

    Empty where no test case has a cold item. The structure is in report.py.
    """
    cases = cold_cases(study)
    if len(cases) == 0:
        return {}
    lists = {
        "all items": {name: rank(cases, K) for name, rank in rankers.items()},
        "cold items": {name: cold_only(rank, study)(cases, K) for name, rank in rankers.items()},
    }
    return {
        "items": len(study.catalogue) - study.catalogue.warm,
        "cases": len(cases),
        "users": len(np.unique(cases.user)),
        "among": {which: _compared(cases, tops) for which, tops in lists.items()},
    }


def _compared(cases: Cases, tops: Mapping[str, NDArray[np.int32]]) -> dict[str, Any]:
    names = (f"hr@{K}", f"ndcg@{K}")
    found = {model: per_case(top, cases, [K]) for model, top in tops.items()}
    first, *others = found
    return {
        "models": {
            model: {name: asdict(mean_interval(values[name], cases.user)) for name in names}
            for model, values in found.items()
        },
        "differences": {
            model: {
                name: asdict(paired_difference(found[first][name], found[model][name], cases.user)) for name in names
            }
            for model in others
        },
    }
