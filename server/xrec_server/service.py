"""What each request asks of the store: a need, and the rule of `xrec_sdk.sync_server` that decides.

Every method is one transaction under the profile's lock; its answer is given after the commit.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from xrec_sdk import sync, sync_server
from xrec_sdk.sync import (
    LIMITS,
    ChangesRequest,
    Head,
    Key,
    Letter,
    Limits,
    Page,
    Push,
    PushAnswer,
    Receipt,
    Registered,
    RegisterRequest,
    Row,
)
from xrec_sdk.sync_server import LASTING, Device, History, Ledger, Writes

from xrec_server.errors import Refused
from xrec_server.store import Decided, Loaded, Need, Store

MAX_DEVICES = 100
"""Devices of one profile; where one more registers, the one that was silent longest must register again."""
MAX_ERASURES = 1_000
"""Erasures of one profile that not every device has passed."""
SPARE_EVENTS = 500
"""How many events above ``max_events`` a profile may hold until a push makes room."""
EXPORT_SCHEMA = "xrec-export/1"


@dataclass(frozen=True)
class DeviceSeen:
    """A device of a profile: its name, when it was last heard of, and the seq that it has."""

    id: str
    contact_ms: int
    passed: int


@dataclass(frozen=True)
class Devices:
    """The devices of a profile, the last heard of first."""

    devices: tuple[DeviceSeen, ...]


@dataclass(frozen=True)
class Export:
    """All that is held of a profile; ``schema`` names this form."""

    schema: str
    exported_ms: int
    head: Head
    rows: tuple[Row, ...]
    devices: tuple[Device, ...]
    consent_history: tuple[History, ...]


def wall_clock_ms() -> int:
    """Return Unix milliseconds."""
    return time.time_ns() // 1_000_000


def random_name() -> str:
    """Return a new device's name, which nobody can guess."""
    return f"d-{secrets.token_hex(16)}"


@dataclass(frozen=True)
class Service:
    """The requests of the protocol and of the account, and the upkeep, over a store."""

    store: Store
    limits: Limits = LIMITS
    clock: Callable[[], int] = wall_clock_ms
    new_name: Callable[[], str] = random_name

    async def push(self, profile: str, push: Push) -> PushAnswer:
        """Apply a push; where the profile has many more events than it may, also the retention."""
        keys, erasure = sync_server.wanted(push)
        kinds = LASTING if erasure is None or erasure.is_everything else (*LASTING, "event")
        need = Need(devices=(push.device,), keys=_possible(keys), kinds=kinds)
        most = self.limits.max_events + SPARE_EVENTS

        def decide(loaded: Loaded) -> Decided[tuple[PushAnswer, bool]]:
            now_ms, device = self.clock(), loaded.devices.get(push.device)
            if device is None:
                code = sync.UNKNOWN_DEVICE
                return Decided((PushAnswer(loaded.profile.head, now_ms, 0, code=code), False))
            if erasure and sum(row.kind == "erase" for row in loaded.rows) >= MAX_ERASURES:
                raise Refused(429, "server.quota", f"{MAX_ERASURES} erasures wait for devices to pass them", 3_600)
            known = {row.key: row for row in loaded.rows}
            profile, forgotten = loaded.profile, loaded.forgotten
            answer, writes = sync_server.accept(profile, device, push, known, now_ms, self.limits, forgotten)
            return Decided((answer, writes is not None and writes.profile.events > most), writes)

        answer, is_crowded = await self.store.transact(profile, need, decide)
        if is_crowded:
            await self.compact(profile)
        return answer

    async def changes(self, profile: str, asked: ChangesRequest) -> Page:
        """Return the page of changes that follows ``after``, as it is now."""
        need = Need(devices=(asked.device,), page=(asked.after, self.limits.page_rows + 1))

        def decide(loaded: Loaded) -> Decided[Page]:
            now_ms, device, after = self.clock(), loaded.devices.get(asked.device), asked.after
            if device is None:
                head = loaded.profile.head
                return Decided(Page(head, now_ms, 0, after, (), after, False, "", sync.UNKNOWN_DEVICE))
            rows, generation = loaded.rows, asked.generation
            page = sync_server.page(loaded.profile, device, after, generation, rows, now_ms, self.limits)
            return Decided(*page)

        return await self.store.transact(profile, need, decide)

    async def register(self, profile: str, asked: RegisterRequest, tag: str = "") -> Registered:
        """Give a device a new name; ``tag`` ends it and says to which token it belongs."""
        if asked.v != sync.VERSION:
            raise Refused(400, sync.VERSION_UNKNOWN, f"version {asked.v}; this server speaks {sync.VERSION}")
        name = self.new_name() + tag

        def decide(loaded: Loaded) -> Decided[Registered]:
            answer, writes = sync_server.register(
                loaded.profile,
                name,
                loaded.devices.get(asked.device),
                asked.checked,
                asked.generation,
                self.clock(),
                former_name=asked.device,
                floor=asked.floor,
            )
            silent = sorted(loaded.devices.values(), key=lambda device: device.contact_ms)
            excess = len(silent) + 1 - MAX_DEVICES
            gone = tuple(device.id for device in silent[:excess] if device.id != asked.device) if excess > 0 else ()
            return Decided(answer, replace(writes, removed_devices=gone))

        return await self.store.transact(profile, Need(all_devices=True), decide)

    async def erase(self, profile: str, id: str) -> Receipt:
        """Erase everything on the account's word; the receipt of the same ``id`` may be asked for again."""

        def decide(loaded: Loaded) -> Decided[Receipt]:
            rows = {row.key: row for row in loaded.rows}
            devices = list(loaded.devices.values())
            now_ms, forgotten = self.clock(), loaded.forgotten
            return Decided(*sync_server.erased(loaded.profile, rows, devices, id, now_ms, forgotten))

        need = Need(all_devices=True, kinds=LASTING, keys=_possible([Key("erase", id)]))
        return await self.store.transact(profile, need, decide)

    async def devices(self, profile: str) -> Devices:
        """Return the profile's devices."""

        def decide(loaded: Loaded) -> Decided[Devices]:
            devices = sorted(loaded.devices.values(), key=lambda device: (-device.contact_ms, device.id))
            return Decided(Devices(tuple(DeviceSeen(one.id, one.contact_ms, one.passed) for one in devices)))

        return await self.store.transact(profile, Need(all_devices=True), decide)

    async def remove_device(self, profile: str, device: str) -> None:
        """Remove a device, if there is one of that name."""

        def decide(loaded: Loaded) -> Decided[None]:
            is_there = device in loaded.devices
            return Decided(None, sync_server.removed(loaded.profile, device) if is_there else None)

        return await self.store.transact(profile, Need(devices=(device,)), decide)

    async def leave_letter(self, profile: str, device: str, letter: str) -> None:
        """Leave a letter for a device, in place of the one before."""

        def decide(loaded: Loaded) -> Decided[bool]:
            found = loaded.devices.get(device)
            return Decided(found is not None, Writes(loaded.profile, replace(found, letter=letter)) if found else None)

        if not await self.store.transact(profile, Need(devices=(device,)), decide):
            raise _no_device()

    async def letter(self, profile: str, device: str) -> Letter:
        """Return the letter that was left for a device."""

        def decide(loaded: Loaded) -> Decided[Letter | None]:
            found = loaded.devices.get(device)
            return Decided(Letter(sync.VERSION, found.letter) if found else None)

        letter = await self.store.transact(profile, Need(devices=(device,)), decide)
        if letter is None:
            raise _no_device()
        return letter

    async def export(self, profile: str) -> Export:
        """Return all that is held of a profile."""

        def decide(loaded: Loaded) -> Decided[Export]:
            devices = tuple(sorted(loaded.devices.values(), key=lambda device: device.id))
            head, rows, history = loaded.profile.head, tuple(loaded.rows), tuple(loaded.history)
            return Decided(Export(EXPORT_SCHEMA, self.clock(), head, rows, devices, history))

        return await self.store.transact(profile, Need(everything=True), decide)

    async def compact(self, profile: str) -> int:
        """Apply the retention; return how many rows and devices went."""
        need = Need(
            all_devices=True,
            kinds=("erase",),
            retired=(self.clock() - self.limits.retention_ms, self.limits.max_events),
        )

        def decide(loaded: Loaded) -> Decided[int]:
            events = [row for row in loaded.rows if row.kind == "event"]
            erasures = [row for row in loaded.rows if row.kind == "erase"]
            devices = list(loaded.devices.values())
            writes = sync_server.compact(loaded.profile, events, erasures, devices, self.clock(), self.limits)
            gone = len(writes.drop) + len(writes.removed_devices)
            return Decided(gone, writes if gone else None)

        return await self.store.transact(profile, need, decide)

    async def restore(self, profile: str) -> int:
        """Make a profile of a restored backup usable, by the ledger; return its new generation."""

        def decide(loaded: Loaded) -> Decided[int]:
            rows = {row.key: row for row in loaded.rows}
            ledger, writes = sync_server.restored(loaded.profile, rows, _ledger(loaded), self.clock())
            return Decided(ledger.generation, writes, sync_server.ledger_after(ledger, writes))

        return await self.store.transact(profile, Need(everything=True, ledger=True), decide)


def _possible(keys: Iterable[Key]) -> frozenset[Key]:
    """Return the keys that a row may have: no row has a name with NUL, and not every database can be asked for one."""
    return frozenset(key for key in keys if "\0" not in key.id and "\0" not in key.kind)


def _no_device() -> Refused:
    return Refused(404, sync.UNKNOWN_DEVICE, "there is no such device, or the token does not speak for it")


def _ledger(loaded: Loaded) -> Ledger:
    """Return the profile's ledger; where it is lost, what the database itself says."""
    head = loaded.profile.head
    if loaded.ledger:
        return replace(loaded.ledger, generation=max(loaded.ledger.generation, head.generation))
    erasures, consents = (tuple(row for row in loaded.rows if row.kind == kind) for kind in ("erase", "consent"))
    return Ledger(head.generation, head.epoch, head.erased_by, head.forgotten, erasures, consents)
