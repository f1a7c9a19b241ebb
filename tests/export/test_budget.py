"""A release that costs more than its budget is refused with what to change, and nothing of it is left."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from vectors.recipes import read_folder
from xrec_export import budget as budgets
from xrec_export import build, from_run, speed
from xrec_export.budget import Budget, BudgetMissed, read_budget
from xrec_export.build import Release, build_bundle
from xrec_export.cli import main
from xrec_export.parity import Parity, RuntimeParity, Tolerance
from xrec_export.speed import Speed, measure_speed
from xrec_sdk.bundle import open_bundle
from xrec_sdk.errors import DataError
from xrec_sdk.signature import generate_key

sys.path.insert(0, str(Path(__file__).parent))
from small_models import make_cases, make_model

PEM, PUBLIC = generate_key()
VECTORS = Path(__file__).parents[1] / "vectors"
LOOSE = Tolerance(min_overlap=0.9, max_ndcg_loss=0.2)
RELEASE = Release("small", 1, "2026-01-02T03:04:05Z", PEM)
HERE = RuntimeParity(0.99, 0.98, 0.1, -0.001, (-0.002, 0.0), 1.0)
PARITY = Parity(100, 0.101, {"onnxruntime": HERE})
SPEED = Speed("a CPU", 1, 5, 500, 200.0, 90.0, 0.2, 0.4, 0.5, 0.9, 60_000_000, 4_000_000)
SIZES = {"items.bin": 900_000, "card.md": 100_000}
FULL = Budget(
    max_bytes=1_000_000,
    max_cold_start_ms=200.0,
    max_recommend_p99_ms=0.4,
    max_after_event_p99_ms=0.9,
    max_anonymous_bytes=60_000_000,
    max_ndcg_loss=0.01,
    min_overlap=0.99,
    max_opset=21,
    operators=("Add", "TopK"),
)
TIGHTER = {
    "max_bytes": (999_999, "items.bin has 900,000 of them"),
    "max_cold_start_ms": (199.0, "90 ms of it go to imports"),
    "max_recommend_p99_ms": (0.39, "fewer items"),
    "max_after_event_p99_ms": (0.89, "a shorter max_history"),
    "max_anonymous_bytes": (59_999_999, "4,000,000 of them came with the bundle"),
    "max_ndcg_loss": (0.0098, "quantized_epochs"),
    "min_overlap": (0.991, "quantized_epochs"),
    "max_opset": (20, "max_opset"),
    "operators": (("Add",), "encoder="),
}


def lines(budget: Budget) -> list[budgets.Line]:
    return budgets.lines(budget, PARITY, SIZES, ["Add", "TopK"], 21, SPEED)


def test_what_is_found_may_equal_its_limit() -> None:
    found = lines(FULL)
    assert len(found) == len(TIGHTER) and all(line.passes for line in found)
    budgets.check(found)


@pytest.mark.parametrize("name", TIGHTER)
def test_a_limit_that_is_missed_says_what_to_change(name: str) -> None:
    limit, advice = TIGHTER[name]
    found = lines(dataclasses.replace(FULL, **{name: limit}))
    assert [line.passes for line in found].count(False) == 1
    with pytest.raises(BudgetMissed) as caught:
        budgets.check(found)
    assert caught.value.code == "gate.budget" and advice in str(caught.value)
    assert "MISSED" in budgets.table(found) and advice in budgets.table(found)
    assert pickle.loads(pickle.dumps(caught.value)).lines == caught.value.lines


def test_what_the_system_does_not_say_is_missed() -> None:
    silent = dataclasses.replace(SPEED, anonymous_bytes=None, anonymous_added_bytes=None)
    found = budgets.lines(Budget(max_anonymous_bytes=10**9), PARITY, SIZES, [], 21, silent)
    assert [line.passes for line in found] == [False]


def test_a_bundle_within_its_budget_carries_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "measure_speed", partial(measure_speed, starts=1, calls=20))
    target = tmp_path / "small.xrec"
    budget = Budget(max_bytes=10**7, max_cold_start_ms=60_000, max_recommend_p99_ms=9e4, max_anonymous_bytes=10**10)
    build_bundle(make_model(), make_cases(20), target, release=RELEASE, tolerance=LOOSE, budget=budget)
    bundle = open_bundle(target, trusted_keys=[PUBLIC])
    kept = bundle.manifest.parity["budget"]
    found = {line["name"]: line["found"] for line in kept["lines"]}  # type: ignore[index]
    assert found["bytes of the folder"] == sum(path.stat().st_size for path in target.iterdir())
    measured = kept["measured"]  # type: ignore[index]
    assert 0 < measured["import_ms"] < measured["cold_start_ms"] < 60_000
    assert 0 < measured["again_p50_ms"] <= measured["again_p99_ms"]
    assert 0 < measured["after_event_p50_ms"] <= measured["after_event_p99_ms"]
    assert measured["anonymous_bytes"] > measured["anonymous_added_bytes"] > 0
    assert f"| bytes of the folder | {found['bytes of the folder']:,} | 10,000,000 |" in bundle.card


def test_what_is_measured_starts_from_compiled_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    build_bundle(make_model(), make_cases(20), tmp_path / "small.xrec", release=RELEASE, tolerance=LOOSE)
    speed._probe(tmp_path / "small.xrec", tmp_path / "profile.db", PUBLIC, 1, 0, tmp_path / "compiled")
    assert [path.name for path in (tmp_path / "compiled").rglob("recommender.*")] == [
        f"recommender.{sys.implementation.cache_tag}.pyc"
    ]


def test_a_release_that_misses_is_not_written_and_the_one_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_run, "load", lambda run, cases: (make_model(), make_cases(20)))
    (tmp_path / "key.pem").write_bytes(PEM)
    before = Path(shutil.copytree(VECTORS / "pool.xrec", tmp_path / "x.xrec"))
    budget = tmp_path / "budget.toml"
    budget.write_text('max_bytes = 1000\nmax_opset = 20\noperators = ["Add"]\n')
    arguments = ["build", "RUN", "--out", before, "--key", tmp_path / "key.pem", "--budget", budget, "--json"]
    missed = CliRunner().invoke(main, [*map(str, arguments), "--min-overlap", "0.9", "--max-ndcg-loss", "0.2"])
    assert missed.exit_code == 1
    assert missed.stderr.startswith("error [gate.budget] bytes of the folder is ")
    assert "operators beyond the list" in missed.stderr
    said = json.loads(missed.stdout)
    assert [line["passes"] for line in said["budget"]] == [False, False, False, True, True]
    assert read_folder(before) == read_folder(VECTORS / "pool.xrec")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["budget.toml", "key.pem", "x.xrec"]


@pytest.mark.parametrize(
    "text",
    [
        "max_bytes = ",
        "max_byte = 5",
        "max_bytes = 0",
        "max_bytes = 1.5",
        "max_bytes = true",
        'max_cold_start_ms = "fast"',
        "max_recommend_p99_ms = inf",
        "max_recommend_p99_ms = nan",
        "min_overlap = 1.5",
        "max_ndcg_loss = -0.1",
        "threads = 0",
        "operators = [1]",
        'operators = "Add"',
    ],
)
def test_a_budget_that_is_not_one_is_a_data_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "budget.toml").write_text(text)
    with pytest.raises(DataError) as caught:
        read_budget(tmp_path / "budget.toml")
    assert caught.value.code == "data.budget"


def test_a_budget_that_is_not_there_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_budget(tmp_path / "none.toml")
