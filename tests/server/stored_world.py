"""The simulator's histories over a real store: the server's part runs through the service, restores through files."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from xrec_sdk import sync
from xrec_sdk.sync import ChangesRequest, RegisterRequest
from xrec_server.bell import Bell
from xrec_server.service import Service
from xrec_server.store import Decided, Loaded, Need
from xrec_server.stores import open_store
from xrec_server.upkeep import restore_all

sys.path.insert(0, str(Path(__file__).parents[1] / "sync"))
import simulator

T = TypeVar("T")
PROFILE = "p"


class View(simulator.Server):
    """What the store holds at one time, as the simulator's checks read it."""

    def __init__(self, loaded: Loaded) -> None:
        super().__init__(loaded.profile, dict(loaded.devices), {row.key: row for row in loaded.rows})


class Sqlite:
    """A SQLite database in a folder, its ledger, and how its operator takes and restores a backup."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self) -> tuple[str, str]:
        return str(self.folder / "profiles.db"), str(self.folder / "ledger.db")

    def back_up(self, name: str) -> None:
        source, target = (sqlite3.connect(self.folder / one) for one in ("profiles.db", name))
        source.backup(target)
        source.close()
        target.close()

    def restore(self, name: str) -> None:
        for old in self.folder.glob("profiles.db-*"):
            old.unlink()
        (self.folder / name).replace(self.folder / "profiles.db")


class StoredWorld(simulator.World):
    """One history from a seed, the server's rows in a database."""

    def __init__(self, seed: int, place: Any) -> None:
        self.place, self.loop = place, asyncio.new_event_loop()
        self.view: View | None = None
        self.kept: list[str] = []
        self.open()
        super().__init__(seed)

    def open(self, *, is_restoring: bool = False) -> None:
        opening = open_store(*self.place.place(), Bell(), synchronous="NORMAL", is_restoring=is_restoring)
        self.service = Service(
            self.loop.run_until_complete(opening), simulator.LIMITS, lambda: self.now_ms, lambda: "d" + self.fresh()
        )

    def close(self) -> None:
        self.run(self.service.store.close())

    def run(self, asked: Coroutine[Any, Any, T]) -> T:
        self.view = None
        return self.loop.run_until_complete(asked)

    @property
    def server(self) -> View:  # type: ignore[override]
        if self.view is None:
            everything = self.service.store.transact(PROFILE, Need(everything=True), Decided)
            self.view = View(self.loop.run_until_complete(everything))
        return self.view

    @server.setter
    def server(self, _: object) -> None:
        """The store is there already."""

    def serve_push(self, push: sync.Push) -> Any:
        device = self.server.devices.get(push.device)
        answer = self.run(self.service.push(PROFILE, push))
        if answer.code or device is None:
            self.counts[f"refused {answer.code}"] += 1
            return push, answer
        rejected = dict(answer.rejected)
        self.note_applied([op for op in push.ops if op.dseq > device.high_water and op.dseq not in rejected])
        self.too_old |= {op.id for op in push.ops if rejected.get(op.dseq) == sync.TOO_OLD}
        return push, answer

    def serve_page(self, asked: tuple[str, int, int]) -> sync.Page:
        name, after, generation = asked
        return self.run(self.service.changes(PROFILE, ChangesRequest(name, generation, after)))

    def serve_register(self, asked: tuple[str, int, int, int]) -> sync.Registered:
        return self.run(self.service.register(PROFILE, RegisterRequest(sync.VERSION, *asked)))

    def compact(self, phone: Any) -> None:
        before = {row.id for row in self.server.of_kind("event")}
        self.counts["retention took"] += self.run(self.service.compact(PROFILE))
        retired = before - {row.id for row in self.server.of_kind("event")}
        self.retired |= retired
        self.counts["retired events"] += len(retired)

    def back_up_server(self, phone: Any) -> None:
        self.kept.append(f"backup-{self.fresh()}")
        self.place.back_up(self.kept[-1])

    def restore_server(self, phone: Any) -> None:
        if not self.kept:
            return
        self.close()
        self.place.restore(self.kept.pop())
        self.kept.clear()
        self.open(is_restoring=True)
        self.run(restore_all(self.service))
        self.close()
        self.open()
        self.retired = set()
        for one in self.phones:
            if one.is_lost or one.replica.standing.must_register:
                self.excuse(one)
        self.counts["servers restored"] += 1
