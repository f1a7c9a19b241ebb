"""Training learns, repeats to the bit, and goes on after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_shop import Killed, killed_at, small_config
from xrec_sdk.errors import DataError, UsageError
from xrec_sdk.history import DAY_MS
from xrec_trainer import dataset
from xrec_trainer.baselines import users_by_items
from xrec_trainer.batches import prefix_batches, prefixes
from xrec_trainer.config import FitConfig, parse
from xrec_trainer.encoders import ENCODERS
from xrec_trainer.fit import fit, target_worth
from xrec_trainer.loss import full_cross_entropy, gbce, sampled_cross_entropy, smoothing
from xrec_trainer.metrics import per_case
from xrec_trainer.model import fake_quantize
from xrec_trainer.ranking import model_ranker
from xrec_trainer.run import load_run
from xrec_trainer.schedule import learning_rate
from xrec_trainer.splits import make_study
from xrec_trainer.svd import svd_rows
from xrec_trainer.trend import Trend, trend_prior


def test_the_model_learns_the_chains_far_better_than_chance(trained: Path) -> None:
    run = load_run(trained)
    cases = run.study.test["all"]
    top = model_ranker(run.model, run.log)(cases, 10)
    chance = 10 / len(run.catalogue)
    assert float(np.mean(per_case(top, cases, [10])["recall@10"])) > 3 * chance


def test_the_same_seed_gives_the_same_weights_to_the_bit(shop: Path, tmp_path: Path) -> None:
    config = small_config(max_epochs=2)
    first, second = fit(shop, tmp_path / "a", config), fit(shop, tmp_path / "b", config)
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("changes", "epoch"),
    [
        ({}, 3),
        ({"schedule": "cosine", "warmup_steps": 60, "label_smoothing": 0.1}, 2),
        ({"neighbours": 5}, 2),
    ],
)
def test_a_killed_training_resumes_to_the_same_weights(
    changes: dict[str, object], epoch: int, shop: Path, tmp_path: Path
) -> None:
    config = small_config(max_epochs=3, **changes)
    whole = fit(shop, tmp_path / "whole", config)
    with pytest.raises(Killed):
        fit(shop, tmp_path / "cut", config, killed_at(epoch))
    assert (tmp_path / "cut" / "checkpoint.pt").exists()
    resumed = fit(shop, tmp_path / "cut", config)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_folder_with_other_settings_is_refused(shop: Path, trained: Path) -> None:
    with pytest.raises(UsageError) as caught:
        fit(shop, trained, small_config(seed=99))
    assert caught.value.code == "usage.run_differs"


def test_the_chunked_loss_and_its_gradients_equal_those_of_torch() -> None:
    torch.manual_seed(3)
    users, table = torch.randn(1100, 8, dtype=torch.float64), torch.randn(37, 8, dtype=torch.float64)
    places, targets = torch.randint(1100, (2500,)).sort().values, torch.randint(37, (2500,))  # none, one or several
    for values in (users, table):
        values.requires_grad_(True)
    weights = torch.rand(2500, dtype=torch.float64)
    full_cross_entropy(users, table, places, targets, weights).backward()
    ours = users.grad.clone(), table.grad.clone()
    users.grad = table.grad = None
    each = torch.nn.functional.cross_entropy(users[places] @ table.T, targets, reduction="none")
    expected = (each * weights).sum() / weights.sum()
    expected.backward()
    assert torch.allclose(full_cross_entropy(users, table, places, targets, weights), expected)
    assert torch.allclose(ours[0], users.grad) and torch.allclose(ours[1], table.grad)


def test_the_sampled_loss_over_all_items_evenly_is_the_full_loss() -> None:
    torch.manual_seed(4)
    users, table, targets = torch.randn(20, 8), torch.randn(37, 8), torch.randint(37, (20,))
    every, places, weights = torch.arange(37), torch.arange(20), torch.ones(20)
    sampled = sampled_cross_entropy(users, table, places, targets, weights, every, torch.zeros(37))
    assert torch.allclose(sampled, torch.nn.functional.cross_entropy(users @ table.T, targets), atol=1e-5)


def test_label_smoothing_of_the_full_loss_equals_that_of_torch() -> None:
    torch.manual_seed(6)
    users, table, targets = torch.randn(20, 8), torch.randn(37, 8), torch.randint(37, (20,))
    asked = users, table, torch.arange(20), targets, torch.ones(20)
    ours = full_cross_entropy(*asked) + smoothing(*asked, 0.2)
    assert torch.allclose(
        ours, torch.nn.functional.cross_entropy(users @ table.T, targets, label_smoothing=0.2), atol=1e-5
    )


def test_label_smoothing_is_refused_for_gbce_which_has_no_such_target() -> None:
    with pytest.raises(UsageError, match="label_smoothing is for loss=softmax"):
        small_config(loss="gbce", label_smoothing=0.1)


def test_the_rate_warms_up_by_the_step_and_falls_by_half_a_cosine_over_the_epochs() -> None:
    assert learning_rate(small_config(), epoch=11, step=999) == 3e-3
    config = small_config(schedule="cosine", warmup_steps=9, max_epochs=4)
    assert [round(learning_rate(config, 0, step) / 3e-3, 6) for step in (0, 4, 9, 50)] == [0.1, 0.5, 1, 1]
    assert np.allclose([learning_rate(config, epoch, 50) / 3e-3 for epoch in (0, 2, 3, 4)], [1, 0.5, 0.146447, 0])


def test_unit_rows_have_one_learned_length_and_learn_the_chains(shop: Path, tmp_path: Path) -> None:
    run = fit(shop, tmp_path / "run", small_config(unit_rows=True))
    run.model.is_quantized = False
    lengths = run.model.item_table().detach().norm(dim=1)
    assert torch.allclose(lengths, run.model.log_length.detach().exp().expand(len(lengths)), rtol=1e-5)
    assert abs(run.model.log_length.item()) > 0.01
    cases = run.study.test["all"]
    recall = per_case(model_ranker(run.model, run.log)(cases, 10), cases, [10])["recall@10"]
    assert float(np.mean(recall)) > 3 * 10 / len(run.catalogue)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_bf16_learns_and_saves_float32(encoder: str, shop: Path, tmp_path: Path) -> None:
    losses: dict[str, list[float]] = {"float32": [], "bf16": []}
    for precision, of_epochs in losses.items():
        config = small_config(encoder=encoder, precision=precision, max_epochs=3, quantized_epochs=0)
        fit(shop, tmp_path / precision, config, lambda line, kept=of_epochs: kept.append(line["loss"]))
    saved = torch.load(tmp_path / "bf16" / "model.pt", weights_only=True)
    assert {value.dtype for value in saved.values() if value.is_floating_point()} == {torch.float32}
    assert losses["bf16"][-1] < losses["bf16"][0] - 0.1
    assert losses["bf16"] != losses["float32"]
    assert np.allclose(losses["bf16"], losses["float32"], rtol=0.02)


def test_gbce_is_worked_by_hand_and_ignores_a_negative_that_is_the_target() -> None:
    users, table = torch.tensor([[1.0]]), torch.tensor([[2.0], [-1.0], [0.5]])
    one, weights = torch.zeros(1, dtype=torch.int64), torch.ones(1)
    sampled = torch.tensor([0, 1])
    # Two of two other items are drawn, so the rate is 1 and so is the power, whatever the calibration.
    expected = np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0))
    for calibration in (0.0, 0.75):
        assert np.isclose(float(gbce(users, table, one, one, weights, sampled, calibration)), expected)
    # One of two: rate 1/2; calibration 1 gives the power 1/2, calibration 0 gives 1.
    for calibration, power in ((1.0, 0.5), (0.0, 1.0)):
        expected = power * np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0))
        assert np.isclose(float(gbce(users, table, one, one, weights, sampled[1:], calibration)), expected)


def test_auxiliary_targets_count_with_their_weight_and_change_what_is_learned(shop: Path, tmp_path: Path) -> None:
    settings = ["auxiliary_targets=view:0.25", "max_epochs=2", "test_days=12", "validation_days=12", "min_count=1"]
    config = parse({"targets": ("purchase",)}, settings)
    study = make_study(dataset.read(shop), config)
    worth = target_worth(study, config)
    view, purchase = (study.log.vocabulary.event_codes([name])[0] for name in ("view", "purchase"))
    assert set(worth[study.log.event == view]) == {0.25} and set(worth[study.log.event == purchase]) == {1.0}
    run = fit(shop, tmp_path / "both", config)
    assert load_run(run.folder).config == config
    alone = fit(shop, tmp_path / "alone", parse({"targets": ("purchase",)}, settings[1:]))
    assert not torch.equal(run.model.ids.weight, alone.model.ids.weight)
    with pytest.raises(UsageError, match="the weight of view is 2"):
        parse({"targets": ("purchase",)}, ["auxiliary_targets=view:2"])


def test_gbce_learns_the_chains(shop: Path, tmp_path: Path) -> None:
    ids_alone = {"content": False, "neighbours": 0}  # with either, this loss needs more epochs: decisions/0062
    config = small_config(loss="gbce", samples=64, max_epochs=40, patience=40, averaging=0.0, **ids_alone)
    run = fit(shop, tmp_path / "run", config)
    cases = run.study.test["all"]
    recall = per_case(model_ranker(run.model, run.log)(cases, 10), cases, [10])["recall@10"]
    assert float(np.mean(recall)) > 3 * 10 / len(run.catalogue)


def test_fake_quantization_keeps_the_gradient_and_is_idempotent() -> None:
    torch.manual_seed(5)
    table = torch.randn(9, 16, requires_grad=True)
    rounded = fake_quantize(table)
    assert torch.allclose(fake_quantize(rounded.detach()), rounded.detach(), atol=1e-6)
    assert (rounded - table).abs().max() <= table.abs().max() / 254 + 1e-6
    rounded.sum().backward()
    assert torch.equal(table.grad, torch.ones_like(table))


def test_no_validation_or_test_event_is_learned(shop: Path) -> None:
    study = make_study(dataset.read(shop), small_config())
    latest_learned = study.log.at_ms[study.train_mask].max()
    assert latest_learned < study.validation["all"].now_ms.min() <= study.test["all"].now_ms.min()


def test_a_prefix_is_asked_for_the_targets_of_the_horizon_after_it_and_no_others(shop: Path) -> None:
    config = small_config(horizon_days=5.0, burn_in_days=20.0, learns_repeats=False)
    study = make_study(dataset.read(shop), config)
    log, worth = study.log, target_worth(study, config)
    (purchase,) = log.vocabulary.event_codes(["purchase"])
    begin_ms = int(log.at_ms.min()) + 20 * DAY_MS
    random = np.random.default_rng(1)
    cuts = prefixes(log, study.train_end, worth > 0, begin_ms, 5 * DAY_MS, 3, random)
    assert len(cuts) > 50
    for start, cut, until in cuts:
        assert start in log.user_start and start < cut < until <= study.train_end[log.user[start]]
        assert log.at_ms[until - 1] >= begin_ms and log.at_ms[until - 1] - log.at_ms[cut] <= 5 * DAY_MS
    asked = 0
    for batch in prefix_batches(log, cuts, worth, 256, random):
        assert batch.rows.numel() <= 1.25 * 256 + log.vocabulary.max_history
        histories = batch.rows.numpy()
        longest = histories.shape[1]
        for place in range(len(batch.asked)):
            wanted = batch.targets[batch.places == place].numpy()
            known = slice(0, int(batch.asked[place]) - place * longest + 1)
            bought = histories[place, known][batch.events.numpy()[place, known] == purchase]
            assert len(wanted) == len(set(wanted)) > 0 and not set(wanted) & set(bought)
            asked += 1
    assert asked == len(cuts)


def test_prefix_training_from_singular_vectors_learns_and_repeats_to_the_bit(shop: Path, tmp_path: Path) -> None:
    config = small_config(
        encoder="pool", horizon_days=5.0, distinct_items=True, initial_rows="svd", max_epochs=2, batch_tokens=2048
    )
    first, second = fit(shop, tmp_path / "a", config), fit(shop, tmp_path / "b", config)
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    cases = first.study.test["all"]
    recall = per_case(model_ranker(first.model, first.log)(cases, 10), cases, [10])["recall@10"]
    assert float(np.mean(recall)) > 3 * 10 / len(first.catalogue)


def test_svd_rows_reproduce_a_matrix_of_low_rank(shop: Path) -> None:
    study = make_study(dataset.read(shop), small_config())
    rows = svd_rows(study.log, study.train_mask, 500).numpy()
    matrix = users_by_items(study.log, study.train_mask).toarray()
    strength = np.linalg.svd(matrix, compute_uv=False)
    scale = 0.05 * len(study.catalogue) ** 0.5
    assert np.allclose(np.linalg.norm(matrix @ rows / scale, axis=0)[:20], strength[:20], rtol=1e-3)


def test_a_log_without_a_target_to_learn_is_an_error(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        fit(shop, tmp_path / "run", small_config(burn_in_days=10_000.0))
    assert caught.value.code == "data.no_targets"
    with pytest.raises(UsageError, match="encoder is 'gru9'; expected lowpass or "):
        fit(shop, tmp_path / "run", small_config(encoder="gru9"))
    fit(shop, tmp_path / "run", small_config(max_epochs=1))  # what never began does not claim the folder


def test_the_trend_lifts_what_sold_last(shop: Path) -> None:
    study = make_study(dataset.read(shop), small_config())
    prior = trend_prior(study.log, study.train_mask, Trend(0.5, 7.0))
    assert int(prior.argmax()) in study.log.item[study.train_mask] and (prior >= 0).all() and prior.max() > 0
    assert torch.equal(trend_prior(study.log, study.train_mask, None), torch.zeros(len(study.catalogue)))
    short = trend_prior(study.log, study.train_mask, Trend(0.5, 0.001))
    last = study.log.at_ms[study.train_mask].max()
    now = study.log.item[study.train_mask & (study.log.at_ms == last)]
    assert set(np.flatnonzero(short.numpy() > 0.01)) == set(now)


def test_leave_one_out_asks_for_the_last_event(shop: Path) -> None:
    study = make_study(dataset.read(shop), small_config(split="leave-one-out", targets=("purchase", "view")))
    cases = study.test["all"]
    assert (cases.relevant == study.log.item[study.log.user_start[1:] - 1]).all()
    assert (np.diff(study.log.user_start) - 1 == np.diff(cases.history_offsets)).all()


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UsageError, match="no setting is named 'wdith'"):
        parse({"targets": ("purchase",)}, ["wdith=3"])
    with pytest.raises(UsageError, match="expected int"):
        parse({"targets": ("purchase",)}, ["width=wide"])
    with pytest.raises(UsageError, match="expected 4 to 1024"):
        FitConfig(targets=("purchase",), width=2)
    assert parse({"targets": ("purchase",)}, ["filter_seen=true", "seed=3"]).filter_seen


def test_a_folder_that_is_not_prepared_and_a_run_that_is_none_are_refused(tmp_path: Path, shop: Path) -> None:
    with pytest.raises(DataError, match=r"no events\.parquet"):
        dataset.read(tmp_path)
    with pytest.raises(DataError, match="no finished run"):
        load_run(tmp_path)
    with pytest.raises(DataError, match="no event is named buy; the data has purchase, view"):
        make_study(dataset.read(shop), small_config(targets=("buy",)))


def test_run_json_remembers_the_settings(trained: Path) -> None:
    saved = json.loads((trained / "run.json").read_text())
    assert saved["config"]["width"] == 32 and saved["facts"]["curve"]


def test_a_split_without_a_case_is_refused_before_training(shop: Path) -> None:
    with pytest.raises(DataError) as caught:
        make_study(dataset.read(shop), small_config(test_days=0.01, validation_days=0.01))
    assert caught.value.code == "data.no_cases"
