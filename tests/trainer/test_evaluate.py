"""Evaluation compares the model with every baseline and writes figures and a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from xrec_sdk.errors import UsageError
from xrec_trainer.cli import main
from xrec_trainer.evaluate import evaluate


def test_every_task_has_the_model_and_every_baseline_with_intervals(trained: Path) -> None:
    metrics = evaluate(trained, ks=[5, 10])
    for task in metrics["tasks"].values():
        assert set(task["models"]) == {"xrec", "popularity", "buy_again", "item_knn", "ease"}
        found = task["models"]["xrec"]["ndcg@10"]
        assert found["low"] <= found["mean"] <= found["high"]
        assert set(task["differences"]) == {"popularity", "buy_again", "item_knn", "ease"}
    assert json.loads((trained / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert "<svg" in (trained / "report.html").read_text()


def test_on_chains_the_model_beats_popularity_beyond_chance(trained: Path) -> None:
    difference = evaluate(trained, ks=[10])["tasks"]["new"]["differences"]["popularity"]["ndcg@10"]
    assert difference["low"] > 0


def test_a_cut_off_of_nothing_is_refused(trained: Path) -> None:
    with pytest.raises(UsageError):
        evaluate(trained, ks=[0])


def test_the_command_line_names_the_code_and_exits_with_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path)])
    assert result.exit_code == 2 and "error [data.not_a_run]" in result.output


def test_every_command_explains_itself_with_an_example() -> None:
    for name in main.commands:
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0 and "Example: xrec-train" in result.output
