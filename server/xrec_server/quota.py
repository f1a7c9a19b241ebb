"""How much one profile may send: a token bucket (Turner 1986) each, the least recently seen forgotten first."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from xrec_server.errors import Refused

REMEMBERED_PROFILES = 100_000


class Quota:
    """At most ``per_minute`` units a minute, and as many at once."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, profile: str, units: int) -> None:
        """Take units from a profile's bucket; Refused with 429 and the seconds to wait where they are not there."""
        now_s = self._clock()
        spent, at_s = self._spent.get(profile, (0.0, now_s))
        spent = max(0.0, spent - (now_s - at_s) * self._per_minute / 60) + units
        excess = spent - self._per_minute
        # A request larger than the bucket passes when that is full, or it would never pass.
        if excess > 0 and spent > units:
            wait_s = math.ceil(min(excess, spent - units) * 60 / self._per_minute)
            raise Refused(429, "server.quota", f"more than {self._per_minute} a minute; wait {wait_s} s", wait_s)
        self._spent[profile] = (spent, now_s)
        self._spent.move_to_end(profile)
        if len(self._spent) > REMEMBERED_PROFILES:
            self._spent.popitem(last=False)
