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

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

import xrec_sdk.sync as sync
from xrec_sdk.sync import LIMITS, Head, Key, Limits, Op, Page, Push, PushAnswer, Registered, Row
from xrec_sdk.sync_body import Criteria, criteria, is_number, is_text
from xrec_sdk.sync_held import LASTING, Device, History, Ledger, Profile, Recent, Writes
from xrec_sdk.sync_merge import digest_text, print_of
from xrec_sdk.sync_upkeep import compact, erased, ledger_after, receipt, removed, restored
from xrec_sdk.sync_work import Work

__all__ = [
    "LASTING",
    "Device",
    "History",
    "Ledger",
    "Profile",
    "Recent",
    "Writes",
    "accept",
    "compact",
    "erased",
    "ledger_after",
    "page",
    "receipt",
    "register",
    "removed",
    "restored",
    "wanted",
]


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
    profile: Profile,
    device: Device,
    push: Push,
    known: Mapping[Key, Row],
    now_ms: int,
    limits: Limits = LIMITS,
    forgotten: Container[str] = (),
) -> tuple[PushAnswer, Writes | None]:
    """Return the answer to a push and what must be committed before it is given; None where nothing changes.

    ``forgotten`` are ids of erasures that nobody holds any more, at least those of the push.
    Never raises, whatever the push holds; the transport must have bounded its bytes (``push_bytes``) before decoding.
    """
    code = _refusal(profile.head, device, push, known, limits)
    if code:
        return PushAnswer(profile.head, now_ms, device.high_water, code=code), None
    push = replace(push, checked=min(push.checked, profile.head.seq))
    work = Work(profile, device, push, dict(known), now_ms, limits, forgotten)
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
        acks.append((op.dseq, work.seq))
    high_water = max(device.high_water, push.first + len(push.ops) - 1)
    seen = replace(
        device,
        high_water=high_water,
        first=push.first,
        recent=tuple(recent),
        passed=max(device.passed, push.checked),
        contact_ms=now_ms,
    )
    writes = work.writes(seen)
    answer = PushAnswer(writes.profile.head, now_ms, high_water, tuple(acks), tuple((d, c) for d, c in rejected if c))
    return answer, writes


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
        op.dseq in erasures if op.kind == "nop" else op.dseq in prints and prints[op.dseq] != print_of(op)
        for op in push.ops
    )


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
