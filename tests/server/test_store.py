"""A store commits whole or not at all, the ledger first, one profile apart from another."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from xrec_sdk import sync_server
from xrec_sdk.sync import LIMITS, ChangesRequest, Hlc, Limits, Op, Push, RegisterRequest, Row
from xrec_sdk.sync_server import Writes
from xrec_server.bell import Bell
from xrec_server.errors import Refused, ServerError
from xrec_server.run import restore
from xrec_server.schema import migrations
from xrec_server.service import MAX_DEVICES, Service
from xrec_server.sqlite_ledger import SqliteLedger
from xrec_server.store import Decided, Loaded, Need
from xrec_server.stores import open_store
from xrec_server.upkeep import compact_all

sys.path.insert(0, str(Path(__file__).parent))
from places import Place, PostgresPlace, SqlitePlace, places

NOW_MS = 1_750_000_000_000


@pytest.fixture(params=places())
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a fresh database of each kind that can be had here."""
    return request.param(tmp_path)


def told(
    place: Place, story: Callable[[Service], Awaitable[None]], limits: Limits = LIMITS, now_ms: int = NOW_MS
) -> None:
    """Run a story over a service that is opened and closed."""

    async def run() -> None:
        store = await open_store(*place.address(), Bell())
        try:
            await story(Service(store, limits, lambda: now_ms))
        finally:
            await store.close()

    asyncio.run(run())


async def joined(service: Service, profile: str) -> str:
    """Register a device of a profile and grant what events need; return its name."""
    device = (await service.register(profile, RegisterRequest(1, "", 0, 1, 0))).device
    body = '{"granted":true,"policy":"1"}'
    grants = [op(place, "consent", name, body) for place, name in enumerate(("sync", "personalise"), 1)]
    assert (await service.push(profile, push(device, 1, *grants))).code is None
    return device


def op(dseq: int, kind: str, id: str, body: str, purpose: str = "sync") -> Op:
    return Op(dseq, kind, id, 1, Hlc(NOW_MS, dseq), NOW_MS, purpose, body)


def event(dseq: int, id: str, item_id: str = "sku-42", at_ms: int = NOW_MS) -> Op:
    body = json.dumps({"id": id, "at_ms": at_ms, "event": "view", "item_id": item_id, "device": "phone"})
    return op(dseq, "event", id, body, "personalise")


def push(device: str, first: int, *ops: Op) -> Push:
    return Push(1, device, 1, 0, first, ops)


async def rows(service: Service, profile: str) -> list[str]:
    return [row.id for row in (await service.export(profile)).rows]


def test_profiles_do_not_see_each_other(place: Place) -> None:
    async def story(service: Service) -> None:
        one, other = await joined(service, "one"), await joined(service, "other")
        await service.push("one", push(one, 3, event(3, "e-1")))
        assert (await service.push("other", push(one, 3, event(3, "e-2")))).code == "sync.unknown_device"
        assert await rows(service, "one") == ["sync", "personalise", "e-1"]
        assert await rows(service, "other") == ["sync", "personalise"]
        assert (await service.changes("other", ChangesRequest(other, 1, 0))).head.seq == 2
        assert list(await service.store.profiles("", 10)) == ["one", "other"]
        assert list(await service.store.profiles("one", 10)) == ["other"]

    told(place, story)


def test_what_was_written_is_there_after_it_is_opened_again(place: Place) -> None:
    seen: list[Any] = []

    async def write(service: Service) -> None:
        device = await joined(service, "p")
        await service.push("p", push(device, 3, event(3, "e-1"), op(4, "preference", "theme", '"café 苹果"')))
        seen.append(await service.export("p"))

    async def read(service: Service) -> None:
        assert await service.export("p") == seen[0]

    told(place, write)
    told(place, read)


def test_many_pushes_at_once_are_all_applied_in_the_order_of_their_seq(place: Place) -> None:
    async def story(service: Service) -> None:
        devices = [await joined(service, f"p{number}") for number in range(8)]
        work = [
            service.push(f"p{number}", push(device, first, event(first, f"e-{first}")))
            for number, device in enumerate(devices)
            for first in [3]
        ] + [service.push("p0", push(devices[0], 3, event(3, "e-3"))) for _ in range(5)]
        answers = await asyncio.gather(*work)
        assert all(answer.code is None and answer.high_water == 3 for answer in answers)
        for number in range(8):
            assert await rows(service, f"p{number}") == ["sync", "personalise", "e-3"]

    told(place, story)


def test_one_decision_that_fails_takes_no_other_with_it(place: Place) -> None:
    def fail(loaded: object) -> Decided[None]:
        raise LookupError("this one")

    async def story(service: Service) -> None:
        device = await joined(service, "p")
        work: list[Awaitable[Any]] = [service.push("p", push(device, 3, event(3, "e-3")))]
        work += [service.store.transact("p", Need(), fail), joined(service, "q")]
        pushed, failed, name = await asyncio.gather(*work, return_exceptions=True)
        assert pushed.code is None and isinstance(failed, LookupError) and name.startswith("d-")
        assert await rows(service, "p") == ["sync", "personalise", "e-3"]

    told(place, story)


def test_a_request_that_the_database_cant_write_takes_no_other_with_it(tmp_path: Path) -> None:
    """PostgreSQL has no NUL in a text: the group fails, and each of its requests is done alone."""

    def unwritable(loaded: Loaded) -> Decided[None]:
        row = Row(9, "mood", "nul\0", 1, Hlc(), "d", 1, 0, 0, "1")
        return Decided(None, Writes(replace(loaded.profile, events=7), put=(row,)))

    async def story(service: Service) -> None:
        devices = {name: await joined(service, name) for name in "pqr"}
        work: list[Awaitable[Any]] = [service.push(p, push(name, 3, event(3, "e-3"))) for p, name in devices.items()]
        work.insert(1, service.store.transact("q", Need(), unwritable))
        first, failed, *others = await asyncio.gather(*work, return_exceptions=True)
        assert isinstance(failed, Refused) and (failed.status, failed.code) == (503, "server.store")
        assert [answer.code for answer in (first, *others)] == [None] * 3
        for profile in "pqr":
            assert await rows(service, profile) == ["sync", "personalise", "e-3"]
        assert (await service.store.transact("q", Need(), Decided)).profile.events == 1

    told(PostgresPlace(tmp_path), story)


def test_a_push_is_told_to_come_again_where_too_many_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(service: Service) -> None:
        device = await joined(service, "p")
        with monkeypatch.context() as full:
            full.setattr("xrec_server.postgres_group.MAX_WAITING", 0)
            with pytest.raises(Refused) as caught:
                await service.push("p", push(device, 3, event(3, "e-3")))
            assert (caught.value.status, caught.value.code) == (503, "server.busy")
        assert (await service.push("p", push(device, 3, event(3, "e-3")))).code is None

    told(PostgresPlace(tmp_path), story)


async def rings_within(heard: asyncio.Event, seconds: float) -> bool:
    heard.clear()
    await asyncio.sleep(seconds)
    return heard.is_set()


def test_a_bell_rings_for_the_profile_that_has_changed_and_no_other(place: Place) -> None:
    async def run() -> None:
        bell = Bell()
        store = await open_store(*place.address(), bell)
        service = Service(store)
        device = await joined(service, "p")
        await service.changes("p", ChangesRequest(device, 1, 2))
        with bell.listen("p") as heard, bell.listen("q") as other:
            while await rings_within(heard, 0.3):
                pass  # What was written before may still be told.
            await service.changes("p", ChangesRequest(device, 1, 2))
            assert not await rings_within(heard, 0.1)
            await service.push("p", push(device, 3, op(3, "preference", "theme", "1")))
            await asyncio.wait_for(heard.wait(), 30)
            assert not await rings_within(other, 0.1)
        await store.close()

    asyncio.run(run())


def test_a_push_to_one_process_wakes_the_long_polls_of_another(tmp_path: Path) -> None:
    place = PostgresPlace(tmp_path)

    async def run() -> None:
        bells = Bell(), Bell()
        one, other = [Service(await open_store(*place.address(), bell)) for bell in bells]
        device = await joined(one, "p")
        with bells[1].listen("p") as heard:
            while await rings_within(heard, 0.3):
                pass
            await one.push("p", push(device, 3, op(3, "preference", "theme", "1")))
            await asyncio.wait_for(heard.wait(), 30)
        assert (await other.changes("p", ChangesRequest(device, 1, 2))).rows[0].id == "theme"
        pushes = [(one, other)[n % 2].push("p", push(device, 4, op(4, "nop", "", ""))) for n in range(20)]
        assert {answer.high_water for answer in await asyncio.gather(*pushes)} == {4}
        await one.store.close()
        await other.store.close()

    asyncio.run(run())


def test_retention_takes_the_oldest_events_and_those_beyond_the_number(place: Place) -> None:
    limits = Limits(max_events=3)

    async def fill(service: Service) -> None:
        device = await joined(service, "p")
        await service.push("p", push(device, 3, *(event(dseq, f"e-{dseq}") for dseq in range(3, 9))))

    async def few(service: Service) -> None:
        assert await compact_all(service) == 3
        assert await rows(service, "p") == ["sync", "personalise", "e-6", "e-7", "e-8"]

    async def late(service: Service) -> None:
        assert await compact_all(service) == 4  # Three events, and the device, whose lease has ended.
        assert await rows(service, "p") == ["sync", "personalise"]
        assert (await service.export("p")).head.floor == 8

    told(place, fill, limits)
    told(place, few, limits)
    told(place, late, limits, NOW_MS + limits.retention_ms + 1)


def test_an_erasure_that_all_have_forgotten_is_not_done_again_for_a_year(place: Place) -> None:
    """A device that was set back says it again under another name."""

    async def story(service: Service) -> None:
        async def erase(device: str, first: int) -> None:
            await service.push("p", replace(push(device, first, op(first, "erase", "x", '{"item_id":"a"}')), checked=3))

        device = await joined(service, "p")
        await erase(device, 3)
        await service.changes("p", ChangesRequest(device, 1, 3))
        assert await compact_all(service) == 1 and await rows(service, "p") == ["sync", "personalise"]
        await service.push("p", replace(push(device, 4, event(4, "e-4", "a")), checked=3))
        again = (await service.register("p", RegisterRequest(1, "d-lost", 0, 1, 0))).device
        await service.store.forget(NOW_MS)
        await erase(again, 1)
        assert await rows(service, "p") == ["sync", "personalise", "e-4"]
        assert (await service.erase("p", "x")).at_ms == 0
        await service.store.forget(NOW_MS + 1)
        await erase(again, 2)
        assert await rows(service, "p") == ["sync", "personalise", "x"]

    told(place, story)


def test_a_database_of_the_first_version_is_brought_to_this_one(tmp_path: Path) -> None:
    _, first = migrations("sqlite")[0]
    with closing(sqlite3.connect(tmp_path / "profiles.db")) as old:
        old.executescript(f"{first} PRAGMA user_version=1;")

    async def story(service: Service) -> None:
        device = await joined(service, "p")
        assert (await service.push("p", push(device, 3, op(3, "erase", "x", "{}")))).rejected == ()

    told(SqlitePlace(tmp_path), story)


def test_a_profile_that_is_far_too_full_makes_room_at_once(place: Place) -> None:
    async def story(service: Service) -> None:
        device = await joined(service, "p")
        for first in (3, 403):
            await service.push(
                "p", push(device, first, *(event(dseq, f"e-{dseq}") for dseq in range(first, first + 400)))
            )
        assert len(await rows(service, "p")) == 2 + 100

    told(place, story, Limits(max_events=100))


def test_the_device_that_was_silent_longest_goes_where_there_are_too_many(place: Place) -> None:
    async def story(service: Service) -> None:
        names = [(await service.register("p", RegisterRequest(1, "", 0, 1, 0))).device for _ in range(MAX_DEVICES + 1)]
        assert len((await service.devices("p")).devices) == MAX_DEVICES
        assert (await service.changes("p", ChangesRequest(names[-1], 1, 0))).code is None

    told(place, story)


def test_the_ledger_is_what_the_rules_say_it_is(place: Place) -> None:
    """The lines that are written add up to `ledger_after` of every write; seed 5."""
    luck = random.Random(5)
    whole = sync_server.Ledger()

    async def story(service: Service) -> None:
        nonlocal whole
        store = service.store

        class Watched:
            async def transact(self, profile: str, need: Need, decide: Any) -> Any:
                def watched(loaded: Any) -> Any:
                    nonlocal whole
                    decided = decide(loaded)
                    if decided.writes:
                        whole = sync_server.ledger_after(whole, decided.writes)
                    return decided

                return await store.transact(profile, need, watched)

        seen = replace(service, store=Watched())  # type: ignore[arg-type]
        device = await joined(seen, "p")
        other = await joined(seen, "p")
        epoch, dseq = 1, 3
        for number in range(30):
            body = luck.choice(["{}", '{"item_id":"a"}', '{"event":"view"}'])
            said = [
                op(dseq, "erase", f"x-{number}", body),
                op(dseq, "consent", "train", '{"granted":true,"policy":"2"}'),
            ]
            one = replace(luck.choice([*said, event(dseq, f"e-{number}", luck.choice("ab"))]), epoch=epoch)
            answer = await seen.push("p", push(device, dseq, one))
            epoch, dseq = answer.head.epoch, dseq + 1
        await seen.remove_device("p", other)
        await seen.erase("p", "receipt")
        loaded = await store.transact("p", Need(ledger=True), Decided)
        assert loaded.ledger
        for name in ("generation", "epoch", "erased_by", "forgotten", "removed"):
            assert getattr(loaded.ledger, name) == getattr(whole, name), name
        for name in ("erasures", "consents"):
            assert set(getattr(loaded.ledger, name)) == set(getattr(whole, name)), name

    told(place, story)


def test_a_backup_is_not_served_until_the_ledger_was_applied(place: Place) -> None:
    async def before(service: Service) -> None:
        device = await joined(service, "p")
        await service.push("p", push(device, 3, event(3, "e-old")))
        await service.store.mark()

    async def after(service: Service) -> None:
        await service.erase("p", "receipt")
        await joined(service, "came later")
        await service.store.mark()

    async def served_again(service: Service) -> None:
        export = await service.export("p")
        assert "e-old" not in [row.id for row in export.rows]
        assert (export.head.generation, export.head.epoch) == (2, 2)
        assert (await service.export("came later")).head.generation == 2

    told(place, before)
    place.back_up("backup")
    told(place, after)
    place.restore("backup")
    with pytest.raises(ServerError, match="xrec-server restored") as caught:
        told(place, served_again)
    assert caught.value.code == "server.restored"
    assert asyncio.run(restore(*place.address())) == 2
    told(place, served_again)


def test_a_ledger_that_is_lost_is_noticed_and_made_again(place: Place) -> None:
    async def before(service: Service) -> None:
        device = await joined(service, "p")
        await service.push("p", push(device, 3, op(3, "erase", "x", '{"item_id":"a"}')))
        await service.store.mark()

    async def made(service: Service) -> None:
        loaded = await service.store.transact("p", Need(ledger=True), Decided)
        assert loaded.ledger and loaded.ledger.generation == 2
        assert [row.id for row in loaded.ledger.erasures] == ["x"] and len(loaded.ledger.consents) == 2

    told(place, before)
    place.lose_the_ledger()
    with pytest.raises(ServerError) as caught:
        told(place, made)
    assert caught.value.code == "server.ledger_lost"
    asyncio.run(restore(*place.address()))
    told(place, made)


def test_what_was_erased_is_in_no_file_of_the_sqlite_store(tmp_path: Path) -> None:
    place = SqlitePlace(tmp_path)
    marks = [f"sku-secret-{number:03d}" for number in range(200)]

    async def fill(service: Service) -> None:
        device = await joined(service, "p")
        await service.push("p", push(device, 3, *(event(3 + n, f"e-{n}", mark) for n, mark in enumerate(marks))))

    async def erase(service: Service) -> None:
        assert found() == marks
        receipt = await service.erase("p", "receipt")
        assert receipt.epoch == 2
        await service.store.wipe(3_600)
        assert "plant" in found("plant")  # It is not due yet.
        await service.store.wipe(0)
        assert found("sku-secret", "plant") == []

    def found(*texts: str) -> list[str]:
        data = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        return [text for text in texts or marks if text.encode() in data]

    told(place, fill)
    plant(tmp_path / "profiles.db")
    told(place, erase)


def plant(path: Path) -> None:
    """Put a piece where SQLite leaves some: in the free space of a page whose rows it has moved."""
    whole = bytearray(path.read_bytes())
    for start in range(4096, len(whole), 4096):
        cells, content = (int.from_bytes(whole[start + at : start + at + 2], "big") for at in (3, 5))
        free = 8 + 2 * cells
        if whole[start] in (10, 13) and content - free > 20:  # A leaf of an index or of a table.
            whole[start + free + 4 : start + free + 9] = b"plant"
    path.write_bytes(whole)


def test_the_ledger_is_ahead_of_the_database_and_never_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = SqlitePlace(tmp_path)
    epochs: list[int | None] = []
    commit = SqliteLedger.commit

    def watched(self: SqliteLedger) -> None:
        commit(self)
        reader = sqlite3.connect(f"file:{tmp_path / 'profiles.db'}?mode=ro", uri=True)
        found = reader.execute("SELECT epoch FROM profiles WHERE id = 'p'").fetchone()
        ledger = self.read("p")
        epochs.append(None if ledger is None else ledger.epoch - (found[0] if found else 0))
        reader.close()

    async def story(service: Service) -> None:
        await joined(service, "p")
        monkeypatch.setattr(SqliteLedger, "commit", watched)
        await service.erase("p", "receipt")
        assert epochs[-1] == 1

    told(place, story)


def test_a_disk_that_fails_refuses_the_push_and_the_next_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(service: Service) -> None:
        device = await joined(service, "p")
        with monkeypatch.context() as broken:
            broken.setattr(SqliteLedger, "commit", full)
            with pytest.raises(Refused, match="disk is full") as caught:
                await service.push("p", push(device, 3, op(3, "erase", "x", "{}")))
            assert (caught.value.status, caught.value.code) == (503, "server.store")
        assert await rows(service, "p") == ["sync", "personalise"]
        assert (await service.push("p", push(device, 3, event(3, "e-3")))).code is None

    def full(self: SqliteLedger) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    told(SqlitePlace(tmp_path), story)
