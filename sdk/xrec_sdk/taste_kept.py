"""Keep in the profile what its events mean to a bundle, so that the next start reads that and what came since.

Whatever erases or changes an event drops it in the same transaction (a trigger, schema.py).
"""

# E known events, B bought, S seen

from __future__ import annotations

import hashlib
import json
import math
from contextlib import suppress

import numpy as np

from xrec_sdk.errors import ProfileError
from xrec_sdk.manifest import Manifest
from xrec_sdk.profile import Event, Mark, Profile
from xrec_sdk.store import Connection
from xrec_sdk.taste import NO_BIAS, Taste, forbid

KEEP_EVERY = 500
"""So many places are read anew at most before the taste is kept again."""

_LAYOUT = "xrec-taste/1"
_READ = """SELECT kept.erasures, kept.place, kept.content FROM kept JOIN state USING (erasures)
    WHERE personalise AND kept.bundle = ?"""
_DROP = "DELETE FROM kept"
_KEEP = "INSERT INTO kept (bundle, erasures, place, content) SELECT ?, erasures, ?, ? FROM state WHERE erasures = ?"


def key_of(manifest: Manifest) -> str:
    """Return what tells bundles apart that make another taste of the same events: 64 hexadecimal digits."""
    again = manifest.repeat.events if manifest.repeat else ()
    read = (_LAYOUT, manifest.files["ids.bin"].sha256, manifest.vocabulary, manifest.seen_events, again)
    return hashlib.sha256(repr(read).encode()).hexdigest()


def read(profile: Profile, key: str) -> tuple[Mark, Taste] | None:
    """Return the taste that was kept for this bundle and the mark that it stands at; None where there is none."""
    found = profile.store.read(lambda connection: connection.execute(_READ, (key,)).fetchone())
    if found is None:
        return None
    erasures, place, content = found
    try:
        return Mark(erasures, place), _unpack(content)
    except (ValueError, TypeError):  # The file was damaged; the events say it anew.
        return None


def keep(profile: Profile, key: str, mark: Mark, taste: Taste) -> None:
    """Keep a taste in place of the one before, if no event has been erased since its mark.

    A profile that can't be written now keeps none: the taste can be had from the events.
    """

    def work(connection: Connection) -> None:
        connection.execute(_DROP)
        connection.execute(_KEEP, (key, mark.place, _pack(taste), mark.erasures))

    with suppress(ProfileError):
        profile.store.write(work)


def _pack(taste: Taste) -> bytes:
    """Return a line of JSON, padded to whole words, then bought (2, B), at_ms (E,) as int64, codes, seen as int32."""
    arrays = (taste.bought, taste.at_ms, taste.codes, taste.seen[0])
    head = json.dumps([[array.shape for array in arrays], taste.events], separators=(",", ":")).encode()
    return b"".join([head, b" " * (-(len(head) + 1) % 8), b"\n", *(array.tobytes() for array in arrays)])


def _unpack(content: bytes) -> Taste:
    at = content.index(b"\n") + 1
    shapes, events = json.loads(content[:at])
    arrays = []
    for shape, type in zip(shapes, ("<i8", "<i8", "<i4", "<i4"), strict=True):
        arrays.append(np.frombuffer(content, type, math.prod(shape), at).reshape(shape))
        at += arrays[-1].nbytes
    bought, at_ms, codes, seen = arrays
    return Taste(tuple(map(Event._make, events)), codes, at_ms, forbid(NO_BIAS, seen), bought)
