"""Train the ranker of a run on what it would serve, calibrate it on later lists, and report it on the test period.

The model itself was learned from what came before the validation period, where its scores look better than they are;
so the ranker learns from the first half of that period, is calibrated on the second, and measured on the test period.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from xrec_sdk.errors import DataError, UsageError
from xrec_sdk.history import DAY_MS

from xrec_trainer.calibration import best_threshold, describe, measure, platt, reliability, sigmoid
from xrec_trainer.ranker import Examples, Ranker, RankerConfig, learn, logits_of
from xrec_trainer.run import Run, load_run, save_json, save_tensors
from xrec_trainer.served import Served, examples, item_features, serve

SHOWN = 10
LISTS = {"all": "the first 10, repeats included", "new": "the first 10 that are new to the user"}


def rank(folder: Path, config: RankerConfig, data: Path | None = None) -> dict[str, Any]:
    """Write ranker.pt and ranker.json into the run and return what ranker.json holds.

    Raises DataError ``data.split`` for a leave-one-out run, which has no later time to calibrate on, and
    ``data.nothing_held_out`` for a refitted one.
    """
    run = load_run(folder, data)
    torch.use_deterministic_algorithms(True)
    horizon_ms, chosen = periods(run, config)
    features = item_features(run)

    first, later, test = (
        serve(run, *period, horizon_ms, moments=config.moments, depth=config.depth, seed=config.seed + place)
        for place, period in enumerate(chosen)
    )
    asked = examples(run, later, features).only(torch.from_numpy(np.flatnonzero(_is_shown(later))))
    ranker, curve = learn(examples(run, first, features), asked, config, run.config.width)
    calibrate(ranker, asked)
    calibrated, probability = (_probability(ranker, examples(run, lists, features)) for lists in (later, test))
    alone = _score_alone(later, test)
    found: dict[str, Any] = {
        "format": 1,
        "config": config.to_json(),
        "horizon_days": horizon_ms / DAY_MS,
        "model_sha256": _sha256(folder / "model.pt"),
        "curve": curve,
        "calibration": ranker.get_buffer("calibration").tolist(),
        "lists": {},
    }
    for name, title in LISTS.items():
        shown, shown_later = (_shown(lists, name) for lists in (test, later))
        threshold = best_threshold(calibrated[shown_later], later.labels[shown_later])
        of_list = test.labels[shown], test.user[shown]
        found["lists"][name] = {
            "title": title,
            "cases": int(shown.sum()),
            "users": len(np.unique(of_list[1])),
            "threshold": threshold,
            "metrics": measure(probability[shown], *of_list, threshold),
            "score_alone": measure(alone[shown], *of_list, threshold, n=1),
            "reliability": reliability(probability[shown], of_list[0]),
        }
    save_tensors(folder / "ranker.pt", ranker.state_dict())
    save_json(folder / "ranker.json", found)
    return found


def periods(run: Run, config: RankerConfig) -> tuple[int, list[tuple[int, int]]]:
    """Return the horizon and, of learning, calibration and test, the first and the last moment, all in milliseconds."""
    if run.config.split != "time":
        raise DataError("data.split", f"{run.folder} was split {run.config.split}; a ranker needs --split time")
    if run.config.learns_until != "validation":
        raise DataError(
            "data.nothing_held_out",
            f"{run.folder} learned from the period that a ranker is learned and calibrated on; rank the run that it "
            "was made of",
        )
    validation, test = (int(cases["all"].now_ms[0]) for cases in (run.study.validation, run.study.test))
    middle, end = (validation + test) // 2, int(run.log.at_ms.max()) + 1
    horizon = int(config.horizon_days * DAY_MS) or (test - validation) // 4
    most = min(middle - validation, end - test)
    if horizon > most:
        raise UsageError(
            "usage.out_of_bounds",
            f"horizon_days is {config.horizon_days:g}; at most {most / DAY_MS:.2f} fit into half the validation period",
        )
    return horizon, [(begin, until - horizon) for begin, until in ((validation, middle), (middle, test), (test, end))]


def load_ranker(run: Run) -> tuple[Ranker, dict[str, Any]] | None:
    """Return the ranker of a run and what ranker.json holds, None where there is none.

    Raises DataError ``data.other_ranker`` where the model was trained anew since.
    """
    if not (run.folder / "ranker.pt").is_file() or not (run.folder / "ranker.json").is_file():
        return None
    found = json.loads((run.folder / "ranker.json").read_text(encoding="utf-8"))
    if found["model_sha256"] != _sha256(run.folder / "model.pt"):
        raise DataError(
            "data.other_ranker", f"the ranker in {run.folder} is of another model; make it again with: xrec-train rank"
        )
    config = RankerConfig(**found["config"])
    state = torch.load(run.folder / "ranker.pt", weights_only=True)
    ranker = Ranker(config.shape, len(state["user_mean"]), len(state["item_mean"]), config.hidden)
    ranker.load_state_dict(state)
    return ranker.eval(), found


def table(found: dict[str, Any]) -> str:
    """Return the metrics of the test period as plain text."""
    lines = [f"Probability of a target event within {found['horizon_days']:g} days, on the test period"]
    for one in found["lists"].values():
        lines += ["", f"{one['title']} ({one['cases']:,} cases, {one['users']:,} users)", *describe(one["metrics"])]
        alone = ", ".join(f"{name} {one['score_alone'][name]['mean']:.4f}" for name in ("auc", "log_loss", "ece_10"))
        lines.append(f"  the score alone, calibrated: {alone}")
    return "\n".join(lines)


def _shown(served: Served, name: str) -> NDArray[np.bool_]:
    place = served.place_all if name == "all" else served.place_new
    return (place >= 0) & (place < SHOWN)


def _is_shown(served: Served) -> NDArray[np.bool_]:
    return _shown(served, "all") | _shown(served, "new")


def calibrate(ranker: Ranker, asked: Examples) -> None:
    """Calibrate what is shown, apart for what the user had: what sells again has other odds than what is new."""
    logits = logits_of(ranker, asked).numpy().astype(np.float64)
    labels, had = asked.labels.numpy().astype(np.float64), (asked.pairs[:, -1] > 0).numpy()
    everything = np.ones(len(labels), dtype=np.bool_)
    groups = (own if 0 < labels[own].sum() < own.sum() else everything for own in (~had, had))
    ranker.calibrate(*(platt(logits[own], labels[own]) for own in groups))


def _probability(ranker: Ranker, asked: Examples) -> NDArray[np.float64]:
    return sigmoid(logits_of(ranker, asked).numpy().astype(np.float64))


def _score_alone(later: Served, test: Served) -> NDArray[np.float64]:
    """Return what the score alone says of the test lists when it is calibrated: what the ranker must beat."""
    own = _is_shown(later)
    scores, of_test = (lists.pairs.sum(dim=1).numpy().astype(np.float64) for lists in (later, test))
    slope, offset = platt(scores[own], later.labels[own])
    return sigmoid(slope * of_test + offset)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
