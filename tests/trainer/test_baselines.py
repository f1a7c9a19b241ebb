from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_shop import small_config
from xrec_sdk.errors import DataError, UsageError
from xrec_sdk.history import DAY_MS, Vocabulary
from xrec_trainer import dataset
from xrec_trainer.baselines import BASELINES, baseline, scoring, users_by_items
from xrec_trainer.baselines.als import als
from xrec_trainer.baselines.bpr import bpr
from xrec_trainer.baselines.buy_again import buy_again
from xrec_trainer.baselines.content import content, text_vectors
from xrec_trainer.baselines.ease import ease, ease_weights, inverse_of
from xrec_trainer.baselines.item_knn import item_knn
from xrec_trainer.baselines.nearest import nearest
from xrec_trainer.baselines.popularity import popularity
from xrec_trainer.baselines.random_order import random_order
from xrec_trainer.baselines.scoring import best_rows
from xrec_trainer.baselines.user_knn import user_knn
from xrec_trainer.cases import Cases, Ranker
from xrec_trainer.dataset import Log
from xrec_trainer.splits import make_study

NOW_MS = 100 * DAY_MS
BY_POPULARITY = [name for name in BASELINES if name != "random"]


def log_of(histories: list[list[tuple[int, int]]], item_count: int, events: list[int] | None = None) -> Log:
    """One list of (item, day) for each user, oldest first."""
    flat = [(user, item, day) for user, history in enumerate(histories) for item, day in history]
    user, item, day = (np.array(column, dtype=np.int64) for column in zip(*flat, strict=True))
    return Log(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        event=np.array(events or [1] * len(flat), dtype=np.int32),
        device=np.ones(len(flat), dtype=np.int32),
        gap=np.zeros(len(flat), dtype=np.int32),
        at_ms=day * DAY_MS,
        user_start=np.searchsorted(user, np.arange(len(histories) + 1)).astype(np.int64),
        users=[f"user {number}" for number in range(len(histories))],
        item_count=item_count,
        vocabulary=Vocabulary(("purchase", "view"), ("phone",)),
    )


def cases_of(log: Log, histories: list[list[int]] | None = None, *, excludes_seen: bool) -> Cases:
    """One case a user with all that the log has, or with the log indices given."""
    if histories is None:
        ends = zip(log.user_start[:-1], log.user_start[1:], strict=True)
        histories = [list(range(first, last)) for first, last in ends]
    count = len(histories)
    return Cases(
        user=np.arange(count, dtype=np.int32),
        history_index=np.array([index for history in histories for index in history], dtype=np.int64),
        history_offsets=np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64),
        relevant=np.zeros(count, dtype=np.int32),
        relevant_offsets=np.arange(count + 1, dtype=np.int64),
        now_ms=np.full(count, NOW_MS, dtype=np.int64),
        device=np.ones(count, dtype=np.int32),
        seen_events=frozenset([1, 2]) if excludes_seen else frozenset(),
    )


def everything(log: Log) -> np.ndarray:
    return np.ones(len(log), dtype=np.bool_)


def items_alike(log: Log, neighbours: int, shrinkage: float) -> np.ndarray:
    by_item = users_by_items(log, everything(log)).T.tocsr()
    return nearest(by_item, by_item, np.arange(log.item_count, dtype=np.int32), neighbours, shrinkage).toarray()


def learned(name: str, log: Log) -> Ranker:
    """Any baseline with what it needs; each item is called by the letter of its group of five."""
    entries = [{"title": f"thing {'abcde'[item // 5] * 4}", "price": 3.0} for item in range(log.item_count)]
    return BASELINES[name](log, everything(log), **({"entries": entries} if name == "content" else {}))


def random_log(users: int = 60, items: int = 25) -> Log:
    random = np.random.default_rng(8)
    return log_of(
        [[(int(item), day) for day, item in enumerate(random.integers(0, items - 5, 12))] for _ in range(users)], items
    )


def test_a_recent_event_is_worth_more_than_two_old_ones():
    log = log_of([[(0, 10), (0, 11), (1, 90)], [(2, 90), (2, 90)]], 4)
    ranker = popularity(log, everything(log), half_life_days=20)
    assert ranker(cases_of(log, excludes_seen=False), 4).tolist() == [[2, 1, 0, 3]] * 2
    slow = popularity(log, everything(log), half_life_days=10_000)
    # 0 and 2 have two events each, and those of 2 are younger
    assert slow(cases_of(log, excludes_seen=False), 4).tolist() == [[2, 0, 1, 3]] * 2


def test_events_outside_the_training_mask_are_not_learned():
    log = log_of([[(0, 1), (1, 2), (1, 3)]], 2)
    assert popularity(log, np.array([True, False, False]))(cases_of(log, [[]], excludes_seen=False), 2).tolist() == [
        [0, 1]
    ]


def test_buy_again_puts_the_often_and_lately_bought_first_and_then_the_popular():
    log = log_of([[(5, 10), (3, 97), (4, 98), (3, 99)], [(0, 99)] * 3 + [(1, 99)] * 2], 6)
    ranker = buy_again(log, everything(log), repeat_half_life_days=10)
    top = ranker(cases_of(log, excludes_seen=False), 6)
    assert top[0].tolist() == [3, 4, 5, 0, 1, 2]


def test_buy_again_counts_only_the_events_that_are_named():
    log = log_of([[(1, 98), (2, 99)], [(0, 99), (0, 99)]], 3, events=[1, 2, 1, 1])
    top = buy_again(log, everything(log), events=("purchase",))(cases_of(log, excludes_seen=False), 3)
    assert top[0].tolist() == [1, 0, 2]


def test_item_knn_ranks_by_cosine_with_shrinkage():
    log = log_of([[(0, 1), (1, 2)], [(0, 1), (1, 2)], [(0, 1), (2, 2)], [(3, 1), (3, 2)], [(0, 9)]], 4)
    similarity = items_alike(log, 10, 1.0)
    # users: item 0 has four, item 1 two, item 2 and 3 one; 0 and 1 share two users, 0 and 2 one
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[1, 0] = 2 / (np.sqrt(8) + 1)
    expected[0, 2] = expected[2, 0] = 1 / (np.sqrt(4) + 1)
    assert similarity == pytest.approx(expected, rel=1e-6)
    top = item_knn(log, everything(log), shrinkage=1.0)(cases_of(log, excludes_seen=True), 4)
    assert top[4].tolist() == [1, 2, 3, -1]


def test_item_knn_keeps_only_the_nearest_neighbours():
    log = log_of([[(0, 1), (1, 2)], [(0, 1), (1, 2)], [(0, 1), (2, 2)]], 3)
    similarity = items_alike(log, 1, 0.0)
    assert (similarity[0] > 0).tolist() == [False, True, False]


def test_a_decayed_history_lets_the_last_item_speak_loudest():
    pairs = [[(0, 1), (2, 2)]] * 3 + [[(1, 1), (3, 2)]] * 3
    log = log_of([*pairs, [(1, 20), (0, 99)], [(0, 20), (1, 99)]], 4)
    ranker = item_knn(log, everything(log), history_half_life_days=5)
    top = ranker(cases_of(log, excludes_seen=True), 2)
    assert top[6].tolist() == [2, 3]
    assert top[7].tolist() == [3, 2]


def test_ease_equals_the_closed_form_of_the_paper():
    log = random_log()
    matrix = users_by_items(log, everything(log))
    dense = matrix.toarray().astype(np.float64)
    inverse = np.linalg.inv(dense.T @ dense + 7.0 * np.eye(25))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0.0)
    assert ease_weights(matrix.tocsc(), 7.0) == pytest.approx(expected, abs=1e-6)
    scores = dense @ expected
    scores[dense > 0] = -np.inf
    top = ease(log, everything(log), regularization=7.0)(cases_of(log, excludes_seen=True), 3)
    assert top.tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :3].tolist()


@pytest.mark.parametrize("step", [1, 7, 25, 100])
def test_the_inverse_by_blocks_is_the_inverse(step: int):
    values = torch.randn(25, 25, generator=torch.Generator().manual_seed(3))
    matrix = values @ values.T + 25 * torch.eye(25)
    inverse = inverse_of(torch.linalg.cholesky(matrix), step)
    assert torch.allclose(inverse @ matrix, torch.eye(25), atol=1e-5)
    assert torch.allclose(inverse, inverse.T, atol=1e-7)


def test_ease_ranks_items_beyond_its_cap_last_and_by_popularity():
    log = log_of([[(0, 1), (1, 2)], [(0, 1), (1, 2)], [(0, 1), (2, 2), (3, 50), (3, 60), (2, 60)]], 5)
    top = ease(log, everything(log), regularization=1.0, max_items=2)(cases_of(log, [[0]], excludes_seen=False), 5)
    assert top.tolist() == [[1, 0, 3, 2, 4]]


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("excludes_seen", [True, False])
def test_every_baseline_gives_each_row_once_and_seen_ones_only_where_allowed(name: str, excludes_seen: bool):
    log = random_log()
    cases = cases_of(log, excludes_seen=excludes_seen)
    top = learned(name, log)(cases, 30)
    assert (top.shape, top.dtype) == ((60, 30), np.int32)
    for case in range(len(cases)):
        seen = set(log.item[cases.history(case)].tolist()) if excludes_seen else set()
        rows = top[case][top[case] >= 0].tolist()
        assert sorted(rows) == sorted(set(range(25)) - seen)
        assert (top[case, len(rows) :] == -1).all()


@pytest.mark.parametrize("name", BY_POPULARITY)
def test_a_user_without_history_gets_the_popular(name: str):
    log = random_log()
    cold = cases_of(log, [[]], excludes_seen=True)
    assert learned(name, log)(cold, 10).tolist() == popularity(log, everything(log))(cold, 10).tolist()


@pytest.mark.parametrize("name", BASELINES)
def test_the_size_of_a_chunk_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch):
    log = random_log()
    cases = cases_of(log, excludes_seen=True)
    whole = learned(name, log)(cases, 10)
    monkeypatch.setattr(scoring, "SCORES_AT_A_TIME", 60)
    assert learned(name, log)(cases, 10).tolist() == whole.tolist()


def test_an_item_seen_very_long_ago_is_still_left_out():
    log = log_of([[(0, 0), (1, 99)], [(1, 1), (2, 2)]], 3)
    ranker = item_knn(log, everything(log), history_half_life_days=0.1)
    assert ranker(cases_of(log, excludes_seen=True), 3)[0].tolist() == [2, -1, -1]


def test_ties_go_to_the_lower_row():
    scores = np.array([[1, 3, 3, 2, 3, 1], [0, 0, 0, 0, 0, 0]], dtype=np.float32)
    assert best_rows(scores, 4).tolist() == [[1, 2, 4, 3], [0, 1, 2, 3]]


def test_no_more_rows_than_there_are():
    scores = np.array([[-np.inf, 5.0]], dtype=np.float32)
    assert best_rows(scores, 4).tolist() == [[1, -1, -1, -1]]


def test_user_knn_ranks_by_what_the_nearest_users_had():
    log = log_of([[(0, 1), (1, 2)], [(0, 1), (1, 2), (2, 3)], [(0, 1), (3, 2)], [(4, 1)]], 5)
    both = users_by_items(log, everything(log))
    alike = nearest(both, both, np.arange(4, dtype=np.int32), 2, 1.0).toarray()
    # user 0 shares two items with user 1, who has three, and one with user 2, who has two; nobody with user 3
    assert alike[0] == pytest.approx([0, 2 / (np.sqrt(6) + 1), 1 / (np.sqrt(4) + 1), 0], rel=1e-6)
    top = user_knn(log, everything(log), neighbours=2, shrinkage=1.0)(cases_of(log, excludes_seen=True), 5)
    assert top[0].tolist() == [2, 3, 4, -1, -1]
    nearest_only = user_knn(log, everything(log), neighbours=1, shrinkage=1.0)(cases_of(log, excludes_seen=True), 5)
    # 3 has no vote now: both 3 and 4 have one event, and that of 3 is younger
    assert nearest_only[0].tolist() == [2, 3, 4, -1, -1] and nearest_only[2].tolist() == [1, 2, 4, -1, -1]


def test_user_knn_does_not_let_a_user_vote_for_what_the_user_had():
    log = log_of([[(0, 1), (1, 2)], [(0, 1), (2, 2)]], 4)
    top = user_knn(log, everything(log), shrinkage=0.0)(cases_of(log, excludes_seen=False), 4)
    assert top[0].tolist() == [0, 2, 1, 3]  # 0 and 2 by the other's vote, the younger 2 not first: ties to the lower


def test_text_vectors_are_the_tf_idf_of_words_and_their_pieces():
    vectors = text_vectors(["ab", "ab ab cd", ""]).toarray()
    # "<ab>" and its pieces "<ab" and "ab>" stand in two texts of three, those of "cd" in one
    common, rare = np.log(4 / 3) + 1, np.log(4 / 2) + 1
    first, second = np.full(3, common), np.repeat([2 * common, rare], 3)
    assert sorted(vectors[0][vectors[0] > 0]) == pytest.approx(sorted(first / np.linalg.norm(first)))
    assert sorted(vectors[1][vectors[1] > 0]) == pytest.approx(sorted(second / np.linalg.norm(second)))
    assert vectors[0] @ vectors[1] == pytest.approx(first @ second[:3] / np.linalg.norm(first) / np.linalg.norm(second))
    assert not vectors[2].any()


def test_content_ranks_by_text_even_what_nobody_had_and_the_last_item_speaks_loudest():
    titles = ["green tea", "black tea", "tea pot", "red wine", "white wine", ""]
    log = log_of([[(3, 1), (0, 99)], [(0, 1), (3, 99)], [(5, 50)]], 6)
    ranker = content(log, everything(log), entries=[{"title": title} for title in titles])
    top = ranker(cases_of(log, excludes_seen=True), 6)
    # the text of 2 is shorter than that of 1, so that the tea they share is more of it
    assert top[0].tolist() == [2, 1, 4, 5, -1, -1] and top[1, 0] == 4
    assert top[2].tolist() == popularity(log, everything(log))(cases_of(log, excludes_seen=True), 6)[2].tolist()


def test_content_without_any_text_is_refused():
    log = random_log()
    with pytest.raises(DataError) as caught:
        content(log, everything(log), entries=[{"price": 3.0}] * 25)
    assert caught.value.code == "data.no_text"


def grouped_log(seed: int) -> Log:
    """Users who have eight of the ten items of one of three groups."""
    random = np.random.default_rng(seed)
    histories = [random.permutation(10)[:8] + user % 3 * 10 for user in range(60)]
    return log_of([[(int(item), day) for day, item in enumerate(history)] for history in histories], 31)


@pytest.mark.parametrize("method", [als, bpr])
def test_factors_find_the_group_of_users_known_and_new(method: type):
    log = grouped_log(4)
    mask = log.user < 50
    ranker = method(log, mask, factors=8, seed=3)
    top = ranker(cases_of(log, excludes_seen=True), 2)
    for user in range(60):
        assert set(top[user] // 10) == {user % 3}


def test_als_folds_a_history_in_by_least_squares():
    log = grouped_log(5)
    matrix = users_by_items(log, everything(log))
    options = {"factors": 6, "regularization": 0.5, "iterations": 3}
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(**options, alpha=5.0, num_threads=1, random_state=2)
    model.fit(matrix, show_progress=False)
    factors = model.item_factors.astype(np.float64)
    cases = cases_of(log, [[0, 1, 2], [70]], excludes_seen=True)
    top = als(log, everything(log), **options, confidence=5.0, seed=2)(cases, 5)
    for case in range(2):
        had = factors[log.item[cases.history(case)]]
        # (Y'CY + regularization I)^-1 Y'Cp of the paper, where what was had weighs 5 and the rest 1
        left = factors.T @ factors + 4.0 * had.T @ had + 0.5 * np.eye(6)
        scores = factors @ np.linalg.solve(left, 5.0 * had.sum(axis=0))
        scores[log.item[cases.history(case)]] = scores[30] = -np.inf
        assert top[case].tolist() == np.argsort(-scores, kind="stable")[:5].tolist()


def test_bpr_folds_a_history_in_by_the_mean_and_adds_the_bias_once():
    log = grouped_log(6)
    mask = log.user < 50
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(8, 0.05, 0.01, iterations=20, num_threads=1, random_state=2)
    model.fit(users_by_items(log, mask), show_progress=False)
    cases = cases_of(log, excludes_seen=True)
    top = bpr(log, mask, factors=8, iterations=20, seed=2)(cases, 5)
    factors, bias = model.item_factors[:, :-1], model.item_factors[:, -1]
    for user in (7, 59):
        had = log.item[cases.history(user)]
        scores = factors @ factors[had].mean(axis=0) + bias
        scores[had] = scores[30] = -np.inf
        assert top[user].tolist() == np.argsort(-scores, kind="stable")[:5].tolist()


@pytest.mark.parametrize("name", ["als", "bpr", "random"])
def test_the_same_seed_gives_the_same_lists_and_another_seed_others(name: str):
    log = random_log()
    cases = cases_of(log, excludes_seen=True)
    first, again, other = (BASELINES[name](log, everything(log), seed=seed)(cases, 10).tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_random_lists_are_spread_evenly():
    log = random_log(users=400)
    top = random_order(log, everything(log))(cases_of(log, excludes_seen=False), 5)
    times = np.bincount(top.ravel(), minlength=25)
    # 400 lists of 5 of 25 items: 80 each, standard deviation 8
    assert times.sum() == 2000 and (abs(times - 80) < 40).all()


def test_a_baseline_gets_what_it_needs_from_the_study(shop: Path):
    config = small_config(seed=5, targets=("view",))
    study = make_study(dataset.read(shop), config)
    cases = study.test["all"]
    log, mask = study.log, study.train_mask
    assert baseline("random", study, config)(cases, 5).tolist() == random_order(log, mask, seed=5)(cases, 5).tolist()
    views = buy_again(log, mask, events=("view",))(cases, 5)
    assert baseline("buy_again", study, config)(cases, 5).tolist() == views.tolist()
    texts = content(log, mask, entries=study.catalogue.entries)(cases, 5)
    assert baseline("content", study, config)(cases, 5).tolist() == texts.tolist()


def test_an_unknown_baseline_is_named(shop: Path):
    config = small_config()
    with pytest.raises(UsageError, match="no baseline is named 'item_nn'; there are popularity, buy_again") as caught:
        baseline("item_nn", make_study(dataset.read(shop), config), config)
    assert caught.value.code == "usage.baseline"


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    log = random_log()
    with pytest.raises(UsageError, match=r"pip install 'xrec\[baselines\]'") as caught:
        als(log, everything(log))
    assert caught.value.code == "usage.extra_missing"
