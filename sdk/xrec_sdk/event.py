"""One thing that the user did, as the profile keeps it, and the purposes that a user may consent to."""

from __future__ import annotations

from typing import NamedTuple

# As in sync.py, which is loaded only where there is something to say to other devices.
PURPOSES = ("personalise", "sync", "train", "analytics")
COLUMNS = "id, at_ms, event, item_id, device, value, recommendation_id"
INSERT_EVENT = f"INSERT INTO events (place, {COLUMNS}, claimed_ms, contact_ms, is_local) VALUES (?,?,?,?,?,?,?,?,?,?,?)"


class Event(NamedTuple):
    """One thing that the user did, as the profile keeps it; ``at_ms`` in UTC.

    The ``item_id`` of a search is its reduced query (query.py).
    """

    id: str
    at_ms: int
    event: str
    item_id: str
    device: str
    value: float | None = None
    recommendation_id: str | None = None
