"""The bell that wakes long polls: whoever waits on a profile hears it when the profile has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Bell:
    """Waiters by profile. All calls come from the event loop's thread."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self.is_closed = False

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return sum(map(len, self._waiting.values()))

    def waiting_on(self, profile: str) -> int:
        """Return how many wait on one profile."""
        return len(self._waiting.get(profile, ()))

    @contextmanager
    def listen(self, profile: str) -> Iterator[asyncio.Event]:
        """Hear every ring from here to the end of the block; the event must be cleared to hear the next."""
        heard = asyncio.Event()
        self._waiting.setdefault(profile, set()).add(heard)
        try:
            yield heard
        finally:
            rest = self._waiting[profile]
            rest.remove(heard)
            if not rest:
                del self._waiting[profile]

    def ring(self, profile: str) -> None:
        """Wake all who wait on a profile."""
        for heard in self._waiting.get(profile, ()):
            heard.set()

    def ring_all(self) -> None:
        """Wake everybody."""
        for waiting in self._waiting.values():
            for heard in waiting:
                heard.set()

    def close(self) -> None:
        """Wake everybody, for good: the server stops."""
        self.is_closed = True
        self.ring_all()
