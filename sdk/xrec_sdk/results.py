"""What a recommendation says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property


@dataclass(frozen=True)
class Reason:
    """An event that speaks for an item; ``loss`` is what the item's score loses when the event is left out."""

    item_id: str
    event: str
    device: str
    loss: float
    text: str


@dataclass(frozen=True, init=False)
class Recommendation:
    """One item of a list.

    ``rank`` counts from 1. ``score`` orders one list and means nothing across lists. ``probability`` is that of the
    event and within the time that the manifest's ``ranker`` names, above 0 and below 1; None where the bundle has no
    ranker, or nothing is known of the user. ``recommendation_id`` is the list's, for :func:`feedback`. ``item`` is the
    catalogue's entry, read when it is first asked for; BundleDamaged where it is no JSON object.
    """

    item_id: str
    score: float
    rank: int
    recommendation_id: str
    probability: float | None
    reasons: tuple[Reason, ...]
    # A list is made at every call, and few apps look at every entry of it.
    item: Mapping[str, object] = cached_property(lambda self: self._read())  # type: ignore[assignment]

    def __init__(
        self,
        item_id: str,
        score: float,
        rank: int,
        recommendation_id: str,
        probability: float | None = None,
        reasons: tuple[Reason, ...] = (),
        item: Mapping[str, object] | Callable[[], Mapping[str, object]] | None = None,
    ) -> None:
        # Written past the setters of a frozen dataclass, which take three times as long.
        state = vars(self)
        state["item_id"] = item_id
        state["score"] = score
        state["rank"] = rank
        state["recommendation_id"] = recommendation_id
        state["probability"] = probability
        state["reasons"] = reasons
        if callable(item):
            state["_read"] = item
        else:
            state["item"] = {} if item is None else item

    def __getstate__(self) -> dict[str, object]:
        """Return what a copy or a pickle holds: the fields, the entry read."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @property
    def title(self) -> str:
        """The catalogue's title, or the id where it has none."""
        title = self.item.get("title")
        return title if isinstance(title, str) and title else self.item_id
