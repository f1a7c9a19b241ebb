"""Measure what the bundle loses against the float model on held-out users, on each runtime, and refuse too much."""

# C cases, one a user, k answers

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau
from xrec_sdk.bundle import Bundle
from xrec_sdk.conformance import lists_agree
from xrec_sdk.errors import GateError
from xrec_sdk.runtime import Runtime
from xrec_trainer.bootstrap import Interval, paired_difference

from xrec_export import reference
from xrec_export.export_model import ExportModel, ParityCase
from xrec_export.lists import Lists, Questions
from xrec_export.ranker_graph import ExportRanker
from xrec_export.runtimes import ask_all

TOP = 10
SCORE_TOLERANCE = 1e-4
"""Scores of two runtimes may differ by this, relative to the largest, and rows change places that close."""
PROBABILITY_CASES = 200
MAX_PROBABILITY_GAP = 1e-5


@dataclass(frozen=True)
class Tolerance:
    """What a release may lose: the least mean overlap of the top 10, and the largest relative loss of NDCG@10."""

    min_overlap: float = 0.98
    max_ndcg_loss: float = 0.005


@dataclass(frozen=True)
class RuntimeParity:
    """What one runtime's lists are against the float model's, over held-out users.

    ``kendall_tau`` is the mean rank correlation (tau-b: Kendall, Biometrika 1945) of its lists with the float model's
    scores of the same items; the interval is a paired bootstrap over users of runtime minus float. ``agreement`` is the
    share of its lists that are those of onnxruntime on the machine of the build, but for places of like scores.
    """

    overlap: float
    kendall_tau: float
    ndcg: float
    ndcg_difference: float
    ndcg_difference_95: tuple[float, float]
    agreement: float


@dataclass(frozen=True)
class Parity:
    """The certificate of a bundle: what each runtime answers to ``cases`` users, onnxruntime here first."""

    cases: int
    ndcg_float: float
    runtimes: Mapping[str, RuntimeParity]
    probability_gap: float | None = None
    """The largest difference between a probability of the bundle and torch's; None without a ranker."""

    @property
    def here(self) -> RuntimeParity:
        """What onnxruntime answers on this machine."""
        return next(iter(self.runtimes.values()))

    @property
    def overlap(self) -> float:
        """The mean share of the float model's top 10 that the bundle keeps."""
        return self.here.overlap

    @property
    def ndcg_loss(self) -> float:
        """The relative loss of NDCG@10; negative where the bundle is better."""
        return 0.0 - self.here.ndcg_difference / self.ndcg_float if self.ndcg_float > 0 else 0.0


def measure(model: ExportModel, path: Path, bundle: Bundle, cases: Sequence[ParityCase], cpus: Sequence[str]) -> Parity:
    """Ask the float model (float table, torch encoder) and the bundle on each runtime the same questions.

    ``path`` is that of the open bundle; ``cpus`` are emulated besides.
    """
    if not cases:
        raise GateError("gate.parity", "there are no held-out cases to measure parity on")
    questions = Questions([case.history for case in cases], [(case.bias_rows, case.bias_values) for case in cases])
    k = min(TOP, len(model.ids))
    answered = ask_all(path, bundle, questions, k, cpus)
    floats, scores_of = _float_lists(model, cases, k, answered)
    here = next(iter(answered.values()))
    return Parity(
        cases=len(cases),
        ndcg_float=float(np.mean(_gains(floats, cases))),
        runtimes={name: _compare(lists, floats, scores_of[name], here, cases) for name, lists in answered.items()},
    )


def _float_lists(
    model: ExportModel, cases: Sequence[ParityCase], k: int, answered: Mapping[str, Lists]
) -> tuple[NDArray[np.int32], dict[str, NDArray[np.float32]]]:
    """Return the float model's lists, (C, k) rows, -1 where one ends, and its scores of the rows of each runtime."""
    rows = np.full((len(cases), k), -1, dtype=np.int32)
    scores_of = {name: np.zeros((len(cases), k), dtype=np.float32) for name in answered}
    for place, case in enumerate(cases):
        user = reference.encode(model.encoder, model.item_table, case.history, model.query_rows)
        scores = model.item_table @ user + (0 if model.prior is None else model.prior)
        scores = reference.add_biases(scores, case.bias_rows, case.bias_values)
        best = reference.top(scores, k)
        best = best[np.isfinite(scores[best])]
        rows[place, : len(best)] = best
        for name, lists in answered.items():
            scores_of[name][place] = scores[lists.rows[place]]
    return rows, scores_of


def _compare(
    lists: Lists,
    floats: NDArray[np.int32],
    float_scores: NDArray[np.float32],
    here: Lists,
    cases: Sequence[ParityCase],
) -> RuntimeParity:
    overlaps, taus = [], []
    for rows, scores, expected, known in zip(lists.rows, lists.scores, floats, float_scores, strict=True):
        listed, expected = rows >= 0, expected[expected >= 0]
        overlaps.append(len(np.intersect1d(expected, rows[listed])) / max(1, len(expected)))
        tau = kendalltau(known[listed], scores[listed]).statistic if listed.sum() > 1 else np.nan
        taus.append(1.0 if np.isnan(tau) else tau)  # of one item, or of equal scores, there is no order to miss
    gains, users = _gains(lists.rows, cases), np.arange(len(cases), dtype=np.int32)  # a case is a user
    difference = paired_difference(gains, _gains(floats, cases), users)
    return RuntimeParity(
        overlap=float(np.mean(overlaps)),
        kendall_tau=float(np.mean(taus)),
        ndcg=float(np.mean(gains)),
        ndcg_difference=difference.mean,
        ndcg_difference_95=(difference.low, difference.high),
        agreement=_agreement(lists, here),
    )


def _gains(rows: NDArray[np.int32], cases: Sequence[ParityCase]) -> NDArray[np.float64]:
    return np.array([ndcg(row, case.relevant) for row, case in zip(rows, cases, strict=True)])


def _agreement(lists: Lists, here: Lists) -> float:
    is_listed = here.rows >= 0
    tolerance = SCORE_TOLERANCE * max(1.0, float(np.abs(here.scores[is_listed]).max(initial=0)))
    same = [
        np.array_equal(rows >= 0, listed)
        and lists_agree(rows[listed], scores[listed], expected[listed], expected_scores[listed], tolerance)
        for rows, scores, expected, expected_scores, listed in zip(
            lists.rows, lists.scores, here.rows, here.scores, is_listed, strict=True
        )
    ]
    return float(np.mean(same))


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


def check_quality(parity: Parity, tolerance: Tolerance) -> None:
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
            f"{parity.here.ndcg:.4f}), at most {100 * tolerance.max_ndcg_loss:.2f} % is allowed",
        )


def check_runtimes(parity: Parity) -> None:
    """Raise GateError: ``gate.runtime`` where runtimes disagree, ``gate.parity`` where a probability is not torch's."""
    if parity.probability_gap is not None and not parity.probability_gap <= MAX_PROBABILITY_GAP:
        raise GateError(
            "gate.parity",
            f"a probability of the bundle is {parity.probability_gap:g} off torch's, at most {MAX_PROBABILITY_GAP:g} "
            "is allowed; make the ranker again with: xrec-train rank",
        )
    for name, found in parity.runtimes.items():
        if found.agreement < 1:
            raise GateError(
                "gate.runtime",
                f"{name} gives other lists than onnxruntime here to {100 * (1 - found.agreement):.1f} % of "
                f"{parity.cases} users (overlap with the float model {found.overlap:.4f}); look for an operator whose "
                "arithmetic depends on the CPU",
            )


def table(parity: Parity) -> str:
    """Return what each runtime answers as a plain table."""
    rows = [f"{'overlap':>8}  {'tau':>6}  {'NDCG':>6}  {'less float [95 %]':27}  same as here  runtime"]
    for name, one in parity.runtimes.items():
        difference = format(Interval(one.ndcg_difference, *one.ndcg_difference_95), "+.4f")
        of_float = f"{one.overlap:8.4f}  {one.kendall_tau:6.4f}  {one.ndcg:6.4f}  {difference:27}"
        rows.append(f"{of_float}  {one.agreement:12.4f}  {name}")
    return "\n".join(rows)


def to_manifest(parity: Parity, tolerance: Tolerance) -> dict[str, object]:
    """Return the certificate as the manifest holds it: the runtime here at the top, every one under ``runtimes``."""
    here = {name: value for name, value in _fields(parity.here).items() if name not in ("ndcg", "agreement")}
    found = {
        "cases": parity.cases,
        "top": TOP,
        "ndcg_float": parity.ndcg_float,
        "ndcg_bundle": parity.here.ndcg,
        **here,
        "runtimes": {name: _fields(one) for name, one in parity.runtimes.items()},
        "tolerance": asdict(tolerance),
    }
    return found if parity.probability_gap is None else {**found, "probability_gap": parity.probability_gap}


def ndcg(rows: NDArray[np.int32], relevant: NDArray[np.int32]) -> float:
    """Return NDCG@10 of a list with binary relevance."""
    discounts = 1 / np.log2(np.arange(2, TOP + 2))
    best = discounts[: len(relevant)].sum()
    return float(discounts[: len(rows)][np.isin(rows, relevant)].sum() / best) if best > 0 else 0.0


def _fields(found: RuntimeParity) -> dict[str, object]:
    return {**asdict(found), "ndcg_difference_95": list(found.ndcg_difference_95)}
