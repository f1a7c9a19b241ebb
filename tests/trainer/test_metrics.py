from __future__ import annotations

from types import SimpleNamespace

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, P, Qrel, R, ScoredDoc, Success, nDCG
from xrec_sdk.errors import UsageError
from xrec_trainer import metrics
from xrec_trainer.cases import Cases


def cases_of(answers: list[list[int]], lengths: list[int] | None = None) -> Cases:
    lengths = lengths if lengths is not None else [0] * len(answers)
    return Cases(
        user=np.arange(len(answers), dtype=np.int32),
        history_index=np.zeros(sum(lengths), dtype=np.int64),
        history_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        relevant=np.array([row for rows in answers for row in rows], dtype=np.int32),
        relevant_offsets=np.concatenate([[0], np.cumsum([len(rows) for rows in answers])]).astype(np.int64),
        now_ms=np.zeros(len(answers), dtype=np.int64),
        device=np.ones(len(answers), dtype=np.int32),
        seen_events=frozenset(),
    )


def lists(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.int32)


def test_the_metrics_of_one_list_are_those_worked_by_hand():
    measured = metrics.per_case(lists([7, 3, 9, 5]), cases_of([[3, 5, 8]]), [4])
    one = {name: float(values[0]) for name, values in measured.items()}
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert one == pytest.approx(
        {
            "hr@4": 1.0,
            "recall@4": 2 / 3,
            "precision@4": 0.5,
            "f1@4": 2 * 0.5 * (2 / 3) / (0.5 + 2 / 3),
            "ndcg@4": (1 / np.log2(3) + 1 / np.log2(5)) / ideal,
            "mrr@4": 0.5,
        }
    )


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_the_metrics_equal_those_of_ir_measures(k: int):
    random = np.random.default_rng(5)
    top = np.stack([random.permutation(30)[:20] for _ in range(60)]).astype(np.int32)
    for line, length in enumerate(random.integers(1, 21, 60)):
        top[line, length:] = -1
    answers = [list(random.permutation(30)[: random.integers(1, 15)]) for _ in range(60)]
    measured = metrics.per_case(top, cases_of(answers), [k])
    judged = [Qrel(str(case), str(row), 1) for case, rows in enumerate(answers) for row in rows]
    ranked = [
        ScoredDoc(str(case), str(row), float(-place))
        for case, rows in enumerate(top)
        for place, row in enumerate(rows)
        if row >= 0
    ]
    names = {Success @ k: "hr", R @ k: "recall", P @ k: "precision", nDCG @ k: "ndcg", RR @ k: "mrr"}
    checked = 0
    for one in ir_measures.iter_calc(list(names), judged, ranked):
        ours = measured[f"{names[one.measure]}@{k}"][int(one.query_id)]
        assert ours == pytest.approx(one.value, abs=1e-12), (one.measure, one.query_id)
        checked += 1
    assert checked == 5 * 60


def test_a_row_that_comes_twice_counts_once_at_its_first_place():
    measured = metrics.per_case(lists([3, 3, 3], [4, 3, 3]), cases_of([[3], [3]]), [3])
    assert measured["precision@3"].tolist() == pytest.approx([1 / 3, 1 / 3])
    assert measured["ndcg@3"].tolist() == pytest.approx([1.0, 1 / np.log2(3)])


def test_an_empty_place_is_never_a_hit_even_beside_another_cases_last_row():
    measured = metrics.per_case(lists([1, 0], [-1, -1]), cases_of([[9], [9]]), [2])
    assert measured["hr@2"].tolist() == [0.0, 0.0]


def test_a_case_with_nothing_relevant_scores_zero():
    assert metrics.per_case(lists([1, 2]), cases_of([[]]), [2])["ndcg@2"].tolist() == [0.0]


def test_a_row_that_is_right_for_one_case_is_not_right_for_another():
    assert metrics.per_case(lists([1], [1]), cases_of([[1], [2]]), [1])["hr@1"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("ks", [[], [0], [3]])
def test_a_k_outside_the_lists_is_refused(ks: list[int]):
    with pytest.raises(UsageError, match=r"1\.\.2") as caught:
        metrics.per_case(lists([1, 2]), cases_of([[1]]), ks)
    assert caught.value.code == "usage.k"


def test_lists_of_another_number_of_cases_are_refused():
    with pytest.raises(UsageError, match="shape"):
        metrics.per_case(lists([1, 2]), cases_of([[1], [2]]), [1])


def test_cases_fall_into_buckets_by_history_length():
    lengths = [0, 1, 4, 5, 49, 50, 900]
    cases = cases_of([[1]] * 7, lengths)
    group, labels = metrics.history_groups(cases)
    assert [labels[position] for position in group] == ["0", "1-4", "1-4", "5-9", "20-49", "50+", "50+"]
    assert metrics.cold_users(cases).tolist() == [True] + [False] * 6


def test_group_means_leave_out_groups_with_no_case():
    measured = {"hr@1": np.array([1.0, 0.0, 1.0])}
    assert metrics.by_group(measured, np.array([0, 0, 2]), ("phone", "pc", "store")) == {
        "phone": {"cases": 2.0, "hr@1": 0.5},
        "store": {"cases": 1.0, "hr@1": 1.0},
    }


def test_devices_are_grouped_under_their_names():
    log = SimpleNamespace(vocabulary=SimpleNamespace(devices=("phone", "pc")))
    group, labels = metrics.device_groups(cases_of([[1], [1]]), log)  # type: ignore[arg-type]
    assert [labels[position] for position in group] == ["phone", "phone"]


def test_the_mean_of_no_case_is_not_a_number():
    assert np.isnan(metrics.means({"hr@1": np.array([1.0])}, np.array([False]))["hr@1"])


def test_traits_of_lists_are_those_worked_by_hand():
    traits = metrics.list_traits(lists([0, 1], [0, -1]), np.array([6.0, 2.0, 0.0, 0.0]), [1, 2])
    assert traits["coverage@1"] == 0.25
    assert traits["coverage@2"] == 0.5
    assert traits["popularity@2"] == pytest.approx((0.75 + 0.25 + 0.75) / 3)
    assert traits["novelty@1"] == pytest.approx(-np.log2(7 / 12))
    # all on one of four items: 1 - 1/4
    assert traits["gini@1"] == pytest.approx(0.75)


def test_diversity_is_the_share_of_pairs_in_different_categories():
    top = lists([0, 1, 2], [0, 1, -1], [3, 3, -1])  # categories a, a, b; a, a; none
    traits = metrics.list_traits(top, np.ones(4), [2, 3], np.array([0, 0, 1, -1]))
    assert traits["diversity@2"] == 0.0  # the third list has no pair and does not count
    assert traits["diversity@3"] == pytest.approx((2 / 3 + 0) / 2)
    assert "diversity@2" not in metrics.list_traits(top, np.ones(4), [2])


def test_lists_that_show_every_item_as_often_are_even():
    traits = metrics.list_traits(lists([0, 1], [2, 3]), np.ones(4), [2])
    assert (traits["coverage@2"], traits["gini@2"]) == (1.0, 0.0)
