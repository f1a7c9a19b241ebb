"""Write a delta: what of the new bundle's files can be copied out of the old ones, and what is new."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from xrec_sdk import delta
from xrec_sdk.bundle import Checked
from xrec_sdk.delta import NEW, OLD, SUM

BLOCK = 32
"""Bytes of the old file by which places are found; what is shorter is sent anew."""
COMPARED = 1 << 16
Step = tuple[int, int, int]


def make_delta(old: Checked, new: Checked) -> bytes:
    """Return the delta that makes ``new``, which was read with its key pinned, of ``old``."""
    plan, literal = {}, bytearray()
    for name in new.manifest.files:
        before, after = bytes(old.files.get(name, b"")), bytes(new.files[name])
        plan[name] = list(_steps(before, after))
        at = 0
        for kind, place, size in plan[name]:
            fresh = after[at : at + size]
            if kind == SUM:
                fresh = _difference(fresh, before, place)
            literal += b"" if kind == OLD else fresh
            at += size
    return delta.pack(new.manifest_bytes, new.sig_bytes or b"", old.manifest_bytes, plan, bytes(literal))


def _steps(old: bytes, new: bytes) -> Iterator[Step]:
    """Yield the steps that make ``new``; what lies between two copies is sent as a difference where that packs better.

    A counter or an offset that all later ones are moved by is a difference of few distinct bytes.
    """
    old_end = new_end = 0
    for old_at, new_at, size in (*_copies(old, new), (len(old), len(new), 0)):
        gap = new_at - new_end
        both = min(gap, max(0, old_at - old_end))
        if both and _packs_better(
            _difference(new[new_end : new_end + both], old, old_end), new[new_end : new_end + both]
        ):
            yield SUM, old_end, both
            gap -= both
        if gap:
            yield NEW, 0, gap
        if size:
            yield OLD, old_at, size
        old_end, new_end = old_at + size, new_at + size


def _difference(fresh: bytes, old: bytes, place: int) -> bytes:
    """Return the new bytes less the old ones from a place on, each modulo 256."""
    return (np.frombuffer(fresh, np.uint8) - np.frombuffer(old, np.uint8, len(fresh), place)).tobytes()


def _packs_better(difference: bytes, fresh: bytes) -> bool:
    return len(zlib.compress(difference, 1)) <= len(zlib.compress(fresh, 1))


def _copies(old: bytes, new: bytes) -> Iterator[Step]:
    """Yield (old place, new place, bytes) of equal stretches, in the order of the new file."""
    place_of: dict[bytes, int] = {}
    for at in range(0, len(old) - BLOCK + 1, BLOCK):
        place_of.setdefault(old[at : at + BLOCK], at)
    at = shift = done = 0
    while at <= len(new) - BLOCK:
        key = new[at : at + BLOCK]
        found = at + shift if old[at + shift : at + shift + BLOCK] == key else place_of.get(key)
        if found is None:
            at += 1
            continue
        while at > done and found and old[found - 1] == new[at - 1]:
            at, found = at - 1, found - 1
        size = _equal(old, found, new, at)
        yield found, at, size
        shift = found - at
        at = done = at + size


def _equal(old: bytes, old_at: int, new: bytes, new_at: int) -> int:
    """Return how many bytes from these places on are equal."""
    size = 0
    while True:
        most = min(COMPARED, len(old) - old_at - size, len(new) - new_at - size)
        left = np.frombuffer(old, np.uint8, most, old_at + size)
        unequal = np.flatnonzero(left != np.frombuffer(new, np.uint8, most, new_at + size))
        if len(unequal) or most < COMPARED:
            return size + int(unequal[0] if len(unequal) else most)
        size += most
