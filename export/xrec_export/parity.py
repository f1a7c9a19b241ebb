"""Measure what the bundle loses against the float model on held-out cases, and refuse a bundle that loses too much."""

# C cases

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.bundle import Bundle
from xrec_sdk.errors import GateError
from xrec_sdk.runtime import Runtime

from xrec_export import reference
from xrec_export.export_model import ExportModel, ParityCase
from xrec_export.ranker_graph import ExportRanker

TOP = 10
RESAMPLES = 2000
PROBABILITY_CASES = 200
MAX_PROBABILITY_GAP = 1e-5


@dataclass(frozen=True)
class Tolerance:
    """What a release may lose: the least mean overlap of the top 10, and the largest relative loss of NDCG@10."""

    min_overlap: float = 0.98
    max_ndcg_loss: float = 0.005


@dataclass(frozen=True)
class Parity:
    """The certificate of a bundle; the interval is a paired bootstrap over cases of bundle minus float."""

    cases: int
    overlap: float
    ndcg_float: float
    ndcg_bundle: float
    ndcg_difference: float
    ndcg_difference_95: tuple[float, float]
    probability_gap: float | None = None
    """The largest difference between a probability of the bundle and torch's; None without a ranker."""

    @property
    def ndcg_loss(self) -> float:
        """The relative loss of NDCG@10; negative where the bundle is better."""
        return -self.ndcg_difference / self.ndcg_float if self.ndcg_float > 0 else 0.0


def measure(model: ExportModel, runtime: Runtime, cases: Sequence[ParityCase]) -> Parity:
    """Ask the float model (float table, torch encoder) and the staged bundle the same questions."""
    if not cases:
        raise GateError("gate.parity", "there are no held-out cases to measure parity on")
    bias = runtime.no_bias()
    overlaps, float_gains, bundle_gains = [], [], []
    for case in cases:
        k = min(TOP, len(model.ids))
        expected = _float_top(model, case, k)
        user = runtime.encode(case.history)
        rows, _ = runtime.top(user, k, bias, case.bias_rows, case.bias_values)
        overlaps.append(len(np.intersect1d(expected, rows)) / max(1, len(expected)))
        float_gains.append(ndcg(expected, case.relevant))
        bundle_gains.append(ndcg(rows, case.relevant))
    difference = np.array(bundle_gains) - np.array(float_gains)
    return Parity(
        cases=len(cases),
        overlap=float(np.mean(overlaps)),
        ndcg_float=float(np.mean(float_gains)),
        ndcg_bundle=float(np.mean(bundle_gains)),
        ndcg_difference=float(difference.mean()),
        ndcg_difference_95=_interval(difference),
    )


def probability_gap(
    ranker: ExportRanker,
    prior: NDArray[np.float32] | None,
    bundle: Bundle,
    runtime: Runtime,
    cases: Sequence[ParityCase],
) -> float:
    """Return the largest difference between the probabilities of a bundle's runtime and torch's, at random times."""
    random, largest = np.random.default_rng(0), 0.0
    for case in cases[:PROBABILITY_CASES]:
        user, context = runtime.encode(case.history), reference.random_context(len(case.history), random)
        bias = case.bias_rows, case.bias_values
        k = min(TOP, len(bundle.ids))
        rows, _, found = runtime.top_probable(user, k, runtime.no_bias(), bias, context)
        pairs = reference.pairs(user, bundle.item_vectors(rows), rows, prior, bias)
        expected = ranker.reference(user, context, rows, bundle.item_vectors(rows), pairs)
        if found is None or len(found) != len(expected):
            return float("inf")
        largest = max(largest, float(np.abs(found - expected).max(initial=0)))
    return largest


def check(parity: Parity, tolerance: Tolerance) -> None:
    """Raise GateError ``gate.parity`` where a bundle misses its tolerance."""
    if parity.overlap < tolerance.min_overlap:
        raise GateError(
            "gate.parity",
            f"the bundle keeps {parity.overlap:.4f} of the float model's top {TOP}, at least {tolerance.min_overlap} "
            "is asked; train longer with fake quantization, or lower --min-overlap knowingly",
        )
    if parity.ndcg_loss > tolerance.max_ndcg_loss:
        raise GateError(
            "gate.parity",
            f"the bundle loses {100 * parity.ndcg_loss:.2f} % of NDCG@{TOP} ({parity.ndcg_float:.4f} to "
            f"{parity.ndcg_bundle:.4f}), at most {100 * tolerance.max_ndcg_loss:.2f} % is allowed",
        )
    if parity.probability_gap is not None and not parity.probability_gap <= MAX_PROBABILITY_GAP:
        raise GateError(
            "gate.parity",
            f"a probability of the bundle is {parity.probability_gap:g} off torch's, at most {MAX_PROBABILITY_GAP:g} "
            "is allowed; make the ranker again with: xrec-train rank",
        )


def to_manifest(parity: Parity, tolerance: Tolerance) -> dict[str, object]:
    """Return the certificate as the manifest holds it."""
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(parity).items()}
    if parity.probability_gap is None:
        del fields["probability_gap"]
    return {**fields, "top": TOP, "tolerance": asdict(tolerance)}


def ndcg(rows: NDArray[np.int32], relevant: NDArray[np.int32]) -> float:
    """Return NDCG@10 of a list with binary relevance."""
    discounts = 1 / np.log2(np.arange(2, TOP + 2))
    best = discounts[: len(relevant)].sum()
    return float(discounts[: len(rows)][np.isin(rows, relevant)].sum() / best) if best > 0 else 0.0


def _float_top(model: ExportModel, case: ParityCase, k: int) -> NDArray[np.int32]:
    user = reference.encode(model.encoder, model.item_table, case.history)
    scores = model.item_table @ user + (0 if model.prior is None else model.prior)
    scores = reference.add_biases(scores, case.bias_rows, case.bias_values)
    rows = reference.top(scores, k)
    return rows[np.isfinite(scores[rows])]


def _interval(difference: NDArray[np.float64]) -> tuple[float, float]:
    random = np.random.default_rng(0)
    chosen = (random.choice(difference, size=len(difference)) for _ in range(RESAMPLES))
    low, high = np.quantile([sample.mean() for sample in chosen], [0.025, 0.975])
    return float(low), float(high)
