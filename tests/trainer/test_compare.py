"""A comparison asks all models the same, chooses on validation, and goes on after a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from small_shop import small_config, write_shop
from xrec_sdk.errors import DataError, UsageError
from xrec_trainer import dataset
from xrec_trainer.baselines import baseline
from xrec_trainer.bootstrap import mean_interval, paired_difference
from xrec_trainer.cases import Cases
from xrec_trainer.cli import main
from xrec_trainer.compare import compare, table
from xrec_trainer.evaluate import evaluate
from xrec_trainer.metrics import per_case
from xrec_trainer.splits import make_study

QUICK: dict[str, Any] = {"max_epochs": 2, "width": 16}
MODELS = ("popularity", "ease", "pool", "random")


@pytest.fixture(scope="module")
def compared(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("compare") / "compared"
    return out, compare(shop, out, small_config(**QUICK), MODELS, seeds=(1, 2))


def ndcg_of(shop: Path, name: str) -> tuple[Cases, np.ndarray]:
    """Return the test cases on new items and NDCG@10 of a baseline, learned here."""
    config = small_config(**QUICK)
    study = make_study(dataset.read(shop), config)
    cases = study.test["new"]
    return cases, per_case(baseline(name, study, config)(cases, 10), cases, [10])["ndcg@10"]


def test_every_model_has_validation_and_test_figures_of_every_task(compared: tuple[Path, dict[str, Any]]) -> None:
    out, found = compared
    assert json.loads((out / "compare.json").read_text()) == json.loads(json.dumps(found))
    assert tuple(found["models"]) == MODELS
    for model in found["models"].values():
        for part in ("validation", "test"):
            assert set(model[part]) == {"all", "new"}
            ndcg = model[part]["new"]["ndcg@10"]
            assert ndcg["low"] <= ndcg["mean"] <= ndcg["high"] and model[part]["new"]["hr@20"]["mean"] > 0
        assert model["seconds"] > 0


def test_a_baseline_has_the_figures_that_its_lists_give(shop: Path, compared: tuple[Path, dict[str, Any]]) -> None:
    cases, ndcg = ndcg_of(shop, "ease")
    found, interval = compared[1]["models"]["ease"]["test"]["new"]["ndcg@10"], mean_interval(ndcg, cases.user)
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((interval.mean, interval.low, interval.high))
    assert found["spread"] is None and found["seeds"] == [found["mean"]]


def test_an_encoder_has_the_figures_that_evaluate_gives(compared: tuple[Path, dict[str, Any]]) -> None:
    out, found = compared
    of_seed = [
        evaluate(out / f"pool-{seed}", baselines=(), ks=[10])["tasks"]["new"]["models"]["xrec"] for seed in (1, 2)
    ]
    pool = found["models"]["pool"]["test"]["new"]
    assert pool["ndcg@10"]["seeds"] == pytest.approx([figures["ndcg@10"]["mean"] for figures in of_seed])
    assert pool["recall@10"]["seeds"] == pytest.approx([figures["recall@10"] for figures in of_seed])
    first, second = pool["ndcg@10"]["seeds"]
    assert pool["ndcg@10"]["mean"] == pytest.approx((first + second) / 2)
    assert pool["ndcg@10"]["spread"] == pytest.approx(abs(first - second) / 2**0.5) and first != second


def test_the_data_is_read_once_for_all_trainings(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, reads = dataset.read, []

    def counted(path: Path, **options: bool) -> dataset.RawLog:
        reads.append(path)
        return read(path, **options)

    monkeypatch.setattr(dataset, "read", counted)
    compare(shop, tmp_path / "compared", small_config(**QUICK), ["pool"], seeds=(1, 2))
    assert reads == [shop]


def test_seeds_that_would_hold_out_other_items_are_refused(shop: Path, tmp_path: Path) -> None:
    for seeds in ((1, 2), (2,)):
        with pytest.raises(UsageError, match="cold_share holds out other items") as caught:
            compare(shop, tmp_path / "compared", small_config(cold_share=0.2), ["ease"], seeds=seeds)
        assert caught.value.code == "usage.setting" and not (tmp_path / "compared").exists()


def test_the_best_is_chosen_on_validation_even_where_another_is_better_on_test(
    shop: Path, tmp_path: Path, compared: tuple[Path, dict[str, Any]]
) -> None:
    assert compared[1]["chosen"] == "pool"
    out = tmp_path / "compared"
    shutil.copytree(compared[0], out)
    for path in (out / "pool-1" / "lists.npz", out / "pool-2" / "lists.npz"):
        lists = dict(np.load(path))
        lists["validation new"][:] = -1  # as if it had found nothing on validation; its test lists stay the best
        np.savez(path, **lists)
    found = compare(shop, out, small_config(**QUICK), MODELS, seeds=(1, 2))
    test = {name: model["test"]["new"]["ndcg@10"]["mean"] for name, model in found["models"].items()}
    assert max(test, key=test.__getitem__) == "pool" and found["chosen"] == "ease"
    (cases, ease), (_, popular) = ndcg_of(shop, "ease"), ndcg_of(shop, "popularity")
    difference = paired_difference(popular, ease, cases.user)
    assert found["models"]["popularity"]["difference"]["new"] == vars(difference)


def test_a_cut_comparison_goes_on_and_trains_nothing_twice(
    shop: Path, tmp_path: Path, compared: tuple[Path, dict[str, Any]]
) -> None:
    class Killed(Exception):
        pass

    heard: list[tuple[int, int]] = []

    def kill_at(last: tuple[int, int] | None):  # type: ignore[no-untyped-def]
        def epochs(config):  # type: ignore[no-untyped-def]
            def hear(line: dict[str, Any]) -> None:
                heard.append((config.seed, line["epoch"]))
                if heard[-1] == last:
                    raise Killed

            return hear

        return epochs

    out, config = tmp_path / "cut", small_config(**QUICK)
    said: list[str] = []
    with pytest.raises(Killed):
        compare(shop, out, config, MODELS, seeds=(1, 2), epochs=kill_at((2, 2)))
    assert heard == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
    heard.clear()
    resumed = compare(shop, out, config, MODELS, seeds=(1, 2), say=said.append, epochs=kill_at(None))
    assert heard == [(2, 2), (2, 3)]  # the second had not been saved
    assert said == ["[6/6] pool, seed 2"]
    assert len(json.loads((out / "pool-2" / "seconds.json").read_text())) == 3
    for name, model in resumed["models"].items():
        assert {**model, "seconds": 0} == {**compared[1]["models"][name], "seconds": 0}
    heard.clear()
    more = compare(shop, out, config, ["pool", "item_knn"], epochs=kill_at(None))
    assert set(more["models"]) == {"pool", "item_knn"} and not heard


def test_the_table_marks_the_chosen_and_shows_seeds_intervals_and_seconds(
    compared: tuple[Path, dict[str, Any]],
) -> None:
    text = table(compared[1])
    assert "new (" in text and "all (" in text and "* chosen by validation new ndcg@10" in text
    lines = {line[2:].split()[0]: line for line in text.splitlines() if line[:2] in ("* ", "  ")}
    assert "±" in lines["pool"] and lines["pool"].startswith("* ") and "±" not in lines["popularity"]
    assert "worse" in lines["popularity"] and lines["popularity"].endswith(" s")
    assert sum(line.startswith("* ") for line in text.splitlines()) == 2


def test_the_command_prints_the_table_or_json(shop: Path, tmp_path: Path) -> None:
    words = ["compare", str(shop), "--out", str(tmp_path / "out"), "--model", "popularity", "--model", "item_knn"]
    words += [word for name in ("test_days=12", "validation_days=12", "min_count=1") for word in ("--setting", name)]
    shown = CliRunner().invoke(main, words)
    assert shown.exit_code == 0 and "* item_knn" in shown.stdout and "[2/2] item_knn" in shown.stderr
    as_json = CliRunner().invoke(main, [*words, "--json"])
    assert json.loads(as_json.stdout)["chosen"] == "item_knn" and as_json.stderr == ""


def test_wrong_calls_are_refused(shop: Path, tmp_path: Path, compared: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match=r"no model is named gru9; .*pool.* baselines popularity") as caught:
        compare(shop, tmp_path / "out", small_config(), ["ease", "gru9"])
    assert caught.value.code == "usage.model" and not (tmp_path / "out").exists()
    with pytest.raises(UsageError) as caught:
        compare(shop, compared[0], small_config(**QUICK, dropout=0.3), ["ease"])
    assert caught.value.code == "usage.comparison_differs"
    for option, wrong, code in (("--seeds", "1,x", "usage.seeds"), ("--setting", "encoder=pool", "usage.setting")):
        words = ["compare", str(shop), "--out", str(tmp_path / "out"), "--model", "ease", option, wrong]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 2 and f"error [{code}]" in result.stderr


def test_a_comparison_without_a_case_to_choose_on_is_refused(tmp_path: Path) -> None:
    short = write_shop(tmp_path / "short", users=30, items=20, events=2)
    config = small_config(split="leave-one-out", targets=("purchase", "view"))
    with pytest.raises(DataError, match="three events or more") as caught:
        compare(short, tmp_path / "out", config, ["popularity"])
    assert caught.value.code == "data.no_cases"
