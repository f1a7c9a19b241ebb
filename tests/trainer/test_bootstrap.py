from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from xrec_sdk.errors import UsageError
from xrec_trainer import bootstrap
from xrec_trainer.bootstrap import Interval, mean_interval, paired_difference


def users(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int32)


def test_the_interval_of_many_users_equals_the_normal_one():
    values = np.random.default_rng(1).normal(0.3, 0.1, 2_000)
    found = mean_interval(values, users(2_000), n=4_000)
    half = 1.96 * values.std() / np.sqrt(2_000)
    assert found.mean == pytest.approx(values.mean())
    assert (found.mean - found.low, found.high - found.mean) == pytest.approx((half, half), rel=0.06)


def test_the_interval_of_few_users_equals_that_of_scipy():
    values = np.random.default_rng(2).exponential(1.0, 40)
    found = mean_interval(values, users(40), n=9_999)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=9_999, method="percentile", rng=3).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=0.03)


def test_cases_of_one_user_are_drawn_together():
    values = np.repeat(np.random.default_rng(3).normal(0, 1, 100), 25)
    grouped = mean_interval(values, np.repeat(users(100), 25))
    apart = mean_interval(values, users(2_500))
    # 25 equal cases say no more than one: the interval is sqrt(25) times as wide as if they were independent
    assert (grouped.high - grouped.low) / (apart.high - apart.low) == pytest.approx(5, rel=0.15)


def test_a_user_with_more_cases_weighs_more():
    values, user = np.array([0.0, 1.0, 1.0, 1.0]), np.array([7, 4, 4, 4], dtype=np.int32)
    assert mean_interval(values, user) == Interval(0.75, 0.0, 1.0)


def test_pairing_finds_a_small_steady_difference():
    baseline = np.random.default_rng(4).uniform(0, 1, 300)
    steady = paired_difference(baseline + 0.01, baseline, users(300))
    assert steady.mean == pytest.approx(0.01)
    assert steady.excludes_zero
    noise = np.random.default_rng(5).normal(0, 0.3, 300)
    assert not paired_difference(baseline + noise - noise.mean(), baseline, users(300)).excludes_zero


def test_the_same_seed_draws_the_same_users_whatever_the_chunk(monkeypatch: pytest.MonkeyPatch):
    values = np.random.default_rng(6).uniform(0, 1, 50)
    whole = mean_interval(values, users(50), seed=9)
    assert mean_interval(values, users(50), seed=9) == whole
    monkeypatch.setattr(bootstrap, "WEIGHTS_AT_A_TIME", 170)
    chunked = mean_interval(values, users(50), seed=9)
    assert (chunked.low, chunked.high) == pytest.approx((whole.low, whole.high), rel=1e-12)
    assert mean_interval(values, users(50), seed=10) != whole


def test_values_of_different_cases_are_refused():
    with pytest.raises(UsageError, match="same cases"):
        paired_difference(np.ones(3), np.ones(2), users(3))


@pytest.mark.parametrize(("values", "count", "n"), [(0, 0, 10), (3, 2, 10), (3, 3, 0)])
def test_nothing_to_resample_is_refused(values: int, count: int, n: int):
    with pytest.raises(UsageError) as caught:
        mean_interval(np.ones(values), users(count), n=n)
    assert caught.value.code == "usage.bootstrap"
