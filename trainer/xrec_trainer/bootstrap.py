"""Say how sure a mean or a difference is, by resampling users."""

# C cases, U users, R resamples

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.errors import UsageError

WEIGHTS_AT_A_TIME = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that holds it with the confidence asked for."""

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        """Write ``mean [low, high]``, each number by ``spec``."""
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def mean_interval(
    values: NDArray[np.float64], user: NDArray[np.int32], *, n: int = 2_000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Return the mean over cases and its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    ``values`` and ``user`` are (C,). Users are resampled with all their cases, because cases of one user are alike
    (cluster bootstrap: Field and Welsh, JRSS B 2007). The same seed gives the same interval.
    """
    if len(values) != len(user) or len(values) == 0 or n < 1:
        raise UsageError(
            "usage.bootstrap",
            f"found {len(values)} values, {len(user)} users and n = {n}; expected as many values as users, one or more",
        )
    _, position = np.unique(user, return_inverse=True)
    sums: NDArray[np.float64] = np.bincount(position, weights=values).astype(np.float64)
    sizes = np.bincount(position).astype(np.float64)
    resampled = _resampled_means(sums, sizes, n, np.random.default_rng(seed))
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def paired_difference(
    values: NDArray[np.float64],
    baseline: NDArray[np.float64],
    user: NDArray[np.int32],
    *,
    n: int = 2_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Return the mean of ``values - baseline`` over the same cases and its interval; above zero ``values`` win."""
    if len(values) != len(baseline):
        raise UsageError(
            "usage.bootstrap", f"found {len(values)} and {len(baseline)} values; both must be of the same cases"
        )
    return mean_interval(values - baseline, user, n=n, seed=seed, confidence=confidence)


def _resampled_means(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], n: int, random: np.random.Generator
) -> NDArray[np.float64]:
    users = len(sums)
    means = np.empty(n)
    step = max(1, WEIGHTS_AT_A_TIME // users)
    for begin in range(0, n, step):
        drawn = min(step, n - begin)
        # how often each user is drawn, (r, U); the size of r bounds the memory
        weights = random.multinomial(users, np.full(users, 1.0 / users), size=drawn).astype(np.float64)
        means[begin : begin + drawn] = (weights @ sums) / (weights @ sizes)
    return means
