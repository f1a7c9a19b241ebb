"""An arm is decided on the device, alike everywhere, and the id of a list says it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from xrec_sdk import Arm, UsageError, assign
from xrec_sdk.experiment import list_id, origin_of

# printf 'xrec-arm\\0rank\\0anna' | sha256sum begins with 57e1, of berta a72e, cleo 9dbd, dora 9970; half is 8000.
UNITS = {"anna": "old", "berta": "new", "cleo": "new", "dora": "new"}


def test_an_arm_is_the_same_in_every_language():
    assert [assign("rank", unit, {"old": 1, "new": 1}).name for unit in UNITS] == list(UNITS.values())


VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "experiments.json").read_text(encoding="utf-8"))


def test_every_unit_is_in_the_stated_arm():
    for stated in VECTORS["assigned"]:
        assert assign(stated["experiment"], stated["unit"], dict(stated["arms"])).name == stated["arm"], stated


def test_the_stated_experiments_are_refused():
    for stated in VECTORS["refused"]:
        with pytest.raises(UsageError) as caught:
            assign(stated["experiment"], "anna", dict(stated["arms"]))
        assert caught.value.code == stated["code"], stated


def test_arms_have_their_shares_and_one_experiment_says_nothing_of_another():
    units = [f"user-{number}" for number in range(4_000)]
    first = [assign("rank", unit, {"old": 3, "new": 1}).name for unit in units]
    second = [assign("price", unit, {"old": 3, "new": 1}).name for unit in units]
    # Binomial: 1,000 expected, a standard deviation of 27; of both at once 250 and 15.
    assert abs(Counter(first)["new"] - 1_000) < 110 and abs(Counter(second)["new"] - 1_000) < 110
    assert abs(sum(pair == ("new", "new") for pair in zip(first, second, strict=True)) - 250) < 60


def test_an_arm_without_a_share_is_given_to_nobody():
    arms = {"off": 0, "on": 1, "later": 0.0}
    assert {assign("rank", f"user-{number}", arms).name for number in range(200)} == {"on"}


@pytest.mark.parametrize(
    ("experiment", "arms"),
    [
        ("", {"a": 1}),
        ("rank.2", {"a": 1}),
        ("rank", {"a=b": 1}),
        ("r" * 65, {"a": 1}),
        ("rank", {}),
        ("rank", {"a": 0}),
        ("rank", {"a": -1, "b": 2}),
        ("rank", {"a": float("nan")}),
        ("rank", {"a": "half"}),
        (7, {"a": 1}),
    ],
)
def test_a_wrong_experiment_is_a_usage_error(experiment, arms):
    with pytest.raises(UsageError) as caught:
        assign(experiment, "anna", arms)
    assert caught.value.code == "usage.arm"


def test_the_id_of_a_list_says_its_release_and_its_arm():
    for arm in (None, Arm("rank", "new")):
        ids = {list_id(3, arm) for _ in range(5)}
        assert len(ids) == 5 and {origin_of(id) for id in ids} == {(3, arm)}
    with pytest.raises(UsageError):
        list_id(3, Arm("rank", "a.b"))


@pytest.mark.parametrize(
    "id", ["", "0197", "0197.x", "0197.", "0197.3.rank", "0197.3.rank=", "0197.3.=new", "0197.9.a=b=c"]
)
def test_an_id_of_another_making_says_what_it_can(id):
    release, arm = origin_of(id)
    assert release in (None, 3, 9) and arm is None


def test_a_list_carries_the_arm_that_it_was_asked_for(recommender):
    arm = assign("rank", "anna", {"old": 1, "new": 1})
    assert {origin_of(one.recommendation_id) for one in recommender.recommend(3, arm=arm)} == {(3, arm)}
    assert origin_of(recommender.recommend(1)[0].recommendation_id) == (3, None)
