"""A server that has outgrown SQLite moves to PostgreSQL, and its devices notice nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from places import PostgresPlace, SqlitePlace
from test_store import event, joined, op, push, rows, told
from xrec_sdk.sync import ChangesRequest
from xrec_server.cli import main
from xrec_server.errors import ServerError
from xrec_server.move import move
from xrec_server.service import Service
from xrec_server.store import Decided, Need
from xrec_server.upkeep import compact_all


def test_profiles_and_ledger_are_in_postgresql_as_they_were(tmp_path: Path) -> None:
    old, new = SqlitePlace(tmp_path), PostgresPlace(tmp_path)
    seen: dict[str, Any] = {}
    devices: dict[str, str] = {}

    async def whole(service: Service, profile: str) -> Any:
        loaded = await service.store.transact(profile, Need(everything=True, ledger=True), Decided)
        return replace(loaded, rows=tuple(loaded.rows))

    async def fill(service: Service) -> None:
        for profile in ("one", "two"):
            device = devices[profile] = await joined(service, profile)
            erasure = op(5, "erase", "x", '{"event":"cart"}')
            ops = [event(3, "e-3", "café 苹果"), op(4, "preference", "theme", '"dark"'), erasure]
            await service.push(profile, push(device, 3, *ops))
            await service.changes(profile, ChangesRequest(device, 1, 5))
            assert await compact_all(service) == 1  # The erasure is forgotten, and its id kept.
        await service.erase("two", "receipt")
        await service.store.mark()
        seen.update({profile: await whole(service, profile) for profile in devices})

    async def go_on(service: Service) -> None:
        for profile, before in seen.items():
            assert await whole(service, profile) == before
        again = replace(push(devices["one"], 6, op(6, "erase", "x", '{"event":"view"}')), checked=5)
        assert (await service.push("one", again)).rejected == ()
        assert await rows(service, "one") == ["sync", "personalise", "e-3", "theme"]
        await joined(service, "three")
        assert list(await service.store.profiles("", 9)) == ["one", "three", "two"]

    told(old, fill)
    words = ["--database", old.address()[0], "--ledger", old.address()[1]]
    words += ["--to", new.address()[0], "--to-ledger", new.address()[1], "--json"]
    moved = CliRunner().invoke(main, ["move", *words])
    assert moved.exit_code == 0 and json.loads(moved.output) == {"profiles": 2}, moved.output
    told(new, go_on)
    again = CliRunner().invoke(main, ["move", *words])
    assert again.exit_code == 2 and "server.not_empty" in again.output


def test_what_is_served_or_not_there_is_not_moved(tmp_path: Path) -> None:
    old, new = SqlitePlace(tmp_path), PostgresPlace(tmp_path)
    with pytest.raises(ServerError) as caught:
        asyncio.run(move(*old.address(), *new.address()))
    assert caught.value.code == "server.database" and not (tmp_path / "profiles.db").exists()

    async def meanwhile(service: Service) -> None:
        with pytest.raises(ServerError) as served:
            await move(*old.address(), *new.address())
        assert served.value.code == "server.database_in_use"

    told(old, meanwhile)
    with pytest.raises(ServerError) as turned:
        asyncio.run(move(*new.address(), *old.address()))
    assert turned.value.code == "server.setting"
