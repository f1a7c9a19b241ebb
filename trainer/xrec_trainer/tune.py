"""Search settings of a training within some minutes; the best is chosen on validation, the test is not looked at."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.optim.optimizer import register_optimizer_step_post_hook
from xrec_sdk.errors import DataError, UsageError

from xrec_trainer import dataset
from xrec_trainer.config import FitConfig
from xrec_trainer.extras import missing
from xrec_trainer.figures import left_aligned
from xrec_trainer.fit import fit
from xrec_trainer.run import alone, claim, save_json
from xrec_trainer.splits import Study, check_can_choose, make_study

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.storages.journal import JournalFileBackend, JournalStorage
    from optuna.trial import FrozenTrial, Trial, TrialState
except ImportError as cause:
    raise missing("tune", cause) from cause

METRIC = "validation_ndcg@10"
SPACE: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(3e-4, 1e-2, log=True),
    "dropout": FloatDistribution(0.1, 0.7, step=0.1),
    "width": CategoricalDistribution((32, 64, 128)),
    "layers": IntDistribution(1, 3),
    "heads": CategoricalDistribution((1, 2, 4)),
    "batch_tokens": CategoricalDistribution((512, 1024, 2048, 4096)),
}
"""What is searched, but for the settings that are given."""

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped: below the median",
    TrialState.RUNNING: "cut: goes on at the next call",
    TrialState.FAIL: "diverged",
}


class OutOfTime(Exception):
    """The minutes are over."""


def tune(
    data: Path,
    out: Path,
    config: FitConfig,
    settings: Sequence[str] = (),
    *,
    minutes: float,
    say: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Search SPACE; return what tune.json in ``out`` holds.

    ``settings`` are the ``NAME=VALUE`` texts that ``config`` was made with; what they name is not searched. The first
    trial has the defaults, the next ones are proposed by the tree-structured Parzen estimator (Bergstra et al., NeurIPS
    2011) with the seed of ``config``. A trial is stopped where its best validation NDCG@10 is below the median of the
    others at the same epoch. Trials have no quantized epochs unless they are asked for.

    ``minutes`` are kept to a step of the optimizer or to a validation (``clock`` gives seconds). A trial that they cut,
    or a kill, goes on from its last epoch at the next call with the same ``out``. best.txt there holds the settings as
    ``xrec-train fit`` takes them.

    Raises UsageError ``usage.minutes`` where they are not above 0 or no epoch ends within them, ``usage.setting`` where
    nothing is left to search, ``usage.study_differs`` where ``out`` holds another study, and DataError
    ``data.no_cases`` without a validation case.
    """
    ends_at = clock() + minutes * 60
    if not 0 < minutes < float("inf"):
        raise UsageError("usage.minutes", f"--minutes is {minutes:g}; expected a number above 0, such as 30")
    given = {text.partition("=")[0] for text in settings}
    if "quantized_epochs" not in given:
        config = replace(config, quantized_epochs=0)
    space = _space(config, given)
    study = make_study(dataset.read(data, queries=config.queries), config)
    check_can_choose(study, "settings")
    with alone(out):
        _claim(out, data, config, space)
        search = _open(out)
        while clock() < ends_at:
            trial = _next_trial(search, space, config.seed)
            say(f"trial {_root(trial)}: " + "  ".join(_texts(trial.params)))
            try:
                _run(search, trial, data, out, replace(config, **trial.params), study, ends_at, clock, say)
            except OutOfTime:
                break
        return _write(out, search, data, config, settings, minutes)


def _space(config: FitConfig, given: set[str]) -> dict[str, BaseDistribution]:
    space = {name: distribution for name, distribution in SPACE.items() if name not in given}
    if not space:
        raise UsageError("usage.setting", f"nothing is left to search: --setting gives all of {', '.join(SPACE)}")
    if "width" in given and "heads" in space:
        space["heads"] = CategoricalDistribution([heads for heads in (1, 2, 4) if config.width % heads == 0])
    return space


def _claim(out: Path, data: Path, config: FitConfig, space: dict[str, BaseDistribution]) -> None:
    fixed = {name: value for name, value in config.to_json().items() if name not in space}
    searched = {name: str(distribution) for name, distribution in space.items()}
    wanted = {"data": str(data.resolve()), "config": fixed, "space": searched}
    claim(out / "study.json", wanted, "usage.study_differs", "a study of other data or settings")


def _open(out: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name="xrec",
        storage=JournalStorage(JournalFileBackend(str(out / "journal.log"))),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=5),
        direction="maximize",
        load_if_exists=True,
    )


def _root(trial: Trial | FrozenTrial) -> int:
    """Return the number of the trial that this one goes on with, or its own."""
    return int(trial.user_attrs.get("root", trial.number))


def _next_trial(search: optuna.Study, space: dict[str, BaseDistribution], seed: int) -> Trial:
    trials = search.get_trials(deepcopy=False)
    for cut in trials:
        if cut.state == TrialState.RUNNING:
            search.enqueue_trial(cut.params, user_attrs={"root": _root(cut), "cut": cut.number})
            search.tell(cut.number, state=TrialState.FAIL)
    if not trials:
        defaults = {field.name: field.default for field in fields(FitConfig)}
        search.enqueue_trial({name: defaults[name] for name in space})
    # a generator of its own for each trial, so that a kill changes nothing in what is proposed
    own_seed = np.random.SeedSequence([seed, len({_root(trial) for trial in trials})]).generate_state(1)
    search.sampler = optuna.samplers.TPESampler(seed=int(own_seed[0]))
    trial = search.ask(space)
    if "cut" in trial.user_attrs:
        for epoch, ndcg in search.trials[trial.user_attrs["cut"]].intermediate_values.items():
            trial.report(ndcg, epoch)
    return trial


def _run(
    search: optuna.Study,
    trial: Trial,
    data: Path,
    out: Path,
    config: FitConfig,
    study: Study,
    ends_at: float,
    clock: Callable[[], float],
    say: Callable[[str], None],
) -> None:
    folder = out / "trials" / str(_root(trial))
    curve = dict(search.trials[trial.number].intermediate_values)

    def report(line: dict[str, Any]) -> None:
        # the last epoch before a kill comes twice: it was reported, not saved
        if line["epoch"] not in curve:
            curve[line["epoch"]] = line[METRIC]
            trial.report(line[METRIC], line["epoch"])
        left = max(0.0, ends_at - clock()) / 60
        say(
            f"trial {_root(trial)}  epoch {line['epoch']:3d}  validation NDCG@10 {line[METRIC]:.4f}  "
            f"best {max(curve.values()):.4f}  {left:.1f} min left"
        )
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        with _stopped_at(ends_at, clock):
            fit(data, folder, config, report, study)
        search.tell(trial, max(curve.values()))
    except optuna.TrialPruned:
        search.tell(trial, state=TrialState.PRUNED)
    except DataError as error:
        if error.code != "data.diverged":
            raise
        search.tell(trial, state=TrialState.FAIL)
    shutil.rmtree(folder)


@contextmanager
def _stopped_at(ends_at: float, clock: Callable[[], float]) -> Iterator[None]:
    """Raise OutOfTime after the first step of any optimizer from ``ends_at`` on."""

    def check(*step: object) -> None:
        if clock() >= ends_at:
            raise OutOfTime

    hook = register_optimizer_step_post_hook(check)
    try:
        yield
    finally:
        hook.remove()


def _write(
    out: Path, search: optuna.Study, data: Path, config: FitConfig, settings: Sequence[str], minutes: float
) -> dict[str, Any]:
    # of a trial that was cut, the one that goes on with it
    last = {_root(trial): trial for trial in search.get_trials(deepcopy=False) if trial.state != TrialState.WAITING}
    trials = sorted((_described(root, trial) for root, trial in last.items()), key=lambda trial: -trial[METRIC])
    if not trials or trials[0][METRIC] < 0:
        raise UsageError(
            "usage.minutes",
            f"no epoch ended within {minutes:g} minutes; call again with more --minutes and the same --out",
        )
    best = trials[0]
    lines = [f"--setting {text}" for text in (*settings, *_texts(best["settings"]))]
    part = out / "best.txt.part"
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(part, out / "best.txt")
    found = {"metric": METRIC, "best": best, "trials": trials, "data": str(data.resolve()), "config": config.to_json()}
    save_json(out / "tune.json", found)
    return found


def _described(root: int, trial: FrozenTrial) -> dict[str, Any]:
    curve = trial.intermediate_values
    best_epoch = max(curve, key=curve.__getitem__, default=0)
    return {
        "trial": root,
        "state": STATES[trial.state],
        "epochs": max(curve, default=0),
        "best_epoch": best_epoch,
        METRIC: curve.get(best_epoch, -1.0),
        "settings": trial.params,
    }


def _texts(params: dict[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in params.items()]


def table(found: dict[str, Any]) -> str:
    """Return the trials as plain text, the best first."""
    names = list(found["best"]["settings"])
    rows = [["trial", "NDCG@10", "epochs", *names, ""]]
    for trial in found["trials"]:
        shown = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in trial["settings"].values()]
        ndcg = f"{trial[METRIC]:.4f}" if trial["epochs"] else "-"
        rows.append([str(trial["trial"]), ndcg, f"{trial['best_epoch']}/{trial['epochs']}", *shown, trial["state"]])
    return "\n".join(left_aligned(rows))
