"""What a device does: every function takes the replica as committed and returns the changes to commit, whole or not.

An answer is given to these functions once, and only by the request that it belongs to; a push and a request for changes
may be under way at once, one of each. Rules:

1. Rows come from pages only; what the device itself said lies over them until the cursor has passed it.
2. ``next_push`` must be committed before the push is sent, a page before the next is asked for.
3. An erasure reaches rows, queue and the acknowledged operations that are kept to be sent again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import xrec_sdk.sync as sync
from xrec_sdk.sync import (
    LIMITS,
    ZERO,
    Changes,
    Dead,
    Head,
    Key,
    Limits,
    Op,
    Page,
    Push,
    PushAnswer,
    Queued,
    Registered,
    Replica,
    Row,
    Standing,
)
from xrec_sdk.sync import SyncError as SyncError
from xrec_sdk.sync_body import check, compact_json, consent_said, criteria, takes
from xrec_sdk.sync_json import write
from xrec_sdk.sync_merge import (
    Consent,
    clamp,
    consent_body,
    consent_of_op,
    consent_of_row,
    digest_change,
    digest_text,
    join_consent,
    order_ms,
    print_of,
    tick,
)

# What a push has beside its operations, at most.
ENVELOPE_BYTES = 3_400


def nop(dseq: int) -> Op:
    """Return what stands in place of an operation that was erased, shed or refused."""
    return Op(dseq, "nop", "", 0, ZERO, 0, "", "")


@dataclass
class _Draft:
    """Changes as they grow: what was read, and what is put over it."""

    replica: Replica
    standing: Standing
    rows: dict[Key, Row | None] = field(default_factory=dict)
    queue: dict[int, Queued | None] = field(default_factory=dict)
    dead: list[Dead] = field(default_factory=list)

    def queued(self) -> list[Queued]:
        """Return the queue as it now is, in order of dseq."""
        merged = {one.op.dseq: one for one in self.replica.queue} | self.queue
        return [one for _, one in sorted(merged.items()) if one is not None]

    def held(self) -> list[Row]:
        """Return the rows as they now are."""
        merged = {**self.replica.rows, **self.rows}
        return [row for row in merged.values() if row is not None]

    def digest(self) -> int:
        """Return the digest of the rows as they now are."""
        was = (self.replica.rows.get(key) for key in self.rows)
        put, dropped = (row for row in self.rows.values() if row), (row for row in was if row)
        return digest_change(self.replica.standing.digest, put, dropped)

    def drop_rows(self, is_gone: Callable[[Row], bool]) -> None:
        """Drop every row of which ``is_gone`` is true."""
        for row in self.held():
            if is_gone(row):
                self.rows[row.key] = None

    def void(self, one: Queued, code: str | None = None) -> None:
        """Make a nop of an operation; with a code, keep it among the dead."""
        if code:
            self.dead.append(Dead(one.op, code))
        self.queue[one.op.dseq] = replace(one, op=nop(one.op.dseq))

    def changes(self) -> Changes:
        """Return all of it."""
        return Changes(
            replace(self.standing, digest=self.digest()) if self.rows else self.standing,
            tuple(row for row in self.rows.values() if row),
            tuple(key for key, row in self.rows.items() if row is None),
            tuple(one for one in self.queue.values() if one),
            tuple(dseq for dseq, one in self.queue.items() if one is None),
            tuple(self.dead),
        )


def opened(replica: Replica, instance: str) -> Changes:
    """Return the changes where this store is now on another installation than the one that wrote it.

    ``instance`` is a random id of the installation, kept where neither backups nor clones take it.
    """
    standing = replica.standing
    is_copy = standing.device != "" and standing.instance not in ("", instance)
    if is_copy:
        standing = replace(standing, copied_through=standing.last_dseq, must_register=True)
    return Changes(replace(standing, instance=instance))


def consent(replica: Replica, purpose: str) -> Consent:
    """Return the register of a purpose as this device knows it, its own unsent word included."""
    said = (one.op for one in replica.queue if one.op.kind == "consent" and one.op.id == purpose)
    register = consent_of_row(replica.rows.get(Key("consent", purpose)))
    for op in said:
        register = join_consent(register, consent_of_op(op, replica.standing.device))
    return register


def record(
    replica: Replica, kind: str, id: str, body: str, purpose: str, now_ms: int, limits: Limits = LIMITS
) -> Changes:
    """Queue an event, a preference, an erasure or another operation; SyncError where consent or the bounds forbid it.

    An event needs consent to its purpose and to sync; an erasure works here at once. A full queue sheds.
    """
    if kind not in ("consent", "erase"):
        for asked in ("sync", purpose):
            if not consent(replica, asked).is_granted:
                raise SyncError(sync.NO_CONSENT, f"there is no consent to {asked!r}; ask the user first")
    draft = _Draft(replica, replica.standing)
    op = _append(draft, Op(0, kind, id, 0, ZERO, 0, purpose, body), now_ms, limits)
    if kind == "erase":
        _erase_here(draft, op)
    _shed(draft, limits)
    return draft.changes()


def consent_change(
    replica: Replica, purpose: str, is_granted: bool, policy: str, now_ms: int, limits: Limits = LIMITS
) -> Changes:
    """Queue a grant, which covers the refusals that this device knows, or a refusal, which voids what is unsent."""
    over = dict(consent(replica, purpose).refused) if is_granted else {}
    draft = _Draft(replica, replica.standing)
    body = compact_json({"granted": is_granted, "over": over, "policy": policy})
    _append(draft, Op(0, "consent", purpose, 0, ZERO, 0, purpose, body), now_ms, limits)
    _void_refused(draft)
    return draft.changes()


def _append(draft: _Draft, said: Op, now_ms: int, limits: Limits) -> Op:
    """Queue what was said under the next number; SyncError where the server would reject it."""
    standing = draft.standing
    op = replace(
        said,
        dseq=standing.last_dseq + 1,
        epoch=standing.epoch,
        hlc=tick(standing.hlc, now_ms),
        contact_ms=standing.contact_ms,
    )
    try:
        check(op, limits)
    except ValueError as cause:
        raise SyncError(sync.BAD_BODY, f"the profile can't hold this {said.kind}: {cause}") from cause
    draft.standing = replace(standing, last_dseq=op.dseq, hlc=op.hlc)
    draft.queue[op.dseq] = Queued(op)
    return op


def _erase_here(draft: _Draft, erase: Op) -> None:
    erasure = criteria(erase.body)
    is_taken = _taken_by_epoch if erasure.is_everything else lambda kind, body: kind == "event" and takes(erasure, body)
    draft.drop_rows(lambda row: is_taken(row.kind, row.body))
    for one in draft.queued():
        if one.op.dseq < erase.dseq and is_taken(one.op.kind, one.op.body):
            draft.void(one)


def _taken_by_epoch(kind: str, body: str) -> bool:
    return kind not in ("consent", "erase", "nop")


def _void_refused(draft: _Draft) -> None:
    """Make nops of unsent operations whose purposes are no longer granted."""
    queue = draft.queued()
    asking = [one for one in queue if one.seq is None and _taken_by_epoch(one.op.kind, one.op.body)]
    if not asking:
        return
    now = Replica(draft.standing, {row.key: row for row in draft.held() if row.kind == "consent"}, queue)
    granted = {purpose: consent(now, purpose).is_granted for purpose in {"sync", *(one.op.purpose for one in asking)}}
    for one in asking:
        if not (granted["sync"] and granted[one.op.purpose]):
            draft.void(one)


def _shed(draft: _Draft, limits: Limits) -> None:
    """Make nops of the oldest views, then of the oldest events, that were never sent, and count them."""
    if draft.standing.last_dseq - draft.standing.acked <= limits.queue_ops:
        return
    full = [one for one in draft.queued() if one.seq is None and one.op.kind != "nop"]
    spare = len(full) - limits.queue_ops
    events = [one for one in full if one.op.kind == "event" and one.op.dseq > draft.standing.sent]
    victims = sorted(events, key=lambda one: (json.loads(one.op.body)["event"] != "view", one.op.dseq))
    for one in victims[: max(0, spare)]:
        draft.void(one)
        draft.standing = replace(draft.standing, shed=draft.standing.shed + 1)


def next_push(replica: Replica, limits: Limits = LIMITS) -> tuple[Push, Changes] | None:
    """Return the next push and the changes to commit before it is sent; None where there is nothing to say."""
    standing = replica.standing
    if standing.must_register or not standing.device or not standing.is_rebuilt:
        return None
    ops: list[Op] = []
    most, size = standing.push_ops or limits.push_ops, ENVELOPE_BYTES
    for one in replica.queue:
        if one.op.dseq <= standing.acked:
            continue
        size += len(write(one.op)) + 1
        if len(ops) == most or (ops and size > limits.push_bytes):
            break
        ops.append(one.op)
        if one.op.kind == "erase":
            break
    if not ops and not standing.must_probe:
        return None
    first = standing.acked + 1
    push = Push(sync.VERSION, standing.device, standing.generation, standing.checked, first, tuple(ops))
    return push, Changes(replace(standing, sent=max(standing.sent, standing.acked + len(ops))))


def pushed(replica: Replica, push: Push, answer: PushAnswer, local_ms: int, limits: Limits = LIMITS) -> Changes:
    """Return the changes that an answer to this push asks for."""
    draft = _Draft(replica, replica.standing)
    if answer.code == sync.UNKNOWN_DEVICE:
        return _forgotten(draft, answer.head)
    if not _heed(draft, answer.head, answer.now_ms, answer.high_water, local_ms):
        return draft.changes()
    if answer.code == sync.COPIED:
        draft.standing = replace(draft.standing, must_register=True)
    elif answer.code == sync.GAP:
        # What is gone must not be said again: it would take what has been said since.
        _obey(draft, answer.head)
        _resend_from(draft, answer.high_water)
    elif answer.code in (sync.TOO_LARGE, sync.MALFORMED):
        _send_less(draft, push)
    elif answer.code is None and push.device == draft.standing.device:
        _acknowledge(draft, push, answer, limits)
    _obey(draft, answer.head)
    return draft.changes()


def _acknowledge(draft: _Draft, push: Push, answer: PushAnswer, limits: Limits) -> None:
    queue = {one.op.dseq: one for one in draft.queued()}
    # A push that is not refused says that the server has all below its first.
    below = ((dseq, answer.head.seq) for dseq in queue if dseq < push.first and queue[dseq].seq is None)
    for dseq, seq in (*below, *answer.acks):
        if dseq in queue:
            draft.queue[dseq] = replace(queue[dseq], seq=seq)
    for dseq, code in answer.rejected:
        if dseq in queue and queue[dseq].seq is None:
            draft.void(replace(queue[dseq], seq=answer.head.seq), None if queue[dseq].op.kind == "nop" else code)
    acked = max(draft.standing.acked, push.first + len(push.ops) - 1)
    more = 2 * draft.standing.push_ops
    draft.standing = replace(
        draft.standing, acked=acked, must_probe=False, push_ops=more if more < limits.push_ops else 0
    )
    for dseq in queue:
        if dseq <= acked - limits.window_ops:
            draft.queue[dseq] = None


def refused(replica: Replica, push: Push) -> Changes:
    """Return the changes where the transport refused this push for its size or shape (status 413 or 400)."""
    draft = _Draft(replica, replica.standing)
    _send_less(draft, push)
    return draft.changes()


def _send_less(draft: _Draft, push: Push) -> None:
    """Halve the next push after one that the server can't take; give up an operation that it can't take alone."""
    if len(push.ops) > 1:
        draft.standing = replace(draft.standing, push_ops=len(push.ops) // 2)
    for one in draft.queued():
        if len(push.ops) == 1 and one.op == push.ops[0] and one.op.kind != "nop":
            draft.void(one, sync.BAD_BODY)


def _resend_from(draft: _Draft, high_water: int) -> None:
    """Take back what a server restored from a backup no longer has; register anew where the window does not reach."""
    kept = draft.queued()
    if any(one.op.dseq == high_water + 1 for one in kept):
        for one in kept:
            if one.op.dseq > high_water:
                draft.queue[one.op.dseq] = replace(one, seq=None)
        draft.standing = replace(draft.standing, acked=high_water, must_probe=False)
    else:
        draft.standing = replace(draft.standing, must_register=True)


def apply_page(replica: Replica, page: Page, local_ms: int) -> Changes:
    """Return the changes that a page asks for; a page that does not begin at the cursor changes no row."""
    draft = _Draft(replica, replica.standing)
    if page.code == sync.UNKNOWN_DEVICE:
        return _forgotten(draft, page.head)
    if not _heed(draft, page.head, page.now_ms, page.high_water, local_ms):
        return draft.changes()
    standing = draft.standing
    if page.code == sync.GENERATION and page.head.generation == replica.standing.generation:
        _start_anew(draft)
    elif page.code is None and page.after == standing.cursor and page.head.generation == standing.generation:
        _take_rows(draft, page)
    _obey(draft, page.head)
    _void_refused(draft)
    if page.code is None and not page.more and draft.standing.cursor == page.next:
        _compare(draft, page)
    return draft.changes()


def _take_rows(draft: _Draft, page: Page) -> None:
    hlc = draft.standing.hlc
    for row in page.rows:
        if _is_retired(row.kind, row.seq, draft.standing.floor, draft.standing.forgotten):
            continue
        hlc = max(hlc, row.hlc)
        if row.kind == "erase":
            _erase_by_row(draft, row)
        draft.rows[row.key] = row
    standing = draft.standing
    draft.standing = replace(standing, hlc=hlc, cursor=page.next, checked=max(standing.checked, page.next))


def _erase_by_row(draft: _Draft, erase: Row) -> None:
    erasure = criteria(erase.body)
    for one in draft.queued():
        if one.op.key == erase.key and one.seq is None:
            draft.queue[one.op.dseq] = replace(one, seq=erase.seq)
    if erasure.is_everything:
        return
    draft.drop_rows(lambda row: row.kind == "event" and row.seq < erase.seq and takes(erasure, row.body))
    if erase.seq <= draft.standing.checked:
        return
    own = _own_erase(draft, erase.id)
    for one in draft.queued():
        is_own_later = own is not None and one.op.dseq > own
        if one.op.kind == "event" and not is_own_later and takes(erasure, one.op.body):
            draft.void(one)


def _heed(draft: _Draft, head: Head, now_ms: int, high_water: int, local_ms: int) -> bool:
    """Note the contact; return False where the answer is older than what the device knows."""
    standing = draft.standing
    if (head.generation, head.epoch) < (standing.generation, standing.epoch):
        return False
    contact_ms = max(standing.contact_ms, now_ms)
    # The server clamps what runs ahead, and a device always wins over itself there.
    hlc = clamp(standing.hlc, contact_ms, LIMITS.ahead_ms)
    standing = replace(standing, hlc=hlc, contact_ms=contact_ms, contact_local_ms=local_ms)
    if high_water > standing.sent:
        standing = replace(standing, must_register=True)
    draft.standing = standing
    if head.generation > standing.generation:
        _start_anew(draft)
        _doubt(draft, head.base if head.generation == standing.generation + 1 else 0)
        draft.standing = replace(draft.standing, generation=head.generation, floor=0, forgotten=0)
    if standing.device and head.forgotten > draft.standing.checked:
        _fall_behind(draft, head)
    return True


def _doubt(draft: _Draft, base: int) -> None:
    """Take back what was acknowledged after the backup; consents and erases outlive a restore in the ledger."""
    for one in draft.queued():
        if one.seq is not None and one.seq > base and one.op.kind not in ("consent", "erase"):
            draft.queue[one.op.dseq] = replace(one, seq=None)


def _start_anew(draft: _Draft) -> None:
    _drop_all(draft)
    draft.standing = replace(draft.standing, cursor=0, is_rebuilt=False, must_probe=True)


def _drop_all(draft: _Draft) -> None:
    """Drop all rows, but know what was refused and erased until the snapshot says it: such rows stand at seq 0."""
    draft.drop_rows(lambda row: row.kind not in ("consent", "erase"))
    for row in draft.held():
        draft.rows[row.key] = replace(row, seq=0)


def _obey(draft: _Draft, head: Head) -> None:
    """Drop what the head says is gone: older epochs, retired events, forgotten erasures."""
    standing = draft.standing
    if head.generation != standing.generation:
        return
    if head.epoch > standing.epoch:
        _purge(draft, head)
    floor, forgotten = max(standing.floor, head.floor), max(standing.forgotten, head.forgotten)
    if (floor, forgotten) == (standing.floor, standing.forgotten):
        return
    draft.drop_rows(lambda row: _is_retired(row.kind, row.seq, floor, forgotten))
    for one in draft.queued():
        if one.seq is not None and _is_retired(one.op.kind, one.seq, floor, forgotten):
            draft.void(one)
    draft.standing = replace(draft.standing, floor=floor, forgotten=forgotten)


def _is_retired(kind: str, seq: int, floor: int, forgotten: int) -> bool:
    return (kind == "event" and seq <= floor) or (kind == "erase" and seq <= forgotten)


def _purge(draft: _Draft, head: Head) -> None:
    draft.drop_rows(lambda row: _taken_by_epoch(row.kind, row.body) and row.epoch < head.epoch)
    # What was said after the device's own erasure stands, unless another erasure or a restore came between.
    is_next = head.epoch == draft.standing.epoch + 1 and head.generation == draft.replica.standing.generation
    own = _own_erase(draft, head.erased_by) if is_next else None
    for one in draft.queued():
        op = one.op
        if own is not None and op.dseq > own:
            draft.queue[op.dseq] = replace(one, op=replace(op, epoch=head.epoch))
        elif op.epoch < head.epoch and _taken_by_epoch(op.kind, op.body):
            draft.void(one)
    draft.standing = replace(draft.standing, epoch=head.epoch)


def _own_erase(draft: _Draft, id: str) -> int | None:
    """Return the dseq of an erasure that this device asked for; None for another's."""
    return next((one.op.dseq for one in draft.queued() if one.op.kind == "erase" and one.op.id == id), None)


def _compare(draft: _Draft, page: Page) -> None:
    """Compare digests at the end of the changes; start anew where they differ, and say so if that did not help.

    Not while an erasure of this device is on its way, nor with a page that is older than what the device obeys.
    """
    draft.drop_rows(lambda row: row.seq == 0)
    standing, head = draft.standing, page.head
    is_current = (head.epoch, head.floor, head.forgotten) == (standing.epoch, standing.floor, standing.forgotten)
    is_erasing = bool(_pending_erasures(draft.queued(), standing.cursor))
    if not is_current or is_erasing:
        draft.standing = replace(standing, is_rebuilt=True)
    elif page.digest == digest_text(draft.digest()):
        draft.standing = replace(standing, is_rebuilt=True, is_diverged=False)
    elif standing.is_rebuilt:
        _start_anew(draft)
    else:
        draft.standing = replace(standing, is_rebuilt=True, is_diverged=True)


def _fall_behind(draft: _Draft, head: Head) -> None:
    """Give up events that were not checked against erasures that nobody remembers, and take a snapshot."""
    for one in draft.queued():
        if one.op.kind == "event":
            # What was acknowledged too: a server that was restored may ask for it again.
            draft.void(one, sync.BEHIND if one.seq is None else None)
    _start_anew(draft)
    draft.standing = replace(draft.standing, checked=head.forgotten)


def _forgotten(draft: _Draft, head: Head) -> Changes:
    """Register anew; give up the profile unless it is the server that lost the device in a restore."""
    if head.generation == draft.standing.generation:
        _give_up(draft)
    draft.standing = replace(draft.standing, must_register=True)
    return draft.changes()


def lease_ended(replica: Replica, local_ms: int, limits: Limits = LIMITS) -> Changes | None:
    """Return the changes that give up the profile where the device has not heard from the server for a lease."""
    standing = replica.standing
    if not standing.device or local_ms - standing.contact_local_ms <= limits.lease_ms:
        return None
    draft = _Draft(replica, replace(standing, contact_local_ms=local_ms))
    _give_up(draft)
    draft.standing = replace(draft.standing, must_register=True)
    return draft.changes()


def _give_up(draft: _Draft) -> None:
    """Drop the profile; what the user decided and the server does not know is still said."""
    _drop_all(draft)
    for one in draft.queued():
        if _taken_by_epoch(one.op.kind, one.op.body):
            draft.void(one, sync.BEHIND if one.seq is None else None)
    draft.standing = replace(draft.standing, cursor=0, is_rebuilt=False)


def registered(replica: Replica, answer: Registered, local_ms: int) -> Changes:
    """Return the changes that take up a new name: what the former one did not deliver is numbered again from 1."""
    standing = replica.standing
    draft = _Draft(replica, standing)
    is_first = standing.device == ""
    _heed(draft, answer.head, answer.now_ms, 0, local_ms)
    if is_first:
        joined = replace(draft.standing, epoch=answer.head.epoch, checked=answer.head.forgotten)
        draft.standing = replace(joined, generation=answer.head.generation)
    _obey(draft, answer.head)
    _renumber(draft, standing, answer)
    return draft.changes()


def _renumber(draft: _Draft, was: Standing, answer: Registered) -> None:
    prints = dict(answer.former_prints)
    kept: list[Op] = []
    for one in draft.queued():
        fate = "delivered" if _is_covered(draft, one.op, was.device) else _fate(one, was, answer, prints)
        if fate == "lost":
            draft.dead.append(Dead(one.op, sync.COPIED))
        elif fate == "mine" and one.op.kind != "nop":
            kept.append(one.op)
        elif one.op.kind == "consent" and (one.seq is None or one.seq > was.cursor):
            _hold(draft, one.op, was.device)
        draft.queue[one.op.dseq] = None
    numbers = {op.dseq: dseq for dseq, op in enumerate(kept, start=1)}
    for dseq, op in enumerate(kept, start=1):
        epoch = draft.standing.epoch if was.device == "" else op.epoch
        body = _renamed(op, was.device, answer.device, numbers) if op.kind == "consent" else op.body
        draft.queue[dseq] = Queued(replace(op, dseq=dseq, epoch=epoch, body=body))
    draft.standing = replace(
        draft.standing,
        device=answer.device,
        copied_through=-1,
        last_dseq=len(kept),
        sent=0,
        acked=0,
        must_register=False,
        must_probe=False,
    )


def _hold(draft: _Draft, op: Op, device: str) -> None:
    """Know a decision that the server has until a page brings it: the row stands at seq 0."""
    row = {**draft.replica.rows, **draft.rows}.get(op.key)
    joined = join_consent(consent_of_row(row), consent_of_op(op, device))
    if joined == consent_of_row(row):
        return
    body = consent_body(joined)
    draft.rows[op.key] = Row(0, "consent", op.id, op.epoch, joined.hlc, joined.device, op.dseq, 0, 0, body)


def _is_covered(draft: _Draft, op: Op, device: str) -> bool:
    """Return whether a later grant is known to have seen this refusal, which must not be said again then."""
    row = {**draft.replica.rows, **draft.rows}.get(op.key) if op.kind == "consent" else None
    return row is not None and consent_of_row(row).over.get(device, 0) >= op.dseq and not consent_said(op.body)[0]


def _fate(one: Queued, was: Standing, answer: Registered, prints: dict[int, str]) -> str:
    """Say whether an operation was "delivered" under the former name, is "mine" to send, or "lost": nobody can tell."""
    dseq, recent_from = one.op.dseq, min(prints, default=answer.former_high_water + 1)
    if one.op.kind == "erase":
        return "mine" if one.seq is None or one.seq > was.checked else "delivered"
    if dseq > answer.former_high_water:
        return "mine"
    if dseq <= was.acked or dseq <= was.copied_through:
        return "delivered"
    if dseq >= recent_from:
        return "delivered" if print_of(one.op) == prints[dseq] or one.op.kind == "nop" else "mine"
    # To say it twice does no harm; an event that may have been retired since must not come again.
    is_safe = one.op.kind in ("consent", "erase") or (dseq > was.sent and was.floor == answer.head.floor)
    return "mine" if is_safe else "lost"


def _renamed(op: Op, old: str, new: str, numbers: dict[int, int]) -> str:
    """Return a consent's body with the device's own refusals under its new name and numbers."""
    body = json.loads(op.body)
    over = body.get("over", {})
    if old in over:
        mine = [fresh for dseq, fresh in numbers.items() if dseq <= over[old]]
        body["over"] = {**over, new: max(mine, default=0)}
    return compact_json(body)


def events(replica: Replica, now_ms: int) -> list[tuple[int, str, str]]:
    """Return (order_ms, id, body) of every event that the user sees on this device, oldest first; ties by id."""
    standing = replica.standing
    seen = {row.id: (row.order_ms, row.id, row.body) for row in replica.rows.values() if row.kind == "event"}
    hidden = [row for row in _pending_erasures(replica.queue, standing.cursor)]
    if hidden:
        seen = {id: event for id, event in seen.items() if not any(_hides(op, event[2]) for op in hidden)}
    for one in replica.queue:
        op = one.op
        if op.kind == "event" and op.id not in seen and (one.seq is None or one.seq > standing.cursor):
            at_ms = json.loads(op.body)["at_ms"]
            seen[op.id] = (order_ms(at_ms, op.contact_ms, now_ms), op.id, op.body)
    return sorted(seen.values())


def _pending_erasures(queue: Iterable[Queued], cursor: int) -> list[Op]:
    pending: Sequence[Queued] = [one for one in queue if one.op.kind == "erase"]
    return [one.op for one in pending if one.seq is None or one.seq > cursor]


def _hides(erase: Op, body: str) -> bool:
    erasure = criteria(erase.body)
    return erasure.is_everything or takes(erasure, body)
