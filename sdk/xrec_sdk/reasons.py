"""Say why an item is in the list: the events whose absence would cost it most."""

# E events that count, R items, D width

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from xrec_sdk.bundle import Bundle
from xrec_sdk.profile import Event
from xrec_sdk.query import is_query
from xrec_sdk.results import Reason
from xrec_sdk.runtime import Runtime, event_vectors
from xrec_sdk.taste import Taste, histories_without

MOST_REASONS = 3
MOST_ASKED = 8
"""Each event asked for costs a run of the encoder. On the grocery demo (200 events) the costliest of all is among 8 for
.84 of the items, and the costliest of the 8 costs .97 of what it does; .87 and .90 on Beauty's histories from 25."""
_DONE = {
    "view": "viewed {}",
    "purchase": "bought {}",
    "cart": "put {} in the cart",
    "favorite": "marked {} as a favourite",
    "rate": "rated {}",
    "search": "searched for {}",
}
_PLACES = {"phone": "on your phone", "tablet": "on your tablet", "pc": "on your PC", "store": "in the store"}


def find_reasons(
    rows: NDArray[np.int32], user: NDArray[np.float32], taste: Taste, bundle: Bundle, runtime: Runtime
) -> list[tuple[Reason, ...]]:
    """Return for each row the at most three events that cost its score most when left out, the costliest first.

    The history is encoded anew without an event at most MOST_ASKED times, for those most like the list as a whole.
    """
    first = max(0, len(taste.at_ms) - bundle.manifest.vocabulary.max_history)
    vectors, history = bundle.item_vectors(rows), event_vectors(bundle, taste.codes[0])  # (R, D), (E, D)
    if not len(history):
        return [()] * len(rows)
    alike = history[first:] @ vectors.sum(axis=0)  # a search, of zeros, is asked for before what is unlike the list
    places = first + np.argsort(-alike, kind="stable")[:MOST_ASKED]
    without = histories_without(taste, bundle.manifest, places)
    users = runtime.encode_batch(history[without.places], without.codes, without.queries)  # (asked, D)
    losses = vectors @ (user - users).T  # (R, asked)
    events = [taste.events[place] for place in places.tolist()]
    text_of = cache(partial(_text, bundle=bundle))
    return [_pick(loss, events, text_of) for loss in losses]


def _pick(losses: NDArray[np.float32], events: Sequence[Event], text_of: Callable[[Event], str]) -> tuple[Reason, ...]:
    reasons: dict[tuple[str, str], Reason] = {}
    for place in np.argsort(-losses, kind="stable").tolist():
        event, loss = events[place], float(losses[place])
        if loss <= 0 or len(reasons) == MOST_REASONS:
            break
        # The same thing done to the same item twice is one reason.
        key = event.item_id, event.event
        if key not in reasons:
            reasons[key] = Reason(event.item_id, event.event, event.device, loss, text_of(event))
    return tuple(reasons.values())


def _title(item_id: str, bundle: Bundle) -> str:
    row = bundle.ids.row(item_id)
    title = None if row is None else bundle.catalog.entry(row).get("title")
    return title if isinstance(title, str) and title else item_id


def _text(event: Event, bundle: Bundle) -> str:
    title = "something like it" if is_query(event.item_id) else _title(event.item_id, bundle)
    done = _DONE.get(event.event, f"{event.event.replace('_', ' ')} {{}}").format(title)
    where = _PLACES.get(event.device, f"on {event.device.replace('_', ' ')}")
    return f"because you {done} {where}"
