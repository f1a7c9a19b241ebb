"""How values of the sync protocol lie in columns; both databases have the same ones, in the same order.

Those of a row are the device's too (xrec_sdk.sync_tables).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from xrec_sdk.sync import Head, Row
from xrec_sdk.sync_server import Device, Ledger, Profile, Recent

PROFILE = "generation, base, epoch, erased_by, seq, floor, forgotten, digest, events"
DEVICE = "id, high_water, first, recent, passed, contact_ms, copied_ms, floor, letter"

_recents = msgspec.json.Decoder(list[tuple[int, str, str | None]])


def profile_values(profile: Profile) -> tuple[Any, ...]:
    """Return a profile's columns."""
    head = profile.head
    place = (head.generation, head.base, head.epoch, head.erased_by, head.seq, head.floor, head.forgotten)
    return (*place, profile.digest.to_bytes(32, "big"), profile.events)


def profile_of(columns: Sequence[Any]) -> Profile:
    """Return the profile of its columns."""
    *head, digest, events = columns
    return Profile(Head(*head), int.from_bytes(digest, "big"), events)


def device_values(device: Device) -> tuple[Any, ...]:
    """Return a device's columns."""
    recent = msgspec.json.encode([(one.dseq, one.print, one.code) for one in device.recent]).decode()
    marks = (device.passed, device.contact_ms, device.copied_ms, device.floor)
    return (device.id, device.high_water, device.first, recent, *marks, device.letter)


def device_of(columns: Sequence[Any]) -> Device:
    """Return the device of its columns."""
    id, high_water, first, recent, *marks = columns
    return Device(id, high_water, first, tuple(Recent(*one) for one in _recents.decode(recent)), *marks)


def ledger_of(columns: Sequence[Any] | None, rows: Sequence[Row], removed: Sequence[str]) -> Ledger | None:
    """Return the ledger of its profile's columns (generation, epoch, erased_by, forgotten), rows and devices gone."""
    if columns is None:
        return None
    erasures = tuple(row for row in rows if row.kind == "erase")
    consents = tuple(row for row in rows if row.kind == "consent")
    generation, epoch, erased_by, forgotten = columns
    return Ledger(generation, epoch, erased_by, forgotten, erasures, consents, tuple(removed))
