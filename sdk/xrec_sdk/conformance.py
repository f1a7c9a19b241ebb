"""Check a runtime against the golden cases of its bundle, on the device itself.

conformance.json is ``{"tolerance": t, "cases": [...]}``; a case holds the encoder's ``rows``, ``events``, ``devices``
and ``gaps`` (lists of one length; empty means the zero vector), the scorer's ``k``, ``bias_rows`` and ``bias_values``,
and what must come out: ``top_rows`` and ``top_scores``. The item bias allows every item. In a bundle with a ranker a
case holds ``context`` and ``top_probabilities`` too, which may differ by PROBABILITY_TOLERANCE. Where searches are read
a case holds ``queries``, the reduced queries of the rows below 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrec_sdk.bundle import Bundle
from xrec_sdk.errors import BundleDamaged
from xrec_sdk.history import ARRAYS, History
from xrec_sdk.runtime import Runtime

PROBABILITY_TOLERANCE = 1e-5


def check_conformance(runtime: Runtime, bundle: Bundle) -> int:
    """Run every golden case and return how many there are; raise BundleDamaged where one gives another list.

    Scores may differ by the tolerance of the file, and rows may change places only where their scores are that close.
    """
    try:
        document = json.loads(bundle.conformance.decode("utf-8"))
        tolerance, cases = float(document["tolerance"]), list(document["cases"])
        for place, case in enumerate(cases):
            _check(runtime, case, tolerance, place)
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        raise BundleDamaged(
            "bundle.conformance_malformed", f"conformance.json is not as described: {cause!r}"
        ) from cause
    return len(cases)


def _check(runtime: Runtime, case: Mapping[str, Any], tolerance: float, place: int) -> None:
    history = history_of(case)
    user = runtime.encode(history)
    bias = (
        np.asarray(case.get("bias_rows", ()), dtype=np.int32),
        np.asarray(case.get("bias_values", ()), dtype=np.float32),
    )
    rows, scores = runtime.top(user, int(case["k"]), runtime.no_bias(), *bias)
    expected = np.asarray(case["top_rows"], dtype=np.int32), np.asarray(case["top_scores"], dtype=np.float32)
    if "top_probabilities" in case:
        _check_probabilities(runtime, case, user, bias, place)
    if not lists_agree(rows, scores, expected[0], expected[1], tolerance):
        raise BundleDamaged("bundle.conformance_failed", f"case {place} of conformance.json gives another list here")


def history_of(case: Mapping[str, Any]) -> History:
    """Return the history of a golden case."""
    codes = (np.asarray(case[name], dtype=np.int32) for name in ARRAYS)
    return History(*codes, queries=tuple(case.get("queries", ())))


def _check_probabilities(
    runtime: Runtime,
    case: Mapping[str, Any],
    user: NDArray[np.float32],
    bias: tuple[NDArray[np.int32], NDArray[np.float32]],
    place: int,
) -> None:
    context = np.asarray(case["context"], dtype=np.float32)
    rows, _, found = runtime.top_probable(user, int(case["k"]), runtime.no_bias(), bias, context)
    expected = dict(zip(case["top_rows"], case["top_probabilities"], strict=True))
    listed = [] if found is None else list(zip(rows.tolist(), found.tolist(), strict=True))
    # Rows of like scores may change places, and one may come in for another at the last.
    if not listed or any(abs(expected.get(row, one) - one) > PROBABILITY_TOLERANCE for row, one in listed):
        raise BundleDamaged("bundle.conformance_failed", f"case {place} of conformance.json: other probabilities here")


def lists_agree(
    rows: NDArray[np.int32],
    scores: NDArray[np.float32],
    expected_rows: NDArray[np.int32],
    expected_scores: NDArray[np.float32],
    tolerance: float,
) -> bool:
    """Return whether a list (k,) is the expected one, but for scores and places of rows within the tolerance."""
    if rows.shape != expected_rows.shape or not np.allclose(scores, expected_scores, rtol=0, atol=tolerance):
        return False
    score_of = dict(zip(expected_rows.tolist(), expected_scores.tolist(), strict=True))
    last = float(expected_scores[-1]) if len(expected_scores) else 0.0
    # A row that is not in the expected list can only have come in at the score of the last place.
    should = np.asarray([score_of.get(row, last) for row in rows.tolist()], dtype=np.float32)
    return bool(np.allclose(scores, should, rtol=0, atol=2 * tolerance))
