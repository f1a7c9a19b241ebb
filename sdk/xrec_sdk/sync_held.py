"""What a server holds of a profile, beside its rows: head, devices, history of consent, ledger; and what it writes."""

from __future__ import annotations

from dataclasses import dataclass, field

from xrec_sdk.sync import Head, Key, Row

LASTING = ("consent", "erase")
"""Kinds of rows that outlive an epoch: what the user decided."""


@dataclass(frozen=True)
class Profile:
    """A profile's one row in the store: its head, the digest of its rows, and how many events it holds."""

    head: Head = field(default_factory=Head)
    digest: int = 0
    events: int = 0


@dataclass(frozen=True)
class Recent:
    """What became of an operation that its device may send again: its print, and the code if it was rejected."""

    dseq: int
    print: str
    code: str | None = None


@dataclass(frozen=True)
class Device:
    """A registered device's one row: ``first`` and ``recent`` reach from its last push; ``passed`` is its cursor.

    ``copied_ms`` is when it registered, if it had another name before, or when another registered that had its name;
    ``floor`` is the floor that it then knew. What it says from before then may have come under another name too.
    ``letter`` is what another device left for it while the two are paired; no rule reads it.
    """

    id: str
    high_water: int = 0
    first: int = 1
    recent: tuple[Recent, ...] = ()
    passed: int = 0
    contact_ms: int = 0
    copied_ms: int = 0
    floor: int = 0
    letter: str = ""


@dataclass(frozen=True)
class History:
    """One line of the append-only history of consent."""

    received_ms: int
    device: str
    dseq: int
    purpose: str
    body: str


@dataclass(frozen=True)
class Writes:
    """What the store writes, in this order.

    The profile, ``device`` and ``former`` (two devices' rows, if not None), the purge (all rows but the kinds of
    LASTING), drops, puts, what is appended to the history, and the devices that go, where they are still there.
    ``forgotten`` are the erase rows that nobody holds any more: their ids and times are kept.
    """

    profile: Profile
    device: Device | None = None
    former: Device | None = None
    purge_below_epoch: int | None = None
    drop: tuple[Key, ...] = ()
    put: tuple[Row, ...] = ()
    history: tuple[History, ...] = ()
    removed_devices: tuple[str, ...] = ()
    forgotten: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Ledger:
    """What must be kept apart from the backups, so that a restore brings back nothing that was erased."""

    generation: int = 1
    epoch: int = 1
    erased_by: str = ""
    forgotten: int = 0
    erasures: tuple[Row, ...] = ()
    consents: tuple[Row, ...] = ()
    removed: tuple[str, ...] = ()
