"""recommend() says a probability where the bundle has a ranker and the user has a history, and never otherwise."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xrec_export.build import Release, build_bundle
from xrec_export.export_model import ExportModel
from xrec_export.parity import Tolerance
from xrec_sdk.bundle import open_bundle
from xrec_sdk.context import CONTEXT, check_context, context_vector
from xrec_sdk.errors import BundleDamaged, BundleUnsupported, UsageError
from xrec_sdk.history import DAY_MS, HOUR_MS, Vocabulary
from xrec_sdk.manifest import RankerRecord, parse_manifest
from xrec_sdk.recommender import Recommender
from xrec_sdk.runtime import Runtime
from xrec_sdk.signature import generate_key

sys.path.insert(0, str(Path(__file__).parents[1] / "export"))
from small_models import VOCABULARY, make_cases
from test_ranker_graph import make_ranked

PEM, KEY = generate_key()
NOW_MS = 1_700_000_000_000
BOUGHT = ("sku-3", "sku-7", "sku-3", "sku-250")


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportModel]:
    """Return a bundle with a ranker, and the model that it was built from."""
    model, folder = make_ranked("plain"), tmp_path_factory.mktemp("ranked") / "small.xrec"
    release = Release("small", 1, "2026-01-02T03:04:05Z", PEM)
    build_bundle(model, make_cases(20), folder, release=release, tolerance=Tolerance(0, 1))
    return folder, model


def opened(folder: Path, now_ms: int = NOW_MS) -> Recommender:
    made = Recommender(folder, trusted_keys=[KEY], clock_ms=lambda: now_ms)
    made.set_consent("personalise", True)
    for day, item_id in enumerate(BOUGHT):
        made.record("purchase", item_id, device="pc", at_ms=NOW_MS - (9 - day) * DAY_MS)
    return made


def test_the_context_is_the_device_the_hour_and_the_ages_of_the_history() -> None:
    now_ms = 20_000 * DAY_MS + 6 * HOUR_MS + HOUR_MS // 2
    at_ms = np.array([now_ms - 10 * DAY_MS, now_ms - 2 * DAY_MS, now_ms + HOUR_MS], dtype=np.int64)
    assert context_vector(at_ms[:2], 2, now_ms).tolist() == [2, 6.5, 2, 2, 10]
    assert context_vector(at_ms, 0, now_ms).tolist() == [0, 6.5, 3, 0, 10]  # an event of the future counts as now
    assert len(CONTEXT) == 5
    with pytest.raises(ValueError):
        context_vector(at_ms[:0], 0, now_ms)


@pytest.mark.parametrize("filter_seen", [True, False])
def test_each_probability_is_what_torch_says_of_the_same_moment(
    ranked: tuple[Path, ExportModel], filter_seen: bool
) -> None:
    folder, model = ranked
    assert model.ranker is not None and model.prior is not None and model.repeat is not None
    with opened(folder) as recommender:
        listed = recommender.recommend(k=20, filter_seen=filter_seen)
        user = recommender._reader.read().user
        rows = np.array([int(item.item_id.removeprefix("sku-")) for item in listed], dtype=np.int32)
        vectors = recommender.bundle.item_vectors(rows)
    hour = NOW_MS % DAY_MS / HOUR_MS
    context = np.array([VOCABULARY.devices.index("pc") + 1, hour, len(BOUGHT), 6, 9], dtype=np.float32)
    gains = np.zeros(len(rows), dtype=np.float32)
    if not filter_seen:
        for day, item_id in enumerate(BOUGHT):
            gains[rows == int(item_id.removeprefix("sku-"))] += 2.0 ** -(9 - day)  # the half-life is a day
        gains = (model.repeat.weight * np.log1p(gains)).astype(np.float32)
        assert gains.any()
    pairs = np.stack([vectors @ user, model.prior[rows], gains], axis=1).astype(np.float32)
    expected = model.ranker.reference(user, context, rows, vectors, pairs)
    np.testing.assert_allclose([item.probability for item in listed], expected, rtol=0, atol=1e-5)
    assert all(0 < item.probability < 1 for item in listed if item.probability is not None)
    assert [item.score for item in listed] == sorted((item.score for item in listed), reverse=True)


def test_what_the_app_knows_of_the_moment_takes_the_place_of_what_the_sdk_assumes(
    ranked: tuple[Path, ExportModel],
) -> None:
    hour = NOW_MS % DAY_MS / HOUR_MS
    with opened(ranked[0]) as recommender:
        plain = [item.probability for item in recommender.recommend(k=5)]
        same = [item.probability for item in recommender.recommend(k=5, context={"device": "pc", "hour": hour})]
        other = [item.probability for item in recommender.recommend(k=5, context={"device": "phone"})]
        later = [item.probability for item in recommender.recommend(k=5, context={"hour": (hour + 12) % 24})]
    assert plain == same
    assert plain != other and plain != later


def test_rules_keep_each_item_with_its_own_probability(ranked: tuple[Path, ExportModel]) -> None:
    with opened(ranked[0]) as recommender:
        whole = {item.item_id: item.probability for item in recommender.recommend(k=300)}
        for rules in (
            {"max_per_category": 1},
            {"diversity": 0.5},
            {"where": {"category": "shelf 1"}},
            {"where": lambda entry: float(str(entry["price"])) < 20},
            {"explain": True},
        ):
            listed = recommender.recommend(k=5, **rules)  # type: ignore[arg-type]
            assert listed
            assert [item.probability for item in listed] == pytest.approx(
                [whole[item.item_id] for item in listed], abs=1e-6
            )


def test_nothing_is_said_where_nothing_is_known_of_the_user(ranked: tuple[Path, ExportModel]) -> None:
    with Recommender(ranked[0], trusted_keys=[KEY], clock_ms=lambda: NOW_MS) as recommender:
        recommender.set_consent("personalise", True)
        assert {item.probability for item in recommender.recommend(k=5)} == {None}
        recommender.record("purchase", "not in this bundle", device="pc")
        assert {item.probability for item in recommender.recommend(k=5)} == {None}
        recommender.record("purchase", "sku-3", device="pc")
        assert None not in {item.probability for item in recommender.recommend(k=5)}
        assert {item.probability for item in recommender.recommend(k=5, personalised=False)} == {None}
        assert {item.probability for item in recommender.similar("sku-3", k=5)} == {None}


def test_a_bundle_without_a_ranker_says_none(recommender: Recommender) -> None:
    recommender.record("view", "sku-3", device="phone")
    assert {item.probability for item in recommender.recommend(k=5, context={"device": "phone"})} == {None}


@pytest.mark.parametrize(
    "context",
    ["phone", {"place": "home"}, {"device": 3}, {"hour": 24}, {"hour": -1}, {"hour": "12"}, {"hour": True}, 0],
)
def test_a_context_that_is_not_one_is_refused(
    recommender: Recommender, context: Any, code_of: Callable[[pytest.ExceptionInfo[Any]], str]
) -> None:
    with pytest.raises(UsageError) as caught:
        recommender.recommend(k=1, context=context)
    assert code_of(caught) == "usage.context"


def test_a_device_that_the_bundle_does_not_know_is_the_unknown_one() -> None:
    vocabulary = Vocabulary(("view",), ("phone", "pc"))
    assert check_context({"device": "watch"}, vocabulary) == (0, None)
    assert check_context({"device": "pc", "hour": 7}, vocabulary) == (2, 7.0)


def test_a_ranker_that_reads_another_context_asks_for_a_newer_sdk(
    ranked: tuple[Path, ExportModel], code_of: Callable[[pytest.ExceptionInfo[Any]], str]
) -> None:
    written = json.loads((ranked[0] / "manifest.json").read_text())
    written["ranker"]["context"].append("weather")
    with pytest.raises(BundleUnsupported) as caught:
        parse_manifest(json.dumps(written).encode())
    assert code_of(caught) == "bundle.ranker_context"


def test_a_manifest_may_not_name_a_ranker_that_the_graph_lacks(
    own_bundle: Any, code_of: Callable[[pytest.ExceptionInfo[Any]], str]
) -> None:
    bundle = open_bundle(own_bundle.folder, trusted_keys=[own_bundle.key])
    lying = dataclasses.replace(bundle.manifest, ranker=RankerRecord(("purchase",), DAY_MS))
    with pytest.raises(BundleDamaged) as caught:
        Runtime(dataclasses.replace(bundle, manifest=lying))
    assert code_of(caught) == "bundle.graph_malformed"
