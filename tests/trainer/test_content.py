"""Content rows: features of entries, items without events, and what is measured of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from small_shop import Killed, killed_at, small_config, write_shop
from xrec_sdk.errors import DataError
from xrec_trainer import content, dataset
from xrec_trainer.cold import cold_cases, cold_only
from xrec_trainer.evaluate import evaluate
from xrec_trainer.fit import fit
from xrec_trainer.metrics import per_case
from xrec_trainer.ranking import model_ranker
from xrec_trainer.run import load_run
from xrec_trainer.splits import make_study

TEAS = [
    {"title": "green tea bags", "category": "drinks", "brand": "Ota|Uji", "price": 4.0},
    {"title": "black tea loose", "category": "drinks", "brand": "Uji", "price": 4.1},
    {"title": "motor oil 5W", "category": "car", "brand": "Ota", "price": 30.0},
    {"title": "winter tyre", "category": "car", "price": 90.0},
    {"title": "绿茶 袋装", "note": "once"},
    {"title": "红茶 袋装"},
    {"price": 0.0, "brand": None},
]


def tokens_of(features: content.Features, learned: content.Content, item: int) -> dict[str, float]:
    """Return an item's tokens with their weights."""
    part = slice(features.offsets[item], features.offsets[item + 1])
    names = [learned.tokens[code] for code in features.codes[part]]
    return dict(zip(names, features.weights[part].tolist(), strict=True))


def test_each_value_of_an_attribute_is_a_token_that_two_items_must_have() -> None:
    learned = content.learn(TEAS)
    # 4.0 and 4.1 lie in one half octave, from 4 to 5.66; 30 and 90 and "once" have only one item.
    assert learned.tokens == ("brand=Ota", "brand=Uji", "category=car", "category=drinks", "price=4")
    features = content.encode(learned, TEAS)
    assert tokens_of(features, learned, 0) == {"brand=Ota": 0.5, "brand=Uji": 0.5, "category=drinks": 1, "price=4": 1}
    assert tokens_of(features, learned, 3) == {"category=car": 1}
    assert tokens_of(features, learned, 6) == {} and not features.text[6].any()


def test_a_new_title_lies_near_those_that_it_shares_grams_with() -> None:
    learned = content.learn(TEAS)
    known = content.encode(learned, TEAS).text
    assert np.allclose(np.linalg.norm(known[:6], axis=1), [1, 1, 1, 1, 1, 1], atol=1e-5) or not known[2:4].any()
    teas = content.encode(learned, [{"title": "Tea, white"}, {"title": "茶 袋装"}, {"title": "zzz"}]).text
    assert (teas[0] @ known.T).argmax() in (0, 1) and (teas[1] @ known.T).argmax() in (4, 5)
    assert not teas[2].any()


def test_values_that_are_long_on_average_are_text_and_no_tokens() -> None:
    long = "a soft blanket of recycled wool, woven in one piece"
    entries = [{"title": f"Blanket {number}", "description": long, "colour": "red"} for number in range(3)]
    learned = content.learn([*entries, *({"title": "Lamp", "colour": "red"} for _ in range(4))])
    assert learned.text_fields == ("description",) and learned.tokens == ("colour=red",)
    unnamed = content.encode(learned, [{"description": "recycled wool blanket"}])
    assert np.isclose(np.linalg.norm(unnamed.text), 1)


def test_what_was_learned_is_written_whole_and_read_back(tmp_path: Path) -> None:
    learned, path = content.learn(TEAS), tmp_path / "content.npz"
    content.save(path, learned)
    again = content.load(path)
    assert (again.text_fields, again.tokens) == (learned.text_fields, learned.tokens)
    for name in ("grams", "idf", "projection"):
        assert np.array_equal(getattr(again, name), getattr(learned, name))
    path.write_bytes(path.read_bytes()[:-200])
    for damaged in (path, tmp_path / "none.npz"):
        with pytest.raises(DataError) as caught:
            content.load(damaged)
        assert caught.value.code == "data.content_malformed"


def test_entries_that_say_nothing_give_no_features() -> None:
    learned = content.learn([{}, {"title": ""}, {}])
    features = content.encode(learned, [{}, {"title": "x"}])
    assert len(learned.tokens) == len(learned.grams) == len(features.codes) == 0 and features.text.shape == (2, 0)


@pytest.fixture(scope="module")
def cold_run(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the shop with a fifth of its items held out."""
    out = tmp_path_factory.mktemp("cold") / "run"
    fit(shop, out, COLD)
    return out


COLD = small_config(content=True, id_dropout=0.2, cold_share=0.2, max_epochs=8)


def test_held_out_items_come_last_and_nothing_is_learned_of_them(shop: Path) -> None:
    study = make_study(dataset.read(shop), COLD)
    assert len(study.catalogue) == 150 and study.catalogue.warm == 120
    assert (study.log.item[study.train_mask] < 120).all() and (study.validation["all"].relevant < 120).all()
    cold = cold_cases(study)
    assert len(cold) > 10 and (cold.relevant >= 120).all()
    histories = [study.log.item[cold.history(case)] for case in range(len(cold))]
    assert all((history < 120).all() for history in histories)
    assert make_study(dataset.read(shop), COLD).catalogue.ids == study.catalogue.ids


def test_items_without_entries_can_not_be_held_out(shop: Path, tmp_path: Path) -> None:
    shutil.copytree(shop, tmp_path / "data")
    items = pq.read_table(shop / "items.parquet", columns=["item_id"])
    pq.write_table(items, tmp_path / "data" / "items.parquet")
    for settings in ({"cold_share": 0.1}, {"new_items": True}):
        with pytest.raises(DataError) as caught:
            make_study(dataset.read(tmp_path / "data"), small_config(**settings))
        assert caught.value.code == "data.no_content"
    assert len(make_study(dataset.read(tmp_path / "data"), small_config()).catalogue) == 150


def test_leave_one_out_holds_items_out_of_all_but_last_events(shop: Path) -> None:
    study = make_study(dataset.read(shop), small_config(split="leave-one-out", cold_share=0.2))
    is_cold = study.log.item >= study.catalogue.warm
    assert is_cold.any() and not is_cold[study.train_mask].any()
    assert set(np.flatnonzero(is_cold)) <= set(study.log.user_start[1:] - 1)
    assert len(cold_cases(study)) == is_cold[study.log.event == study.log.vocabulary.event_codes(["purchase"])[0]].sum()


def test_an_item_without_events_ranks_by_its_content_far_better_than_chance(cold_run: Path) -> None:
    cold = evaluate(cold_run, ks=[10])["cold"]
    among = cold["among"]["cold items"]
    assert cold["items"] == 30 and cold["cases"] > 10
    assert among["differences"]["random"]["ndcg@10"]["low"] > 0
    assert cold["among"]["all items"]["models"]["xrec"]["hr@10"]["mean"] > 0
    saved = json.loads((cold_run / "metrics.json").read_text())
    assert saved["cold"] == cold and "Items without events" in (cold_run / "report.html").read_text()


def test_cold_lists_keep_the_order_and_leave_out_the_warm(cold_run: Path) -> None:
    run = load_run(cold_run)
    cases, rank = cold_cases(run.study), model_ranker(run.model, run.log, run.repeat)
    everything = rank(cases, 150)
    for line, cold in zip(everything, cold_only(rank, run.study)(cases, 10), strict=True):
        assert cold.tolist() == [row for row in line if row >= 120][:10]
    assert (per_case(cold_only(rank, run.study)(cases, 10), cases, [10])["hr@10"] >= 0).all()


def test_a_run_with_content_repeats_resumes_and_moves_to_the_bit(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(content=True, id_dropout=0.3, cold_share=0.1, initial_rows="svd", max_epochs=2)
    whole = fit(shop, tmp_path / "whole", config)
    with pytest.raises(Killed):
        fit(shop, tmp_path / "cut", config, killed_at(2))

    def elsewhere(entries: object) -> content.Content:
        raise AssertionError("what was learned of the items is learned again")

    monkeypatch.setattr(content, "learn", elsewhere)
    fit(shop, tmp_path / "cut", config)
    shutil.move(tmp_path / "cut", tmp_path / "moved")
    moved = load_run(tmp_path / "moved", shop)
    assert torch.equal(moved.model.item_table(), whole.model.item_table())
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, moved.model.state_dict()[name]), name


def test_new_items_are_ranked_after_the_warm_by_an_empty_history_and_have_no_prior(tmp_path: Path) -> None:
    data = write_shop(tmp_path / "data")
    items = pq.read_table(data / "items.parquet").to_pylist()
    items += [{"item_id": f"new-{n}", "title": f"Thing {n}", "category": "group 3", "price": 31.0} for n in range(5)]
    items += [{"item_id": "blank", "title": None, "category": None, "price": None}]
    pq.write_table(dataset.pa.Table.from_pylist(items), data / "items.parquet")
    study = make_study(dataset.read(data), small_config(new_items=True))
    assert study.catalogue.warm == 150 and study.catalogue.ids[150:] == [f"new-{n}" for n in range(5)]
    run = fit(data, tmp_path / "run", small_config(new_items=True, content=True, max_epochs=1))
    prior = run.model.get_buffer("prior")
    assert prior.shape == (155,) and not prior[150:].any() and run.model.item_table()[150:].any()
    assert len(make_study(dataset.read(data), small_config()).catalogue) == 150
