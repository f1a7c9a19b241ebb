"""A build gives a bundle that the SDK opens and that passes its own golden cases, or leaves nothing behind."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from xrec_export import reference
from xrec_export.build import Release, build_bundle
from xrec_export.inspect import describe_bundle, verify_bundle
from xrec_export.parity import Tolerance, ndcg
from xrec_sdk.bundle import open_bundle
from xrec_sdk.errors import BundleUntrusted, DataError, GateError, UsageError
from xrec_sdk.runtime import Runtime
from xrec_sdk.signature import generate_key

sys.path.insert(0, str(Path(__file__).parent))
from small_models import make_cases, make_model

PEM, PUBLIC = generate_key()
LOOSE = Tolerance(min_overlap=0.9, max_ndcg_loss=0.2)


def release(number: int = 1) -> Release:
    return Release("small", number, "2026-01-02T03:04:05Z", PEM)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("built") / "small.xrec"
    build_bundle(make_model(), make_cases(60), target, release=release(), tolerance=LOOSE)
    return target


def test_the_sdk_opens_the_bundle_and_its_golden_cases_pass(built: Path) -> None:
    checked = verify_bundle(built, PUBLIC)
    assert checked["name"] == "small" and checked["release"] == 1
    assert checked["golden_cases"] == 6


def test_another_key_is_refused(built: Path) -> None:
    with pytest.raises(BundleUntrusted):
        verify_bundle(built, generate_key()[1])


def test_the_manifest_holds_the_certificate_and_the_facts(built: Path) -> None:
    said = describe_bundle(built)
    assert said["model"] == {"metrics": {"NDCG@10": 0.1}}
    assert said["parity"]["cases"] == 60  # type: ignore[index]
    assert said["parity"]["overlap"] > 0.95  # type: ignore[index]
    assert said["parity"]["tolerance"] == {"min_overlap": 0.9, "max_ndcg_loss": 0.2}  # type: ignore[index]


def test_the_bundle_answers_as_the_float_model_does(built: Path) -> None:
    model = make_model()
    bundle = open_bundle(built, trusted_keys=[PUBLIC])
    runtime = Runtime(bundle)
    for case in make_cases(10, seed=9):
        expected = reference.encode(model.encoder, model.item_table, case.history)
        user = runtime.encode(case.history)
        np.testing.assert_allclose(user, expected, atol=0.15)
        rows, _ = runtime.top(user, 10, runtime.no_bias(), case.bias_rows, case.bias_values)
        assert not np.isin(rows, case.bias_rows).any()


def test_ids_and_entries_are_those_of_the_model(built: Path) -> None:
    bundle = open_bundle(built, trusted_keys=[PUBLIC])
    assert bundle.catalog.entry(7) == {"title": "Item 7", "price": 1.75}
    assert bundle.manifest.repeat == make_model().repeat
    assert "## What the format costs" in bundle.card


def test_a_bundle_that_loses_too_much_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(GateError) as caught:
        build_bundle(
            make_model(), make_cases(20), tmp_path / "x.xrec", release=release(), tolerance=Tolerance(1.01, 0.0)
        )
    assert caught.value.code == "gate.parity"
    assert list(tmp_path.iterdir()) == []


def test_a_refused_build_leaves_the_bundle_before_it(tmp_path: Path) -> None:
    target = tmp_path / "x.xrec"
    build_bundle(make_model(), make_cases(20), target, release=release(1), tolerance=LOOSE)
    with pytest.raises(GateError):
        build_bundle(make_model(), [], target, release=release(2), tolerance=LOOSE)
    assert verify_bundle(target, PUBLIC)["release"] == 1
    build_bundle(make_model(), make_cases(20), target, release=release(3), tolerance=LOOSE)
    assert verify_bundle(target, PUBLIC)["release"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["x.xrec"]


def test_two_builds_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    build_bundle(make_model(), make_cases(60), tmp_path / "small.xrec", release=release(), tolerance=LOOSE)
    for path in sorted(built.iterdir()):
        assert path.read_bytes() == (tmp_path / "small.xrec" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("count", [1, 12, 129])
def test_catalogues_of_any_size_build(count: int, tmp_path: Path) -> None:
    cases = make_cases(5, count=count) if count > 12 else [dataclasses.replace(case) for case in _tiny_cases(count)]
    build_bundle(
        make_model(count),
        cases,
        tmp_path / "x.xrec",
        release=release(),
        tolerance=Tolerance(min_overlap=0, max_ndcg_loss=1),
    )
    verify_bundle(tmp_path / "x.xrec", PUBLIC)


def _tiny_cases(count: int) -> list:  # type: ignore[type-arg]
    from small_models import excluding, make_history

    history = make_history(3, count, np.random.default_rng(0))
    return [excluding(history, np.array([0], dtype=np.int32), np.zeros(0, dtype=np.int32))]


def test_a_table_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    model = make_model()
    model.item_table[3, 3] = np.nan
    with pytest.raises(DataError):
        build_bundle(model, make_cases(5), tmp_path / "x.xrec", release=release(), tolerance=LOOSE)


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    with pytest.raises(UsageError):
        build_bundle(make_model(), make_cases(5), tmp_path / "precious", release=release(), tolerance=LOOSE)


def test_no_file_names_a_folder_of_this_machine(built: Path) -> None:
    for path in built.iterdir():
        assert str(Path.home()).encode() + b"/" not in path.read_bytes()
    json.loads((built / "manifest.json").read_bytes())


def test_ndcg_by_hand() -> None:
    rows = np.array([4, 9, 2], dtype=np.int32)
    assert ndcg(rows, np.array([4], dtype=np.int32)) == pytest.approx(1.0)
    assert ndcg(rows, np.array([9], dtype=np.int32)) == pytest.approx(1 / np.log2(3))
    assert ndcg(rows, np.array([2, 4], dtype=np.int32)) == pytest.approx((1 + 0.5) / (1 + 1 / np.log2(3)))
    assert ndcg(rows, np.array([7], dtype=np.int32)) == 0
