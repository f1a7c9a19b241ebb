"""What a ranker is asked: a history that it may see, and the items that came next."""

# C cases; CSR pairs (values, offsets) hold what varies in length

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.history import RepeatRule

from xrec_trainer.dataset import Log, repeats

T = TypeVar("T", np.int32, np.int64)


@dataclass(frozen=True)
class Cases:
    """Questions to a ranker. ``history_index`` points into the log, oldest first; ``relevant`` holds distinct rows.

    Events of the codes ``seen_events`` make an item seen, and rankers leave seen items out; none do where it is empty.
    """

    user: NDArray[np.int32]
    history_index: NDArray[np.int64]
    history_offsets: NDArray[np.int64]
    relevant: NDArray[np.int32]
    relevant_offsets: NDArray[np.int64]
    now_ms: NDArray[np.int64]
    device: NDArray[np.int32]
    seen_events: frozenset[int]

    def __len__(self) -> int:
        return len(self.user)

    def history(self, case: int | np.integer[Any]) -> NDArray[np.int64]:
        """Return the log indices that case number ``case`` may see, oldest first."""
        return self.history_index[self.history_offsets[case] : self.history_offsets[case + 1]]

    def answers(self, case: int | np.integer[Any]) -> NDArray[np.int32]:
        """Return the rows that are right for case number ``case``."""
        return self.relevant[self.relevant_offsets[case] : self.relevant_offsets[case + 1]]

    def left_out(self, log: Log, case: int | np.integer[Any]) -> NDArray[np.int32]:
        """Return the distinct rows that a ranker leaves out of case number ``case``, ascending."""
        history = self.history(case)
        seen: NDArray[np.int32] = np.unique(log.item[history[np.isin(log.event[history], list(self.seen_events))]])
        return seen

    def only(self, keep: NDArray[np.bool_]) -> Cases:
        """Return the cases where ``keep`` (C,) holds."""
        chosen = (
            _Case(int(self.user[case]), self.history(case), self.answers(case), self.now_ms[case], self.device[case])
            for case in np.flatnonzero(keep)
        )
        return _pack(chosen, self.seen_events)

    def with_histories(self, histories: list[NDArray[np.int64]]) -> Cases:
        """Return the same questions with other histories, one array of log indices a case."""
        return replace(self, history_index=_join(histories, np.int64), history_offsets=_offsets(histories))


Ranker = Callable[[Cases, int], NDArray[np.int32]]
"""Gives (C, k) int32 rows for cases, best first, -1 where there is none."""


class _Case(NamedTuple):
    user: int
    history: NDArray[np.int64]
    relevant: NDArray[np.int32]
    now_ms: np.int64 | int
    device: np.int32


def _offsets(parts: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)


def _join(parts: Sequence[NDArray[T]], dtype: type[T]) -> NDArray[T]:
    return np.concatenate([*parts, np.zeros(0, dtype)]).astype(dtype)


def _pack(asked: Iterable[_Case], seen_events: frozenset[int] = frozenset()) -> Cases:
    cases = list(asked)
    histories, answers = [case.history for case in cases], [case.relevant for case in cases]
    return Cases(
        user=np.array([case.user for case in cases], dtype=np.int32),
        history_index=_join(histories, np.int64),
        history_offsets=_offsets(histories),
        relevant=_join(answers, np.int32),
        relevant_offsets=_offsets(answers),
        now_ms=np.array([case.now_ms for case in cases], dtype=np.int64),
        device=np.array([case.device for case in cases], dtype=np.int32),
        seen_events=seen_events,
    )


def by_time(log: Log, start_ms: int, end_ms: int, targets: frozenset[int], *, new_only: bool) -> Cases:
    """Ask once for each user with a target event in [start, end): which items, given all that was before ``start``.

    ``targets`` are event codes. With ``new_only`` the right items are those that the user had no target event on
    before, and rankers leave out what the user had; else every target item of the window is right. Users without a
    history are asked too (cold users).
    """
    is_target = np.isin(log.event, list(targets))

    def asked() -> Iterator[_Case]:
        for user, first, last in _users(log):
            split, end = first + np.searchsorted(log.at_ms[first:last], [start_ms, end_ms])
            window = np.arange(split, end)[is_target[split:end]]
            if new_only:
                window = window[~np.isin(log.item[window], log.item[first:split][is_target[first:split]])]
            if len(window):
                answers = np.unique(log.item[window])
                yield _Case(user, np.arange(first, split), answers, start_ms, log.device[window[0]])

    return _pack(asked(), targets if new_only else frozenset())


def leave_one_out(log: Log, targets: frozenset[int], *, back: int, leaves_out_seen: bool) -> Cases:
    """Ask for each user's target event number ``back`` from the end (1 = the last), given all that was before it.

    Users with fewer than three events are left out, as in the published tables, whose authors also leave out the
    items of the history (``leaves_out_seen``: those with a target event).
    """
    is_target = np.isin(log.event, list(targets))

    def asked() -> Iterator[_Case]:
        for user, first, last in _users(log):
            own = first + np.flatnonzero(is_target[first:last])
            if last - first >= 3 and len(own) >= back:
                yield _next_event(log, user, first, int(own[-back]))

    return _pack(asked(), targets if leaves_out_seen else frozenset())


def at_moments(
    log: Log, users: NDArray[np.int64], now_ms: NDArray[np.int64], horizon_ms: int, targets: frozenset[int]
) -> Cases:
    """Ask for all target items within ``horizon_ms`` after moments of users, given all that was before, right or not.

    ``users`` (C,) and ``now_ms`` (C,) are the moments; those at which a user has no history yet are left out. The
    device is that of the last event before.
    """
    is_target = np.isin(log.event, list(targets))

    def asked() -> Iterator[_Case]:
        for user, now in zip(users.tolist(), now_ms.tolist(), strict=True):
            first, last = log.user_start[user], log.user_start[user + 1]
            split, end = first + np.searchsorted(log.at_ms[first:last], [now, now + horizon_ms])
            if split > first:
                answers = np.unique(log.item[split:end][is_target[split:end]])
                yield _Case(user, np.arange(first, split), answers, now, log.device[split - 1])

    return _pack(asked())


def sessions_after_switch(log: Log, start_ms: int, end_ms: int, session_gap_ms: int) -> Cases:
    """Ask for what the first session after each change of device in [start, end) holds, given all that was before it.

    Where people shop, a session is a basket: its items have no order.
    """

    def asked() -> Iterator[_Case]:
        for user, first, last in _users(log):
            at_ms = log.at_ms[first:last]
            begins = first + 1 + np.flatnonzero(np.diff(at_ms) > session_gap_ms)
            for begin, end in zip(begins, np.append(begins, last)[1:], strict=True):
                if log.device[begin] != log.device[begin - 1] and start_ms <= log.at_ms[begin] < end_ms:
                    answers = np.unique(log.item[begin:end][log.item[begin:end] >= 0])
                    if len(answers):
                        yield _Case(user, np.arange(first, begin), answers, log.at_ms[begin], log.device[begin])

    return _pack(asked())


def after_switch(log: Log, start_ms: int, end_ms: int, session_gap_ms: int) -> Cases:
    """Ask for the first event after each change of device between consecutive sessions of a user in [start, end).

    Where that is a search nothing is asked.
    """

    def asked() -> Iterator[_Case]:
        for user, first, last in _users(log):
            at_ms, device = log.at_ms[first:last], log.device[first:last]
            changes = (np.diff(device) != 0) & (np.diff(at_ms) > session_gap_ms)
            for index in first + 1 + np.flatnonzero(changes):
                if start_ms <= log.at_ms[index] < end_ms and log.item[index] >= 0:
                    yield _next_event(log, user, first, index)

    return _pack(asked())


def _users(log: Log) -> Iterator[tuple[int, np.int64, np.int64]]:
    """Yield each user with the begin and the end of the user's events."""
    for user, (first, last) in enumerate(zip(log.user_start[:-1], log.user_start[1:], strict=True)):
        yield user, first, last


def _next_event(log: Log, user: int, first: np.int64, index: int) -> _Case:
    """Return the case that asks for one event, given the user's events before it."""
    history, answer = np.arange(first, index), log.item[index : index + 1]
    return _Case(user, history, answer, log.at_ms[index], log.device[index])


def case_bias(
    log: Log, cases: Cases, case: int, rule: RepeatRule | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return distinct rows and what is added to the score of each: -inf for seen items that the case leaves out.

    Where seen items may be ranked, the repeat rule lifts what was had before.
    """
    if cases.seen_events:
        seen = cases.left_out(log, case)
        return seen, np.full(len(seen), -np.inf, dtype=np.float32)
    if rule is None:
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
    return repeats(log, cases.history(case), int(cases.now_ms[case]), rule)


def own_device_histories(log: Log, cases: Cases) -> list[NDArray[np.int64]]:
    """Return each case's history reduced to the events of the device that is asked."""
    return [
        index[log.device[index] == cases.device[case]]
        for case, index in enumerate(map(cases.history, range(len(cases))))
    ]
