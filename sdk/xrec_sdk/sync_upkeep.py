"""What a server does with a profile beside answering its devices: retention, the account's own erasure, restores."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace

import xrec_sdk.sync as sync
from xrec_sdk.sync import LIMITS, Hlc, Key, Limits, Op, Push, Receipt, Row
from xrec_sdk.sync_body import check, criteria
from xrec_sdk.sync_held import Device, Ledger, Profile, Writes
from xrec_sdk.sync_merge import digest_change
from xrec_sdk.sync_work import Work

SEQ_JUMP = 1 << 32
"""More seqs than any profile gives between a backup and its restore; 2^53 leaves room for two million restores."""
_NO_PUSH = Push(sync.VERSION, "", 0, 0, 1, ())


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
    return Writes(kept, drop=tuple(row.key for row in gone), removed_devices=ended, forgotten=tuple(forgotten))


def erased(
    profile: Profile,
    rows: Mapping[Key, Row],
    devices: Sequence[Device],
    id: str,
    now_ms: int,
    forgotten: Container[str] = (),
) -> tuple[Receipt, Writes | None]:
    """Erase everything on the account's own word; return the receipt and what is written, None where it was done.

    ``rows`` are every consent row and every erase row, ``devices`` all that there are; ``id`` is a random text of 1 to
    512 characters, ValueError for any other; ``forgotten`` as in ``accept``. Commit before the receipt is given.
    """
    op = Op(0, "erase", id, profile.head.epoch, Hlc(now_ms), 0, "sync", "{}")
    check(op, LIMITS)
    if op.key in rows:
        return receipt(rows[op.key], devices), None
    if id == profile.head.erased_by or id in forgotten:
        return Receipt(id, 0, profile.head.epoch), None
    work = Work(profile, Device(""), _NO_PUSH, dict(rows), now_ms, LIMITS)
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
    work = Work(replace(profile, head=head), Device(""), _NO_PUSH, dict(rows), now_ms, LIMITS)
    if ledger.epoch > was.epoch:
        work.begin_epoch(ledger.epoch, ledger.erased_by)
    for row in ledger.erasures:
        if row.seq > was.seq and row.epoch == ledger.epoch:
            work.erase_events(criteria(row.body))
    newer = [row for row in (*ledger.erasures, *ledger.consents) if row.seq > was.seq]
    work.known |= {row.key: row for row in newer}
    gone = tuple(row for row in work.known.values() if row.kind == "erase" and row.seq <= forgotten)
    for row in gone:
        del work.known[row.key]
    lost = Device(f"lost:{generation}", contact_ms=now_ms)
    writes = replace(work.writes(lost), removed_devices=ledger.removed, forgotten=gone)
    return replace(ledger, generation=generation), writes
