"""Know the user: what the profile says to a bundle, read as far as it is new, and the user vector that follows."""

# D width

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xrec_sdk import taste_kept
from xrec_sdk.bundle import Bundle
from xrec_sdk.profile import Mark, Profile
from xrec_sdk.runtime import Runtime
from xrec_sdk.taste import Taste, add_events, history_of


class Known(NamedTuple):
    """What was last read of the profile, and the user vector (D,) that follows from it."""

    mark: Mark
    taste: Taste
    user: NDArray[np.float32]


class Reader:
    """Reads one profile for one bundle; calls may come from several threads at once."""

    def __init__(self, profile: Profile, bundle: Bundle, runtime: Runtime) -> None:
        self.bundle_key = taste_kept.key_of(bundle.manifest)
        self._profile = profile
        self._bundle = bundle
        self._runtime = runtime
        # Replaced whole by whichever thread read the profile last; each call asks the profile what came after its mark.
        self._last: Known | None = None
        self._kept_mark = Mark(-1, 0)

    def read(self) -> Known:
        """Return what is known of the user now."""
        last = self._last or self._kept()
        mark, events = self._profile.read(last.mark if last else None)
        if last and mark == last.mark:
            self._last = last
            return last
        try:
            taste = add_events(
                last.taste if last and mark.erasures == last.mark.erasures else Taste(), events, self._bundle
            )
        except ValueError:  # an event with an older time than the last one
            mark, events = self._profile.read()
            taste = add_events(Taste(), events, self._bundle)
        user = last.user if last and taste.events == last.taste.events else self._encode(taste)
        self._last = known = Known(mark, taste, user)
        return known

    def keep(self) -> None:
        """Keep what was read of the profile for the next start, where that would spare it enough."""
        known, kept = self._last, self._kept_mark
        since = kept.place if known and known.mark.erasures == kept.erasures else 0
        if known and known.mark.place - since >= taste_kept.KEEP_EVERY:
            self._kept_mark = known.mark
            taste_kept.keep(self._profile, self.bundle_key, known.mark, known.taste)

    def _kept(self) -> Known | None:
        """Return what an earlier start kept of the profile."""
        found = taste_kept.read(self._profile, self.bundle_key)
        if found is None:
            return None
        mark, taste = found
        self._kept_mark = mark
        return Known(mark, taste, self._encode(taste))

    def _encode(self, taste: Taste) -> NDArray[np.float32]:
        return self._runtime.encode(history_of(taste, self._bundle.manifest))
