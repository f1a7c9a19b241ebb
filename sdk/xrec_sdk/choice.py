"""Choose the list out of the scored items by the rules of a call."""

# N items, Np items with pad rows, D width, k answers

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xrec_sdk.bundle import Bundle
from xrec_sdk.rules import cap_categories, diversify
from xrec_sdk.runtime import Runtime, Top
from xrec_sdk.taste import Bias

LEAST_POOL = 64
POOL_PER_ANSWER = 4


class Question(NamedTuple):
    """What the scorer is asked: the user vector (D,), the item bias (Np,), the biases, and the ranker's context."""

    user: NDArray[np.float32]
    item_bias: NDArray[np.float32]
    bias: Bias
    context: NDArray[np.float32] | None = None
    with_prior: bool = True


class Choice(NamedTuple):
    """The rules that act on the scored list."""

    k: int
    allows: Callable[[dict[str, object]], bool] | None = None
    cap: int | None = None
    diversity: float = 0.0


def choose(question: Question, choice: Choice, bundle: Bundle, runtime: Runtime) -> Top:
    """Return the chosen rows, scores and probabilities; the pool grows until the rules are satisfied or it ends."""
    count = bundle.manifest.item_count
    wanted = min(choice.k, count)
    is_plain = choice.allows is None and choice.cap is None and choice.diversity == 0
    depth = wanted if is_plain else min(count, max(LEAST_POOL, POOL_PER_ANSWER * wanted))
    while True:
        top = _top(question, depth, runtime)
        if is_plain:
            return top
        is_whole = len(top[0]) < depth or depth == count
        if choice.allows is not None:
            entries = (bundle.catalog.entry(row) for row in top[0].tolist())
            top = _take(top, [place for place, entry in enumerate(entries) if choice.allows(entry)])
        places = _places(top[0], top[1], wanted, choice, bundle)
        if is_whole or len(places) == wanted:
            return _take(top, places)
        depth = min(count, POOL_PER_ANSWER * depth)


def _top(question: Question, depth: int, runtime: Runtime) -> Top:
    user, item_bias, bias, context, with_prior = question
    if context is not None:
        return runtime.top_probable(user, depth, item_bias, bias, context)
    return *runtime.top(user, depth, item_bias, *bias, with_prior=with_prior), None


def _places(
    rows: NDArray[np.int32], scores: NDArray[np.float32], wanted: int, choice: Choice, bundle: Bundle
) -> list[int]:
    if choice.cap is None and choice.diversity == 0:
        return list(range(min(wanted, len(rows))))
    if choice.diversity == 0 and choice.cap is not None:
        return cap_categories(bundle.catalog.category[rows], wanted, choice.cap)
    categories, vectors = bundle.catalog.category[rows], bundle.item_vectors(rows)
    return diversify(scores, vectors, categories, wanted, choice.cap, choice.diversity)


def _take(top: Top, places: list[int]) -> Top:
    rows, scores, found = top
    return rows[places], scores[places], found if found is None else found[places]
