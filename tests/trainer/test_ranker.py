"""The ranker finds a probability that is known, its calibration and its metrics are right, and a run gets one."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from xrec_sdk.errors import DataError, UsageError
from xrec_trainer.calibration import best_threshold, equal_mass_bins, measure, platt, reliability, sigmoid
from xrec_trainer.cli import main
from xrec_trainer.rank import calibrate, load_ranker, periods, rank
from xrec_trainer.ranker import Examples, Ranker, RankerConfig, learn, logits_of, parse_ranker
from xrec_trainer.reliability import section
from xrec_trainer.run import load_run
from xrec_trainer.served import item_features, serve

SEED = 3
SMALL = RankerConfig(moments=600, depth=10, batch=256)


def known(count: int, seed: int) -> tuple[Examples, np.ndarray]:
    """Return examples of 5 user and 10 item features whose probability is known, and that probability."""
    random = np.random.default_rng(seed)
    users, items = random.normal(size=(count, 5)), random.normal(size=(count, 10))
    truth = sigmoid(np.maximum(users[:, 0], 0) * 2 - users[:, 1] + np.abs(items[:, 0]) * 1.5 - items[:, 1] - 2.5)
    labels = random.random(count) < truth
    numbers = torch.arange(count)
    tensors = [torch.from_numpy(array.astype(np.float32)) for array in (users, items, np.zeros((count, 0)), labels)]
    return Examples(tensors[0], numbers, tensors[1], numbers, tensors[2], tensors[3]), truth


@pytest.mark.parametrize("loss", ["bce", "mse"])
@pytest.mark.parametrize("shape", ["plain", "two-branch"])
def test_five_user_and_ten_item_features_give_the_probability_that_is_known(shape: str, loss: str) -> None:
    config = RankerConfig(shape=shape, loss=loss, learning_rate=5e-3, max_epochs=15, hidden=32)  # type: ignore[arg-type]
    ranker, curve = learn(known(20_000, SEED)[0], known(4_000, SEED + 1)[0], config)
    assert ranker.network.user.weight.shape == (32, 5) and ranker.network.item.weight.shape == (32, 10)
    assert curve[-1]["loss"] < curve[0]["loss"]
    examples, truth = known(10_000, SEED + 2)
    found, labels = sigmoid(logits_of(ranker, examples).numpy().astype(float)), examples.labels.numpy().astype(float)
    best = measure(truth, labels, np.arange(10_000, dtype=np.int32), 0.5, n=1)
    got = measure(found, labels, np.arange(10_000, dtype=np.int32), 0.5, n=1)
    assert got["auc"]["mean"] > best["auc"]["mean"] - 0.015 > 0.8
    assert got["ece_10"]["mean"] < 0.03
    assert np.abs(found - truth).mean() < 0.05


def test_the_same_seed_gives_the_same_ranker_to_the_bit() -> None:
    examples, held_out = known(2_000, SEED)[0], known(500, SEED + 1)[0]
    config = RankerConfig(max_epochs=3)
    first, second = (learn(examples, held_out, config)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_labels_that_are_all_the_same_are_refused() -> None:
    examples, _ = known(100, SEED)
    nothing = Examples(*(*list(vars(examples).values())[:-1], torch.zeros(100)))
    with pytest.raises(DataError) as caught:
        learn(nothing, examples, RankerConfig())
    assert caught.value.code == "data.no_targets"


def test_platt_finds_the_slope_and_the_offset_that_made_the_labels() -> None:
    random = np.random.default_rng(SEED)
    logits = random.normal(-2, 2, size=200_000)
    labels = (random.random(len(logits)) < sigmoid(0.5 * logits - 1)).astype(float)
    slope, offset = platt(logits, labels)
    assert slope == pytest.approx(0.5, abs=0.02) and offset == pytest.approx(-1, abs=0.03)
    again = platt(slope * logits + offset, labels)
    assert again == pytest.approx((1, 0), abs=1e-3)


def test_metrics_are_those_worked_by_hand() -> None:
    probability, labels = np.array([0.9, 0.6, 0.6, 0.1]), np.array([1.0, 0.0, 1.0, 0.0])
    found = measure(probability, labels, np.arange(4, dtype=np.int32), 0.7, n=5)
    hand = {
        "auc": 3.5 / 4,  # the tie of a yes and a no counts half
        "log_loss": -(np.log(0.9) + np.log(0.4) + np.log(0.6) + np.log(0.9)) / 4,
        "mse": (0.01 + 0.36 + 0.16 + 0.01) / 4,
        "base_rate": 0.5,
        "mean_probability": 0.55,
        "accuracy_at_0.5": 3 / 4,
        "f1_at_0.5": 2 * 2 / (3 + 2),
        "accuracy_at_best": 3 / 4,
        "f1_at_best": 2 * 1 / (1 + 2),
        "ece_10": (0.1 + 0.6 + 0.4 + 0.1) / 4,  # a bin an example
        "log_loss_of_base_rate": np.log(2),
        "mse_of_base_rate": 0.25,
    }
    for name, value in hand.items():
        assert found[name]["mean"] == pytest.approx(value), name
        assert found[name]["low"] <= found[name]["high"]


def test_bins_hold_as_many_each_and_the_best_threshold_takes_ties_together() -> None:
    probability = np.random.default_rng(SEED).random(1000)
    assert np.bincount(equal_mass_bins(probability, 10)).tolist() == [100] * 10
    points = reliability(probability, (probability > 0.5).astype(float))
    assert points[0]["share"] == 0 and points[-1]["share"] == 1
    assert best_threshold(np.array([0.8, 0.5, 0.5, 0.2]), np.array([1.0, 1.0, 1.0, 0.0])) == 0.5


def test_users_are_resampled_whole() -> None:
    random = np.random.default_rng(SEED)
    people = np.repeat(np.arange(50, dtype=np.int32), 40)
    labels = np.repeat((random.random(50) < 0.5).astype(float), 40)  # all of a user's labels are the same
    probability = np.full(len(labels), 0.5)
    together, apart = (
        measure(probability, labels, user, 0.5)["base_rate"] for user in (people, np.arange(2000, dtype=np.int32))
    )
    assert together["high"] - together["low"] > 4 * (apart["high"] - apart["low"])


@pytest.fixture(scope="module")
def ranked(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of the shop with a ranker."""
    folder = tmp_path_factory.mktemp("ranked") / "run"
    shutil.copytree(trained, folder)
    rank(folder, SMALL)
    return folder


def test_learning_calibration_and_test_follow_each_other_in_time(trained: Path) -> None:
    run = load_run(trained)
    horizon, chosen = periods(run, RankerConfig())
    assert horizon == run.config.validation_days * 86_400_000 // 4
    for (_, last), (begin, _) in pairwise(chosen):
        assert last + horizon <= begin
    assert chosen[-1][1] + horizon <= int(run.log.at_ms.max()) + 1
    with pytest.raises(UsageError) as caught:
        periods(run, RankerConfig(horizon_days=20))
    assert caught.value.code == "usage.out_of_bounds"


def test_what_is_served_is_the_top_of_the_scores_and_what_came_true(trained: Path) -> None:
    run = load_run(trained)
    horizon, chosen = periods(run, SMALL)
    served = serve(run, *chosen[2], horizon, moments=40, depth=10, seed=SEED)
    table, prior = run.model.items()
    case = int(served.case_of[-1])
    own = (served.case_of == case).numpy()
    scores = (served.users[case] @ table.T + prior).detach().numpy()
    history = served.cases.history(case)
    assert run.log.at_ms[history].max() < served.cases.now_ms[case]
    bought = run.log.item[history][run.log.event[history] == 1 + run.vocabulary.events.index("purchase")]
    scores[bought] = -np.inf
    listed = served.row.numpy()[own & (served.place_new >= 0)]
    assert set(listed) == set(np.argsort(-scores)[:10])
    span = run.log.user == served.cases.user[case]
    span &= (run.log.at_ms >= served.cases.now_ms[case]) & (run.log.at_ms < served.cases.now_ms[case] + horizon)
    span &= run.log.event == 1 + run.vocabulary.events.index("purchase")
    assert served.labels[own].tolist() == np.isin(served.row.numpy()[own], run.log.item[span]).tolist()


def test_an_item_without_a_price_counts_as_one_of_the_mean(trained: Path) -> None:
    run = load_run(trained)
    before = item_features(run)
    run.catalogue.entries[0].pop("price")
    after = item_features(run)
    assert torch.isfinite(after).all()
    assert after[0, 1] == pytest.approx(float(before[1:, 1].mean()), rel=1e-5)


def test_a_ranker_orders_what_users_buy_on_the_test_period(ranked: Path) -> None:
    found = json.loads((ranked / "ranker.json").read_text())
    shown = found["lists"]["new"]["metrics"]
    assert shown["auc"]["mean"] > 0.6
    assert shown["log_loss"]["mean"] < 1.05 * shown["log_loss_of_base_rate"]["mean"]
    assert sum(point["cases"] for point in found["lists"]["new"]["reliability"]) == found["lists"]["new"]["cases"]


def test_what_users_had_is_calibrated_apart_from_what_is_new() -> None:
    random = np.random.default_rng(SEED)
    count, numbers = 4_000, torch.arange(4_000)
    had = random.random(count) < 0.3
    labels = random.random(count) < np.where(had, 0.4, 0.02)
    pairs = torch.from_numpy(np.stack([random.normal(size=count), had], axis=1).astype(np.float32))
    users = torch.from_numpy(random.normal(size=(count, 2)).astype(np.float32))
    asked = Examples(users, numbers, users, numbers, pairs, torch.from_numpy(labels.astype(np.float32)))
    ranker = Ranker("plain", 2, 4, 8)
    calibrate(ranker, asked)
    found = torch.sigmoid(logits_of(ranker, asked)).numpy()
    for own in (had, ~had):
        assert found[own].mean() == pytest.approx(labels[own].mean(), abs=0.005)
    assert labels[had].mean() > 0.3 > 0.1 > labels[~had].mean()


def test_the_ranker_of_another_model_is_refused(ranked: Path, tmp_path: Path) -> None:
    run = load_run(ranked)
    assert load_ranker(run) is not None
    other = tmp_path / "run"
    shutil.copytree(ranked, other)
    torch.save(torch.load(other / "model.pt", weights_only=True), other / "model.pt")
    (other / "model.pt").write_bytes((other / "model.pt").read_bytes() + b"\0")
    with pytest.raises(DataError) as caught:
        load_ranker(type(run)(other, *list(vars(run).values())[1:]))
    assert caught.value.code == "data.other_ranker"


def test_the_report_draws_a_dot_for_each_tenth_of_each_list(ranked: Path) -> None:
    found = json.loads((ranked / "ranker.json").read_text())
    drawn = section(found)
    points = [point for one in found["lists"].values() for point in one["reliability"]]
    assert drawn.count("<circle") == len(points) == 20
    assert f"{found['lists']['all']['metrics']['auc']['mean']:.4f}" in drawn
    assert section(None) == ""


def test_the_command_says_what_was_measured_and_refuses_a_setting_that_is_not_there(ranked: Path) -> None:
    arguments = ["rank", str(ranked), "--setting", "shape=two-branch", "--setting", "moments=300"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "auc" in done.output and "the score alone" in done.output
    refused = CliRunner().invoke(main, ["rank", str(ranked), "--setting", "shape=round"])
    assert refused.exit_code == 2 and "usage.setting" in refused.output
    with pytest.raises(UsageError):
        parse_ranker(("hidden=many",))
