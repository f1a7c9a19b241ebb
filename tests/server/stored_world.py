"""The simulator's histories over a real store: its server is a view of a database, each of its rules a request."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from xrec_sdk import sync_server
from xrec_sdk.sync import ChangesRequest, Key, Limits, Page, Push, PushAnswer, Receipt, Registered, RegisterRequest, Row
from xrec_sdk.sync_server import Device, Ledger, Profile, Writes
from xrec_server.bell import Bell
from xrec_server.service import Service
from xrec_server.store import Decided, Loaded, Need, Store
from xrec_server.stores import open_store
from xrec_server.upkeep import restore_all

sys.path.insert(0, str(Path(__file__).parents[1] / "sync"))
import simulator

sys.path.insert(0, str(Path(__file__).parent))
from places import Place

T = TypeVar("T")
PROFILE = "p"


class Seen:
    """A store that keeps the last writes, for the simulator to look at."""

    def __init__(self, store: Store) -> None:
        self.store, self.writes = store, None

    async def transact(self, profile: str, need: Need, decide: Callable[[Loaded], Decided[T]]) -> T:
        def watched(loaded: Loaded) -> Decided[T]:
            decided = decide(loaded)
            self.writes = decided.writes
            return decided

        return await self.store.transact(profile, need, watched)

    async def profiles(self, after: str, limit: int) -> Sequence[str]:
        return await self.store.profiles(after, limit)

    async def mark(self) -> None:
        await self.store.mark()

    async def wipe(self, after_s: int) -> None:
        await self.store.wipe(after_s)

    async def forget(self, before_ms: int) -> None:
        await self.store.forget(before_ms)

    async def close(self) -> None:
        await self.store.close()


class View(simulator.Server):
    """What the store holds; what is committed to it is there already."""

    def commit(self, writes: Writes) -> None:
        """Do nothing: the request has written."""


class StoredRules:
    """Stands for `sync_server` in the simulator: each rule that writes is asked of a service over a store."""

    def __init__(self, place: Place) -> None:
        self.place, self.loop = place, asyncio.new_event_loop()
        self.now_ms, self.name, self.backups = 0, "", dict[int, str]()
        self.loaded: Loaded | None = None
        self.open()

    def __getattr__(self, name: str) -> Any:
        return getattr(sync_server, name)

    def open(self, *, is_restoring: bool = False) -> None:
        opening = open_store(*self.place.address(), Bell(), synchronous="NORMAL", is_restoring=is_restoring)
        self.seen = Seen(self.loop.run_until_complete(opening))
        self.service = Service(self.seen, simulator.LIMITS, lambda: self.now_ms, lambda: self.name)

    def close(self) -> None:
        self.loop.run_until_complete(self.service.store.close())
        self.loop.run_until_complete(asyncio.sleep(0))  # Transports close in the loop's next turn.

    def server(self, *backup: Any) -> View:
        """Stand for the simulator's Server: a view of what there is or, given its parts, a backup of it."""
        if self.loaded is None:
            need = Need(everything=True, ledger=True)
            self.loaded = self.loop.run_until_complete(self.service.store.transact(PROFILE, need, Decided))
        loaded = self.loaded
        rows = {row.key: row for row in loaded.rows}
        if backup:
            name = f"backup-{len(self.backups)}"
            self.place.back_up(name)
            self.backups[id(loaded.profile)], self.loaded = name, None
        return View(loaded.profile, dict(loaded.devices), rows, loaded.ledger or Ledger())

    def ask(self, request: Coroutine[Any, Any, T], now_ms: int = 0) -> tuple[T, Writes | None]:
        self.now_ms, self.seen.writes, self.loaded = now_ms or self.now_ms, None, None
        return self.loop.run_until_complete(request), self.seen.writes

    def accept(
        self, profile: Profile, device: Device, push: Push, known: object, now_ms: int, limits: Limits, _: object
    ) -> tuple[PushAnswer, Writes | None]:
        return self.ask(self.service.push(PROFILE, push), now_ms)

    def page(
        self, profile: Profile, device: Device, after: int, generation: int, rows: object, now_ms: int, limits: Limits
    ) -> tuple[Page, Writes]:
        page, writes = self.ask(self.service.changes(PROFILE, ChangesRequest(device.id, generation, after)), now_ms)
        return page, writes or Writes(profile)

    def register(
        self,
        profile: Profile,
        device: str,
        former: Device | None,
        checked: int,
        generation: int,
        now_ms: int,
        *,
        former_name: str,
        floor: int,
    ) -> tuple[Registered, Writes]:
        self.name = device
        asked = RegisterRequest(1, former_name, checked, generation, floor)
        registered, writes = self.ask(self.service.register(PROFILE, asked), now_ms)
        return registered, writes or Writes(profile)

    def compact(
        self, profile: Profile, events: object, erasures: object, devices: object, now_ms: int, limits: Limits
    ) -> Writes:
        self.now_ms = now_ms
        _, writes = self.ask(self.service.compact(PROFILE))
        return writes or Writes(profile)

    def erased(
        self, profile: Profile, rows: object, devices: object, id: str, now_ms: int, _: object
    ) -> tuple[Receipt, Writes | None]:
        return self.ask(self.service.erase(PROFILE, id), now_ms)

    def removed(self, profile: Profile, device: str) -> Writes:
        _, writes = self.ask(self.service.remove_device(PROFILE, device))
        return writes or Writes(profile)

    def restored(
        self, profile: Profile, rows: dict[Key, Row], ledger: Ledger, now_ms: int
    ) -> tuple[Ledger, Writes | None]:
        self.close()
        self.place.restore(self.backups[id(profile)])
        self.open(is_restoring=True)
        _, writes = self.ask(restore_all(self.service), now_ms)
        self.close()
        self.open()
        return self.server().ledger, writes


class StoredWorld(simulator.World):
    """A world whose server is always what the store holds."""

    @property
    def server(self) -> View:  # type: ignore[override]
        return simulator.Server()  # type: ignore[return-value]

    @server.setter
    def server(self, _: object) -> None:
        """It is there already."""


def history(seed: int, place: Place, patch: Any) -> Counter[str]:
    """Run a history from a seed with its server in ``place``; ``patch`` is pytest's monkeypatch."""
    rules = StoredRules(place)
    patch.setattr(simulator, "sync_server", rules)
    patch.setattr(simulator, "Server", rules.server)
    try:
        return simulator.history(seed, StoredWorld)
    finally:
        rules.close()
        rules.loop.close()
