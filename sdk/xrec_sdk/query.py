"""Reduce a search to what a model reads of it: the buckets that its hashed n-grams fall into, never the text.

The reduced query stands where an event has its item, so that the profile, the sync and an erasure treat a search as any
event. It is ``query~`` and two characters a bucket, ascending, of the URL-safe alphabet of Base64: six bits each. It
hides the order and most of the text, but whoever guesses a query can check the guess: it is still personal data.
"""

# L events in a history, G buckets of the query that has the most

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from xrec_sdk.errors import UsageError
from xrec_sdk.ngrams import hashes

BUCKETS = 4096
MAX_BUCKETS = 250
"""What a query has more than these, ascending, does not count: an item id has at most 512 characters."""
MAX_QUERY = 512
"""Characters of a query as the user typed it."""
PREFIX = "query~"
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")
"""What no text may hold that a profile keeps: U+0000 and halves of a surrogate pair."""
_VALUE = {character: value for value, character in enumerate(_ALPHABET)}


def reduce_query(text: str) -> str:
    """Return the reduced form of a query; one without letters and digits has no buckets."""
    found = sorted({gram % BUCKETS for gram in hashes(text)})[:MAX_BUCKETS]
    return PREFIX + "".join(_ALPHABET[bucket >> 6] + _ALPHABET[bucket & 63] for bucket in found)


def item_or_query(item_id: str | None, query: str | None) -> str:
    """Return what stands as an event's ``item_id``: the one that is given, or the reduced query.

    Raises UsageError ``usage.query`` where both or neither are given, or the query is not a text of 1 to MAX_QUERY.
    """
    if (item_id is None) == (query is None):
        found = "neither item_id nor query is" if query is None else "both item_id and query are"
        raise UsageError("usage.query", f"{found} given; expected one of them")
    if query is None:
        return item_id  # type: ignore[return-value]
    if not isinstance(query, str) or not 1 <= len(query) <= MAX_QUERY or _UNKEEPABLE.search(query):
        raise UsageError("usage.query", f"query is {query!r}; expected a text of 1 to {MAX_QUERY} characters")
    return reduce_query(query)


def is_query(item_id: str) -> bool:
    """Return whether an event with this ``item_id`` is a search."""
    return item_id.startswith(PREFIX)


@lru_cache(maxsize=4096)
def buckets_of(reduced: str) -> tuple[int, ...]:
    """Return the buckets of a reduced query, ascending; none where it is not as ``reduce_query`` writes it."""
    values = [_VALUE.get(character, -1) for character in reduced.removeprefix(PREFIX)]
    found = tuple(high << 6 | low for high, low in zip(values[::2], values[1::2], strict=False))
    is_right = is_query(reduced) and len(values) % 2 == 0 and len(found) <= MAX_BUCKETS and min(values, default=0) >= 0
    return found if is_right and list(found) == sorted(set(found)) else ()


def query_row(reduced: str) -> int:
    """Return the row that stands for a query in a history: below 0, the same for equal queries."""
    return -1 - (crc32(reduced.encode()) & 0x7FFFFFFF)


def query_buckets(rows: NDArray[np.int32], queries: Sequence[str]) -> NDArray[np.int32]:
    """Return the buckets of each event of a history, (L, G) int32 with -1 where there are no more; G is at least 1.

    ``rows`` (L,) are below 0 for searches, whose reduced ``queries`` follow in this order.
    """
    found = [buckets_of(query) for query in queries]
    table = np.full((len(rows), max(1, *map(len, found), 1)), -1, dtype=np.int32)
    for place, buckets in zip(np.flatnonzero(rows < 0), found, strict=True):
        table[place, : len(buckets)] = buckets
    return table
