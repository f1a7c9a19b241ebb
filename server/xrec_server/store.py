"""The seam to the disk: one transaction under a profile's lock loads what is needed, decides, writes, then answers.

A store owns no rule. ``decide`` is pure and may run twice, so it must not touch anything but its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from xrec_sdk.sync import Key, Row
from xrec_sdk.sync_server import LASTING, Device, History, Ledger, Profile, Writes

from xrec_server.errors import ServerError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Need:
    """What a decision must be given; rows are the union of all that is asked, by seq.

    ``page`` is (after, limit); ``retired`` is (received before, max_events): the events that arrived before that time
    and the oldest beyond that number.
    """

    devices: tuple[str, ...] = ()
    all_devices: bool = False
    keys: frozenset[Key] = frozenset()
    kinds: tuple[str, ...] = ()
    page: tuple[int, int] | None = None
    retired: tuple[int, int] | None = None
    everything: bool = False
    ledger: bool = False


@dataclass(frozen=True)
class Loaded:
    """What a store has of one profile; ``is_known`` is False where nothing was ever written of it.

    ``forgotten`` are the ids of erasures that nobody holds any more, of those among the keys that were asked.

    ``history`` is there where everything was asked, ``ledger`` where that was and has the profile.
    """

    profile: Profile = field(default_factory=Profile)
    is_known: bool = False
    devices: Mapping[str, Device] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    history: Sequence[History] = ()
    ledger: Ledger | None = None
    forgotten: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Decided(Generic[T_co]):
    """An answer, what must be written before it is given, and the ledger, where it is more than what follows."""

    answer: T_co
    writes: Writes | None = None
    ledger: Ledger | None = None


@dataclass(frozen=True)
class LedgerLines:
    """What the ledger must hold before ``writes`` are committed: the head, the rows that last, devices that went."""

    generation: int
    epoch: int
    erased_by: str
    forgotten: int
    rows: tuple[Row, ...] = ()
    removed: tuple[str, ...] = ()


def ledger_lines(loaded: Loaded, writes: Writes) -> LedgerLines | None:
    """Return what changes in the ledger; None where nothing does. As ``sync_server.ledger_after``, line by line."""
    was, head = loaded.profile.head, writes.profile.head
    rows = tuple(row for row in writes.put if row.kind in LASTING)
    is_same = (was.generation, was.epoch, was.erased_by, was.forgotten) == (
        *(head.generation, head.epoch, head.erased_by, head.forgotten),
    )
    if loaded.is_known and is_same and not rows and not writes.removed_devices:
        return None
    place = (head.generation, head.epoch, head.erased_by, head.forgotten)
    return LedgerLines(*place, rows, writes.removed_devices)


def whole_ledger(ledger: Ledger) -> LedgerLines:
    """Return the lines of a ledger that is written as a whole."""
    place = (ledger.generation, ledger.epoch, ledger.erased_by, ledger.forgotten)
    return LedgerLines(*place, (*ledger.erasures, *ledger.consents), ledger.removed)


def erasures_asked(need: Need) -> list[str]:
    """Return the ids of erasures among the keys that are asked."""
    return [key.id for key in need.keys if key.kind == "erase"]


def is_erasure(decided: Decided[Any]) -> bool:
    """Return whether the user erased something; what the retention takes is no erasure."""
    writes = decided.writes
    if writes is None:
        return False
    is_asked = writes.device is not None or decided.ledger is not None
    return writes.purge_below_epoch is not None or (is_asked and bool(writes.drop))


def refuse_a_backup(ledger_mark: int, database_mark: int, *, has_profiles: bool) -> None:
    """Raise ServerError where the marks say that the database is a backup's, or that the ledger is lost."""
    if database_mark < ledger_mark:
        raise ServerError(
            "server.restored",
            f"the ledger is at mark {ledger_mark}, the database at {database_mark}: it was restored from a backup; "
            "run `xrec-server restored` before you serve, or what was erased since comes back",
        )
    if database_mark > 0 and ledger_mark == 0 and has_profiles:
        raise ServerError(
            "server.ledger_lost",
            "the database has profiles and the ledger is empty: give the right ledger; if it is lost, "
            "`xrec-server restored` makes one from the database",
        )


class Store(Protocol):
    """Where profiles are kept. Failures are Refused (503, ``server.store`` or ``server.busy``): nothing was written."""

    async def transact(self, profile: str, need: Need, decide: Callable[[Loaded], Decided[T]]) -> T:
        """Load, decide, commit the ledger and then the writes, and return the answer."""

    async def profiles(self, after: str, limit: int) -> Sequence[str]:
        """Return the ids of profiles, of the database or of the ledger, that follow ``after`` in order."""

    async def mark(self) -> None:
        """Raise the mark in the database, then in the ledger, so that an older backup is known for one."""

    async def wipe(self, after_s: int) -> None:
        """Remove what erasures of ``after_s`` seconds ago and more may have left in the files, where a store can."""

    async def forget(self, before_ms: int) -> None:
        """Drop what is known of forgotten erasures that arrived before this time, of every profile."""

    async def close(self) -> None:
        """Finish what was asked and close the files."""
