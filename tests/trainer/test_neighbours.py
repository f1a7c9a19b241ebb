"""Rows are shared with the items that stand near in the histories of training, and only while the model trains."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import sparse
from small_shop import small_config
from xrec_trainer.fit import fit
from xrec_trainer.neighbours import SharedRows, nearest_items
from xrec_trainer.run import load_run

SEED = 5


def log_of(*histories: list[int]) -> SimpleNamespace:
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    return SimpleNamespace(item=np.concatenate(histories), user=users)


def test_a_pair_counts_one_over_its_distance_up_to_three_steps_within_one_history() -> None:
    log = log_of([0, 1, 2, 0, 3, 4], [2, 1])
    near = nearest_items(log, np.ones(8, np.bool_), 5, 10).toarray()  # type: ignore[arg-type]
    pairs = np.zeros((5, 5))
    for history in ([0, 1, 2, 0, 3, 4], [2, 1]):
        for place, left in enumerate(history):
            for steps, right in enumerate(history[place + 1 : place + 4], 1):
                if left != right:
                    pairs[left, right] += 1 / steps
                    pairs[right, left] += 1 / steps
    degree = pairs.sum(axis=1)
    assert np.allclose(near, pairs / np.sqrt(np.outer(degree, degree)))
    assert near[1, 2] == pytest.approx(2 / np.sqrt(degree[1] * degree[2]))


def test_what_is_not_learned_from_and_cold_items_join_nothing() -> None:
    log = log_of([0, 1, 2], [-1, 3, 1])
    is_learned = np.array([True, True, False, False, True, True])
    near = nearest_items(log, is_learned, 3, 10).toarray()  # type: ignore[arg-type]
    assert near[0, 1] == near[1, 0] == pytest.approx(1) and np.count_nonzero(near) == 2


def test_only_the_nearest_are_kept_of_equal_ones_the_first() -> None:
    near = nearest_items(log_of([0, 1], [0, 1], [0, 3], [0, 2]), np.ones(8, np.bool_), 4, 2)  # type: ignore[arg-type]
    assert near[[0]].indices.tolist() == [1, 2]


def test_the_gradient_of_the_shared_rows_is_that_of_the_dense_product() -> None:
    random = np.random.default_rng(SEED)
    near = sparse.random(7, 7, density=0.4, format="csr", dtype=np.float32, random_state=random)
    shared, upstream = SharedRows(near, 4), torch.randn(7, 4, generator=torch.Generator().manual_seed(SEED))
    dense = torch.from_numpy(near.toarray())
    assert torch.allclose(shared(), dense @ shared.rows)
    (shared() * upstream).sum().backward()
    assert shared.rows.grad is not None and torch.allclose(shared.rows.grad, dense.T @ upstream)


def test_a_run_holds_one_row_an_item_whether_rows_were_shared_or_not(shop: Path, trained: Path, tmp_path: Path) -> None:
    run = fit(shop, tmp_path / "run", small_config(neighbours=5, max_epochs=2))
    assert set(run.model.state_dict()) == set(load_run(trained).model.state_dict())
    plain = fit(shop, tmp_path / "plain", small_config(neighbours=0, max_epochs=2))
    assert not torch.allclose(run.model.ids.weight, plain.model.ids.weight)
