"""Read the numbers that an evaluation found and name them: what the page, the terminal and the comparisons share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MODEL_TITLES = {
    "popularity": "Popular items",
    "buy_again": "Buy again",
    "item_knn": "Similar items (ItemKNN)",
    "user_knn": "Similar users (UserKNN)",
    "ease": "Linear model (EASE)",
    "als": "Matrix factorization (ALS)",
    "bpr": "Matrix factorization (BPR)",
    "content": "Similar texts",
    "random": "By chance",
}
TASK_TITLES = {
    "all": "Anything, repeats included",
    "new": "Items that are new to the user",
    "after_switch": "Right after a change of device",
}
METRIC_TITLES = {
    "hr": "Users with a hit",
    "recall": "Share found",
    "precision": "Share right",
    "f1": "F1",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "coverage": "Catalogue shown",
    "popularity": "Popularity of what is shown",
    "novelty": "Surprise, bits",
    "gini": "Inequality of exposure",
    "diversity": "Pairs of a list in different categories",
}


class Value(NamedTuple):
    """A number and, where it is known, its interval."""

    mean: float
    low: float | None = None
    high: float | None = None


def value(found: Any) -> Value:
    """Read a value of the metrics dict; what is missing is not a number."""
    if isinstance(found, Mapping):
        return Value(float(found["mean"]), float(found["low"]), float(found["high"]))
    return Value(float("nan") if found is None else float(found))


def verdict(difference: Value) -> str:
    """Say in a word what a difference with its interval shows."""
    if difference.low is None or difference.high is None:
        return "not tested"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "no clear difference"


def left_aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines whose columns begin at one place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines whose first column begins at one place and whose others end at one place."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def main_model(metrics: Mapping[str, Any]) -> str:
    """Return the name of the model that the metrics are about."""
    return str(metrics.get("model", "xrec"))


def main_metric(metrics: Mapping[str, Any]) -> str:
    """Return the metric that counts."""
    return str(metrics.get("main_metric", "ndcg@10"))


def task_title(name: str, task: Mapping[str, Any]) -> str:
    """Return what a task is called."""
    return str(task.get("title", TASK_TITLES.get(name, name)))


def metric_title(name: str) -> str:
    """Return what a metric is called."""
    stem, _, k = name.partition("@")
    return f"{METRIC_TITLES.get(stem, stem)} @{k}" if k else METRIC_TITLES.get(stem, stem)


def metric_names(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return every metric that a model has, in order."""
    return list(dict.fromkeys(name for values in models.values() for name in values))


def count_of(task: Mapping[str, Any]) -> str:
    """Say how many cases and users a task has."""
    found = [f"{task[key]:,} {key}" for key in ("cases", "users") if key in task]
    return ", ".join(found) or "number of cases not given"


def number(found: float) -> str:
    """Write a number."""
    if not math.isfinite(found):
        return "–"
    return f"{found:.4f}" if abs(found) < 10 else f"{found:,.2f}"


def interval_text(found: Value, sign: str = "") -> str:
    """Write the interval of a value; ``sign`` is ``+`` for a difference."""
    if found.low is None or found.high is None:
        return ""
    return f"[{found.low:{sign}.4f}, {found.high:{sign}.4f}]"


def model_title(name: str) -> str:
    """Return what a model is called."""
    return MODEL_TITLES.get(name, name)


def cold_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Return the table of the items without events, its head first."""
    rows = [["", *("hr@10", "95 %", "ndcg@10", "95 %", f"{main_model(metrics)} against it")]]
    for which, found in metrics["cold"]["among"].items():
        for model, values in found["models"].items():
            hr, ndcg = value(values["hr@10"]), value(values["ndcg@10"])
            difference = found["differences"].get(model)
            word = verdict(value(difference["ndcg@10"])) if difference else ""
            name = f"{model_title(model)}, among {which}"
            rows.append([name, number(hr.mean), interval_text(hr), number(ndcg.mean), interval_text(ndcg), word])
    return rows


def bundle_rows(bundle: Mapping[str, Any]) -> list[list[str]]:
    """Return the table of the bundle against the float model, its head first."""
    rows = [["", "float", "bundle", "difference", "95 %"]]
    for name, values in bundle["metrics"].items():
        difference = value(values.get("difference"))
        numbers = [number(value(values.get(one)).mean) for one in ("float", "bundle")]
        change = f"{difference.mean:+.5f}" if math.isfinite(difference.mean) else "–"
        rows.append([name, *numbers, change, interval_text(difference, sign="+")])
    return rows
