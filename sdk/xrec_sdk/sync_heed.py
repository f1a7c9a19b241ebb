"""What an answer of the server makes of a device: its head obeyed, its rows taken, its digest compared.

An older answer than what the device knows changes nothing. Whatever has been missed for good ends in a snapshot from 0.
"""

from __future__ import annotations

from dataclasses import replace

import xrec_sdk.sync as sync
from xrec_sdk.sync import LIMITS, Head, Page, Row
from xrec_sdk.sync_body import criteria, takes
from xrec_sdk.sync_draft import Draft, is_of_epoch, own_erase, pending_erasures
from xrec_sdk.sync_merge import clamp, digest_text


def heed(draft: Draft, head: Head, now_ms: int, high_water: int, local_ms: int) -> bool:
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
        start_anew(draft)
        _doubt(draft, head.base if head.generation == standing.generation + 1 else 0)
        draft.standing = replace(draft.standing, generation=head.generation, floor=0, forgotten=0)
    if standing.device and head.forgotten > draft.standing.checked:
        _fall_behind(draft, head)
    return True


def _doubt(draft: Draft, base: int) -> None:
    """Take back what was acknowledged after the backup; consents and erases outlive a restore in the ledger."""
    for one in draft.queued():
        if one.seq is not None and one.seq > base and one.op.kind not in ("consent", "erase"):
            draft.queue[one.op.dseq] = replace(one, seq=None)


def _fall_behind(draft: Draft, head: Head) -> None:
    """Give up events that were not checked against erasures that nobody remembers, and take a snapshot."""
    for one in draft.queued():
        if one.op.kind == "event":
            # What was acknowledged too: a server that was restored may ask for it again.
            draft.void(one, sync.BEHIND if one.seq is None else None)
    start_anew(draft)
    draft.standing = replace(draft.standing, checked=head.forgotten)


def start_anew(draft: Draft) -> None:
    """Drop the rows and take a snapshot from 0; a push must then say again where the queue stands."""
    _drop_all(draft)
    draft.standing = replace(draft.standing, cursor=0, is_rebuilt=False, must_probe=True)


def _drop_all(draft: Draft) -> None:
    """Drop all rows, but know what was refused and erased until the snapshot says it: such rows stand at seq 0."""
    draft.drop_rows(lambda row: row.kind not in ("consent", "erase"))
    for row in draft.held():
        draft.rows[row.key] = replace(row, seq=0)


def give_up(draft: Draft) -> None:
    """Drop the profile; what the user decided and the server does not know is still said."""
    _drop_all(draft)
    for one in draft.queued():
        if is_of_epoch(one.op.kind):
            draft.void(one, sync.BEHIND if one.seq is None else None)
    draft.standing = replace(draft.standing, cursor=0, is_rebuilt=False)


def obey(draft: Draft, head: Head) -> None:
    """Drop what the head says is gone: older epochs, retired events, forgotten erasures."""
    standing = draft.standing
    if head.generation != standing.generation:
        return
    if head.epoch > standing.epoch:
        _purge(draft, head)
    floor, forgotten = max(standing.floor, head.floor), max(standing.forgotten, head.forgotten)
    if (floor, forgotten) == (standing.floor, standing.forgotten):
        return
    draft.drop_rows(lambda row: is_retired(row.kind, row.seq, floor, forgotten))
    for one in draft.queued():
        if one.seq is not None and is_retired(one.op.kind, one.seq, floor, forgotten):
            draft.void(one)
    draft.standing = replace(draft.standing, floor=floor, forgotten=forgotten)


def is_retired(kind: str, seq: int, floor: int, forgotten: int) -> bool:
    """Return whether nobody holds such a row any more."""
    return (kind == "event" and seq <= floor) or (kind == "erase" and seq <= forgotten)


def _purge(draft: Draft, head: Head) -> None:
    draft.drop_rows(lambda row: is_of_epoch(row.kind) and row.epoch < head.epoch)
    # What was said after the device's own erasure stands, unless another erasure or a restore came between.
    is_next = head.epoch == draft.standing.epoch + 1 and head.generation == draft.replica.standing.generation
    own = own_erase(draft, head.erased_by) if is_next else None
    for one in draft.queued():
        op = one.op
        if own is not None and op.dseq > own:
            draft.queue[op.dseq] = replace(one, op=replace(op, epoch=head.epoch))
        elif op.epoch < head.epoch and is_of_epoch(op.kind):
            draft.void(one)
    draft.standing = replace(draft.standing, epoch=head.epoch)


def take_rows(draft: Draft, page: Page) -> None:
    """Put a page's rows and move the cursor; an erase row takes what it finds in rows and queue."""
    hlc = draft.standing.hlc
    for row in page.rows:
        if is_retired(row.kind, row.seq, draft.standing.floor, draft.standing.forgotten):
            continue
        hlc = max(hlc, row.hlc)
        if row.kind == "erase":
            _erase_by_row(draft, row)
        draft.rows[row.key] = row
    standing = draft.standing
    draft.standing = replace(standing, hlc=hlc, cursor=page.next, checked=max(standing.checked, page.next))


def _erase_by_row(draft: Draft, erase: Row) -> None:
    erasure = criteria(erase.body)
    for one in draft.queued():
        if one.op.key == erase.key and one.seq is None:
            draft.queue[one.op.dseq] = replace(one, seq=erase.seq)
    if erasure.is_everything:
        return
    draft.drop_rows(lambda row: row.kind == "event" and row.seq < erase.seq and takes(erasure, row.body))
    if erase.seq <= draft.standing.checked:
        return
    own = own_erase(draft, erase.id)
    for one in draft.queued():
        is_own_later = own is not None and one.op.dseq > own
        if one.op.kind == "event" and not is_own_later and takes(erasure, one.op.body):
            draft.void(one)


def compare(draft: Draft, page: Page) -> None:
    """Compare digests at the end of the changes; start anew where they differ, and say so if that did not help.

    Not while an erasure of this device is on its way, nor with a page that is older than what the device obeys.
    """
    standing, head = draft.standing, page.head
    is_current = (head.epoch, head.floor, head.forgotten) == (standing.epoch, standing.floor, standing.forgotten)
    if is_current and page.digest == digest_text(draft.digest()):
        # The usual case reads neither rows nor queue: where a row still stood at seq 0 the digest would differ.
        draft.standing = replace(standing, is_rebuilt=True, is_diverged=False)
        return
    draft.drop_rows(lambda row: row.seq == 0)
    is_erasing = bool(pending_erasures(draft.queued(), standing.cursor))
    if not is_current or is_erasing:
        draft.standing = replace(standing, is_rebuilt=True)
    elif page.digest == digest_text(draft.digest()):
        draft.standing = replace(standing, is_rebuilt=True, is_diverged=False)
    elif standing.is_rebuilt:
        start_anew(draft)
    else:
        draft.standing = replace(standing, is_rebuilt=True, is_diverged=True)
