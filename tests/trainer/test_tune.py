"""A search keeps its minutes, goes on after a kill, stops what is poor, and gives what fit takes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import CliRunner
from optuna.storages.journal import JournalFileBackend, JournalStorage
from small_shop import write_shop
from xrec_sdk.errors import DataError, UsageError
from xrec_sdk.filelock import try_lock
from xrec_trainer.cli import main
from xrec_trainer.config import FitConfig, parse
from xrec_trainer.fit import fit
from xrec_trainer.tune import METRIC, SPACE, table, tune

SETTINGS = ["test_days=12", "validation_days=12", "min_count=1", "max_history=12", "max_epochs=3", "width=16"]
SETTINGS += ["heads=1", "layers=1", "batch_tokens=2048"]


def config_of(*settings: str) -> FitConfig:
    """Return what the command line makes of settings."""
    return parse({"targets": ("purchase",), "split": "time"}, [*SETTINGS, *settings])


def search(data: Path, out: Path, **options: Any) -> dict[str, Any]:
    """Search learning rate and dropout; the seed is 1."""
    return tune(data, out, config_of(), SETTINGS, **{"minutes": 1.0, **options})


def test_a_second_search_in_a_folder_at_work_is_refused(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "tuned").mkdir()
    with try_lock(tmp_path / "tuned" / "lock") as is_free, pytest.raises(UsageError) as caught:
        assert is_free
        search(shop, tmp_path / "tuned")
    assert caught.value.code == "usage.out_busy"
    assert [path.name for path in (tmp_path / "tuned").iterdir()] == ["lock"]


class Killed(Exception):
    """Ends the process, as far as the search can tell."""


def killed_at(text: str) -> Callable[[str], None]:
    """Return a listener that is killed by a line that begins with ``text``."""

    def hear(line: str) -> None:
        if line.startswith(text):
            raise Killed

    return hear


@pytest.fixture(scope="module")
def searched(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[float]]:
    """Return a study that ran for 36 seconds of a clock that ticks a second when it is read, and all its ticks."""
    out, ticks = tmp_path_factory.mktemp("tune") / "tuned", []

    def clock() -> float:
        ticks.append(float(len(ticks)))
        return ticks[-1]

    return out, search(shop, out, minutes=0.6, clock=clock), ticks


def test_the_minutes_are_kept_to_a_step_and_the_best_so_far_is_written(
    searched: tuple[Path, dict[str, Any], list[float]],
) -> None:
    out, found, ticks = searched
    assert 36.0 <= ticks[-1] <= 37.0  # each step and each epoch reads it: no second step came after the end
    assert json.loads((out / "tune.json").read_text()) == json.loads(json.dumps(found))
    assert len(found["trials"]) > 2
    values = [trial[METRIC] for trial in found["trials"]]
    assert values == sorted(values, reverse=True) and found["best"] == found["trials"][0]
    cut = [trial for trial in found["trials"] if trial["state"].startswith("cut")]
    assert [trial["trial"] for trial in cut] == [max(trial["trial"] for trial in found["trials"])]


def test_the_best_settings_are_lines_that_fit_takes(searched: tuple[Path, dict[str, Any], list[float]]) -> None:
    out, found, _ = searched
    lines = (out / "best.txt").read_text().splitlines()
    assert all(line.startswith("--setting ") for line in lines)
    best = parse({"targets": ("purchase",)}, [line.removeprefix("--setting ") for line in lines])
    assert best == replace(config_of(), **found["best"]["settings"])


def test_the_first_trial_is_the_training_with_the_defaults(
    shop: Path, tmp_path: Path, searched: tuple[Path, dict[str, Any], list[float]]
) -> None:
    first = next(trial for trial in searched[1]["trials"] if trial["trial"] == 0)
    defaults = FitConfig(targets=("purchase",))
    assert first["settings"] == {"learning_rate": defaults.learning_rate, "dropout": defaults.dropout}
    curve = fit(shop, tmp_path / "run", config_of("quantized_epochs=0")).facts["curve"]
    assert first["epochs"] == 3 and first[METRIC] == max(line[METRIC] for line in curve)


def test_the_defaults_lie_in_the_space() -> None:
    defaults = FitConfig(targets=("purchase",))
    study = optuna.create_study()
    study.enqueue_trial({name: getattr(defaults, name) for name in SPACE})
    assert study.ask(SPACE).params == {name: getattr(defaults, name) for name in SPACE}


def test_a_killed_study_goes_on_as_if_it_had_not_been(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        search(shop, tmp_path / "whole", say=killed_at("trial 2"), clock=lambda: 0.0)
    with pytest.raises(Killed):
        search(shop, tmp_path / "cut", say=killed_at("trial 1  epoch   2"), clock=lambda: 0.0)
    assert (tmp_path / "cut" / "trials" / "1" / "checkpoint.pt").exists()
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)
        killed_at("trial 3")(line)

    with pytest.raises(Killed):
        search(shop, tmp_path / "cut", say=hear, clock=lambda: 0.0)
    # the second epoch had been reported but not saved; number 2 went on with 1
    assert [line[:19] for line in heard[1:3]] == ["trial 1  epoch   2 ", "trial 1  epoch   3 "]
    whole, cut = (
        search(shop, tmp_path / name, clock=chain([0.0], repeat(1e9)).__next__)["trials"] for name in ("whole", "cut")
    )
    finished = [[trial for trial in trials if trial["state"] == "complete"] for trials in (whole, cut)]
    assert finished[0] == finished[1] and len(finished[0]) == 2
    assert [trial["settings"] for trial in whole if trial["trial"] == 2] == [
        trial["settings"] for trial in cut if trial["trial"] == 3
    ]


def test_a_trial_below_the_median_of_the_others_is_stopped(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        tune(shop, tmp_path / "out", config_of("max_epochs=9"), SETTINGS, minutes=1, say=killed_at("trial 0"))
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "out" / "journal.log")))
    study = optuna.load_study(study_name="xrec", storage=storage)
    searched = {name: SPACE[name] for name in ("learning_rate", "dropout")}
    params = {"learning_rate": 0.002, "dropout": 0.3}
    for _ in range(3):
        perfect = {"value": 1.0, "intermediate_values": {epoch: 1.0 for epoch in range(1, 10)}}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=searched, **perfect))
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)
        killed_at("trial 5")(line)

    with pytest.raises(Killed):
        tune(shop, tmp_path / "out", config_of("max_epochs=9"), SETTINGS, minutes=1, say=hear, clock=lambda: 0.0)
    assert [line[:19] for line in heard[1:-1]] == [f"trial 0  epoch   {epoch} " for epoch in range(1, 6)]
    assert study.trials[4].state == optuna.trial.TrialState.PRUNED


def test_the_table_shows_the_best_first(searched: tuple[Path, dict[str, Any], list[float]]) -> None:
    head, first, *_ = table(searched[1]).splitlines()
    assert head.split() == ["trial", "NDCG@10", "epochs", "learning_rate", "dropout"]
    assert first.split()[:2] == [str(searched[1]["best"]["trial"]), f"{searched[1]['best'][METRIC]:.4f}"]


def test_the_command_prints_the_table_or_json(shop: Path, tmp_path: Path) -> None:
    words = ["tune", str(shop), "--out", str(tmp_path / "out")]
    words += [word for setting in SETTINGS for word in ("--setting", setting)]
    shown = CliRunner().invoke(main, [*words, "--minutes", "0.1"])  # an epoch must end, on a busy machine too
    assert shown.exit_code == 0 and "best.txt" in shown.stdout and "trial 0  epoch   1" in shown.stderr
    again = CliRunner().invoke(main, [*words, "--minutes", "0.001", "--json"])
    assert json.loads(again.stdout)["best"]["settings"]


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_minutes_that_are_none_are_refused(shop: Path, tmp_path: Path, minutes: float) -> None:
    with pytest.raises(UsageError, match="expected a number above 0") as caught:
        search(shop, tmp_path / "out", minutes=minutes)
    assert caught.value.code == "usage.minutes" and not (tmp_path / "out").exists()


def test_minutes_in_which_no_epoch_ends_are_refused_and_the_next_call_goes_on(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no epoch ended within 1 minutes") as caught:
        search(shop, tmp_path / "out", clock=(30.0 * tick for tick in count()).__next__)
    assert caught.value.code == "usage.minutes"
    with pytest.raises(Killed):
        search(shop, tmp_path / "out", say=killed_at("trial 0  epoch   1"))


def test_a_folder_with_another_study_is_refused(shop: Path, searched: tuple[Path, dict[str, Any], list[float]]) -> None:
    with pytest.raises(UsageError) as caught:
        tune(shop, searched[0], config_of("seed=2"), SETTINGS, minutes=1)
    assert caught.value.code == "usage.study_differs"


def test_a_search_of_nothing_and_one_without_a_case_are_refused(shop: Path, tmp_path: Path) -> None:
    every = ["dropout=0.5", "learning_rate=0.001"]
    with pytest.raises(UsageError, match="nothing is left to search") as usage:
        tune(shop, tmp_path / "out", config_of(*every), [*SETTINGS, *every], minutes=1)
    assert usage.value.code == "usage.setting"
    short = write_shop(tmp_path / "short", users=30, items=20, events=2)
    config = FitConfig(targets=("purchase", "view"), split="leave-one-out")
    with pytest.raises(DataError, match="three events or more") as caught:
        tune(short, tmp_path / "out", config, minutes=1)
    assert caught.value.code == "data.no_cases"


def test_heads_are_searched_among_the_divisors_of_a_given_width(shop: Path, tmp_path: Path) -> None:
    settings = [*SETTINGS[:5], "width=18"]
    config = parse({"targets": ("purchase",), "split": "time"}, settings)
    with pytest.raises(Killed):
        tune(shop, tmp_path / "out", config, settings, minutes=1, say=killed_at("trial 0"))
    assert json.loads((tmp_path / "out" / "study.json").read_text())["space"]["heads"].endswith("(choices=(1, 2))")


def test_without_optuna_the_extra_is_named(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "xrec_trainer.tune")
    result = CliRunner().invoke(main, ["tune", str(shop), "--out", str(tmp_path / "out"), "--minutes", "1"])
    assert result.exit_code == 2
    assert "error [usage.extra_missing]" in result.stderr and "pip install 'xrec[tune]'" in result.stderr
