"""The module functions: one Recommender for the whole app, made once by ``init``."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from xrec_sdk.bundle import Bundle
from xrec_sdk.context import Context
from xrec_sdk.errors import UsageError
from xrec_sdk.experiment import Arm
from xrec_sdk.profile import MAX_EVENTS, Profile
from xrec_sdk.recommender import UNKNOWN_DEVICE, Recommender, Where
from xrec_sdk.results import Recommendation

if TYPE_CHECKING:
    from xrec_sdk.end_to_end import EndToEnd
    from xrec_sdk.sync_client import SyncStatus

_lock = threading.Lock()
_recommender: Recommender | None = None


def init(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    profile: str | os.PathLike[str] | Profile = ":memory:",
    trusted_keys: Sequence[str] = (),
    allow_unsigned: bool = False,
    minimum_release: int = 0,
    providers: Sequence[str] | None = None,
    num_threads: int = 1,
    session_options: Callable[[], Any] | None = None,
    max_events: int = MAX_EVENTS,
) -> None:
    """Open the bundle and the profile for the module functions; a second call takes the place of the first.

    Where the new bundle or profile can't be opened, the error is raised and the one before stays.
    """
    global _recommender
    fresh = Recommender(
        bundle,
        profile,
        trusted_keys=trusted_keys,
        allow_unsigned=allow_unsigned,
        minimum_release=minimum_release,
        providers=providers,
        num_threads=num_threads,
        session_options=session_options,
        max_events=max_events,
    )
    with _lock:
        before, _recommender = _recommender, fresh
    if before is not None:
        before.close()


def current() -> Recommender:
    """Return the Recommender behind the module functions; raise UsageError before ``init``."""
    recommender = _recommender
    if recommender is None:
        raise UsageError("usage.not_initialised", "call xrec_sdk.init(...) first")
    return recommender


def record(
    event: str,
    item_id: str | None = None,
    *,
    query: str | None = None,
    device: str,
    at_ms: int | None = None,
    value: float | None = None,
) -> str:
    """Keep what the user did; see :meth:`Recommender.record`."""
    return current().record(event, item_id, query=query, device=device, at_ms=at_ms, value=value)


def recommend(
    k: int = 10,
    *,
    candidates: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    filter_seen: bool | None = None,
    where: Where | None = None,
    max_per_category: int | None = None,
    diversity: float = 0.0,
    personalised: bool = True,
    context: Context | None = None,
    explain: bool = False,
    arm: Arm | None = None,
) -> list[Recommendation]:
    """Return the best ``k`` items; see :meth:`Recommender.recommend`."""
    return current().recommend(
        k,
        candidates=candidates,
        exclude=exclude,
        filter_seen=filter_seen,
        where=where,
        max_per_category=max_per_category,
        diversity=diversity,
        personalised=personalised,
        context=context,
        explain=explain,
        arm=arm,
    )


def similar(item_id: str, k: int = 10) -> list[Recommendation]:
    """Return the ``k`` items most like an item; see :meth:`Recommender.similar`."""
    return current().similar(item_id, k)


def score(items: Iterable[str]) -> dict[str, float]:
    """Return the score of each item; see :meth:`Recommender.score`."""
    return current().score(items)


def feedback(
    recommendation_id: str, item_id: str, event: str, *, device: str = UNKNOWN_DEVICE, at_ms: int | None = None
) -> str:
    """Keep what the user did with a recommended item; see :meth:`Recommender.feedback`."""
    return current().feedback(recommendation_id, item_id, event, device=device, at_ms=at_ms)


def set_consent(purpose: str, granted: bool, *, policy: str = "") -> None:
    """Keep what the user said to a purpose; see :meth:`Recommender.set_consent`."""
    current().set_consent(purpose, granted, policy=policy)


def consent() -> dict[str, bool]:
    """Return for each purpose whether consent stands; see :meth:`Recommender.consent`."""
    return current().consent()


def forget(
    *, item_id: str | None = None, event: str | None = None, from_ms: int | None = None, to_ms: int | None = None
) -> int:
    """Erase the profile or some of it; see :meth:`Recommender.forget`."""
    return current().forget(item_id=item_id, event=event, from_ms=from_ms, to_ms=to_ms)


def start_sync(
    url: str, token_provider: Callable[[], str], *, installation: str | None = None, end_to_end: bool = False
) -> None:
    """Keep the profile in step with a sync server; see :meth:`Recommender.start_sync`."""
    current().start_sync(url, token_provider, installation=installation, end_to_end=end_to_end)


def end_to_end() -> EndToEnd:
    """Return the keys of a sealed profile; see :meth:`Recommender.end_to_end`."""
    return current().end_to_end()


def stop_sync() -> None:
    """End the background sync; see :meth:`Recommender.stop_sync`."""
    current().stop_sync()


def sync_status() -> SyncStatus:
    """Return how the sync stands; see :meth:`Recommender.sync_status`."""
    return current().sync_status()


def export_my_data() -> dict[str, object]:
    """Return all that is kept of the user; see :meth:`Recommender.export_my_data`."""
    return current().export_my_data()


def close() -> None:
    """Close the profile; harmless before ``init``."""
    global _recommender
    with _lock:
        before, _recommender = _recommender, None
    if before is not None:
        before.close()
