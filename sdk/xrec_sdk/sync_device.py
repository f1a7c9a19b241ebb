"""What a device does: every function takes the replica as committed and returns the changes to commit, whole or not.

An answer is given to these functions once, and only by the request that it belongs to; a push and a request for changes
may be under way at once, one of each. Rules:

1. Rows come from pages only; what the device itself said lies over them until the cursor has passed it.
2. ``next_push`` must be committed before the push is sent, a page before the next is asked for.
3. An erasure reaches rows, queue and the acknowledged operations that are kept to be sent again.
"""

from __future__ import annotations

import json
from dataclasses import replace

import xrec_sdk.sync as sync
from xrec_sdk.sync import (
    LIMITS,
    ZERO,
    Changes,
    Head,
    Limits,
    Op,
    Page,
    Push,
    PushAnswer,
    Queued,
    Registered,
    Replica,
    SyncError,
)
from xrec_sdk.sync_body import check, compact_json, criteria, takes
from xrec_sdk.sync_draft import Draft, consent, is_of_epoch, nop, pending_erasures, void_refused
from xrec_sdk.sync_heed import compare, give_up, heed, obey, start_anew, take_rows
from xrec_sdk.sync_json import write
from xrec_sdk.sync_merge import order_ms, tick
from xrec_sdk.sync_rename import renumber

__all__ = [
    "SyncError",
    "apply_page",
    "consent",
    "consent_change",
    "events",
    "lease_ended",
    "next_push",
    "nop",
    "opened",
    "pushed",
    "record",
    "refused",
    "registered",
]

# What a push has beside its operations, at most.
ENVELOPE_BYTES = 3_400


def opened(replica: Replica, instance: str) -> Changes:
    """Return the changes where this store is now on another installation than the one that wrote it.

    ``instance`` is a random id of the installation, kept where neither backups nor clones take it.
    """
    standing = replica.standing
    is_copy = standing.device != "" and standing.instance not in ("", instance)
    if is_copy:
        standing = replace(standing, copied_through=standing.last_dseq, must_register=True)
    return Changes(replace(standing, instance=instance))


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
    draft = Draft(replica, replica.standing)
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
    draft = Draft(replica, replica.standing)
    body = compact_json({"granted": is_granted, "over": over, "policy": policy})
    _append(draft, Op(0, "consent", purpose, 0, ZERO, 0, purpose, body), now_ms, limits)
    void_refused(draft)
    return draft.changes()


def _append(draft: Draft, said: Op, now_ms: int, limits: Limits) -> Op:
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


def _erase_here(draft: Draft, erase: Op) -> None:
    erasure = criteria(erase.body)

    def is_taken(kind: str, body: str) -> bool:
        return is_of_epoch(kind) if erasure.is_everything else kind == "event" and takes(erasure, body)

    draft.drop_rows(lambda row: is_taken(row.kind, row.body))
    for one in draft.queued():
        if one.op.dseq < erase.dseq and is_taken(one.op.kind, one.op.body):
            draft.void(one)


def _shed(draft: Draft, limits: Limits) -> None:
    """Make nops of the oldest views, then of the oldest events, that were never sent, and count them."""
    if draft.standing.last_dseq - draft.standing.acked <= limits.queue_ops:
        return
    full = [one for one in draft.queued() if one.seq is None and one.op.kind != "nop"]
    spare = len(full) - limits.queue_ops
    events = [one for one in full if one.op.kind == "event" and one.op.dseq > draft.standing.sent]
    victims = sorted(events, key=lambda one: (json.loads(one.op.body).get("event") != "view", one.op.dseq))
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
    draft = Draft(replica, replica.standing)
    if answer.code == sync.UNKNOWN_DEVICE:
        return _forgotten(draft, answer.head)
    if not heed(draft, answer.head, answer.now_ms, answer.high_water, local_ms):
        return draft.changes()
    if answer.code == sync.COPIED:
        draft.standing = replace(draft.standing, must_register=True)
    elif answer.code == sync.GAP:
        # What is gone must not be said again: it would take what has been said since.
        obey(draft, answer.head)
        _resend_from(draft, answer.high_water)
    elif answer.code in (sync.TOO_LARGE, sync.MALFORMED):
        _send_less(draft, push)
    elif answer.code is None and push.device == draft.standing.device:
        _acknowledge(draft, push, answer, limits)
    obey(draft, answer.head)
    return draft.changes()


def _acknowledge(draft: Draft, push: Push, answer: PushAnswer, limits: Limits) -> None:
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
    for one in draft.queued():
        # What no page has brought yet is known from the queue alone.
        is_back = one.seq is not None and one.seq <= draft.standing.cursor
        if is_back and one.op.dseq <= acked - limits.window_ops:
            draft.queue[one.op.dseq] = None


def refused(replica: Replica, push: Push) -> Changes:
    """Return the changes where the server could not read this push (`sync.too_large`, `sync.malformed`).

    Not for a bare status, which may be a proxy's: operation by operation, it would empty the queue.
    """
    draft = Draft(replica, replica.standing)
    _send_less(draft, push)
    return draft.changes()


def _send_less(draft: Draft, push: Push) -> None:
    """Halve the next push after one that the server can't take; give up an operation that it can't take alone."""
    if len(push.ops) > 1:
        draft.standing = replace(draft.standing, push_ops=len(push.ops) // 2)
    for one in draft.queued():
        if len(push.ops) == 1 and one.op == push.ops[0] and one.op.kind != "nop":
            draft.void(one, sync.BAD_BODY)


def _resend_from(draft: Draft, high_water: int) -> None:
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
    draft = Draft(replica, replica.standing)
    if page.code == sync.UNKNOWN_DEVICE:
        return _forgotten(draft, page.head)
    if not heed(draft, page.head, page.now_ms, page.high_water, local_ms):
        return draft.changes()
    standing = draft.standing
    if page.code == sync.GENERATION and page.head.generation == replica.standing.generation:
        start_anew(draft)
    elif page.code is None and page.after == standing.cursor and page.head.generation == standing.generation:
        take_rows(draft, page)
    obey(draft, page.head)
    void_refused(draft)
    if page.code is None and not page.more and draft.standing.cursor == page.next:
        compare(draft, page)
    return draft.changes()


def _forgotten(draft: Draft, head: Head) -> Changes:
    """Register anew; give up the profile unless it is the server that lost the device in a restore."""
    if head.generation == draft.standing.generation:
        give_up(draft)
    draft.standing = replace(draft.standing, must_register=True)
    return draft.changes()


def lease_ended(replica: Replica, local_ms: int, limits: Limits = LIMITS) -> Changes | None:
    """Return the changes that give up the profile where the device has not heard from the server for a lease."""
    standing = replica.standing
    if not standing.device or local_ms - standing.contact_local_ms <= limits.lease_ms:
        return None
    draft = Draft(replica, replace(standing, contact_local_ms=local_ms))
    give_up(draft)
    draft.standing = replace(draft.standing, must_register=True)
    return draft.changes()


def registered(replica: Replica, answer: Registered, local_ms: int) -> Changes:
    """Return the changes that take up a new name: what the former one did not deliver is numbered again from 1."""
    standing = replica.standing
    draft = Draft(replica, standing)
    is_first = standing.device == ""
    heed(draft, answer.head, answer.now_ms, 0, local_ms)
    if is_first:
        joined = replace(draft.standing, epoch=answer.head.epoch, checked=answer.head.forgotten)
        draft.standing = replace(joined, generation=answer.head.generation)
    obey(draft, answer.head)
    renumber(draft, standing, answer)
    return draft.changes()


def events(replica: Replica, now_ms: int) -> list[tuple[int, str, str]]:
    """Return (order_ms, id, body) of every event that the user sees on this device, oldest first; ties by id."""
    standing = replica.standing
    seen = {row.id: (row.order_ms, row.id, row.body) for row in replica.rows.values() if row.kind == "event"}
    hidden = [row for row in pending_erasures(replica.queue, standing.cursor)]
    if hidden:
        seen = {id: event for id, event in seen.items() if not any(hides(op, event[2]) for op in hidden)}
    for one in replica.queue:
        op = one.op
        if op.kind == "event" and op.id not in seen and (one.seq is None or one.seq > standing.cursor):
            at_ms = json.loads(op.body)["at_ms"]
            seen[op.id] = (order_ms(at_ms, op.contact_ms, now_ms), op.id, op.body)
    return sorted(seen.values())


def hides(erase: Op, body: str) -> bool:
    erasure = criteria(erase.body)
    return erasure.is_everything or takes(erasure, body)
