"""The async twin of Recommender: the same words and errors, each call in a thread, so that no event loop waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from xrec_sdk.recommender import Recommender

__all__ = ["AsyncRecommender"]

P = ParamSpec("P")
R = TypeVar("R")


def _twin(
    method: Callable[Concatenate[Recommender, P], R],
) -> Callable[Concatenate[AsyncRecommender, P], Coroutine[Any, Any, R]]:
    @wraps(method)
    async def call(self: AsyncRecommender, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(method, self.recommender, *args, **kwargs)

    return call


def _opener(make: Callable[P, Recommender]) -> Callable[P, Coroutine[Any, Any, AsyncRecommender]]:
    async def call(*args: P.args, **kwargs: P.kwargs) -> AsyncRecommender:
        return AsyncRecommender(await asyncio.to_thread(make, *args, **kwargs))

    return wraps(make)(call)


class AsyncRecommender:
    """Await what :class:`Recommender` computes; take one that is open, or open it with its arguments by ``open``.

    Each call runs in the loop's default thread pool. One that is cancelled still ends in its thread: a cancelled
    ``record`` may have been kept.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender

    async def __aenter__(self) -> AsyncRecommender:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    open = staticmethod(_opener(Recommender))
    record = _twin(Recommender.record)
    feedback = _twin(Recommender.feedback)
    recommend = _twin(Recommender.recommend)
    similar = _twin(Recommender.similar)
    score = _twin(Recommender.score)
    set_consent = _twin(Recommender.set_consent)
    consent = _twin(Recommender.consent)
    forget = _twin(Recommender.forget)
    start_sync = _twin(Recommender.start_sync)
    stop_sync = _twin(Recommender.stop_sync)
    end_to_end = _twin(Recommender.end_to_end)
    sync_status = _twin(Recommender.sync_status)
    export_my_data = _twin(Recommender.export_my_data)
    close = _twin(Recommender.close)
