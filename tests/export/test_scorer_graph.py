"""scorer.onnx answers what float32 arithmetic answers, ties to the lower row, on every table and every bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from xrec_export.graph_parts import operators
from xrec_export.quantize import block_rows, pack_items, rows_of_blocks, store_rows
from xrec_export.scorer_graph import build_scorer
from xrec_sdk.manifest import BLOCK_ITEMS


class Scorer:
    """The graph with its table, in memory."""

    def __init__(self, rows: NDArray[np.float32], prior: NDArray[np.float32] | None = None) -> None:
        self.count = len(rows)
        self.items = block_rows(store_rows("int8", rows), prior)
        padded = self.items.blocks * BLOCK_ITEMS
        self.prior = np.zeros(padded, np.float32) if self.items.prior is None else self.items.prior.reshape(-1)
        packed, sections = pack_items(self.items)
        self.model = build_scorer(self.items, sections)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_external_initializers_from_files_in_memory(["items.bin"], [packed], [len(packed)])
        self.session = onnxruntime.InferenceSession(
            self.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def allow(self, rows: Any) -> NDArray[np.float32]:
        """Return the item bias that forbids all rows but these."""
        bias = np.full(self.items.blocks * BLOCK_ITEMS, -np.inf, dtype=np.float32)
        bias[rows] = self.items.bias.reshape(-1)[rows]
        return bias

    def top(self, user: Any, k: int, bias: Any = None, rows: Any = (), values: Any = ()) -> tuple[Any, Any]:
        top_rows, scores = self.session.run(
            ["top_rows", "top_scores"],
            {
                "user": np.asarray(user, dtype=np.float32).reshape(1, -1),
                "item_bias": self.items.bias.reshape(-1) if bias is None else bias,
                "item_prior": self.prior,
                "bias_rows": np.asarray(rows, dtype=np.int32),
                "bias_values": np.asarray(values, dtype=np.float32),
                "k": np.array([k], dtype=np.int32),
            },
        )
        assert top_rows.dtype == np.int32 and scores.dtype == np.float32
        assert not np.isnan(scores).any()
        return top_rows, scores

    def reference(self, user: Any, k: int, bias: Any = None, rows: Any = (), values: Any = ()) -> tuple[Any, Any]:
        """Score every row in float32, the sum over the width in order, and sort by score, then row."""
        total = np.where(
            np.isinf(self.items.bias.reshape(-1) if bias is None else bias), np.float32(-np.inf), np.float32(0)
        )
        total[np.asarray(rows, dtype=np.int64)] += np.asarray(values, dtype=np.float32)
        rows = rows_of_blocks(self.items.table, self.items.scale, self.items.bias.size)
        products = rows.vectors().T * np.asarray(user, dtype=np.float32).reshape(-1, 1)
        scores = np.zeros(products.shape[1], dtype=np.float32)
        for row in products:
            scores += row
        scores += self.prior
        scores += total
        order = np.argsort(-scores, kind="stable")[:k]
        return order.astype(np.int32), scores[order]


def assert_same(scorer: Scorer, *question: Any) -> None:
    rows, scores = scorer.top(*question)
    expected_rows, expected_scores = scorer.reference(*question)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(scores, expected_scores)


@pytest.mark.parametrize("count", [1, 2, 100, 127, 128, 129, 1000, 5000])
@pytest.mark.parametrize("width", [8, 24, 64])
def test_the_answer_is_that_of_float_arithmetic_bit_for_bit(count: int, width: int) -> None:
    random = np.random.default_rng(count * 100 + width)
    scorer = Scorer(random.normal(size=(count, width)).astype(np.float32))
    for _ in range(5):
        assert_same(scorer, random.normal(size=width), min(10, count))


@pytest.mark.parametrize("count", [1, 5, 128, 300, 1000])
def test_k_goes_from_one_to_the_whole_catalogue(count: int) -> None:
    random = np.random.default_rng(count)
    scorer = Scorer(random.normal(size=(count, 16)).astype(np.float32))
    user = random.normal(size=16)
    for k in {1, (count + 1) // 2, count}:
        assert_same(scorer, user, k)


@pytest.mark.parametrize("k", [1, 10, 200, 1000])
def test_a_zero_user_gets_the_first_rows(k: int) -> None:
    random = np.random.default_rng(1)
    scorer = Scorer(random.normal(size=(1000, 16)).astype(np.float32))
    rows, scores = scorer.top(np.zeros(16), k)
    np.testing.assert_array_equal(rows, np.arange(k))
    np.testing.assert_array_equal(scores, np.zeros(k))


@pytest.mark.parametrize("count", [1, 127, 1000, 5000])
def test_a_prior_is_added_to_the_score_of_everyone(count: int) -> None:
    random = np.random.default_rng(count)
    prior = random.uniform(0, 3, size=count).astype(np.float32)
    scorer = Scorer(random.normal(size=(count, 16)).astype(np.float32), prior)
    for rows, values in (((), ()), ([0], [2.0]), ([count - 1], [-np.inf])):
        assert_same(scorer, random.normal(size=16), min(10, count), None, rows, values)
    rows, scores = scorer.top(np.zeros(16), count)
    np.testing.assert_array_equal(rows, np.argsort(-prior, kind="stable"))
    np.testing.assert_array_equal(scores, np.sort(prior)[::-1])


@pytest.mark.parametrize("seed", range(5))
def test_equal_scores_go_to_the_lower_row(seed: int) -> None:
    random = np.random.default_rng(seed)
    kinds = random.normal(size=(7, 16)).astype(np.float32)
    scorer = Scorer(kinds[random.integers(0, 7, size=2000)])
    for k in (1, 10, 700, 2000):
        assert_same(scorer, random.normal(size=16), k)


def test_biases_add_up_and_minus_infinity_forbids() -> None:
    random = np.random.default_rng(2)
    scorer = Scorer(random.normal(size=(1500, 32)).astype(np.float32))
    user = random.normal(size=32)
    bias = scorer.allow(random.permutation(1500)[:300])
    rows = random.permutation(1500)[:50]
    values = random.normal(size=50)
    values[:25] = -np.inf
    assert_same(scorer, user, 20, bias, rows, values)


def test_fewer_allowed_items_than_asked_for_end_in_minus_infinity_and_never_a_pad_row() -> None:
    random = np.random.default_rng(3)
    scorer = Scorer(random.normal(size=(200, 16)).astype(np.float32))
    rows, scores = scorer.top(random.normal(size=16), 200, scorer.allow([50, 150]))
    assert set(rows[:2]) == {50, 150}
    assert np.isfinite(scores[:2]).all() and np.isneginf(scores[2:]).all()
    np.testing.assert_array_equal(rows[2:], [row for row in range(200) if row not in (50, 150)])


def test_the_input_that_saturates_eight_bit_kernels_is_exact() -> None:
    random = np.random.default_rng(4)
    rows = np.where(random.random((1000, 64)) < 0.5, -127, 127).astype(np.float32)
    rows[::3] = 127
    scorer = Scorer(rows)
    for user in (np.tile([1.0, -1.0], 32), np.ones(64), -np.ones(64), np.where(random.random(64) < 0.5, -1.0, 1.0)):
        assert_same(scorer, user, 200)
        assert_same(scorer, user, 1000)


def test_rows_and_users_of_any_size_keep_their_order() -> None:
    random = np.random.default_rng(5)
    rows = random.normal(size=(300, 16)).astype(np.float32)
    rows[7] = 0
    for size in (1e-20, 1e-3, 1e6):
        scorer = Scorer(rows * np.float32(size))
        assert_same(scorer, random.normal(size=16) * size, 300)


def test_only_standard_operators_and_no_weights_are_inside() -> None:
    scorer = Scorer(np.random.default_rng(6).normal(size=(300, 16)).astype(np.float32))
    assert operators(scorer.model)
    assert scorer.model.ir_version == 10 and scorer.model.opset_import[0].version == 21
    assert len(scorer.model.SerializeToString()) < 20_000


def test_the_same_table_gives_the_same_bytes() -> None:
    rows = np.random.default_rng(7).normal(size=(300, 16)).astype(np.float32)
    assert Scorer(rows).model.SerializeToString() == Scorer(rows).model.SerializeToString()
