"""What a ranker is asked: a history that it may see, and the items that came next."""

# C cases; CSR pairs (values, offsets) hold what varies in length

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrec_trainer.dataset import Log


@dataclass(frozen=True)
class Cases:
    """Questions to a ranker. ``history_index`` points into the log, oldest first; ``relevant`` holds distinct rows."""

    user: NDArray[np.int32]
    history_index: NDArray[np.int64]
    history_offsets: NDArray[np.int64]
    relevant: NDArray[np.int32]
    relevant_offsets: NDArray[np.int64]
    now_ms: NDArray[np.int64]
    device: NDArray[np.int32]
    excludes_seen: bool

    def __len__(self) -> int:
        return len(self.user)

    def history(self, case: int | np.integer[Any]) -> NDArray[np.int64]:
        """Return the log indices that case number ``case`` may see, oldest first."""
        return self.history_index[self.history_offsets[case] : self.history_offsets[case + 1]]

    def answers(self, case: int | np.integer[Any]) -> NDArray[np.int32]:
        """Return the rows that are right for case number ``case``."""
        return self.relevant[self.relevant_offsets[case] : self.relevant_offsets[case + 1]]

    def only(self, keep: NDArray[np.bool_]) -> Cases:
        """Return the cases where ``keep`` (C,) holds."""
        chosen = np.flatnonzero(keep)
        return _pack(
            [int(self.user[case]) for case in chosen],
            [self.history(case) for case in chosen],
            [self.answers(case) for case in chosen],
            [int(self.now_ms[case]) for case in chosen],
            [int(self.device[case]) for case in chosen],
            excludes_seen=self.excludes_seen,
        )

    def with_histories(self, histories: list[NDArray[np.int64]]) -> Cases:
        """Return the same questions with other histories, one array of log indices a case."""
        return replace(self, history_index=_join(histories, np.int64), history_offsets=_offsets(histories))


Ranker = Callable[[Cases, int], NDArray[np.int32]]
"""Gives (C, k) int32 rows for cases, best first, -1 where there is none."""


def _offsets(parts: list[NDArray[np.int64]] | list[NDArray[np.int32]]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)


def _join(parts: list[NDArray[np.int64]] | list[NDArray[np.int32]], dtype: type) -> NDArray[np.int64]:
    return np.concatenate([*parts, np.zeros(0, dtype)]).astype(dtype)


def _pack(
    users: list[int],
    histories: list[NDArray[np.int64]],
    answers: list[NDArray[np.int32]],
    now_ms: list[int],
    devices: list[int],
    *,
    excludes_seen: bool,
) -> Cases:
    return Cases(
        user=np.array(users, dtype=np.int32),
        history_index=_join(histories, np.int64),
        history_offsets=_offsets(histories),
        relevant=_join(answers, np.int32).astype(np.int32),
        relevant_offsets=_offsets(answers),
        now_ms=np.array(now_ms, dtype=np.int64),
        device=np.array(devices, dtype=np.int32),
        excludes_seen=excludes_seen,
    )


def by_time(log: Log, start_ms: int, end_ms: int, targets: frozenset[int], *, new_only: bool) -> Cases:
    """Ask once for each user with a target event in [start, end): which items, given all that was before ``start``.

    ``targets`` are event codes. With ``new_only`` the right items are those that the user had no target event on
    before, and rankers leave out what is in the history; else every target item of the window is right. Users
    without a history are asked too (cold users).
    """
    is_target = np.isin(log.event, list(targets))
    users, histories, answers, now_ms, devices = [], [], [], [], []
    for user, (first, last) in enumerate(zip(log.user_start[:-1], log.user_start[1:], strict=True)):
        split, end = first + np.searchsorted(log.at_ms[first:last], [start_ms, end_ms])
        window = np.arange(split, end)[is_target[split:end]]
        if new_only:
            window = window[~np.isin(log.item[window], log.item[first:split])]
        if len(window) == 0:
            continue
        users.append(user)
        histories.append(np.arange(first, split, dtype=np.int64))
        answers.append(np.unique(log.item[window]))
        now_ms.append(start_ms)
        devices.append(int(log.device[window[0]]))
    return _pack(users, histories, answers, now_ms, devices, excludes_seen=new_only)


def leave_one_out(log: Log, targets: frozenset[int], *, back: int, excludes_seen: bool) -> Cases:
    """Ask for each user's target event number ``back`` from the end (1 = the last), given all that was before it.

    Users with fewer than three events are left out, as in the published tables, whose authors also leave out the
    items of the history (``excludes_seen``).
    """
    is_target = np.isin(log.event, list(targets))
    users, histories, answers, now_ms, devices = [], [], [], [], []
    for user, (first, last) in enumerate(zip(log.user_start[:-1], log.user_start[1:], strict=True)):
        own = first + np.flatnonzero(is_target[first:last])
        if last - first < 3 or len(own) < back:
            continue
        held_out = int(own[-back])
        users.append(user)
        histories.append(np.arange(first, held_out, dtype=np.int64))
        answers.append(log.item[held_out : held_out + 1])
        now_ms.append(int(log.at_ms[held_out]))
        devices.append(int(log.device[held_out]))
    return _pack(users, histories, answers, now_ms, devices, excludes_seen=excludes_seen)


def after_switch(log: Log, start_ms: int, end_ms: int, session_gap_ms: int) -> Cases:
    """Ask for the first event after each change of device between consecutive sessions of a user in [start, end)."""
    users, histories, answers, now_ms, devices = [], [], [], [], []
    for user, (first, last) in enumerate(zip(log.user_start[:-1], log.user_start[1:], strict=True)):
        if last - first < 2:
            continue
        at_ms, device = log.at_ms[first:last], log.device[first:last]
        changes = (np.diff(device) != 0) & (np.diff(at_ms) > session_gap_ms)
        for index in first + 1 + np.flatnonzero(changes):
            if start_ms <= log.at_ms[index] < end_ms:
                users.append(user)
                histories.append(np.arange(first, index, dtype=np.int64))
                answers.append(log.item[index : index + 1])
                now_ms.append(int(log.at_ms[index]))
                devices.append(int(log.device[index]))
    return _pack(users, histories, answers, now_ms, devices, excludes_seen=False)


def own_device_histories(log: Log, cases: Cases) -> list[NDArray[np.int64]]:
    """Return each case's history reduced to the events of the device that is asked."""
    return [
        index[log.device[index] == cases.device[case]]
        for case, index in enumerate(map(cases.history, range(len(cases))))
    ]
