"""Which questions are asked of a log, worked by hand."""

from __future__ import annotations

import numpy as np
from xrec_sdk.history import HOUR_MS, Vocabulary
from xrec_trainer.cases import Cases, after_switch, by_time, own_device_histories, sessions_after_switch
from xrec_trainer.dataset import Log

PHONE, PC = 1, 2
GAP_MS = HOUR_MS // 2
# One user's (hour, item, device): two visits on the phone, one on the PC with two items, back to the phone.
VISITS = [(0.0, 4, PHONE), (1.0, 5, PHONE), (2.0, 6, PC), (2.1, 4, PC), (3.0, 7, PHONE), (3.0, 7, PHONE), (3.1, 2, PC)]


def log_of(visits: list[tuple[float, int, int]], event: list[int] | None = None) -> Log:
    """One user's log."""
    hour, item, device = (np.array(column) for column in zip(*visits, strict=True))
    count = len(visits)
    return Log(
        user=np.zeros(count, dtype=np.int32),
        item=item.astype(np.int32),
        event=np.array(event or [1] * count, dtype=np.int32),
        device=device.astype(np.int32),
        gap=np.zeros(count, dtype=np.int32),
        at_ms=(hour * HOUR_MS).astype(np.int64),
        user_start=np.array([0, count], dtype=np.int64),
        users=["ann"],
        item_count=10,
        vocabulary=Vocabulary(("purchase", "view"), ("phone", "pc")),
    )


def asked(cases: Cases) -> list[tuple[list[int], list[int], int]]:
    """Return (history, answers, device) of each case."""
    return [
        (cases.history(case).tolist(), cases.answers(case).tolist(), int(cases.device[case]))
        for case in range(len(cases))
    ]


def test_the_first_event_after_a_change_of_device_is_asked_for() -> None:
    cases = after_switch(log_of(VISITS), 0, 10 * HOUR_MS, GAP_MS)
    # The last change, 6 minutes after an event, is within a session and no case.
    assert asked(cases) == [([0, 1], [6], PC), ([0, 1, 2, 3], [7], PHONE)]
    assert [history.tolist() for history in own_device_histories(log_of(VISITS), cases)] == [[], [0, 1]]


def test_the_first_session_after_a_change_of_device_is_asked_for_in_whole() -> None:
    log = log_of(VISITS)
    cases = sessions_after_switch(log, 0, 10 * HOUR_MS, GAP_MS)
    assert asked(cases) == [([0, 1], [4, 6], PC), ([0, 1, 2, 3], [2, 7], PHONE)]
    assert cases.now_ms.tolist() == [2 * HOUR_MS, 3 * HOUR_MS]
    assert asked(sessions_after_switch(log, int(2.5 * HOUR_MS), 10 * HOUR_MS, GAP_MS)) == asked(cases)[1:]
    assert asked(sessions_after_switch(log, 0, 3 * HOUR_MS, GAP_MS)) == asked(cases)[:1]


def test_what_was_bought_in_a_period_is_asked_for_with_what_was_before_it() -> None:
    log = log_of(VISITS, event=[1, 2, 1, 1, 1, 1, 2])
    purchases = frozenset([1])
    every = by_time(log, 2 * HOUR_MS, 10 * HOUR_MS, purchases, new_only=False)
    assert asked(every) == [([0, 1], [4, 6, 7], PC)]
    new = by_time(log, 2 * HOUR_MS, 10 * HOUR_MS, purchases, new_only=True)
    assert asked(new) == [([0, 1], [6, 7], PC)]
    assert new.left_out(log, 0).tolist() == [4]  # the item that was only viewed may be recommended
    assert every.left_out(log, 0).tolist() == []
