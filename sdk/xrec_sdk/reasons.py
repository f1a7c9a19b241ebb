"""Say why an item is in the list: the events whose absence would cost it most."""

# L events in the history, R items, D width

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xrec_sdk.bundle import Bundle
from xrec_sdk.profile import Event
from xrec_sdk.query import is_query
from xrec_sdk.results import Reason
from xrec_sdk.runtime import Runtime
from xrec_sdk.taste import Taste, histories_without_one

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
    past = taste.codes[0, first:]
    vectors, history = bundle.item_vectors(rows), bundle.item_vectors(past.clip(min=0))  # (R, D), (L, D)
    history[past < 0] = 0  # a search is asked for before what is unlike the list
    if not len(history):
        return [()] * len(rows)
    most_alike = np.argsort(-(history @ vectors.sum(axis=0)), kind="stable")[:MOST_ASKED]
    places = (first + most_alike).tolist()
    without = runtime.encode_batch(histories_without_one(taste, bundle.manifest, places))  # (asked, D)
    losses = vectors @ (user - without).T  # (R, asked)
    events = tuple(taste.events[place] for place in places)
    return [_pick(loss, events, bundle) for loss in losses]


def _pick(losses: NDArray[np.float32], events: tuple[Event, ...], bundle: Bundle) -> tuple[Reason, ...]:
    reasons: dict[tuple[str, str], Reason] = {}
    for place in np.argsort(-losses, kind="stable"):
        event, loss = events[place], float(losses[place])
        if loss <= 0 or len(reasons) == MOST_REASONS:
            break
        # The same thing done to the same item twice is one reason.
        reasons.setdefault(
            (event.item_id, event.event),
            Reason(event.item_id, event.event, event.device, loss, _text(event, _title(event.item_id, bundle))),
        )
    return tuple(reasons.values())


def _title(item_id: str, bundle: Bundle) -> str:
    row = bundle.ids.row(item_id)
    title = None if row is None else bundle.catalog.entry(row).get("title")
    return title if isinstance(title, str) and title else item_id


def _text(event: Event, title: str) -> str:
    if is_query(event.item_id):
        title = "something like it"
    done = _DONE.get(event.event, f"{event.event.replace('_', ' ')} {{}}").format(title)
    where = _PLACES.get(event.device, f"on {event.device.replace('_', ' ')}")
    return f"because you {done} {where}"
