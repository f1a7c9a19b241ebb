from __future__ import annotations

import numpy as np
import pytest
import torch
from xrec_sdk.history import DAY_MS, Vocabulary
from xrec_trainer import baselines
from xrec_trainer.baselines import BASELINES, best_rows, buy_again, ease, item_knn, popularity
from xrec_trainer.cases import Cases
from xrec_trainer.dataset import Log

NOW_MS = 100 * DAY_MS


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
        excludes_seen=excludes_seen,
    )


def everything(log: Log) -> np.ndarray:
    return np.ones(len(log), dtype=np.bool_)


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
    matrix = baselines.users_by_items(log, everything(log))
    similarity = baselines._nearest(matrix, 10, 1.0).toarray()
    # users: item 0 has four, item 1 two, item 2 and 3 one; 0 and 1 share two users, 0 and 2 one
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[1, 0] = 2 / (np.sqrt(8) + 1)
    expected[0, 2] = expected[2, 0] = 1 / (np.sqrt(4) + 1)
    assert similarity == pytest.approx(expected, rel=1e-6)
    top = item_knn(log, everything(log), shrinkage=1.0)(cases_of(log, excludes_seen=True), 4)
    assert top[4].tolist() == [1, 2, 3, -1]


def test_item_knn_keeps_only_the_nearest_neighbours():
    log = log_of([[(0, 1), (1, 2)], [(0, 1), (1, 2)], [(0, 1), (2, 2)]], 3)
    similarity = baselines._nearest(baselines.users_by_items(log, everything(log)), 1, 0.0).toarray()
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
    matrix = baselines.users_by_items(log, everything(log))
    dense = matrix.toarray().astype(np.float64)
    inverse = np.linalg.inv(dense.T @ dense + 7.0 * np.eye(25))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0.0)
    assert baselines._ease_weights(matrix.tocsc(), 7.0) == pytest.approx(expected, abs=1e-6)
    scores = dense @ expected
    scores[dense > 0] = -np.inf
    top = ease(log, everything(log), regularization=7.0)(cases_of(log, excludes_seen=True), 3)
    assert top.tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :3].tolist()


@pytest.mark.parametrize("step", [1, 7, 25, 100])
def test_the_inverse_by_blocks_is_the_inverse(step: int):
    values = torch.randn(25, 25, generator=torch.Generator().manual_seed(3))
    matrix = values @ values.T + 25 * torch.eye(25)
    inverse = baselines._inverse(torch.linalg.cholesky(matrix), step)
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
    top = BASELINES[name](log, everything(log))(cases, 30)
    assert (top.shape, top.dtype) == ((60, 30), np.int32)
    for case in range(len(cases)):
        seen = set(log.item[cases.history(case)].tolist()) if excludes_seen else set()
        rows = top[case][top[case] >= 0].tolist()
        assert sorted(rows) == sorted(set(range(25)) - seen)
        assert (top[case, len(rows) :] == -1).all()


@pytest.mark.parametrize("name", BASELINES)
def test_a_user_without_history_gets_the_popular(name: str):
    log = random_log()
    cold = cases_of(log, [[]], excludes_seen=True)
    assert (
        BASELINES[name](log, everything(log))(cold, 10).tolist() == popularity(log, everything(log))(cold, 10).tolist()
    )


@pytest.mark.parametrize("name", BASELINES)
def test_the_size_of_a_chunk_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch):
    log = random_log()
    cases = cases_of(log, excludes_seen=True)
    whole = BASELINES[name](log, everything(log))(cases, 10)
    monkeypatch.setattr(baselines, "SCORES_AT_A_TIME", 60)
    assert BASELINES[name](log, everything(log))(cases, 10).tolist() == whole.tolist()


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
