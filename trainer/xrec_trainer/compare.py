"""Compare models under one protocol: same split, cases and metrics; the best is chosen on validation, never on test."""

# S seeds, C cases, K places of a list

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.errors import UsageError

from xrec_trainer import dataset
from xrec_trainer.baselines import BASELINES, SEEDED, baseline
from xrec_trainer.bootstrap import mean_interval, paired_difference
from xrec_trainer.cases import Cases, Ranker
from xrec_trainer.config import FitConfig
from xrec_trainer.encoders import ENCODERS
from xrec_trainer.figures import interval_text, left_aligned, value, verdict
from xrec_trainer.fit import Report, fit
from xrec_trainer.metrics import per_case
from xrec_trainer.ranking import model_ranker
from xrec_trainer.run import alone, claim, load_run, save_json
from xrec_trainer.splits import Study, check_can_choose, make_study

KS = (5, 10, 20)
METRIC = "ndcg@10"
UNSEEDED = frozenset(BASELINES) - frozenset(SEEDED)
PARTS = ("validation", "test")


def compare(
    data: Path,
    out: Path,
    config: FitConfig,
    models: Sequence[str],
    *,
    seeds: Sequence[int] = (),
    say: Callable[[str], None] = lambda text: None,
    epochs: Callable[[FitConfig], Report] = lambda config: lambda line: None,
) -> dict[str, Any]:
    """Train and evaluate encoders and baselines on a prepared folder; return what compare.json in ``out`` holds.

    What a model learned is kept in ``out``, so after a kill, or with further ``models`` and ``seeds``, only what is
    missing is trained. An encoder's folder there is a run. With several seeds (default: the configuration's) a case
    counts with its mean over them. ``say`` gets a line for each model, ``epochs`` gives what gets each epoch's.
    Raises UsageError ``usage.model`` for a name that is none, ``usage.comparison_differs`` where ``out``
    holds one under another protocol, ``usage.setting`` where the seeds would not hold out the same items, and DataError
    ``data.no_cases`` without a case to choose on.
    """
    models, seeds = list(dict.fromkeys(models)), list(dict.fromkeys(seeds or (config.seed,)))
    _check_names(models)
    if config.cold_share and seeds != [config.seed]:
        raise UsageError(
            "usage.setting",
            f"cold_share holds out other items with each seed, and the seeds are {', '.join(map(str, seeds))}; compare "
            f"with one, as --setting seed={seeds[0]}",
        )
    study = make_study(dataset.read(data, queries=config.queries), config)
    check_can_choose(study, "a model")
    with alone(out):
        _claim(out, data, study, config)
        # baselines first: what is wrong with the call shows before the long trainings
        wanted = [(name, seed) for name in sorted(models, key=ENCODERS.__contains__) for seed in _seeds_of(name, seeds)]
        for place, (name, seed) in enumerate(wanted, start=1):
            path = _folder(out, name, seed) / "lists.npz"
            if not path.exists():
                say(f"[{place}/{len(wanted)}] {name}" + (f", seed {seed}" if name not in UNSEEDED else ""))
                path.parent.mkdir(parents=True, exist_ok=True)
                own = replace(config, encoder=name if name in ENCODERS else config.encoder, seed=seed)
                learn = _encoder if name in ENCODERS else _baseline
                ranker, seconds = learn(name, study, own, data, path.parent, epochs(own))
                _save_lists(path, study, ranker, seconds)
        learned = {name: [_folder(out, name, seed) / "lists.npz" for seed in _seeds_of(name, seeds)] for name in models}
        compared = _compared(study, learned) | {"seeds": seeds, "data": str(data.resolve()), "config": _shared(config)}
        save_json(out / "compare.json", compared)
        return compared


def _check_names(models: Sequence[str]) -> None:
    unknown = [name for name in models if name not in ENCODERS and name not in BASELINES]
    if unknown or not models:
        raise UsageError(
            "usage.model",
            f"no model is named {', '.join(unknown) or 'here'}; there are the encoders {', '.join(ENCODERS)} and the "
            f"baselines {', '.join(BASELINES)}",
        )


def _shared(config: FitConfig) -> dict[str, Any]:
    return {name: setting for name, setting in config.to_json().items() if name not in ("encoder", "seed")}


def _claim(out: Path, data: Path, study: Study, config: FitConfig) -> None:
    sizes = {"users": len(study.log.users), "items": len(study.catalogue), "events": len(study.log)}
    wanted = {"data": str(data.resolve()), **sizes, "config": _shared(config)}
    claim(out / "protocol.json", wanted, "usage.comparison_differs", "a comparison of other data or settings")


def _seeds_of(name: str, seeds: Sequence[int]) -> Sequence[int]:
    return seeds[:1] if name in UNSEEDED else seeds


def _folder(out: Path, name: str, seed: int) -> Path:
    return out / (name if name in UNSEEDED else f"{name}-{seed}")


def _baseline(
    name: str, study: Study, config: FitConfig, data: Path, folder: Path, report: Report
) -> tuple[Ranker, float]:
    started = time.monotonic()
    ranker = baseline(name, study, config)
    return ranker, time.monotonic() - started


def _encoder(
    name: str, study: Study, config: FitConfig, data: Path, folder: Path, report: Report
) -> tuple[Ranker, float]:
    path = folder / "seconds.json"
    seconds = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def keep(line: dict[str, Any]) -> None:
        # kept with each epoch, so that a training that was cut counts in full
        seconds[str(line["epoch"])] = line["seconds"]
        save_json(path, seconds)
        report(line)

    is_finished = (folder / "run.json").exists()
    run = load_run(folder, data, study) if is_finished else fit(data, folder, config, keep, study)
    return model_ranker(run.model, study.log, run.repeat), sum(seconds.values())


def _cases(study: Study, part: str) -> dict[str, Cases]:
    tasks = study.validation if part == "validation" else study.test
    return {name: cases for name, cases in tasks.items() if len(cases)}


def _save_lists(path: Path, study: Study, ranker: Ranker, seconds: float) -> None:
    lists: dict[str, Any] = {"seconds": np.float64(seconds)}
    for part in PARTS:
        lists |= {f"{part} {task}": ranker(cases, max(KS)) for task, cases in _cases(study, part).items()}
    unfinished = path.with_name("part.npz")
    np.savez_compressed(unfinished, **lists)
    os.replace(unfinished, path)


def _compared(study: Study, learned: dict[str, list[Path]]) -> dict[str, Any]:
    """Measure the lists of each model, one file a seed; choose on validation and take the differences on test."""
    models: dict[str, dict[str, Any]] = {name: {} for name in learned}
    tested: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in learned}
    for name, paths in learned.items():
        lists = [np.load(path) for path in paths]
        models[name]["seconds"] = float(np.mean([of_seed["seconds"] for of_seed in lists]))
        for part in PARTS:
            models[name][part] = {}
            for task, cases in _cases(study, part).items():
                measured = [per_case(of_seed[f"{part} {task}"], cases, KS) for of_seed in lists]
                models[name][part][task] = _figures(measured, cases)
                if part == "test":
                    tested[name][task] = np.mean([of_seed[METRIC] for of_seed in measured], axis=0)
    main = study.main_task
    chosen = max(models, key=lambda name: models[name]["validation"][main][METRIC]["mean"])
    for name, found in models.items():
        found["difference"] = {
            task: asdict(paired_difference(tested[name][task], tested[chosen][task], cases.user))
            for task, cases in _cases(study, "test").items()
        }
    counts = {part: {task: len(cases) for task, cases in _cases(study, part).items()} for part in PARTS}
    return {"chosen": chosen, "chosen_by": f"validation {main} {METRIC}", "cases": counts, "models": models}


def _figures(measured: Sequence[dict[str, NDArray[np.float64]]], cases: Cases) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for metric in measured[0]:
        values = np.stack([of_seed[metric] for of_seed in measured])  # (S, C)
        means = values.mean(axis=1)
        figures[metric] = asdict(mean_interval(values.mean(axis=0), cases.user)) if metric == METRIC else {}
        figures[metric] |= {"mean": float(means.mean()), "seeds": means.tolist()}
        figures[metric]["spread"] = float(means.std(ddof=1)) if len(means) > 1 else None
    return figures


def table(compared: dict[str, Any]) -> str:
    """Return a block of plain text for each task of the test: a line a model, the chosen one marked with ``*``.

    The last difference is the model's test NDCG@10 minus that of the chosen one, with its paired interval.
    """
    blocks = []
    for task, count in compared["cases"]["test"].items():
        rows = [_HEAD]
        rows += [_row(name, found, task, name == compared["chosen"]) for name, found in compared["models"].items()]
        blocks.append(
            "\n".join([f"{task} ({count:,} test cases), * chosen by {compared['chosen_by']}", *left_aligned(rows)])
        )
    return "\n\n".join(blocks)


_HEAD: tuple[str, ...] = ("", "validation", "NDCG@10", "95 %", "HR@10", "to the chosen", "95 %", "", "trained")


def _row(name: str, found: dict[str, Any], task: str, is_chosen: bool) -> tuple[str, ...]:
    ndcg, validation = found["test"][task][METRIC], found["validation"].get(task, {}).get(METRIC)
    difference = value(found["difference"][task])
    shown = (
        ("", "", "") if is_chosen else (f"{difference.mean:+.4f}", interval_text(difference, "+"), verdict(difference))
    )
    return (
        ("* " if is_chosen else "  ") + name,
        _mean(validation) if validation else "-",
        _mean(ndcg),
        interval_text(value(ndcg)),
        _mean(found["test"][task]["hr@10"]),
        *shown,
        f"{found['seconds']:,.1f} s",
    )


def _mean(figure: dict[str, Any]) -> str:
    spread = "" if figure["spread"] is None else f" ±{figure['spread']:.4f}"
    return f"{figure['mean']:.4f}{spread}"
