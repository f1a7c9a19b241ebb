"""Make event ids: UUIDv7 (RFC 9562, section 5.7), which sort by the time they were made."""

from __future__ import annotations

import os
import threading
import time

_lock = threading.Lock()
_last = 0


def uuid7(now_ms: int, random_bits: int) -> str:
    """Return the UUIDv7 of a time and 74 random bits, as 36 characters."""
    value = (now_ms & 0xFFFFFFFFFFFF) << 80 | 0x7 << 76 | (random_bits >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | random_bits & 0x3FFFFFFFFFFFFFFF
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_event_id() -> str:
    """Return a new id that sorts after every id that this process has made."""
    global _last
    with _lock:
        fresh = time.time_ns() // 1_000_000 << 74 | int.from_bytes(os.urandom(10), "big") >> 6
        # A clock that stands still or steps back must not break the order.
        _last = max(fresh, _last + 1)
        return uuid7(_last >> 74, _last & (1 << 74) - 1)
