"""What a server does with a profile: every function takes values and returns what the store must write.

The caller runs each in one transaction under the profile's row lock: load what the function asks for, call it, write
what it returns (purge, drops, puts, history), and only then answer. Rules, in the order in which they are applied:

1. A push of another generation, with a gap, of a copied device or not checked against forgotten erasures is refused
   whole; nothing of it is applied.
2. An operation at or below the device's high water is acknowledged again and not applied.
3. An operation that can't stand is rejected for good and counts as had: nothing wedges the queue.
4. Each applied operation that changes a row gets the profile's next seq.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import xrec_sdk.sync as sync
from xrec_sdk.sync import LIMITS, Head, Hlc, Key, Limits, Op, Page, Push, PushAnswer, Receipt, Registered, Row
from xrec_sdk.sync_body import Criteria, check, criteria, event_time, is_number, is_text, takes
from xrec_sdk.sync_merge import (
    Consent,
    clamp,
    consent_body,
    consent_of_op,
    consent_of_row,
    digest_change,
    digest_of,
    digest_text,
    join_consent,
    order_ms,
    print_of,
    winner,
)

LASTING = ("consent", "erase")
"""Kinds of rows that outlive an epoch: what the user decided."""


@dataclass(frozen=True)
class Profile:
    """A profile's one row in the store: its head, the digest of its rows, and how many events it holds."""

    head: Head = field(default_factory=Head)
    digest: int = 0
    events: int = 0


@dataclass(frozen=True)
class Recent:
    """What became of an operation that its device may send again: its print, and the code if it was rejected."""

    dseq: int
    print: str
    code: str | None = None


@dataclass(frozen=True)
class Device:
    """A registered device's one row: ``first`` and ``recent`` reach from its last push; ``passed`` is its cursor.

    ``copied_ms`` is when it registered, if it had another name before, or when another registered that had its name;
    ``floor`` is the floor that it then knew. What it says from before then may have come under another name too.
    """

    id: str
    high_water: int = 0
    first: int = 1
    recent: tuple[Recent, ...] = ()
    passed: int = 0
    contact_ms: int = 0
    copied_ms: int = 0
    floor: int = 0


@dataclass(frozen=True)
class History:
    """One line of the append-only history of consent."""

    received_ms: int
    device: str
    dseq: int
    purpose: str
    body: str


@dataclass(frozen=True)
class Writes:
    """What the store writes, in this order.

    The profile, ``device`` and ``former`` (two devices' rows, if not None), the purge (all rows but the kinds of
    LASTING), drops, puts, what is appended to the history, and the devices that go, where they are still there.
    """

    profile: Profile
    device: Device | None = None
    former: Device | None = None
    purge_below_epoch: int | None = None
    drop: tuple[Key, ...] = ()
    put: tuple[Row, ...] = ()
    history: tuple[History, ...] = ()
    removed_devices: tuple[str, ...] = ()


def wanted(push: Push) -> tuple[frozenset[Key], Criteria | None]:
    """Return what ``accept`` must be given of a push: rows by key, and the events that an erasure will take.

    Beside these it is given every consent row and every erase row.
    """
    keys = frozenset(Key(op.kind, op.id) for op in push.ops if op.kind != "nop")
    erasure = push.ops[-1] if push.ops and push.ops[-1].kind == "erase" else None
    try:
        return keys, criteria(erasure.body) if erasure else None
    except ValueError:
        return keys, None


def accept(
    profile: Profile, device: Device, push: Push, known: Mapping[Key, Row], now_ms: int, limits: Limits = LIMITS
) -> tuple[PushAnswer, Writes | None]:
    """Return the answer to a push and what must be committed before it is given; None where nothing changes.

    Never raises, whatever the push holds; the transport must have bounded its bytes (``push_bytes``) before decoding.
    """
    code = _refusal(profile.head, device, push, known, limits)
    if code:
        return PushAnswer(profile.head, now_ms, device.high_water, code=code), None
    push = replace(push, checked=min(push.checked, profile.head.seq))
    work = _Work(profile, device, push, dict(known), now_ms, limits)
    acks: list[tuple[int, int]] = []
    rejected = [(recent.dseq, recent.code) for recent in device.recent if recent.code and recent.dseq >= push.first]
    again = {dseq for dseq, _ in rejected}
    recent = [one for one in device.recent if one.dseq >= push.first]
    for op in push.ops:
        if op.dseq > device.high_water:
            failure = work.apply(op)
            recent.append(Recent(op.dseq, print_of(op), failure))
            if failure:
                rejected.append((op.dseq, failure))
                continue
        elif op.dseq in again:
            continue
        acks.append((op.dseq, work.head.seq))
    high_water = max(device.high_water, push.first + len(push.ops) - 1)
    seen = replace(
        device,
        high_water=high_water,
        first=push.first,
        recent=tuple(recent),
        passed=max(device.passed, push.checked),
        contact_ms=now_ms,
    )
    answer = PushAnswer(work.head, now_ms, high_water, tuple(acks), tuple((d, c) for d, c in rejected if c))
    return answer, work.writes(seen)


def _refusal(head: Head, device: Device, push: Push, known: Mapping[Key, Row], limits: Limits) -> str | None:
    if push.v != sync.VERSION:
        return sync.VERSION_UNKNOWN
    if not _is_sound(push) or not _is_in_order(push):
        return sync.MALFORMED
    if len(push.ops) > limits.push_ops:
        return sync.TOO_LARGE
    if push.generation != head.generation:
        return sync.GENERATION
    if push.first > device.high_water + 1:
        return sync.GAP
    if push.first < device.first or _is_copied(device, push, known):
        return sync.COPIED
    if push.checked < head.forgotten:
        return sync.BEHIND
    return None


def _is_sound(push: Push) -> bool:
    """Return whether each field has its type, and the numbers of the push itself their range."""
    ends = (push.generation, push.checked, push.first, push.first + len(push.ops))
    return is_text(push.device) and all(map(is_number, ends)) and all(map(_is_typed, push.ops))


def _is_typed(op: Op) -> bool:
    texts, numbers = (op.kind, op.id, op.purpose, op.body), (op.dseq, op.epoch, *op.hlc, op.contact_ms)
    return all(isinstance(text, str) for text in texts) and all(type(number) is int for number in numbers)


def _is_in_order(push: Push) -> bool:
    numbers = all(op.dseq == push.first + place for place, op in enumerate(push.ops))
    return push.first >= 1 and numbers and all(op.kind != "erase" for op in push.ops[:-1])


def _is_copied(device: Device, push: Push, known: Mapping[Key, Row]) -> bool:
    prints = {recent.dseq: recent.print for recent in device.recent}
    erasures = {row.dseq for row in known.values() if row.kind == "erase" and row.device == device.id}
    # What was sent may since have become a nop, but never the other way round, and never an erasure that is held.
    return any(
        op.dseq in erasures if op.kind == "nop" else prints.get(op.dseq, print_of(op)) != print_of(op)
        for op in push.ops
    )


class _Work:
    """A push as it is applied, operation by operation, to the rows that are known."""

    def __init__(
        self, profile: Profile, device: Device, push: Push, known: dict[Key, Row], now_ms: int, limits: Limits
    ) -> None:
        self.profile, self.device, self.push, self.known = profile, device, push, known
        self.head, self.now_ms, self.limits = profile.head, now_ms, limits
        self.was = dict(known)
        self.history: list[History] = []
        self.purge: int | None = None

    def apply(self, op: Op) -> str | None:
        """Apply one operation; return the code of its rejection."""
        try:
            check(op, self.limits)
        except ValueError:
            return sync.BAD_BODY
        match op.kind:
            case "nop":
                return None
            case "consent":
                return self._consent(op)
            case "erase":
                return self._erase(op)
            case "event":
                return self._event(op)
        return self._register(op)

    def _consent(self, op: Op) -> str | None:
        said, held = consent_of_op(op, self.device.id), consent_of_row(self.known.get(op.key))
        # Nobody can have seen a refusal that the server has not: it would be refused in vain when it comes.
        over = {name: min(dseq, held.refused[name]) for name, dseq in said.over.items() if name in held.refused}
        hlc = clamp(op.hlc, self.now_ms, self.limits.ahead_ms)
        joined = join_consent(held, replace(said, over=over, hlc=hlc))
        self.put(replace(op, hlc=joined.hlc, body=consent_body(joined)), joined.device)
        self.history.append(History(self.now_ms, self.device.id, op.dseq, op.id, op.body))
        return None

    def _erase(self, op: Op) -> str | None:
        erasure = criteria(op.body)
        if op.key in self.known or op.id == self.head.erased_by:
            return None
        if erasure.is_everything:
            self.begin_epoch(self.head.epoch + 1, op.id)
        else:
            self.erase_events(erasure)
        self.put(op, self.device.id)
        return None

    def erase_events(self, erasure: Criteria) -> None:
        """Delete the events that an erasure takes."""
        for key in [row.key for row in self.known.values() if row.kind == "event" and takes(erasure, row.body)]:
            del self.known[key]

    def begin_epoch(self, epoch: int, erased_by: str) -> None:
        """Erase the whole profile but what the user decided."""
        self.head = replace(self.head, epoch=epoch, erased_by=erased_by, seq=self.head.seq + 1)
        self.known = {key: row for key, row in self.known.items() if key.kind in LASTING}
        self.purge = epoch

    def _event(self, op: Op) -> str | None:
        failure = self._unwelcome(op)
        if failure:
            return failure
        if op.contact_ms < self.device.copied_ms and self.head.floor > self.device.floor and op.key not in self.known:
            return sync.COPIED
        at_ms = event_time(op, self.limits)
        if at_ms < self.now_ms - self.limits.retention_ms:
            return sync.TOO_OLD
        if any(self._is_erased_by(row, op) for row in self.known.values() if row.kind == "erase"):
            return sync.ERASED
        if op.key not in self.known:
            self.put(op, self.device.id, order_ms(at_ms, op.contact_ms, self.now_ms))
        return None

    def _is_erased_by(self, erasure: Row, op: Op) -> bool:
        place = erasure.dseq - self.push.first
        # Below the push all is agreed; within it, the erasure may be that of a copy under the same name and number.
        is_same = not 0 <= place < len(self.push.ops) or self.push.ops[place].id == erasure.id
        is_own = is_same and erasure.device == self.device.id
        is_own_earlier = is_own and erasure.dseq < op.dseq
        if is_own_earlier or erasure.seq <= self.push.checked:
            return False
        erased = criteria(erasure.body)
        return not erased.is_everything and takes(erased, op.body)

    def _register(self, op: Op) -> str | None:
        failure = self._unwelcome(op)
        if failure:
            return failure
        hlc = clamp(op.hlc, self.now_ms, self.limits.ahead_ms)
        held = self.known.get(op.key)
        given = self._row(replace(op, hlc=hlc), self.device.id)
        kept = winner(held, given)
        if kept != held:
            self.put(replace(op, hlc=kept.hlc), self.device.id)
        return None

    def _unwelcome(self, op: Op) -> str | None:
        if op.epoch != self.head.epoch:
            return sync.OLD_EPOCH
        is_granted = all(self._consent_of(purpose).is_granted for purpose in ("sync", op.purpose))
        return None if is_granted else sync.NO_CONSENT

    def _consent_of(self, purpose: str) -> Consent:
        return consent_of_row(self.known.get(Key("consent", purpose)))

    def _row(self, op: Op, device: str, ranked_ms: int = 0) -> Row:
        seq = self.head.seq + 1
        return Row(seq, op.kind, op.id, self.head.epoch, op.hlc, device, op.dseq, ranked_ms, self.now_ms, op.body)

    def put(self, op: Op, device: str, ranked_ms: int = 0) -> None:
        """Give an operation the next place in the profile."""
        row = self._row(op, device, ranked_ms)
        self.head = replace(self.head, seq=row.seq)
        self.known[row.key] = row

    def writes(self, device: Device | None) -> Writes:
        """Return the difference between the rows that were known and those that are now."""
        put = tuple(row for key, row in self.known.items() if self.was.get(key) != row)
        gone = tuple(row for key, row in self.was.items() if self.known.get(key) != row)
        events = self.profile.events + _count_events(put) - _count_events(gone)
        digest = digest_change(self.profile.digest, put, gone)
        if self.purge is not None:
            events, digest = 0, digest_of(self.known.values())
        # A purge takes the others by itself.
        kept = LASTING if self.purge is not None else None
        drop = tuple(row.key for row in gone if row.key not in self.known and (kept is None or row.kind in kept))
        profile = Profile(self.head, digest, events)
        return Writes(profile, device, None, self.purge, drop, put, tuple(self.history))


def _count_events(rows: Iterable[Row]) -> int:
    return sum(row.kind == "event" for row in rows)


def page(
    profile: Profile,
    device: Device,
    after: int,
    generation: int,
    rows: Sequence[Row],
    now_ms: int,
    limits: Limits = LIMITS,
) -> tuple[Page, Writes]:
    """Return a page of changes and the device's row; ``rows`` are the first ``page_rows + 1`` after ``after``, by seq.

    A cursor of another generation, or beyond the profile's, gets no rows and the code that says so.
    """
    head = profile.head
    code = sync.GENERATION if generation != head.generation or after > head.seq else None
    more = len(rows) > limits.page_rows
    given = () if code else tuple(rows[: limits.page_rows])
    reached = given[-1].seq if more and given else head.seq
    passed = device.passed if code else max(device.passed, after)
    seen = replace(device, passed=passed, contact_ms=now_ms)
    digest = "" if more or code else digest_text(profile.digest)
    answer = Page(head, now_ms, device.high_water, after, given, after if code else reached, more, digest, code)
    return answer, Writes(profile, seen)


def register(
    profile: Profile,
    device: str,
    former: Device | None,
    checked: int,
    generation: int,
    now_ms: int,
    *,
    former_name: str = "",
    floor: int = 0,
) -> tuple[Registered, Writes]:
    """Return the answer to a device that asks for a name, ``device`` being a new random one, and what is written.

    ``former`` is the record of the name that it had, None where there is none (any more); ``former_name``, ``checked``,
    ``generation`` and ``floor`` are what it says of itself.
    """
    is_same = generation == profile.head.generation and former is not None
    fresh = Device(device, passed=min(checked, profile.head.seq) if is_same else 0, contact_ms=now_ms)
    if former_name:
        fresh = replace(fresh, copied_ms=now_ms, floor=floor)
    prints = tuple((recent.dseq, recent.print) for recent in former.recent) if former else ()
    high_water = former.high_water if former else 0
    answer = Registered(profile.head, now_ms, device, high_water, prints, former is not None)
    if former:
        former = replace(former, copied_ms=now_ms, floor=former.floor if former.copied_ms else profile.head.floor)
    return answer, Writes(profile, fresh, former)


def compact(
    profile: Profile,
    events: Sequence[Row],
    erasures: Sequence[Row],
    devices: Sequence[Device],
    now_ms: int,
    limits: Limits = LIMITS,
) -> Writes:
    """Return what retention takes: the oldest events by seq, erasures that all have passed, devices whose lease ended.

    ``events`` are the oldest by seq, at least all that arrived before the retention and all beyond ``max_events``;
    ``erasures`` and ``devices`` are all that there are.
    """
    ended_ms = now_ms - limits.lease_ms - limits.lease_grace_ms
    ended = tuple(device.id for device in devices if device.contact_ms < ended_ms)
    spare = max(0, profile.events - limits.max_events)
    retired = [
        row for place, row in enumerate(events) if place < spare or row.received_ms < now_ms - limits.retention_ms
    ]
    head = profile.head
    passed = min((device.passed for device in devices if device.id not in ended), default=head.seq)
    forgotten = [row for row in erasures if row.seq <= passed]
    gone = [*retired, *forgotten]
    head = replace(
        head,
        floor=max([head.floor, *(row.seq for row in retired)]),
        forgotten=max([head.forgotten, *(row.seq for row in forgotten)]),
    )
    kept = Profile(head, digest_change(profile.digest, dropped=gone), profile.events - len(retired))
    return Writes(kept, drop=tuple(row.key for row in gone), removed_devices=ended)


def erased(
    profile: Profile, rows: Mapping[Key, Row], devices: Sequence[Device], id: str, now_ms: int
) -> tuple[Receipt, Writes | None]:
    """Erase everything on the account's own word; return the receipt and what is written, None where it was done.

    ``rows`` are every consent row and every erase row, ``devices`` all that there are; ``id`` is a random text of 1 to
    512 characters, ValueError for any other. Commit before the receipt is given.
    """
    op = Op(0, "erase", id, profile.head.epoch, Hlc(now_ms), 0, "sync", "{}")
    check(op, LIMITS)
    if op.key in rows:
        return receipt(rows[op.key], devices), None
    if id == profile.head.erased_by:
        return Receipt(id, 0, profile.head.epoch), None
    work = _Work(profile, Device(""), _NO_PUSH, dict(rows), now_ms, LIMITS)
    work.begin_epoch(profile.head.epoch + 1, id)
    work.put(op, "")
    return receipt(work.known[op.key], devices), work.writes(None)


def receipt(erasure: Row, devices: Iterable[Device]) -> Receipt:
    """Return the receipt of an erase row as it now is: pending are the devices that have not passed it."""
    pending = tuple(sorted(device.id for device in devices if device.passed < erasure.seq))
    return Receipt(erasure.id, erasure.received_ms, erasure.epoch, pending)


def removed(profile: Profile, device: str) -> Writes:
    """Return the writes that remove a device: whatever it asks next is answered with ``sync.unknown_device``."""
    return Writes(profile, removed_devices=(device,))


@dataclass(frozen=True)
class Ledger:
    """What must be kept apart from the backups, so that a restore brings back nothing that was erased."""

    generation: int = 1
    epoch: int = 1
    erased_by: str = ""
    forgotten: int = 0
    erasures: tuple[Row, ...] = ()
    consents: tuple[Row, ...] = ()
    removed: tuple[str, ...] = ()


def ledger_after(ledger: Ledger, writes: Writes) -> Ledger:
    """Return the ledger that must be written with (or before) ``writes``."""
    head = writes.profile.head
    erasures = {row.key: row for row in (*ledger.erasures, *writes.put) if row.kind == "erase"}
    consents = {row.key: row for row in (*ledger.consents, *writes.put) if row.kind == "consent"}
    return Ledger(
        ledger.generation,
        head.epoch,
        head.erased_by,
        head.forgotten,
        tuple(erasures.values()),
        tuple(consents.values()),
        (*ledger.removed, *writes.removed_devices),
    )


def restored(profile: Profile, rows: Mapping[Key, Row], ledger: Ledger, now_ms: int) -> tuple[Ledger, Writes]:
    """Return the ledger and the writes that make a profile restored from a backup usable: a new generation.

    ``rows`` are all that the backup holds. No seq is given twice: the new ones begin far above all that there were, and
    the ledger's rows keep theirs, so that what a device has checked stays checked. A device that nobody has stands for
    those that the backup does not know, until their lease ends. Write the ledger first.
    """
    was, generation, forgotten = profile.head, ledger.generation + 1, max(profile.head.forgotten, ledger.forgotten)
    head = replace(was, generation=generation, base=was.seq, seq=was.seq + SEQ_JUMP, forgotten=forgotten)
    work = _Work(replace(profile, head=head), Device(""), _NO_PUSH, dict(rows), now_ms, LIMITS)
    if ledger.epoch > was.epoch:
        work.begin_epoch(ledger.epoch, ledger.erased_by)
    for row in ledger.erasures:
        if row.seq > was.seq and row.epoch == ledger.epoch:
            work.erase_events(criteria(row.body))
    newer = [row for row in (*ledger.erasures, *ledger.consents) if row.seq > was.seq]
    work.known |= {row.key: row for row in newer}
    work.known = {key: row for key, row in work.known.items() if row.kind != "erase" or row.seq > forgotten}
    lost = Device(f"lost:{generation}", contact_ms=now_ms)
    return replace(ledger, generation=generation), replace(work.writes(lost), removed_devices=ledger.removed)


SEQ_JUMP = 1 << 32
"""More seqs than any profile gives between a backup and its restore; 2^53 leaves room for two million restores."""
_NO_PUSH = Push(sync.VERSION, "", 0, 0, 1, ())
