"""Recommend: one bundle, one user's profile, the rules of the app."""

# N items, Np items with pad rows, D width, k answers

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xrec_sdk.bundle import Bundle, open_bundle
from xrec_sdk.choice import Choice, Question, choose
from xrec_sdk.context import CONTEXT, Context, check_context, context_vector
from xrec_sdk.errors import UsageError
from xrec_sdk.experiment import Arm, list_id
from xrec_sdk.known import Known, Reader
from xrec_sdk.profile import MAX_EVENTS, Profile, now_ms
from xrec_sdk.query import item_or_query
from xrec_sdk.reasons import find_reasons
from xrec_sdk.results import Recommendation
from xrec_sdk.runtime import Runtime, Top
from xrec_sdk.taste import NO_BIAS, Bias, again_bias, forbid

if TYPE_CHECKING:
    from xrec_sdk.end_to_end import EndToEnd
    from xrec_sdk.sync_client import SyncClient, SyncStatus

Where = Mapping[str, "str | Iterable[str]"] | Callable[[dict[str, object]], bool]
UNKNOWN_DEVICE = "unknown"


class Recommender:
    """Recommend to one user from one bundle; every method may be called from any thread.

    ``bundle`` is a path, opened with ``trusted_keys``, ``allow_unsigned`` and ``minimum_release`` as in
    :func:`open_bundle`, or a Bundle that is open. ``profile`` is the path of the local file, ``":memory:"`` for one
    that ends with the process, or a Profile. The other options go to :class:`Runtime` and :class:`Profile`.
    ``clock_ms`` gives the time.

    Everything computes or touches the local disk; nothing waits for a network.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle,
        profile: str | os.PathLike[str] | Profile = ":memory:",
        *,
        trusted_keys: Sequence[str] = (),
        allow_unsigned: bool = False,
        minimum_release: int = 0,
        providers: Sequence[str] | None = None,
        num_threads: int = 1,
        session_options: Callable[[], Any] | None = None,
        max_events: int = MAX_EVENTS,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self.bundle = (
            bundle
            if isinstance(bundle, Bundle)
            else open_bundle(
                bundle, trusted_keys=trusted_keys, allow_unsigned=allow_unsigned, minimum_release=minimum_release
            )
        )
        self.runtime = Runtime(
            self.bundle, providers=providers, num_threads=num_threads, session_options=session_options
        )
        self.profile = profile if isinstance(profile, Profile) else Profile(profile, max_events)
        self._clock_ms = clock_ms
        self._sync: SyncClient | None = None
        self._reader = Reader(self.profile, self.bundle, self.runtime)
        self._free = self.runtime.no_bias()
        self._nobody = np.zeros(self.bundle.manifest.width, dtype=np.float32)

    def __enter__(self) -> Recommender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def record(
        self,
        event: str,
        item_id: str | None = None,
        *,
        query: str | None = None,
        device: str,
        at_ms: int | None = None,
        value: float | None = None,
    ) -> str:
        """Keep what the user did with an item, or searched for, and return the event's id; it is durable then.

        A ``query`` stands in the place of an item. Its text is not kept: what is are the buckets of its hashed n-grams
        (query.py), as the event's ``item_id``.

        Raises ProfileError ``profile.no_consent`` before the user has consented to ``personalise``: nothing is kept.
        Items and event types that the bundle does not know are kept too: a later bundle may know them.
        """
        at_ms = self._clock_ms() if at_ms is None else at_ms
        id = self.profile.record(event, item_or_query(item_id, query), device, at_ms, value)
        self._reader.keep()
        return id

    def feedback(
        self,
        recommendation_id: str,
        item_id: str,
        event: str,
        *,
        device: str = UNKNOWN_DEVICE,
        at_ms: int | None = None,
    ) -> str:
        """Keep what the user did with a recommended item (or an ``impression`` of it) and return the event's id.

        Needs consent as :meth:`record` does.
        """
        at_ms = self._clock_ms() if at_ms is None else at_ms
        return self.profile.record(event, item_id, device, at_ms, recommendation_id=recommendation_id)

    def recommend(
        self,
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
        """Return the best ``k`` items, best first, fewer where the rules allow fewer; ties go to the more popular.

        ``candidates`` restricts the catalogue to these ids and ``exclude`` takes ids out; ids that the bundle does not
        know are ignored in both. ``filter_seen`` leaves out what the user has seen; False adds the bundle's rule for
        buying again instead; None is the bundle's default. ``where`` is ``{"category": name or names}`` or a function
        of a catalogue entry. ``max_per_category`` caps each category (items of none are free). ``diversity`` from 0 to
        1 trades score for unlikeness. ``personalised=False`` does not read the profile: the popular items, the rules of
        the call applied; so it is without consent to ``personalise``. ``context`` is what the ranker reads of the
        moment where the app knows better: ``{"device": name}``, else the last event's, and ``{"hour": 0 to 24}`` in
        UTC, else the clock's. ``explain`` adds reasons. ``arm`` is what :func:`assign` gave: the list's id says it,
        beside the bundle's release, so that feedback can be told apart.
        """
        _check_count("k", k, 0)
        if max_per_category is not None:
            _check_count("max_per_category", max_per_category, 0)
        if isinstance(diversity, bool) or not isinstance(diversity, (int, float)) or not 0 <= diversity <= 1:
            raise UsageError("usage.diversity", f"diversity is {diversity!r}; expected a number from 0 to 1")
        if filter_seen is not None and not isinstance(filter_seen, bool):
            raise UsageError("usage.filter_seen", f"filter_seen is {filter_seen!r}; expected True, False or None")
        excluded = NO_BIAS[0] if exclude == () else self._rows("exclude", exclude)
        item_bias = self._item_bias(candidates, where)
        if k == 0 or item_bias is None:
            return []
        known = self._reader.read() if personalised else None
        bias = forbid(self._bias(known, filter_seen), excluded)
        user = known.user if known else self._nobody
        allows = where if callable(where) else None
        question = Question(user, item_bias, bias, self._context(known, context))
        choice = Choice(k, allows, max_per_category, float(diversity))
        top = choose(question, choice, self.bundle, self.runtime)
        return self._results(top, known if explain else None, arm)

    def similar(self, item_id: str, k: int = 10) -> list[Recommendation]:
        """Return the ``k`` items that score best for someone whose taste is this item, itself left out.

        Raises UsageError ``usage.item_id`` where the bundle does not know the item.
        """
        _check_count("k", k, 0)
        row = self.bundle.ids.row(item_id) if isinstance(item_id, str) else None
        if row is None:
            raise UsageError("usage.item_id", f"the bundle does not know the item {item_id!r}")
        if k == 0:
            return []
        alone = np.asarray([row], dtype=np.int32)
        bias = forbid(NO_BIAS, alone)
        question = Question(self.bundle.item_vector(row), self._free, bias, with_prior=False)
        return self._results(choose(question, Choice(k), self.bundle, self.runtime), None)

    def score(self, items: Iterable[str]) -> dict[str, float]:
        """Return the score of each item as :meth:`recommend` with the bundle's default would rank it.

        Ids that the bundle does not know or does not offer are left out, as no list holds them; seen items have their
        score too.
        """
        ids = list(dict.fromkeys(_texts("items", items)))
        found = self.bundle.ids.rows(ids)
        is_offered = (found >= 0) & np.isfinite(self.bundle.bias.flat[found])
        rows = found[is_offered]
        known = self._reader.read()
        scores = self.bundle.item_vectors(rows) @ known.user + self.bundle.prior.flat[rows]
        gain_rows, gains = self._bias(known, None)
        gain_of = {row: gain for row, gain in zip(gain_rows.tolist(), gains.tolist(), strict=True) if gain > -np.inf}
        listed = [item_id for item_id, offered in zip(ids, is_offered.tolist(), strict=True) if offered]
        return {
            item_id: float(score) + gain_of.get(row, 0.0)
            for item_id, row, score in zip(listed, rows.tolist(), scores, strict=True)
        }

    def set_consent(self, purpose: str, granted: bool, *, policy: str = "") -> None:
        """Keep what the user said to a purpose; see :meth:`Profile.set_consent`. It holds at once, offline too."""
        self.profile.set_consent(purpose, granted, policy=policy)

    def consent(self) -> dict[str, bool]:
        """Return for each purpose whether the user's consent to it stands; False before anything was said."""
        return self.profile.consent()

    def forget(
        self,
        *,
        item_id: str | None = None,
        event: str | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
    ) -> int:
        """Erase the profile, or the events that meet all that is given; return how many. See :meth:`Profile.forget`."""
        return self.profile.forget(item_id=item_id, event=event, from_ms=from_ms, to_ms=to_ms)

    def start_sync(
        self,
        url: str,
        token_provider: Callable[[], str],
        *,
        installation: str | None = None,
        end_to_end: bool = False,
    ) -> None:
        """Keep the profile in step with the sync server at ``url`` in the background; a second call takes over.

        Needs the extra ``sync``. Nothing is sent before the user has consented to ``sync``. ``token_provider`` gives
        the user's bearer token, in the background. With ``end_to_end`` (extra ``end-to-end``) the server sees no event:
        the profile is sealed from then on, and :meth:`end_to_end` makes its keys. See
        :class:`xrec_sdk.sync_client.SyncClient`.
        """
        from xrec_sdk.sync_client import SyncClient

        if end_to_end:
            from xrec_sdk.end_to_end import seal_profile

            seal_profile(self.profile)
        self.stop_sync()
        self._sync = SyncClient(self.profile, url, token_provider, installation=installation)

    def stop_sync(self) -> None:
        """End the background sync within a second; what is queued goes out when it is started again."""
        sync, self._sync = self._sync, None
        if sync is not None:
            sync.close()

    def end_to_end(self) -> EndToEnd:
        """Return the keys of a sealed profile, to make, pair and recover; UsageError ``e2e.off`` before its sync."""
        from xrec_sdk.end_to_end import EndToEnd

        if self._sync is None:
            raise UsageError("e2e.off", "there is no sync: start_sync(..., end_to_end=True)")
        return EndToEnd(self.profile, self._sync)

    def sync_status(self) -> SyncStatus:
        """Return how the sync stands; asks nobody."""
        from xrec_sdk.sync_client import status_of

        return status_of(self.profile, self._sync)

    def export_my_data(self) -> dict[str, object]:
        """Return all that is kept of the user, as JSON values."""
        kept = {"events": self.profile.export(), "consent": self.profile.consent()}
        return {"format": "xrec-profile", "format_version": 1, **kept}

    def close(self) -> None:
        """Stop the sync and close the profile; later calls that need it raise ProfileError ``profile.closed``."""
        self.stop_sync()
        self._reader.keep()
        self.profile.close()

    def _bias(self, known: Known | None, filter_seen: bool | None) -> Bias:
        if known is None:
            return NO_BIAS
        manifest = self.bundle.manifest
        if manifest.filter_seen if filter_seen is None else filter_seen:
            return known.taste.seen
        return again_bias(known.taste, manifest, self._clock_ms())

    def _item_bias(self, candidates: Iterable[str] | None, where: Where | None) -> NDArray[np.float32] | None:
        """Return the item bias (Np,) of the call, or None where it allows no item."""
        codes = None if where is None or callable(where) else self._category_codes(where)
        if candidates is None and codes is None:
            return self._free
        is_allowed = np.ones(self.bundle.manifest.item_count, dtype=np.bool_)
        if candidates is not None:
            is_allowed[:] = False
            is_allowed[self._rows("candidates", candidates)] = True
        if codes is not None:
            is_allowed &= np.isin(self.bundle.catalog.category, codes)
        if not is_allowed.any():
            return None
        bias = self._free.copy()
        bias[: len(is_allowed)][~is_allowed] = -np.inf
        return bias

    def _category_codes(self, where: Mapping[str, str | Iterable[str]]) -> list[int]:
        if not isinstance(where, Mapping) or set(where) != {"category"}:
            raise UsageError("usage.where", 'where must be {"category": name or names} or a function of an entry')
        names = where["category"]
        wanted = {names} if isinstance(names, str) else set(_texts("where", names))
        return [code for code, name in enumerate(self.bundle.catalog.category_names) if name in wanted]

    def _rows(self, name: str, item_ids: Iterable[str]) -> NDArray[np.int32]:
        rows = self.bundle.ids.rows(_texts(name, item_ids))
        known: NDArray[np.int32] = rows[rows >= 0]
        return known

    def _context(self, known: Known | None, given: Context | None) -> NDArray[np.float32] | None:
        """Return the context of the call, (C,); None where there is no ranker, or no history for it to stand on."""
        vocabulary = self.bundle.manifest.vocabulary
        device, hour = (None, None) if given is None else check_context(given, vocabulary)
        if self.bundle.manifest.ranker is None or known is None or not len(known.taste.at_ms):
            return None
        at_ms = known.taste.at_ms[-vocabulary.max_history :]
        last_device = int(known.taste.codes[2, -1])
        context = context_vector(at_ms, last_device if device is None else device, self._clock_ms())
        if hour is not None:
            context[CONTEXT.index("hour")] = hour
        return context

    def _results(self, top: Top, explained: Known | None, arm: Arm | None = None) -> list[Recommendation]:
        rows, scores, found = top
        recommendation_id = list_id(self.bundle.manifest.release, arm)
        reasons = (
            find_reasons(rows, explained.user, explained.taste, self.bundle, self.runtime)
            if explained
            else [()] * len(rows)
        )
        probabilities = [None] * len(rows) if found is None else found.tolist()
        listed = zip(rows.tolist(), scores.tolist(), probabilities, reasons, strict=True)
        item_id, entry = self.bundle.ids.item_id, self.bundle.catalog.entry
        return [
            Recommendation(item_id(row), score, rank, recommendation_id, probability, why, partial(entry, row))
            for rank, (row, score, probability, why) in enumerate(listed, start=1)
        ]


def _check_count(name: str, count: int, least: int) -> None:
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < least:
        raise UsageError(f"usage.{name}", f"{name} is {count!r}; expected a whole number from {least}")


def _texts(name: str, texts: Iterable[str]) -> list[str]:
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise UsageError(f"usage.{name}", f"{name} is {texts!r}; expected several texts")
    listed = list(texts)
    if not all(isinstance(text, str) for text in listed):
        raise UsageError(f"usage.{name}", f"{name} must hold texts only")
    return listed
