"""What each request asks of the store: a need, and the rule of `xrec_sdk.sync_server` that decides.

Every function is one transaction under the profile's lock. ``clock`` gives Unix milliseconds.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from xrec_sdk import sync, sync_server
from xrec_sdk.sync import LIMITS, Limits, Page, Push, PushAnswer, Registered
from xrec_sdk.sync_server import LASTING, Device

from xrec_server.store import Decided, Loaded, Need, Store


def wall_clock_ms() -> int:
    """Return Unix milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Register:
    """What a device says that asks for a name: the one that it had or "", and how far it stood under that."""

    v: int
    device: str
    checked: int
    generation: int
    floor: int


@dataclass(frozen=True)
class Service:
    """The requests of the protocol, over a store."""

    store: Store
    limits: Limits = LIMITS
    clock: Callable[[], int] = wall_clock_ms

    async def push(self, profile: str, push: Push) -> PushAnswer:
        """Apply a push."""
        keys, erasure = sync_server.wanted(push)
        kinds = LASTING if erasure is None or erasure.is_everything else (*LASTING, "event")
        # No row has a name with NUL, and not every database can be asked for one.
        possible = frozenset(key for key in keys if "\0" not in key.id and "\0" not in key.kind)
        need = Need(devices=(push.device,), keys=possible, kinds=kinds)

        def decide(loaded: Loaded) -> Decided[PushAnswer]:
            now_ms, device = self.clock(), loaded.devices.get(push.device)
            if device is None:
                return Decided(PushAnswer(loaded.profile.head, now_ms, 0, code=sync.UNKNOWN_DEVICE))
            known = {row.key: row for row in loaded.rows}
            return Decided(*sync_server.accept(loaded.profile, device, push, known, now_ms, self.limits))

        return await self.store.transact(profile, need, decide)

    async def changes(self, profile: str, device_id: str, generation: int, after: int) -> Page:
        """Return the page of changes that follows ``after``."""
        need = Need(devices=(device_id,), page=(after, self.limits.page_rows + 1))

        def decide(loaded: Loaded) -> Decided[Page]:
            now_ms, device = self.clock(), loaded.devices.get(device_id)
            if device is None:
                head = loaded.profile.head
                return Decided(Page(head, now_ms, 0, after, (), after, False, "", sync.UNKNOWN_DEVICE))
            page = sync_server.page(loaded.profile, device, after, generation, loaded.rows, now_ms, self.limits)
            return Decided(*page)

        return await self.store.transact(profile, need, decide)

    async def register(self, profile: str, asked: Register, tag: str = "") -> Registered:
        """Give a device a new name; ``tag`` ends it and says to which token it belongs."""
        name = f"d-{secrets.token_hex(16)}{tag}"

        def decide(loaded: Loaded) -> Decided[Registered]:
            former: Device | None = loaded.devices.get(asked.device)
            answer, writes = sync_server.register(
                loaded.profile,
                name,
                former,
                asked.checked,
                asked.generation,
                self.clock(),
                former_name=asked.device,
                floor=asked.floor,
            )
            return Decided(answer, writes)

        return await self.store.transact(profile, Need(devices=(asked.device,)), decide)

    async def compact(self, profile: str) -> int:
        """Apply the retention; return how many rows and devices went."""
        need = Need(
            all_devices=True,
            kinds=("erase",),
            retired=(self.clock() - self.limits.retention_ms, self.limits.max_events),
        )

        def decide(loaded: Loaded) -> Decided[int]:
            events, erasures = ([row for row in loaded.rows if row.kind == kind] for kind in ("event", "erase"))
            devices = list(loaded.devices.values())
            writes = sync_server.compact(loaded.profile, events, erasures, devices, self.clock(), self.limits)
            gone = len(writes.drop) + len(writes.removed_devices)
            return Decided(gone, writes if gone else None)

        return await self.store.transact(profile, need, decide)

    async def restore(self, profile: str) -> int:
        """Make a profile of a restored backup usable, by the ledger; return its new generation."""

        def decide(loaded: Loaded) -> Decided[int]:
            rows = {row.key: row for row in loaded.rows}
            ledger, writes = sync_server.restored(loaded.profile, rows, loaded.ledger, self.clock())
            return Decided(ledger.generation, writes, ledger)

        return await self.store.transact(profile, Need(everything=True, ledger=True), decide)
