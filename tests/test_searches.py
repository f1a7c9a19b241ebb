"""Searches from the log to the device: learned, exported, recorded without their text, and heeded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xrec_sdk
from click.testing import CliRunner
from small_shop import DAY_MS, small_config, write_shop
from xrec_export.cli import main as export
from xrec_sdk.bundle import open_bundle
from xrec_sdk.conformance import check_conformance
from xrec_sdk.errors import BundleUnsupported, DataError
from xrec_sdk.manifest import parse_manifest
from xrec_sdk.query import BUCKETS, is_query, reduce_query
from xrec_sdk.runtime import Runtime
from xrec_trainer import dataset
from xrec_trainer.batches import prefix_batches, prefixes
from xrec_trainer.evaluate import evaluate
from xrec_trainer.fit import fit, target_worth
from xrec_trainer.metrics import per_case
from xrec_trainer.ranking import model_ranker
from xrec_trainer.run import load_run
from xrec_trainer.splits import make_study

SHELVES = ("green tea", "running shoes", "红茶", "garden hose", "night lamp", "手机壳")
SPELLINGS = ("{}", "{}s", "cheap {}", "new {}", "{} sale")
SEED = 11


def write_searches(folder: Path, *, users: int = 150, visits: int = 9) -> Path:
    """Write a log in which each visit is a search for a shelf, drawn anew, and a purchase from that shelf."""
    random = np.random.default_rng(SEED)
    rows = []
    for user in range(users):
        at_ms = 1_700_000_000_000 + int(random.integers(5 * DAY_MS))
        for _ in range(visits):
            shelf = int(random.integers(len(SHELVES)))
            text = SPELLINGS[int(random.integers(len(SPELLINGS)))].format(SHELVES[shelf])
            at_ms += int(random.integers(2 * DAY_MS, 8 * DAY_MS))
            rows.append((f"u{user}", None, "search", at_ms, "phone", text))
            item = f"sku-{shelf}-{int(random.integers(8))}"
            rows.append((f"u{user}", item, "purchase", at_ms + 60_000, "phone", None))
    names = ("user_id", "item_id", "event", "at_ms", "device", "query")
    folder.mkdir(parents=True)
    pq.write_table(pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))), folder / "events.parquet")
    items = {"item_id": [f"sku-{shelf}-{place}" for shelf in range(len(SHELVES)) for place in range(8)]}
    pq.write_table(pa.table(items), folder / "items.parquet")
    return folder


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_searches(tmp_path_factory.mktemp("searches") / "data")


SETTINGS = {"split": "leave-one-out", "max_epochs": 8, "patience": 8, "quantized_epochs": 1}


@pytest.fixture(scope="module")
def run(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("searches-run") / "run"
    fit(log, out, small_config(queries=True, **SETTINGS))
    return out


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a bundle that has passed the parity gate, and the key that signed it."""
    folder = tmp_path_factory.mktemp("searches-release")
    made = CliRunner().invoke(export, ["keygen", str(folder / "key.pem"), "--json"])
    built = CliRunner().invoke(
        export, ["build", str(run), "--out", str(folder / "shop.xrec"), "--key", str(folder / "key.pem")]
    )
    assert built.exit_code == 0, built.output
    return folder / "shop.xrec", json.loads(made.output)["public_key"]


def _ndcg(folder: Path) -> float:
    found = load_run(folder)
    cases = found.study.test["all"]
    return float(np.mean(per_case(model_ranker(found.model, found.log)(cases, 10), cases, [10])["ndcg@10"]))


def test_a_model_that_reads_searches_ranks_better_than_one_that_does_not(log: Path, run: Path, tmp_path: Path) -> None:
    fit(log, tmp_path / "without", small_config(**SETTINGS))
    assert _ndcg(run) > 2 * _ndcg(tmp_path / "without")


@pytest.mark.parametrize("query", ["GREEN TEA", "best green teas", "green tee"])
def test_a_search_changes_what_is_recommended_to_what_was_learned(bundle: tuple[Path, str], query: str) -> None:
    with xrec_sdk.Recommender(bundle[0], trusted_keys=[bundle[1]]) as recommender:
        recommender.set_consent("personalise", True)
        recommender.record("purchase", "sku-3-1", device="phone", at_ms=1)
        before = [item.item_id for item in recommender.recommend(k=6)]
        recommender.record("search", query=query, device="phone", at_ms=60_000 * 60 * 24)
        after = [item.item_id for item in recommender.recommend(k=6, explain=True)]
    shelf = "sku-0-"
    assert sum(item.startswith(shelf) for item in after) >= 5 > sum(item.startswith(shelf) for item in before)


def test_the_bundle_answers_searches_as_the_float_model_does(run: Path, bundle: tuple[Path, str]) -> None:
    found = evaluate(run, bundle=bundle[0], keys=[bundle[1]], ks=[10])["bundle"]
    assert found["overlap@10"] >= 0.98
    opened = open_bundle(bundle[0], trusted_keys=[bundle[1]])
    assert check_conformance(Runtime(opened), opened) > 0
    assert any("queries" in case for case in json.loads(opened.conformance)["cases"])


def test_a_profile_holds_no_text_of_a_search_and_forgets_it(bundle: tuple[Path, str], tmp_path: Path) -> None:
    path = tmp_path / "profile.db"
    with xrec_sdk.Recommender(bundle[0], path, trusted_keys=[bundle[1]]) as recommender:
        recommender.set_consent("personalise", True)
        recommender.record("search", query="running shoes", device="phone", at_ms=1)
        (event,) = recommender.export_my_data()["events"]
        assert is_query(event["item_id"]) and "shoes" not in json.dumps(event)
        reason = recommender.recommend(k=1, explain=True)[0].reasons[0]
        assert (reason.event, reason.text) == ("search", "because you searched for something like it on your phone")
        assert recommender.forget(event="search") == 1
        assert event["item_id"].encode() not in path.read_bytes()


def test_a_bundle_without_searches_leaves_them_out(shop_bundle: Path) -> None:
    with xrec_sdk.Recommender(shop_bundle, allow_unsigned=True) as recommender:
        recommender.set_consent("personalise", True)
        recommender.record("purchase", "sku-3", device="phone", at_ms=1)
        before = recommender.recommend(k=5)
        recommender.record("search", query="thing", device="phone", at_ms=2)
        assert [one.score for one in recommender.recommend(k=5)] == [one.score for one in before]
        assert "query_buckets" not in (shop_bundle / "manifest.json").read_text()


@pytest.fixture(scope="module")
def shop_bundle(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    CliRunner().invoke(export, ["keygen", str(folder / "key.pem")])
    words = ["build", str(trained), "--out", str(folder / "shop.xrec"), "--key", str(folder / "key.pem")]
    assert CliRunner().invoke(export, words).exit_code == 0
    return folder / "shop.xrec"


def test_another_number_of_buckets_is_refused(bundle: tuple[Path, str]) -> None:
    manifest = json.loads((bundle[0] / "manifest.json").read_text())
    assert manifest["vocabulary"]["query_buckets"] == BUCKETS
    manifest["vocabulary"]["query_buckets"] = 512
    with pytest.raises(BundleUnsupported) as caught:
        parse_manifest(json.dumps(manifest).encode())
    assert caught.value.code == "bundle.query_buckets"


def test_a_search_is_no_target(log: Path) -> None:
    config = small_config(targets=("search",), queries=True, **SETTINGS)
    with pytest.raises(DataError) as caught:
        make_study(dataset.read(log, queries=True), config)
    assert caught.value.code == "data.target_search"


def test_searches_are_never_answers_and_prefixes_hold_them(log: Path) -> None:
    config = small_config(queries=True, horizon_days=9.0)
    study = make_study(dataset.read(log, queries=True), config)
    assert len(study.log.queries) == len(SHELVES) * len(SPELLINGS) and (study.log.item < 0).any()
    assert all((cases.relevant >= 0).all() for cases in (*study.validation.values(), *study.test.values()))
    worth, random = target_worth(study, config), np.random.default_rng(SEED)
    cuts = prefixes(study.log, study.train_end, worth > 0, int(study.log.at_ms.min()), 9 * DAY_MS, 2, random)
    batches = list(prefix_batches(study.log, cuts, worth, 512, random))
    assert any((batch.rows < 0).any() for batch in batches)
    assert all((batch.targets >= 0).all() for batch in batches)


def test_a_log_with_reduced_queries_reads_as_one_with_their_texts(log: Path, tmp_path: Path) -> None:
    table = pq.read_table(log / "events.parquet")
    reduced = [text and reduce_query(text) for text in table["query"].to_pylist()]
    (tmp_path / "data").mkdir()
    pq.write_table(table.set_column(5, "query", pa.array(reduced)), tmp_path / "data" / "events.parquet")
    pq.write_table(pq.read_table(log / "items.parquet"), tmp_path / "data" / "items.parquet")
    one, other = dataset.read(log, queries=True), dataset.read(tmp_path / "data", queries=True)
    assert one.queries == other.queries and np.array_equal(one.item, other.item)


def test_a_log_without_searches_trains_with_the_setting_on(tmp_path: Path) -> None:
    data = write_shop(tmp_path / "data", users=40)
    table = pq.read_table(data / "events.parquet")
    pq.write_table(table.append_column("query", pa.nulls(len(table), pa.string())), data / "events.parquet")
    fit(data, tmp_path / "run", small_config(queries=True, max_epochs=1, quantized_epochs=0))
