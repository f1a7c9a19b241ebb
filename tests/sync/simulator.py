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
from xrec_sdk.sync_merge import consent_of_row, digest_of, digest_text

LIMITS = Limits(
    push_ops=4,
    page_rows=4,
    max_events=4,
    lease_ms=30 * DAY_MS,
    retention_ms=40 * DAY_MS,
    window_ops=40,
    queue_ops=10,
)
START_MS = 1_750_000_000_000
STEPS = 90
ITEMS = ("apple", "bread", "cheese")
KINDS = ("view", "like", "buy")
PURPOSES = ("sync", "personalise")


class Broken(AssertionError):
    """A promise was broken; the message says which."""


@dataclass
class Server:
    """A store in memory: what a transaction writes is there at once or, where persisting fails, not at all."""

    profile: sync_server.Profile = field(default_factory=sync_server.Profile)
    devices: dict[str, sync_server.Device] = field(default_factory=dict)
    rows: dict[Key, Row] = field(default_factory=dict)
    ledger: sync_server.Ledger = field(default_factory=sync_server.Ledger)
    forgotten: frozenset[str] = frozenset()

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
            self.devices.pop(name, None)
        self.forgotten |= {row.id for row in writes.forgotten}

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
    heard: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
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


@dataclass
class Word:
    """What the oracle knows of a preference that was said: when, and the one that its device then saw."""

    fact: Fact
    before: str | None


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
        self.ever_retired: set[str] = set()
        self.withdrawn: set[str] = set()
        self.words: dict[str, Word] = {}
        self.words_erased: set[str] = set()
        self.words_held: set[str] = set()
        self.refusals_had: set[str] = set()
        self.covered: set[str] = set()
        self.twins: set[int] = set()
        self.copied: set[int] = set()
        self.receipts: dict[str, sync.Receipt] = {}
        self.too_old: set[str] = set()
        self.excused: set[str] = set()
        self.backups: list[Server] = []
        self.copies: list[Phone] = []
        self.ids = 0
        # In some histories the transport takes less at a time than devices would send, in some there is less bad luck.
        self.transport_ops = self.random.choice((3, 4, 4, 4))
        spared = self.random.choice(MISHAPS)
        self.names, self.weights = zip(*((name, of) for name, of in ACTIONS.items() if name not in spared), strict=True)
        for _ in range(self.random.choice((3, 3, 4))):
            self.join()

    # What happens.

    def join(self, _: Phone | None = None) -> None:
        phone = Phone(len(self.phones), Replica(Standing(instance=self.fresh()), {}, []), self.skew())
        self.phones.append(phone)
        for purpose in PURPOSES:
            self.decide(phone, purpose, True)
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
        action = self.random.choices(self.names, self.weights)[0]
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
        name, body = self.random.choice("ab"), f'"{self.fresh()}"'
        before = _preference(phone.replica, name)
        if self.say(phone, "preference", name, body):
            fact = Fact(body, phone.name, phone.issued, phone.replica.standing.device == "")
            self.words[body] = Word(fact, before)
            self.counts["preferences"] += 1

    def say_unknown(self, phone: Phone) -> None:
        self.counts["unknown kinds"] += self.say(phone, "mood", "today", f'"{self.fresh()}"')

    def consent(self, phone: Phone) -> None:
        is_granted = self.random.random() < 0.8
        self.decide(phone, self.random.choice(PURPOSES), is_granted)
        self.counts["grants" if is_granted else "refusals"] += 1

    def decide(self, phone: Phone, purpose: str, is_granted: bool) -> None:
        """Grant or refuse; the policy is unique, so that the oracle knows which refusals each grant has seen."""
        word, was = f"{purpose} {self.fresh()}", phone.replica
        phone.commit(sync_device.consent_change(phone.replica, purpose, is_granted, word, self.clock(phone)))
        if is_granted:
            self.covered |= {one for one in phone.heard if one.startswith(purpose)}
        else:
            phone.heard |= {word}
            phone.refused |= {word}
            self.note_withdrawn(phone, was)

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

    def erase_account(self, _: Phone) -> None:
        """Erase from the account itself; now and then the request comes twice."""
        server, id = self.server, self.fresh()
        again = [id for id, one in self.receipts.items() if Key("erase", id) in server.rows]
        if again and self.random.random() < 0.3:
            receipt, writes = self.erase_from_account(self.random.choice(again))
            if writes or replace(receipt, pending=()) != replace(self.receipts[receipt.id], pending=()):
                raise Broken("double: the account's erasure was done twice")
            return
        receipt, writes = self.erase_from_account(id)
        if not writes:
            raise Broken("loss: the account's erasure was not done")
        server.commit(writes)
        self.receipts[id] = receipt
        self.note_erased(id, "{}")
        self.counts["account erasures"] += 1

    def erase_from_account(self, id: str) -> tuple[sync.Receipt, sync_server.Writes | None]:
        server = self.server
        devices = list(server.devices.values())
        return sync_server.erased(server.profile, server.rows, devices, id, self.now_ms, server.forgotten)

    def remove_device(self, phone: Phone) -> None:
        """Remove a device by the account: what it has of the profile is given up when it asks next."""
        name = phone.replica.standing.device
        if name in self.server.devices:
            self.server.commit(sync_server.removed(self.server.profile, name))
            for one in self.phones:
                if one.replica.standing.device == name:
                    self.excuse(one)
            self.counts["devices removed"] += 1

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
        if len(push.ops) > self.transport_ops:
            self.counts["refused by the transport"] += 1
            return push, None
        device = server.devices.get(push.device)
        if device is None:
            return push, sync.PushAnswer(head, self.now_ms, 0, code=sync.UNKNOWN_DEVICE)
        known, forgotten = server.rows, server.forgotten
        answer, writes = sync_server.accept(server.profile, device, push, known, self.now_ms, LIMITS, forgotten)
        if writes:
            applied = [op for op in push.ops if op.dseq > device.high_water]
            self.persist(writes)
            rejected = dict(answer.rejected)
            self.note_applied([op for op in applied if op.dseq not in rejected])
            self.too_old |= {op.id for op in push.ops if rejected.get(op.dseq) == sync.TOO_OLD}
            self.withdrawn |= {op.id for op in push.ops if rejected.get(op.dseq) == sync.NO_CONSENT}
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
            if op.kind == "preference":
                self.words_held.add(op.body)
            if op.kind == "consent" and not json.loads(op.body)["granted"]:
                self.refusals_had.add(json.loads(op.body)["policy"])
            if op.kind == "erase" and op.id not in self.erasures:
                self.note_erased(op.id, op.body)

    def note_erased(self, id: str, body: str) -> None:
        """Take down what an erasure takes: what was said, but not after it by its own device, nor by one to join."""
        self.erasures.add(id)
        for key, fact in self.facts.items():
            is_early = id not in fact.after and (key in self.applied or not fact.is_joining)
            if is_early and _takes(body, fact.body):
                self.erased.add(key)
        if criteria(body).is_everything:
            for key, word in self.words.items():
                if id not in word.fact.after and (key in self.words_held or not word.fact.is_joining):
                    self.words_erased.add(key)
        self.counts["erasures done"] += 1

    def serve_page(self, asked: tuple[str, int, int]) -> tuple[sync.Page, frozenset[str]]:
        name, after, generation = asked
        server = self.server
        device = server.devices.get(name)
        if device is None:
            head = server.profile.head
            return sync.Page(head, self.now_ms, 0, after, (), after, False, "", sync.UNKNOWN_DEVICE), frozenset()
        rows = sorted((row for row in server.rows.values() if row.seq > after), key=lambda row: row.seq)
        some = rows[: LIMITS.page_rows + 1]
        page, writes = sync_server.page(server.profile, device, after, generation, some, self.now_ms, LIMITS)
        server.commit(writes)
        self.counts["pages of several"] += page.more
        return page, self.refusals_in(page)

    def refusals_in(self, page: sync.Page) -> frozenset[str]:
        """Return the refusals that whoever reads this page has seen."""
        purposes = {row.id for row in page.rows if row.kind == "consent"}
        return frozenset(word for word in self.refusals_had if word.split()[0] in purposes)

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
            if answer:
                self.note_acks(push, answer)
                phone.commit(sync_device.pushed(phone.replica, push, answer, local_ms, LIMITS))
            else:
                phone.commit(sync_device.refused(phone.replica, push))
        elif kind == "page":
            page, refusals = content
            phone.commit(sync_device.apply_page(phone.replica, page, local_ms))
            if page.rows and phone.replica.standing.cursor == page.next:
                phone.heard |= refusals
        else:
            self.counts["registered again"] += phone.replica.standing.device != ""
            phone.asks.clear()
            self.excuse(phone)
            self.twins.discard(phone.name)
            phone.commit(sync_device.registered(phone.replica, content, local_ms))
        self.note_withdrawn(phone, was)
        self.counts["started anew"] += was.standing.is_rebuilt and not phone.replica.standing.is_rebuilt

    def note_acks(self, push: sync.Push, answer: sync.PushAnswer) -> None:
        acked = {dseq for dseq, _ in answer.acks}
        self.acked |= {op.id for op in push.ops if op.dseq in acked and op.kind == "event"}

    def note_withdrawn(self, phone: Phone, was: Replica) -> None:
        """What a device takes back for want of consent is no longer asked of it after a restore of the server."""
        gone = {one.op.id for one in was.queue if one.op.kind == "event"}
        gone -= {one.op.id for one in phone.replica.queue}
        if gone and not all(sync_device.consent(phone.replica, purpose).is_granted for purpose in PURPOSES):
            self.withdrawn |= gone

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
        self.ever_retired |= self.retired
        self.counts["retired events"] += sum(key.kind == "event" for key in writes.drop)
        self.counts["leases ended by the server"] += len(writes.removed_devices)
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
        self.copied |= {phone.name, copied.name}
        if not self.mark_copy(copied):
            self.twins |= {phone.name, copied.name}

    def mark_copy(self, phone: Phone) -> bool:
        if self.random.random() < 0.5:
            return False
        phone.commit(sync_device.opened(phone.replica, self.fresh()))
        self.counts["copies that knew it"] += 1
        return True

    def restore_phone(self, phone: Phone) -> None:
        copies = [copy for copy in self.copies if not self.phones[copy.name].is_lost]
        if copies:
            copy = self.random.choice(copies)
            self.excuse(self.phones[copy.name])
            self.copies.remove(copy)
            self.phones[copy.name] = replace(copy, asks={}, hidden=set(copy.hidden))
            self.mark_copy(self.phones[copy.name])
            self.counts["devices restored"] += 1
            self.copied.add(copy.name)

    def back_up_server(self, phone: Phone) -> None:
        server = self.server
        copied = Server(server.profile, dict(server.devices), dict(server.rows))
        copied.forgotten = server.forgotten
        self.backups.append(copied)

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
        if sum(not one.is_lost for one in self.phones) > 3:
            phone.is_lost = True
            self.counts["devices that never returned"] += 1

    # The end.

    def quiesce(self) -> None:
        """Let every device talk over a good network until nothing changes."""
        self.wire.clear()
        for _ in range(60):
            before = [(phone.replica.standing, self.server.profile) for phone in self.alive()]
            for phone in self.alive():
                self.talk(phone, self.ask_page)
                if self.talk(phone, self.ask_push):
                    self.talk(phone, self.ask_page)
            if [(phone.replica.standing, self.server.profile) for phone in self.alive()] == before:
                return
        raise Broken("stuck: devices still had something to say after 60 rounds")

    def talk(self, phone: Phone, ask: Callable[[Phone], None]) -> bool:
        """Ask and hear the answer at once; return whether there was anything to ask."""
        ask(phone)
        asked = bool(self.wire)
        while self.wire:
            self.deliver(self.wire.pop(0))
        return asked

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
        self.check_words()
        for purpose in PURPOSES:
            open_refusals = {word for word in phone.refused - self.covered if word.startswith(purpose)}
            if open_refusals and sync_device.consent(phone.replica, purpose).is_granted:
                raise Broken(f"registers: a device takes {purpose} as granted over its own {open_refusals}")
            open_refusals = {word for word in self.refusals_had - self.covered if word.startswith(purpose)}
            row = self.server.rows.get(Key("consent", purpose))
            if open_refusals and consent_of_row(row).is_granted:
                raise Broken(f"registers: the server takes {purpose} as granted over {open_refusals}")

    def check_words(self) -> None:
        """Of two preferences the one that was said in sight of the other stays; what was erased stays so."""
        for row in self.server.of_kind("preference"):
            if row.body in self.words_erased:
                raise Broken(f"resurrection: the server holds the erased preference {row.body}")
            for body in self.words_held - self.words_erased:
                word = self.words[body]
                # Two copies of a device whose clock runs ahead both say what it said, and each is clamped as it comes.
                is_one = not {word.fact.phone, self.words[row.body].fact.phone} & self.copied
                if word.before == row.body and is_one and not self.counts["servers restored"]:
                    raise Broken(f"registers: {row.body} stays, but {body} was said in its sight")

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
        repairs = ("servers restored", "clones", "devices restored", "devices removed")
        ended = ("leases ended", "leases ended by the server")
        if self.counts["started anew"] and not any(self.counts[cause] for cause in (*repairs, *ended)):
            raise Broken("divergence: a device had to start anew without any cause")
        if any(self.facts[id].body != body for id, body in held.items()):
            raise Broken("divergence: an event is not as it was recorded")
        if held.keys() & self.erased:
            raise Broken(f"resurrection: {held.keys() & self.erased}")
        for id in self.receipts:
            row = self.server.rows.get(Key("erase", id))
            names = {phone.replica.standing.device for phone in self.alive()}
            if row and names & set(sync_server.receipt(row, self.server.devices.values()).pending):
                raise Broken("receipt: a device that has heard of the erasure is said to be pending")
        lost = self.acked - self.erased - self.ever_retired - self.too_old - held.keys()
        if self.counts["servers restored"]:
            lost -= self.excused | self.withdrawn | self.events_of_unsure_phones()
        if lost:
            raise Broken(f"loss: acknowledged {lost} are nowhere")

    def events_of_unsure_phones(self) -> set[str]:
        """Return what only a lost phone could say again, or one of two that go by one name and don't know it."""
        return {id for id, fact in self.facts.items() if self.phones[fact.phone].is_lost or fact.phone in self.twins}

    def check_registers(self) -> None:
        """After ten quiet minutes the next word wins over any clock; of a grant and a refusal at once, the refusal."""
        self.now_ms += 600_000
        one, other = self.random.sample(self.alive(), 2)
        one.skew_ms = 0
        for purpose in PURPOSES:
            self.decide(one, purpose, True)
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
        self.decide(other, "personalise", False)
        self.decide(one, "personalise", True)
        self.quiesce()
        self.check()
        for phone in self.alive():
            if sync_device.consent(phone.replica, "personalise").is_granted:
                raise Broken("registers: a grant won over a refusal that it did not know")


def _preference(replica: Replica, name: str) -> str | None:
    """Return the value that a device shows: its own word on the way, or the row."""
    own = [one.op.body for one in replica.queue if one.op.key == Key("preference", name) and one.seq is None]
    row = replica.rows.get(Key("preference", name))
    return own[-1] if own else row.body if row else None


def _takes(erase: str, body: str) -> bool:
    return criteria(erase).is_everything or takes(criteria(erase), body)


ACTIONS = {
    **{"record": 22, "prefer": 4, "say_unknown": 1, "consent": 2, "erase": 1, "erase_some": 3},
    **{"ask_push": 22, "ask_page": 26, "carry": 90, "crash": 3, "sleep": 1, "compact": 8},
    **{"copy_phone": 3, "restore_phone": 1, "back_up_server": 1, "restore_server": 1, "lose_phone": 0.5, "join": 1},
    **{"erase_account": 0.5, "remove_device": 0.7},
}
# What does not happen in a history, one of these for each.
COPIES, RESTORES = ("copy_phone", "restore_phone"), ("back_up_server", "restore_server")
MISHAPS = ((), (), COPIES, RESTORES, (*COPIES, *RESTORES, "lose_phone", "remove_device"))


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
