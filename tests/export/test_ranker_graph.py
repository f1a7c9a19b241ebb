"""scorer.onnx gives the probabilities that torch gives, and a bundle without a ranker knows nothing of it."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from xrec_export import parity, reference
from xrec_export.build import Release, build_bundle
from xrec_export.export_model import ExportModel
from xrec_export.export_ranker import fold
from xrec_export.inspect import verify_bundle
from xrec_export.parity import Tolerance
from xrec_export.ranker_graph import ExportRanker
from xrec_sdk.bundle import Bundle, open_bundle
from xrec_sdk.conformance import check_conformance
from xrec_sdk.errors import BundleDamaged, GateError
from xrec_sdk.runtime import Runtime
from xrec_sdk.signature import generate_key
from xrec_trainer.ranker import Ranker, Shape

sys.path.insert(0, str(Path(__file__).parent))
from small_models import VOCABULARY, WIDTH, make_cases, make_model

PEM, PUBLIC = generate_key()
LOOSE = Tolerance(min_overlap=0.9, max_ndcg_loss=0.2)
COUNT = 300
SEED = 5


def make_ranker(shape: Shape, seed: int = SEED) -> ExportRanker:
    """Return a ranker whose weights, standardization and calibration are all random."""
    torch.manual_seed(seed)
    ranker = Ranker(shape, WIDTH + VOCABULARY.device_count + 5, WIDTH + 5, 16).eval()
    for name, buffer in ranker.named_buffers():
        buffer.copy_(torch.rand(buffer.shape) + (0.5 if name.endswith("scale") else 0))
    ranker.calibrate((0.7, -1.0), (1.2, 0.5))
    features = np.random.default_rng(seed).uniform(0, 8, size=(COUNT, 2)).astype(np.float32)
    return fold(ranker, features, VOCABULARY.device_count, ("purchase",), 7 * 86_400_000)


def make_ranked(shape: Shape, *, has_prior: bool = True) -> ExportModel:
    prior = np.random.default_rng(SEED).random(COUNT).astype(np.float32) if has_prior else None
    return dataclasses.replace(make_model(COUNT), ranker=make_ranker(shape), prior=prior)


def build(model: ExportModel, target: Path) -> Bundle:
    release = Release("small", 1, "2026-01-02T03:04:05Z", PEM)
    build_bundle(model, make_cases(40), target, release=release, tolerance=LOOSE)
    return open_bundle(target, trusted_keys=[PUBLIC])


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build(make_ranked("plain"), tmp_path_factory.mktemp("ranked") / "small.xrec")


@pytest.mark.parametrize(("shape", "has_prior"), [("plain", True), ("plain", False), ("two-branch", True)])
def test_probabilities_are_those_of_torch(shape: Shape, has_prior: bool, tmp_path: Path) -> None:
    model = make_ranked(shape, has_prior=has_prior)
    bundle = build(model, tmp_path / "small.xrec")
    runtime, random = Runtime(bundle), np.random.default_rng(SEED)
    assert model.ranker is not None
    spread = []
    for k in (1, 10, 64, COUNT):
        user, context = random.normal(size=WIDTH).astype(np.float32), reference.random_context(7, random)
        bias_rows = random.permutation(COUNT)[:40].astype(np.int32)
        bias = bias_rows, np.where(np.arange(40) % 2, random.uniform(0, 5, 40), -np.inf).astype(np.float32)
        rows, scores, found = runtime.top_probable(user, k, runtime.no_bias(), bias, context)
        pairs = reference.pairs(user, bundle.item_vectors(rows), rows, model.prior, bias)
        expected = model.ranker.reference(user, context, rows, bundle.item_vectors(rows), pairs)
        assert found is not None and len(found) == len(rows) == min(k, COUNT - 20)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        plain_rows, plain_scores = runtime.top(user, k, runtime.no_bias(), *bias)
        assert rows.tolist() == plain_rows.tolist() and scores.tolist() == plain_scores.tolist()
        spread.append(np.ptp(found))
    assert max(spread) > 0.2  # or else the agreement would say little


def test_the_context_and_a_bias_change_the_probability(ranked: Bundle) -> None:
    runtime, user = Runtime(ranked), np.random.default_rng(SEED).normal(size=WIDTH).astype(np.float32)
    nothing = np.zeros(0, np.int32), np.zeros(0, np.float32)
    rows, _, found = runtime.top_probable(user, 5, runtime.no_bias(), nothing, np.array([0, 0, 3, 1, 9], np.float32))
    for place, value in ((0, 1), (1, 12), (2, 90), (3, 200), (4, 500)):
        context = np.array([0, 0, 3, 1, 9], np.float32)
        context[place] = value
        other = runtime.top_probable(user, 5, runtime.no_bias(), nothing, context)
        assert other[0].tolist() == rows.tolist()
        assert not np.allclose(other[2], found, atol=1e-4), place  # type: ignore[arg-type]
    lifted = rows[:1], np.array([0.25], np.float32)
    again = runtime.top_probable(user, 5, runtime.no_bias(), lifted, np.array([0, 0, 3, 1, 9], np.float32))
    assert abs(again[2][0] - found[0]) > 1e-3  # type: ignore[index]


def test_golden_cases_hold_probabilities_and_other_ones_are_refused(ranked: Bundle) -> None:
    document = json.loads(ranked.conformance)
    assert all(0 < one < 1 for case in document["cases"] for one in case["top_probabilities"])
    assert check_conformance(Runtime(ranked), ranked) == len(document["cases"]) == 6
    document["cases"][2]["top_probabilities"][0] += 1e-4
    other = dataclasses.replace(ranked, conformance=json.dumps(document).encode())
    with pytest.raises(BundleDamaged) as caught:
        check_conformance(Runtime(other), other)
    assert caught.value.code == "bundle.conformance_failed"


def test_a_build_is_refused_where_the_graph_is_not_what_torch_says(tmp_path: Path) -> None:
    model = make_ranked("plain")
    assert model.ranker is not None
    wrong = dataclasses.replace(model.ranker, out_bias=model.ranker.out_bias + np.float32(1e-3))
    with pytest.raises(GateError) as caught:
        build(dataclasses.replace(model, ranker=wrong), tmp_path / "small.xrec")
    assert caught.value.code == "gate.parity" and "probability" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_certificate_and_the_manifest_say_what_the_probability_is(ranked: Bundle) -> None:
    assert ranked.manifest.ranker is not None
    assert ranked.manifest.ranker.events == ("purchase",) and ranked.manifest.ranker.horizon_ms == 7 * 86_400_000
    assert 0 <= ranked.manifest.parity["probability_gap"] <= parity.MAX_PROBABILITY_GAP  # type: ignore[operator]


def test_a_bundle_without_a_ranker_has_no_trace_of_one(tmp_path: Path) -> None:
    bundle = build(make_model(COUNT), tmp_path / "small.xrec")
    assert verify_bundle(tmp_path / "small.xrec", PUBLIC)["golden_cases"] == 6
    written = json.loads((tmp_path / "small.xrec" / "manifest.json").read_text())
    assert "ranker" not in written and "features" not in written["items"]
    assert "probability_gap" not in written["parity"]
    graph = onnx.load_from_string(bundle.scorer).graph
    assert "context" not in [value.name for value in graph.input]
    runtime, random = Runtime(bundle), np.random.default_rng(SEED)
    nothing = np.zeros(0, np.int32), np.zeros(0, np.float32)
    found = runtime.top_probable(
        random.normal(size=WIDTH).astype(np.float32), 5, runtime.no_bias(), nothing, np.zeros(5, np.float32)
    )
    assert found[2] is None


def test_the_ranker_adds_eight_bytes_an_item_and_few_to_the_graph(ranked: Bundle, tmp_path: Path) -> None:
    section = ranked.manifest.items.features
    assert section is not None and section.bytes == 8 * ranked.manifest.padded_count
    bare = build(dataclasses.replace(make_ranked("plain"), ranker=None), tmp_path / "small.xrec")
    assert len(ranked.scorer) - len(bare.scorer) < 20_000
