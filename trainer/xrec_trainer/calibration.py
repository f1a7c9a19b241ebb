"""Calibrate probabilities on later examples, and measure how right they are."""

# n examples, R resamples

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.errors import DataError

Floats = NDArray[np.float64]
BINS = (10, 15)
THRESHOLD = 0.5


def sigmoid(logits: Floats) -> Floats:
    """Return the probabilities of logits, (n,)."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -500, 500))))


def platt(logits: Floats, labels: Floats, *, steps: int = 100) -> tuple[float, float]:
    """Return slope and offset that make ``sigmoid(slope * logit + offset)`` the likeliest, by Newton's method.

    The targets are smoothed as in Platt, "Probabilistic Outputs for Support Vector Machines" (1999), and a step is
    halved until it helps (Lin, Lin and Weng, Machine Learning 68, 2007). Raises DataError ``data.no_targets`` where
    the labels are all the same.
    """
    positives = float(labels.sum())
    if not 0 < positives < len(labels):
        raise DataError(
            "data.no_targets",
            f"{positives:.0f} of {len(labels)} examples have the target event; calibration needs both",
        )
    target = np.where(labels > 0, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    center, spread = float(logits.mean()), float(logits.std()) or 1.0
    x = np.stack([(logits - center) / spread, np.ones(len(logits))])  # (2, n), so that Newton's steps are well scaled

    def cost(given: Floats) -> float:
        z = given @ x
        return float(np.mean(np.logaddexp(0, z) - target * z))

    weights = np.array([1.0, np.log(positives / (len(labels) - positives))])
    for _ in range(steps):
        p = sigmoid(weights @ x)
        gradient = x @ (p - target) / len(labels)
        hessian = (x * (p * (1 - p))) @ x.T / len(labels) + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while cost(weights - step) > cost(weights) + 1e-15 and np.abs(step).max() > 1e-12:
            step = step / 2
        weights = weights - step
        if np.abs(gradient).max() < 1e-10:
            break
    slope = float(weights[0]) / spread
    return slope, float(weights[1]) - slope * center


def best_threshold(probability: Floats, labels: Floats) -> float:
    """Return the least probability to call a yes for the best F1."""
    order = np.argsort(-probability, kind="stable")
    hits, called = np.cumsum(labels[order]), np.arange(1, len(labels) + 1)
    is_last = np.append(np.diff(probability[order]) != 0, True)  # what ties is called together
    f1 = np.where(is_last, 2 * hits / (called + labels.sum()), -1)
    return float(probability[order][int(np.argmax(f1))])


def equal_mass_bins(probability: Floats, count: int) -> NDArray[np.int64]:
    """Return the bin of each example, (n,), in ``count`` bins of as many examples each, ties in order of place."""
    bins = np.empty(len(probability), dtype=np.int64)
    bins[np.argsort(probability, kind="stable")] = np.arange(len(probability)) * count // max(1, len(probability))
    return bins


def reliability(probability: Floats, labels: Floats, count: int = 10) -> list[dict[str, float]]:
    """Return the points of a reliability plot: examples, mean probability and share that came true of each bin."""
    bins = equal_mass_bins(probability, count)
    return [
        {"cases": int(own.sum()), "probability": float(probability[own].mean()), "share": float(labels[own].mean())}
        for own in (bins == place for place in range(count))
        if own.any()
    ]


def measure(
    probability: Floats, labels: Floats, user: NDArray[np.int32], threshold: float, *, n: int = 200, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Return each metric's value and its 95 % interval by resampling users with all their examples.

    ``ece_10`` and ``ece_15`` are the expected calibration error in bins of equal mass (Naeini, Cooper and Hauskrecht,
    AAAI 2015); a resample has more noise in its bins, so that their intervals lie high. ``mse`` is the Brier score;
    ``log_loss_of_base_rate`` and ``mse_of_base_rate`` are what the base rate alone, told to everyone, would get.
    """
    sample = _Sample(probability, labels, threshold)
    found = sample.metrics(np.ones(len(labels)))
    _, position = np.unique(user, return_inverse=True)
    random, people = np.random.default_rng(seed), int(position.max()) + 1
    resampled = [sample.metrics(random.multinomial(people, [1 / people] * people)[position]) for _ in range(n)]
    intervals = {name: np.nanquantile([one[name] for one in resampled], [0.025, 0.975]) for name in found}
    return {
        name: {"mean": value, "low": float(intervals[name][0]), "high": float(intervals[name][1])}
        for name, value in found.items()
    }


class _Sample:
    """Sorted once, so that each resample, which is only other weights, costs little."""

    def __init__(self, probability: Floats, labels: Floats, threshold: float) -> None:
        self.p, self.y = probability, labels
        _, self.level = np.unique(probability, return_inverse=True)
        clipped = np.clip(probability, 1e-15, 1 - 1e-15)
        self.log_loss = -(labels * np.log(clipped) + (1 - labels) * np.log1p(-clipped))
        self.bins = {count: equal_mass_bins(probability, count) for count in BINS}
        self.thresholds = {"0.5": THRESHOLD, "best": threshold}

    def metrics(self, weights: NDArray[Any]) -> dict[str, float]:
        """Return the metrics where example i counts ``weights[i]`` times."""
        w, y, total = weights, self.y, float(weights.sum())
        rate = float(w @ y) / total
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)) if 0 < rate < 1 else 0.0
        found = {
            "auc": self._auc(w),
            "log_loss": float(w @ self.log_loss) / total,
            "log_loss_of_base_rate": float(entropy),
            "mse": float(w @ (self.p - y) ** 2) / total,
            "mse_of_base_rate": rate * (1 - rate),
            "base_rate": rate,
            "mean_probability": float(w @ self.p) / total,
        }
        for count, bins in self.bins.items():
            gap = np.bincount(bins, weights=w * (self.p - y), minlength=count)
            found[f"ece_{count}"] = float(np.abs(gap).sum()) / total
        for name, threshold in self.thresholds.items():
            is_called = self.p >= threshold
            hits, called = float(w @ (y * is_called)), float(w @ is_called)
            found[f"accuracy_at_{name}"] = float(w @ (is_called == (y > 0))) / total
            found[f"f1_at_{name}"] = 2 * hits / max(called + rate * total, 1e-300)
        return found

    def _auc(self, w: NDArray[Any]) -> float:
        """Return the chance that a yes has the larger probability than a no, ties half (Mann and Whitney 1947)."""
        yes = np.bincount(self.level, weights=w * self.y)
        no = np.bincount(self.level, weights=w * (1 - self.y))
        pairs = float(yes.sum() * no.sum())
        below = np.cumsum(no) - no
        return float(yes @ (below + no / 2)) / pairs if pairs else float("nan")


def describe(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a line for each metric, with its interval, for the terminal."""
    return [f"  {name:22} {one['mean']:.4f} [{one['low']:.4f}, {one['high']:.4f}]" for name, one in metrics.items()]
