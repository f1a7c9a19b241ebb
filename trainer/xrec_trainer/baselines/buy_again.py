"""Buy again: what the user had before, by decayed count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.history import DAY_MS, RepeatRule

from xrec_trainer.baselines.scoring import fill, popular_order
from xrec_trainer.cases import Cases, Ranker
from xrec_trainer.dataset import Log, repeats


def buy_again(
    log: Log,
    train_mask: NDArray[np.bool_],
    *,
    events: tuple[str, ...] | None = None,
    repeat_half_life_days: float = 30.0,
    half_life_days: float = 30.0,
) -> Ranker:
    """Rank what the user had before by decayed count, then the popular.

    Frequency and recency of repeat consumption (Anderson et al., WWW 2014), the rule of ``repeat_bias``. Only events
    named in ``events`` count (default: all). Where seen items are left out it equals ``popularity``.
    """
    order = popular_order(log, train_mask, half_life_days)
    names = log.vocabulary.events if events is None else events
    rule = RepeatRule(1.0, int(repeat_half_life_days * DAY_MS), names)

    def rank(cases: Cases, k: int) -> NDArray[np.int32]:
        top = np.full((len(cases), k), -1, dtype=np.int32)
        for case in range(len(cases)):
            history = cases.history(case)
            rows, gains = repeats(log, history, int(cases.now_ms[case]), rule)
            if cases.seen_events:
                fill(top[case], rows[:0], order, cases.left_out(log, case))
            else:
                first = rows[np.lexsort((rows, -gains))][:k]
                fill(top[case], first, order, first)
        return top

    return rank
