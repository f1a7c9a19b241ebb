"""A run trained again learns also from what it held back, as long as validation had it learn before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from small_shop import DAY_MS, Killed, killed_at, small_config, write_shop
from xrec_sdk.errors import DataError, UsageError
from xrec_trainer import dataset
from xrec_trainer.cli import main
from xrec_trainer.config import FitConfig
from xrec_trainer.evaluate import evaluate
from xrec_trainer.fit import fit
from xrec_trainer.rank import rank
from xrec_trainer.ranker import RankerConfig
from xrec_trainer.refit import refit
from xrec_trainer.run import load_run
from xrec_trainer.splits import Study, make_study


def write_log(folder: Path, *histories: str) -> Path:
    """Write a prepared folder of histories such as "pvp": purchases and views, each of another item."""
    rows = [
        (f"user-{user}", f"sku-{place}", {"p": "purchase", "v": "view"}[event], place * DAY_MS, "pc")
        for user, history in enumerate(histories)
        for place, event in enumerate(history)
    ]
    folder.mkdir(parents=True)
    columns = dict(zip(("user_id", "item_id", "event", "at_ms", "device"), zip(*rows, strict=True), strict=True))
    pq.write_table(pa.table(columns), folder / "events.parquet")
    pq.write_table(pa.table({"item_id": sorted(set(columns["item_id"]))}), folder / "items.parquet")
    return folder


@pytest.mark.parametrize(
    ("history", "learned"),
    [("ppp", [1, 2, 3]), ("ppvv", [0, 1, 4]), ("pvpvvpv", [2, 5, 7]), ("vvpv", [2, 2, 4]), ("pp", [2, 2, 2])],
)
def test_left_one_out_nothing_is_learned_from_the_first_target_on_that_is_kept_back(
    history: str, learned: list[int], tmp_path: Path
) -> None:
    raw = dataset.read(write_log(tmp_path / "data", history, "ppppp"))
    for until, count in zip(("validation", "test", "end"), learned, strict=True):
        study = make_study(raw, small_config(split="leave-one-out", learns_until=until))
        assert study.train_end[0] - study.log.user_start[0] == count


@pytest.fixture(scope="module")
def short(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of a few epochs."""
    out = tmp_path_factory.mktemp("short") / "run"
    fit(shop, out, small_config(max_epochs=3))
    return out


def learned_until_ms(study: Study) -> int:
    return int(study.log.at_ms[study.train_mask].max())


@pytest.mark.parametrize("split", ["time", "leave-one-out"])
def test_what_is_learned_ends_at_validation_at_the_test_or_at_the_end(shop: Path, split: str) -> None:
    raw = dataset.read(shop)
    studies = [
        make_study(raw, small_config(split=split, learns_until=until)) for until in ("validation", "test", "end")
    ]
    learned = [int(study.train_mask.sum()) for study in studies]
    assert learned[0] < learned[1] < learned[2] == len(raw.user)
    _, until_test, _ = studies
    for case in range(len(until_test.test["all"])):
        assert until_test.train_mask[until_test.test["all"].history(case)].all()
    if split == "time":
        asked = [int(study.test["all"].now_ms[0]) for study in studies]
        assert len(set(asked)) == 1
        assert learned_until_ms(studies[1]) < asked[0] <= learned_until_ms(studies[2])
    else:
        users = until_test.test["all"].user
        first_held_back = until_test.train_end[users]
        assert (until_test.log.item[first_held_back] == until_test.test["all"].relevant).all()


def test_a_refitted_run_takes_epochs_trend_and_repeat_rule_from_its_run_and_can_be_measured(
    short: Path, tmp_path: Path
) -> None:
    first, lines = load_run(short), []
    again = refit(short, tmp_path / "run", "test", reporter=lambda config, epochs: lines.append)
    curve = first.facts["curve"]
    best_float = max((line for line in curve if not line["is_quantized"]), key=lambda line: line["validation_ndcg@10"])
    float_lines = [line for line in lines if not line["is_quantized"]]
    assert len(float_lines) == best_float["epoch"]
    assert len(lines) - len(float_lines) == max(0, first.facts["best_epoch"] - first.facts["epochs"] + 1)
    assert {line["validation_ndcg@10"] for line in lines} == {None}
    assert again.repeat == first.repeat and again.facts["trend"] == first.facts["trend"]
    assert again.facts["curve"] == curve and again.facts["learns_until"] == "test"
    assert not torch.equal(again.model.ids.weight[:5], first.model.ids.weight[:5])
    metrics = evaluate(tmp_path / "run", ks=[10])
    assert metrics["dataset"]["events learned from"] == int(again.study.train_mask.sum())


def test_items_that_are_new_at_the_end_of_the_log_get_rows(short: Path, tmp_path: Path) -> None:
    grown = write_shop(tmp_path / "data", users=140, items=170)
    known = load_run(short)
    again = refit(short, tmp_path / "run", "end", data=grown)
    assert len(again.catalogue) > len(known.catalogue)
    assert again.catalogue.warm == len(np.unique(again.log.item[again.study.train_mask]))


def test_a_run_that_learned_its_test_period_is_neither_measured_nor_ranked_nor_refitted(
    short: Path, tmp_path: Path
) -> None:
    refit(short, tmp_path / "run", "end")
    for wrong in (
        lambda: evaluate(tmp_path / "run", ks=[10]),
        lambda: rank(tmp_path / "run", RankerConfig()),
    ):
        with pytest.raises(DataError) as caught:
            wrong()
        assert caught.value.code == "data.nothing_held_out"
    with pytest.raises(UsageError) as refused:
        refit(tmp_path / "run", tmp_path / "again")
    assert refused.value.code == "usage.refit"


def test_a_refit_is_refused_where_nothing_was_chosen(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="then call xrec-train refit"):
        fit(shop, tmp_path / "run", small_config(learns_until="end"))
    with pytest.raises(DataError) as caught:
        refit(tmp_path / "none", tmp_path / "run")
    assert caught.value.code == "data.not_a_run"
    with pytest.raises(UsageError, match="learns_until is 'ever'; expected validation or test or end"):
        FitConfig(targets=("purchase",), learns_until="ever")  # type: ignore[arg-type]


def test_a_run_with_items_held_back_is_not_refitted(shop: Path, tmp_path: Path) -> None:
    fit(shop, tmp_path / "run", small_config(max_epochs=1, quantized_epochs=0, cold_share=0.1))
    with pytest.raises(UsageError, match="cold_share"):
        refit(tmp_path / "run", tmp_path / "again")


def test_a_killed_refit_resumes_to_the_same_weights(short: Path, tmp_path: Path) -> None:
    whole = refit(short, tmp_path / "whole")
    with pytest.raises(Killed):
        refit(short, tmp_path / "cut", reporter=lambda config, epochs: killed_at(1))
    resumed = refit(short, tmp_path / "cut")
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_command_shows_each_epoch_and_how_many_there_are(short: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["refit", str(short), "--out", str(tmp_path / "run"), "--until", "test"])
    assert done.exit_code == 0, done.output
    assert "epochs)" in done.stderr and "validation" not in done.stderr
    assert "learned until the test period" in done.stdout
    as_json = CliRunner().invoke(main, ["refit", str(short), "--out", str(tmp_path / "json"), "--json"])
    assert json.loads(as_json.stdout.splitlines()[-1])["epochs"] == load_run(tmp_path / "json").facts["epochs"]
    refused = CliRunner().invoke(main, ["refit", str(tmp_path / "json"), "--out", str(tmp_path / "again")])
    assert refused.exit_code == 2 and "error [usage.refit]" in refused.stderr
