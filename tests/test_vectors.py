"""The shared vectors hold for the Python SDK, and are those that make_vectors.py writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vectors import make_vectors, recipes
from xrec_sdk.conformance import check_conformance
from xrec_sdk.errors import XrecError
from xrec_sdk.recommender import Recommender
from xrec_sdk.signature import sign
from xrec_trainer.encoders import ENCODERS

FOLDER = Path(__file__).parent / "vectors"
INDEX = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
BAD = json.loads((FOLDER / INDEX["bad"]).read_text(encoding="utf-8"))


def read_case(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def check(found: Any, expected: Any, tolerance: float) -> None:
    """Assert that an answer is the expected one: numbers within the tolerance, all else equal."""
    if isinstance(expected, float):
        assert found == pytest.approx(expected, abs=tolerance)
    elif isinstance(expected, dict) and "error" not in expected:
        for key in expected:
            check(found[key], expected[key], tolerance)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            check(one, other, tolerance)
    else:
        assert found == expected


@pytest.mark.parametrize("name", INDEX["cases"])
def test_a_case_is_answered_as_written(name: str) -> None:
    asked = read_case(name)
    with make_vectors.open_recommender(FOLDER / asked["bundle"], asked) as recommender:
        for one in asked["calls"]:
            check(make_vectors.answer(recommender, one["call"], one["arguments"]), one["expect"], asked["tolerance"])


@pytest.mark.parametrize("recipe", [pytest.param(recipe, id=recipe["name"]) for recipe in BAD["recipes"]])
def test_a_damaged_bundle_is_refused_by_its_code(recipe: Mapping[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    pem = make_vectors.private_pem()
    path.write_bytes(recipes.damaged_zip(recipe, FOLDER, BAD["bundle"], lambda manifest: sign(manifest, pem)))
    assert code_of(path, recipe) == recipe["code"]


def code_of(path: Path, recipe: Mapping[str, Any]) -> str | None:
    try:
        options = {"trusted_keys": [INDEX["key"]], **recipe.get("options", {})}
        with Recommender(path, **options) as recommender:
            if recipe.get("check"):
                check_conformance(recommender.runtime, recommender.bundle)
            if recipe.get("ask"):
                for recommendation in recommender.recommend(recommender.bundle.manifest.item_count):
                    assert isinstance(recommendation.item, dict)  # an entry is read when it is asked for
    except XrecError as error:
        return error.code
    return None


def test_the_vectors_are_those_that_the_script_writes(tmp_path: Path) -> None:
    # The certificate and the golden cases hold measured scores, whose last digits belong to the machine.
    make_vectors.build_bundles(tmp_path)
    for bundle in INDEX["bundles"]:
        fresh, kept = recipes.read_folder(tmp_path / bundle), recipes.read_folder(FOLDER / bundle)
        assert set(fresh) == set(kept)
        for name in ("catalog.bin", "encoder.onnx", "ids.bin", "items.bin", "scorer.onnx"):
            assert hashlib.sha256(fresh[name]).digest() == hashlib.sha256(kept[name]).digest(), f"{bundle}/{name}"
    make_vectors.write_cases(tmp_path, FOLDER)
    assert json.loads((tmp_path / "index.json").read_text(encoding="utf-8")) == INDEX
    for name in INDEX["cases"]:
        fresh, kept = json.loads((tmp_path / name).read_text(encoding="utf-8")), read_case(name)
        check(fresh, kept, kept["tolerance"])
        assert [call["arguments"] for call in fresh["calls"]] == [call["arguments"] for call in kept["calls"]]


def test_every_encoder_of_the_trainer_answers_as_written() -> None:
    kept = read_case(INDEX["encoders"])
    check(make_vectors.encoder_cases(FOLDER), kept, kept["tolerance"])
    assert {*kept["users"], "lowpass", "pool"} == {*ENCODERS}


def test_no_case_is_missing_from_the_index() -> None:
    assert sorted(INDEX["cases"]) == sorted(f"cases/{path.name}" for path in (FOLDER / "cases").iterdir())
    assert len({recipe["name"] for recipe in BAD["recipes"]}) == len(BAD["recipes"])


def test_a_case_that_is_answered_wrongly_is_seen() -> None:
    expected = read_case("cases/10-k.json")["calls"][2]["expect"]
    swapped = [{**item, "item_id": other["item_id"]} for item, other in zip(expected, expected[::-1], strict=True)]
    with pytest.raises(AssertionError):
        check(swapped, expected, 1e-4)
    nudged = [{**item, "score": np.nextafter(item["score"] + 1e-4, 9)} for item in expected]
    with pytest.raises(AssertionError):
        check(nudged, expected, 1e-4)
