"""Pushes that wait at once, in one transaction: as many statements, and one commit, as one of them alone would take.

Two groups are under way at most: while one waits for the database, the other decides. What a group can't do (a profile
that is not there yet, a transaction that fails) its requests do alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from xrec_sdk.sync import Row
from xrec_sdk.sync_server import Device, Profile
from xrec_sdk.sync_tables import ROW, row_of, row_values

from xrec_server.errors import Refused
from xrec_server.postgres_ledger import PostgresLedger
from xrec_server.postgres_pool import ACQUIRE_S
from xrec_server.postgres_rows import FAILURES, write_rest
from xrec_server.rows import DEVICE, PROFILE, device_of, device_values, profile_of, profile_values
from xrec_server.store import Decided, Loaded, Need, erasures_asked, ledger_lines

MAX_GROUP = 32
MAX_WAITING = 4_096
GROUPS = 2

_FIND = f"SELECT id, number, {PROFILE} FROM profiles WHERE id = ANY($1) ORDER BY id FOR UPDATE"
_DEVICES = f"""SELECT profile, {DEVICE} FROM unnest($1::bigint[], $2::text[]) AS asked (profile, id)
    JOIN devices USING (profile, id)"""
_ROWS = f"""SELECT profile, {ROW} FROM unnest($1::bigint[], $2::text[]) AS asked (profile, kind)
        JOIN rows USING (profile, kind)
    UNION ALL SELECT profile, {ROW} FROM unnest($3::bigint[], $4::text[], $5::text[]) AS asked (profile, kind, id)
        JOIN rows USING (profile, kind, id)"""


def _arrays(*types: str) -> str:
    return ", ".join(f"${place}::{type}[]" for place, type in enumerate(types, 1))


_PUT_PROFILES = f"""UPDATE profiles SET generation = said.generation, base = said.base, epoch = said.epoch,
    erased_by = said.erased_by, seq = said.seq, floor = said.floor, forgotten = said.forgotten, digest = said.digest,
    events = said.events
    FROM unnest({_arrays(*["bigint"] * 4, "text", *["bigint"] * 3, "bytea", "bigint")}) AS said (number, {PROFILE})
    WHERE profiles.number = said.number"""
_PUT_DEVICES = f"""INSERT INTO devices (profile, {DEVICE})
    SELECT * FROM unnest({_arrays("bigint", "text", "bigint", "bigint", "text", *["bigint"] * 4, "text")})
    ON CONFLICT (profile, id) DO UPDATE SET high_water = excluded.high_water, first = excluded.first,
    recent = excluded.recent, passed = excluded.passed, contact_ms = excluded.contact_ms,
    copied_ms = excluded.copied_ms, floor = excluded.floor, letter = excluded.letter"""
_PLACE = ("bigint", "bigint")
_PUT_ROWS = f"""INSERT INTO rows (profile, {ROW})
    SELECT * FROM unnest({_arrays(*_PLACE, "text", "text", *_PLACE, "bigint", "text", *_PLACE, "bigint", "text")})
    ON CONFLICT (profile, kind, id) DO UPDATE SET seq = excluded.seq, epoch = excluded.epoch, hlc_ms = excluded.hlc_ms,
    hlc_counter = excluded.hlc_counter, device = excluded.device, dseq = excluded.dseq, order_ms = excluded.order_ms,
    received_ms = excluded.received_ms, body = excluded.body"""


@dataclass(frozen=True)
class Done:
    """What came of a request: what it was given, and what was decided and written."""

    loaded: Loaded
    decided: Decided[Any]


@dataclass(frozen=True)
class _Job:
    profile: str
    need: Need
    decide: Callable[[Loaded], Decided[Any]]
    future: asyncio.Future[Done | None] = field(compare=False)


def is_plain(need: Need) -> bool:
    """Return whether a request asks for no more than devices and rows by kind and key: a push without an erasure."""
    return need == Need(devices=need.devices, keys=need.keys, kinds=need.kinds) and not (
        erasures_asked(need) or "event" in need.kinds
    )


class Group:
    """Runs requests in groups; used in one event loop."""

    def __init__(self, pool: asyncpg.Pool, ledger: PostgresLedger) -> None:
        self._pool, self._ledger = pool, ledger
        self._jobs: deque[_Job] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def transact(self, profile: str, need: Need, decide: Callable[[Loaded], Decided[Any]]) -> Done | None:
        """Return what was decided, once it is committed; None where the request must be done alone."""
        if len(self._jobs) >= MAX_WAITING:
            raise Refused(503, "server.busy", f"{MAX_WAITING} requests wait for the database", retry_after_s=5)
        job = _Job(profile, need, decide, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        if len(self._tasks) < GROUPS:
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await job.future

    async def close(self) -> None:
        """Finish what was asked."""
        await asyncio.gather(*self._tasks)

    async def _work(self) -> None:
        while self._jobs:
            group, later = dict[str, _Job](), list[_Job]()
            while self._jobs and len(group) < MAX_GROUP:
                job = self._jobs.popleft()
                if job.profile in group:
                    later.append(job)
                else:
                    group[job.profile] = job
            self._jobs.extendleft(reversed(later))
            await self._run(group)

    async def _run(self, group: dict[str, _Job]) -> None:
        outcomes: dict[str, Done | Exception] = {}
        try:
            async with self._pool.acquire(timeout=ACQUIRE_S) as connection, connection.transaction():
                outcomes = await self._transact(connection, group)
        except FAILURES:
            outcomes = {}
        for job in group.values():
            outcome = outcomes.get(job.profile)
            if job.future.done():  # Its request was cancelled; what it wrote stands.
                continue
            if isinstance(outcome, Exception):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

    async def _transact(self, connection: Any, group: dict[str, _Job]) -> dict[str, Done | Exception]:
        # In the order of their ids, so that two groups never wait for one another.
        found = {row[0]: (row[1], profile_of(row[2:])) for row in await connection.fetch(_FIND, list(group))}
        outcomes: dict[str, Done | Exception] = {}
        loaded = await _load(connection, [(*found[id], job.need) for id, job in group.items() if id in found])
        for id, (number, _) in found.items():
            try:
                outcomes[id] = Done(loaded[number], group[id].decide(loaded[number]))
            except Exception as failure:
                outcomes[id] = failure
        written = [(found[id][0], id, done) for id, done in outcomes.items() if isinstance(done, Done)]
        for number, id, done in written:
            if done.decided.writes:
                if lines := ledger_lines(done.loaded, done.decided.writes):
                    await self._ledger.put(id, lines)
                await write_rest(connection, number, done.decided.writes)
        await _put(connection, [(number, done) for number, _, done in written])
        return outcomes


async def _load(connection: Any, asked: Sequence[tuple[int, Profile, Need]]) -> dict[int, Loaded]:
    """Return for each profile's number what its request needs."""
    names = [(number, id) for number, _, need in asked for id in need.devices]
    kinds = [(number, kind) for number, _, need in asked for kind in need.kinds]
    keys = [(number, *key) for number, _, need in asked for key in need.keys]
    devices: dict[int, dict[str, Device]] = {number: {} for number, _, _ in asked}
    rows: dict[int, dict[int, Row]] = {number: {} for number, _, _ in asked}
    for number, *columns in await connection.fetch(_DEVICES, *_columns(names, 2)):
        device = device_of(columns)
        devices[number][device.id] = device
    for number, *columns in await connection.fetch(_ROWS, *_columns(kinds, 2), *_columns(keys, 3)):
        row = row_of(columns)
        rows[number][row.seq] = row
    return {
        number: Loaded(profile, True, devices[number], [rows[number][seq] for seq in sorted(rows[number])])
        for number, profile, _ in asked
    }


async def _put(connection: Any, written: Iterable[tuple[int, Done]]) -> None:
    """Write profiles, devices and rows of all requests, each in one statement."""
    changed = [(number, done.loaded.profile, done.decided.writes) for number, done in written if done.decided.writes]
    profiles = [(number, *profile_values(writes.profile)) for number, was, writes in changed if writes.profile != was]
    devices = [
        (number, *device_values(device))
        for number, _, writes in changed
        for device in (writes.former, writes.device)
        if device
    ]
    rows = [(number, *row_values(row)) for number, _, writes in changed for row in writes.put]
    for statement, lines in ((_PUT_PROFILES, profiles), (_PUT_DEVICES, devices), (_PUT_ROWS, rows)):
        if lines:
            await connection.execute(statement, *_columns(lines, len(lines[0])))


def _columns(lines: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*lines, strict=True)] if lines else [[] for _ in range(width)]
