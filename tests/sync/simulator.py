"""Simulate whole histories of a profile: devices, one server, a bad network and bad luck; check each when it is quiet.

    python tests/sync/simulator.py --histories 20000 --seed 1

The real rules run; only disk, network and clocks are simulated, all from one seed for each history.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from xrec_sdk import sync, sync_device, sync_server
from xrec_sdk.sync import DAY_MS, Changes, Key, Limits, Op, Replica, Row, Standing
from xrec_sdk.sync_body import criteria, takes
from xrec_sdk.sync_merge import digest_of, digest_text

LIMITS = Limits(push_ops=4, page_rows=4, max_events=5, retention_ms=40 * DAY_MS, window_ops=40, queue_ops=10)
START_MS = 1_750_000_000_000
STEPS = 90
ITEMS = ("apple", "bread", "cheese")
KINDS = ("view", "like", "buy")


class Broken(AssertionError):
    """A promise was broken; the message says which."""


@dataclass
class Server:
    """A store in memory: what a transaction writes is there at once or, where persisting fails, not at all."""

    profile: sync_server.Profile = field(default_factory=sync_server.Profile)
    devices: dict[str, sync_server.Device] = field(default_factory=dict)
    rows: dict[Key, Row] = field(default_factory=dict)
    ledger: sync_server.Ledger = field(default_factory=sync_server.Ledger)

    def commit(self, writes: sync_server.Writes) -> None:
        self.ledger = sync_server.ledger_after(self.ledger, writes)
        self.profile = writes.profile
        if writes.purge_below_epoch is not None:
            self.rows = {key: row for key, row in self.rows.items() if key.kind in sync_server.LASTING}
        for key in writes.drop:
            del self.rows[key]
        self.rows |= {row.key: row for row in writes.put}
        for device in (writes.former, writes.device):
            if device:
                self.devices[device.id] = device
        for name in writes.removed_devices:
            del self.devices[name]

    def of_kind(self, kind: str) -> list[Row]:
        return sorted((row for row in self.rows.values() if row.kind == kind), key=lambda row: row.seq)


@dataclass
class Phone:
    """A device: what it has committed, its clock's error, the requests that it waits for."""

    name: int
    replica: Replica
    skew_ms: int
    asks: dict[str, int] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    issued: frozenset[str] = frozenset()
    is_lost: bool = False

    def commit(self, changes: Changes) -> None:
        rows = {key: row for key, row in self.replica.rows.items() if key not in changes.drop_rows}
        rows |= {row.key: row for row in changes.put_rows}
        queue = {one.op.dseq: one for one in self.replica.queue if one.op.dseq not in changes.drop_queue}
        queue |= {one.op.dseq: one for one in changes.put_queue}
        self.replica = Replica(changes.standing, rows, [one for _, one in sorted(queue.items())])


@dataclass
class Fact:
    """What the oracle knows of an event: who recorded it, and after which of its own erasures."""

    body: str
    phone: int
    after: frozenset[str]
    is_joining: bool


class World:
    """One history from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_ms = START_MS
        self.step = 0
        self.server = Server()
        self.phones: list[Phone] = []
        self.wire: list[tuple[str, int, int, Any]] = []
        self.counts: Counter[str] = Counter()
        self.facts: dict[str, Fact] = {}
        self.acked: set[str] = set()
        self.applied: set[str] = set()
        self.erasures: set[str] = set()
        self.erased: set[str] = set()
        self.retired: set[str] = set()
        self.too_old: set[str] = set()
        self.excused: set[str] = set()
        self.backups: list[Server] = []
        self.copies: list[Phone] = []
        self.ids = 0
        for _ in range(3):
            self.join()

    # What happens.

    def join(self, _: Phone | None = None) -> None:
        phone = Phone(len(self.phones), Replica(Standing(instance=self.fresh()), {}, []), self.skew())
        self.phones.append(phone)
        for purpose in ("sync", "personalise"):
            phone.commit(sync_device.consent_change(phone.replica, purpose, True, "1", self.clock(phone)))
        self.counts["joined"] += 1

    def skew(self) -> int:
        return self.random.choice((0, 0, 0, -7_000, 60_000, -3 * DAY_MS, 400 * DAY_MS))

    def fresh(self) -> str:
        self.ids += 1
        return f"{self.ids:06d}"

    def clock(self, phone: Phone) -> int:
        return self.now_ms + phone.skew_ms

    def act(self) -> None:
        self.step += 1
        self.now_ms += self.random.choice((10, 900, 40_000, 400_000))
        alive = [phone for phone in self.phones if not phone.is_lost]
        phone = self.random.choice(alive)
        names, weights = zip(*ACTIONS.items(), strict=True)
        action = self.random.choices(names, weights)[0]
        getattr(self, action)(phone)
        self.check_step(phone)

    def record(self, phone: Phone) -> None:
        id = self.fresh()
        event, item = self.random.choice(KINDS), self.random.choice(ITEMS)
        body = json.dumps({"id": id, "at_ms": self.clock(phone), "event": event, "item_id": item, "device": "phone"})
        if self.say(phone, "event", id, body):
            self.facts[id] = Fact(body, phone.name, phone.issued, phone.replica.standing.device == "")
            self.counts["events"] += 1

    def say(self, phone: Phone, kind: str, id: str, body: str) -> bool:
        was = phone.replica.standing.shed
        try:
            phone.commit(sync_device.record(phone.replica, kind, id, body, "personalise", self.clock(phone), LIMITS))
        except sync_device.SyncError:
            self.counts["not recorded, no consent"] += 1
            return False
        self.counts["shed"] += phone.replica.standing.shed - was
        return True

    def prefer(self, phone: Phone) -> None:
        self.counts["preferences"] += self.say(phone, "preference", self.random.choice("ab"), f'"{self.fresh()}"')

    def say_unknown(self, phone: Phone) -> None:
        self.counts["unknown kinds"] += self.say(phone, "mood", "today", f'"{self.fresh()}"')

    def consent(self, phone: Phone) -> None:
        is_granted = self.random.random() < 0.8
        purpose = self.random.choice(("sync", "personalise"))
        phone.commit(sync_device.consent_change(phone.replica, purpose, is_granted, "2", self.clock(phone)))
        self.counts["grants" if is_granted else "refusals"] += 1

    def erase(self, phone: Phone) -> None:
        self.say_erase(phone, "{}")

    def erase_some(self, phone: Phone) -> None:
        times = {"from_ms": self.clock(phone) - DAY_MS, "to_ms": self.clock(phone) - 1000}
        wanted = ({"item_id": self.random.choice(ITEMS)}, {"event": self.random.choice(KINDS)}, times)
        self.say_erase(phone, json.dumps(self.random.choice(wanted)))

    def say_erase(self, phone: Phone, body: str) -> None:
        id = self.fresh()
        seen = {(key, text) for _, key, text in sync_device.events(phone.replica, self.now_ms)}
        self.say(phone, "erase", id, body)
        phone.hidden |= {key for key, text in seen if _takes(body, text)}
        phone.issued |= {id}
        self.counts["erasures asked"] += 1

    # The network.

    def ask_push(self, phone: Phone) -> None:
        pushing = sync_device.next_push(phone.replica, LIMITS)
        if pushing:
            phone.commit(pushing[1])
            self.send(phone, "push", pushing[0])

    def ask_page(self, phone: Phone) -> None:
        standing = phone.replica.standing
        if standing.must_register or not standing.device:
            self.send(phone, "register", (standing.device, standing.checked, standing.generation, standing.floor))
        else:
            self.send(phone, "page", (standing.device, standing.cursor, standing.generation))

    def send(self, phone: Phone, kind: str, message: Any) -> None:
        self.ids += 1
        phone.asks[kind] = self.ids
        self.wire.append((kind, phone.name, self.ids, message))

    def carry(self, phone: Phone) -> None:
        """Deliver any message, early or late, once, twice or never."""
        if not self.wire:
            return
        message = self.wire.pop(self.random.randrange(len(self.wire)))
        luck = self.random.random()
        if luck < 0.12:
            self.counts["messages lost"] += 1
            return
        if luck < 0.24:
            self.counts["messages twice"] += 1
            self.wire.append(message)
        self.deliver(message)

    def deliver(self, message: tuple[str, int, int, Any]) -> None:
        kind, name, number, content = message
        if kind.startswith("re:"):
            self.hear(self.phones[name], kind[3:], number, content)
        else:
            self.wire.append((f"re:{kind}", name, number, getattr(self, f"serve_{kind}")(content)))

    def serve_push(self, push: sync.Push) -> Any:
        server, head = self.server, self.server.profile.head
        device = server.devices.get(push.device)
        if device is None:
            return push, sync.PushAnswer(head, self.now_ms, 0, code=sync.UNKNOWN_DEVICE)
        answer, writes = sync_server.accept(server.profile, device, push, server.rows, self.now_ms, LIMITS)
        if writes:
            applied = [op for op in push.ops if op.dseq > device.high_water]
            self.persist(writes)
            rejected = dict(answer.rejected)
            self.note_applied([op for op in applied if op.dseq not in rejected])
            self.too_old |= {op.id for op in push.ops if rejected.get(op.dseq) == sync.TOO_OLD}
            self.counts.update(f"rejected {code}" for dseq, code in answer.rejected)
        else:
            self.counts[f"refused {answer.code}"] += 1
        return push, answer

    def persist(self, writes: sync_server.Writes) -> None:
        self.server.commit(writes)

    def note_applied(self, ops: list[Op]) -> None:
        for op in ops:
            if op.kind == "event":
                self.applied.add(op.id)
            if op.kind == "erase" and op.id not in self.erasures:
                self.erasures.add(op.id)
                late = {id for id, fact in self.facts.items() if op.id in fact.after}
                taken = {id for id, fact in self.facts.items() if _takes(op.body, fact.body)}
                taken -= {id for id in taken if self.facts[id].is_joining and id not in self.applied}
                self.erased |= taken - late
                self.counts["erasures done"] += 1

    def serve_page(self, asked: tuple[str, int, int]) -> sync.Page:
        name, after, generation = asked
        server = self.server
        device = server.devices.get(name)
        if device is None:
            head = server.profile.head
            return sync.Page(head, self.now_ms, 0, after, (), after, False, "", sync.UNKNOWN_DEVICE)
        rows = sorted((row for row in server.rows.values() if row.seq > after), key=lambda row: row.seq)
        some = rows[: LIMITS.page_rows + 1]
        page, writes = sync_server.page(server.profile, device, after, generation, some, self.now_ms, LIMITS)
        server.commit(writes)
        self.counts["pages of several"] += page.more
        return page

    def serve_register(self, asked: tuple[str, int, int, int]) -> sync.Registered:
        former = self.server.devices.get(asked[0])
        name, checked, generation, floor = asked
        profile, fresh = self.server.profile, "d" + self.fresh()
        answer, writes = sync_server.register(
            profile, fresh, former, checked, generation, self.now_ms, former_name=name, floor=floor
        )
        self.server.commit(writes)
        return answer

    def hear(self, phone: Phone, kind: str, number: int, content: Any) -> None:
        if phone.is_lost or phone.asks.get(kind) != number:
            return
        del phone.asks[kind]
        local_ms, was = self.clock(phone), phone.replica
        if kind == "push":
            push, answer = content
            self.note_acks(push, answer)
            phone.commit(sync_device.pushed(phone.replica, push, answer, local_ms, LIMITS))
        elif kind == "page":
            phone.commit(sync_device.apply_page(phone.replica, content, local_ms))
        else:
            self.counts["registered again"] += phone.replica.standing.device != ""
            phone.asks.clear()
            self.excuse(phone)
            phone.commit(sync_device.registered(phone.replica, content, local_ms))
        self.counts["started anew"] += was.standing.is_rebuilt and not phone.replica.standing.is_rebuilt

    def note_acks(self, push: sync.Push, answer: sync.PushAnswer) -> None:
        acked = {dseq for dseq, _ in answer.acks}
        self.acked |= {op.id for op in push.ops if op.dseq in acked and op.kind == "event"}

    def excuse(self, phone: Phone) -> None:
        """What only this device could send again is no longer asked of it after a restore of the server."""
        self.excused |= {id for id, fact in self.facts.items() if fact.phone == phone.name}

    # Bad luck.

    def crash(self, phone: Phone) -> None:
        phone.asks.clear()
        self.counts["crashes"] += 1

    def sleep(self, phone: Phone) -> None:
        self.now_ms += self.random.choice((1, 20, 50)) * DAY_MS // 2
        for one in self.phones:
            ended = sync_device.lease_ended(one.replica, self.clock(one), LIMITS)
            if ended and not one.is_lost:
                self.counts["leases ended"] += 1
                self.excuse(one)
                one.asks.clear()
                one.commit(ended)

    def compact(self, phone: Phone) -> None:
        server = self.server
        events, erasures = server.of_kind("event"), server.of_kind("erase")
        devices = list(server.devices.values())
        writes = sync_server.compact(server.profile, events, erasures, devices, self.now_ms, LIMITS)
        self.retired |= {key.id for key in writes.drop if key.kind == "event"}
        self.counts["retired events"] += sum(key.kind == "event" for key in writes.drop)
        self.counts["forgotten erasures"] += sum(key.kind == "erase" for key in writes.drop)
        server.commit(writes)

    def copy_phone(self, phone: Phone) -> None:
        if not phone.replica.standing.device:
            return
        copied = replace(phone, asks={}, hidden=set(phone.hidden))
        if self.random.random() < 0.5:
            self.copies.append(copied)
            return
        copied.name = len(self.phones)
        self.phones.append(copied)
        self.excuse(phone)
        self.counts["clones"] += 1
        self.mark_copy(copied)

    def mark_copy(self, phone: Phone) -> None:
        if self.random.random() < 0.5:
            phone.commit(sync_device.opened(phone.replica, self.fresh()))
            self.counts["copies that knew it"] += 1

    def restore_phone(self, phone: Phone) -> None:
        copies = [copy for copy in self.copies if not self.phones[copy.name].is_lost]
        if copies:
            copy = self.random.choice(copies)
            self.excuse(self.phones[copy.name])
            self.copies.remove(copy)
            self.phones[copy.name] = replace(copy, asks={}, hidden=set(copy.hidden))
            self.mark_copy(self.phones[copy.name])
            self.counts["devices restored"] += 1

    def back_up_server(self, phone: Phone) -> None:
        server = self.server
        self.backups.append(Server(server.profile, dict(server.devices), dict(server.rows)))

    def restore_server(self, phone: Phone) -> None:
        if not self.backups:
            return
        backup, ledger = self.backups.pop(), self.server.ledger
        self.backups.clear()
        ledger, writes = sync_server.restored(backup.profile, backup.rows, ledger, self.now_ms)
        backup.ledger = ledger
        backup.commit(writes)
        self.server = backup
        self.retired = set()
        for one in self.phones:
            if one.is_lost or one.replica.standing.must_register:
                self.excuse(one)
        self.counts["servers restored"] += 1

    def lose_phone(self, phone: Phone) -> None:
        if sum(not one.is_lost for one in self.phones) > 2:
            phone.is_lost = True
            self.counts["devices that never returned"] += 1

    # The end.

    def quiesce(self) -> None:
        """Let every device talk over a good network until nothing changes."""
        self.wire.clear()
        for _ in range(60):
            before = [(phone.replica.standing, self.server.profile) for phone in self.alive()]
            for phone in self.alive():
                for ask in (self.ask_page, self.ask_push, self.ask_page):
                    ask(phone)
                    while self.wire:
                        self.deliver(self.wire.pop(0))
            if [(phone.replica.standing, self.server.profile) for phone in self.alive()] == before:
                return
            self.now_ms += 0
        raise Broken("stuck: devices still had something to say after 60 rounds")

    def alive(self) -> list[Phone]:
        return [phone for phone in self.phones if not phone.is_lost]

    def check_step(self, phone: Phone) -> None:
        held = {row.id for row in self.server.of_kind("event")}
        if held & self.erased:
            raise Broken(f"resurrection: the server holds erased {held & self.erased}")
        if held & self.retired:
            raise Broken(f"double count: the server holds retired {held & self.retired}")
        seen = {id for _, id, _ in sync_device.events(phone.replica, self.now_ms)}
        if seen & phone.hidden:
            raise Broken(f"resurrection: a device shows {seen & phone.hidden} that was erased on it")

    def check(self) -> None:
        digest = digest_text(digest_of(self.server.rows.values()))
        if digest != digest_text(self.server.profile.digest):
            raise Broken("divergence: the server's digest is not that of its rows")
        held = {row.id: row.body for row in self.server.of_kind("event")}
        for phone in self.alive():
            standing = phone.replica.standing
            if standing.is_diverged or digest_text(digest_of(phone.replica.rows.values())) != digest:
                raise Broken(f"divergence: device {phone.name} differs from the server")
            seen = {id: body for _, id, body in sync_device.events(phone.replica, self.now_ms)}
            if seen != held:
                raise Broken(f"divergence: device {phone.name} shows {seen.keys() ^ held.keys()} otherwise")
        repairs = ("servers restored", "clones", "devices restored", "leases ended")
        if self.counts["started anew"] and not any(self.counts[repair] for repair in repairs):
            raise Broken("divergence: a device had to start anew without any cause")
        if any(self.facts[id].body != body for id, body in held.items()):
            raise Broken("divergence: an event is not as it was recorded")
        if held.keys() & self.erased:
            raise Broken(f"resurrection: {held.keys() & self.erased}")
        lost = self.acked - self.erased - self.retired - self.too_old - held.keys()
        if self.counts["servers restored"]:
            lost -= self.excused | self.lost_phones_events()
        if self.counts["servers restored"] and self.counts["refusals"] + self.counts["retired events"]:
            lost = set()
        if lost:
            raise Broken(f"loss: acknowledged {lost} are nowhere")

    def lost_phones_events(self) -> set[str]:
        return {id for id, fact in self.facts.items() if self.phones[fact.phone].is_lost}

    def check_registers(self) -> None:
        """After ten quiet minutes the next word wins over any clock; of a grant and a refusal at once, the refusal."""
        self.now_ms += 600_000
        one, other = self.random.sample(self.alive(), 2)
        one.skew_ms = 0
        for purpose in ("sync", "personalise"):
            one.commit(sync_device.consent_change(one.replica, purpose, True, "3", self.clock(one)))
        self.quiesce()
        self.say(one, "preference", "last", '"mine"')
        self.quiesce()
        self.now_ms += 600_000
        self.say(other, "preference", "last", '"its"')
        self.quiesce()
        self.now_ms += 600_000
        self.say(one, "preference", "last", '"mine again"')
        self.quiesce()
        if any(phone.replica.rows[Key("preference", "last")].body != '"mine again"' for phone in self.alive()):
            raise Broken("registers: a clock that runs ahead wins over a later word")
        other.commit(sync_device.consent_change(other.replica, "personalise", False, "4", self.clock(other)))
        one.commit(sync_device.consent_change(one.replica, "personalise", True, "4", self.clock(one)))
        self.quiesce()
        self.check()
        for phone in self.alive():
            if sync_device.consent(phone.replica, "personalise").is_granted:
                raise Broken("registers: a grant won over a refusal that it did not know")


def _takes(erase: str, body: str) -> bool:
    return criteria(erase).is_everything or takes(criteria(erase), body)


ACTIONS = {
    **{"record": 22, "prefer": 4, "say_unknown": 1, "consent": 2, "erase": 1, "erase_some": 3},
    **{"ask_push": 22, "ask_page": 26, "carry": 90, "crash": 3, "sleep": 1, "compact": 6},
    **{"copy_phone": 3, "restore_phone": 1, "back_up_server": 1, "restore_server": 1, "lose_phone": 0.5, "join": 1},
}


def history(seed: int, make: Callable[[int], World] = World) -> Counter[str]:
    """Run one history to its end and return what happened; Broken where a promise was."""
    world = make(seed)
    for _ in range(world.random.choice((STEPS, 2 * STEPS, 4 * STEPS))):
        world.act()
    world.quiesce()
    world.check()
    world.check_registers()
    return world.counts


def chunk(seeds: range) -> Counter[str]:
    """Run some histories and return what happened in all."""
    total: Counter[str] = Counter()
    for seed in seeds:
        try:
            total += history(seed)
        except Exception as cause:
            raise Broken(f"seed {seed}: {cause}") from cause
    return total


def main() -> None:
    """Run many histories on all cores, with progress, and say how much really happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    total: Counter[str] = Counter()
    seeds = range(given.seed, given.seed + given.histories)
    parts = [seeds[at : at + 50] for at in range(0, len(seeds), 50)]
    began = time.monotonic()
    with ProcessPoolExecutor() as pool:
        for done, counts in enumerate(pool.map(chunk, parts), start=1):
            total += counts
            took = time.monotonic() - began
            bar = "#" * (30 * done // len(parts))
            left = took / done * (len(parts) - done)
            print(f"\r[{bar:30}] {done}/{len(parts)} x 50 histories, {left:4.0f} s left", end="", flush=True)
    print(
        f"\n{given.histories} histories from seed {given.seed} in {time.monotonic() - began:.0f} s: no promise broken"
    )
    for name, count in sorted(total.items()):
        print(f"{count:9,} {name}")


if __name__ == "__main__":
    main()
