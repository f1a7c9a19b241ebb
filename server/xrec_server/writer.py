"""Group commit: one thread runs jobs in the order in which they came, as many in one transaction as wait.

An answer is given only after the commit that it belongs to. Where a transaction fails, each of its jobs is run again
alone, so that one that can't be written fails by itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from xrec_server.errors import Refused

T = TypeVar("T")
MAX_GROUP = 64
MAX_WAITING = 4_096


class Transaction(Protocol):
    """What begins and ends around a group of jobs."""

    def begin(self) -> None:
        """Begin."""

    def commit(self) -> Callable[[], None]:
        """Commit; what is returned is called in the event loop's thread once the answers are there."""

    def rollback(self) -> None:
        """Undo all since ``begin``; it may be that nothing had begun."""


@dataclass(frozen=True)
class _Job:
    work: Callable[[], Any]
    future: asyncio.Future[Any]


class Writer:
    """The thread. ``run`` is called in an event loop; ``close`` waits until all that was asked is done."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._jobs: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._loop, name="xrec-writer", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[], T]) -> T:
        """Run a job in the thread; its answer comes after its commit."""
        job = _Job(work, asyncio.get_running_loop().create_future())
        with self._wake:
            if self._is_closed:
                raise Refused(503, "server.stopping", "the server stops: ask again", retry_after_s=2)
            if len(self._jobs) >= MAX_WAITING:
                raise Refused(503, "server.busy", f"{MAX_WAITING} requests wait for the disk", retry_after_s=5)
            self._jobs.append(job)
            self._wake.notify()
        answer: T = await job.future
        return answer

    def close(self) -> None:
        """Take no more, finish what waits, and end the thread."""
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._jobs or self._is_closed)
                group = [self._jobs.popleft() for _ in range(min(MAX_GROUP, len(self._jobs)))]
            if not group:
                return
            self._run(group)

    def _run(self, group: Sequence[_Job]) -> None:
        try:
            self._transaction.begin()
            answers = [job.work() for job in group]
            after = self._transaction.commit()
        except Exception as error:
            self._transaction.rollback()
            if len(group) > 1:
                for job in group:
                    self._run([job])
                return
            failure = error
            _in_loop(group[0], lambda: _settle(group[0].future, None, failure))
            return
        _in_loop(group[0], lambda: _answer(group, answers, after))


def _answer(group: Sequence[_Job], answers: Sequence[Any], after: Callable[[], None]) -> None:
    for job, answer in zip(group, answers, strict=True):
        _settle(job.future, answer, None)
    after()


def _settle(future: asyncio.Future[Any], answer: object, failure: Exception | None) -> None:
    if future.done():  # Its request was cancelled; what it wrote stands.
        return
    if failure is None:
        future.set_result(answer)
    else:
        future.set_exception(failure)


def _in_loop(job: _Job, call: Callable[[], None]) -> None:
    loop = job.future.get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
