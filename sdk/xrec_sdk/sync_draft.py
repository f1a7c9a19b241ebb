"""The changes of a device as they grow: what was read, what is put over it, and what its user has consented to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from xrec_sdk.sync import ZERO, Changes, Dead, Key, Op, Queued, Replica, Row, Standing
from xrec_sdk.sync_merge import Consent, consent_of_op, consent_of_row, digest_change, join_consent


def nop(dseq: int) -> Op:
    """Return what stands in place of an operation that was erased, shed or refused."""
    return Op(dseq, "nop", "", 0, ZERO, 0, "", "")


@dataclass
class Draft:
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


def consent(replica: Replica, purpose: str) -> Consent:
    """Return the register of a purpose as this device knows it, its own unsent word included."""
    said = (one.op for one in replica.queue if one.op.kind == "consent" and one.op.id == purpose)
    register = consent_of_row(replica.rows.get(Key("consent", purpose)))
    for op in said:
        register = join_consent(register, consent_of_op(op, replica.standing.device))
    return register


def void_refused(draft: Draft) -> None:
    """Make nops of unsent operations whose purposes are no longer granted.

    Where the changes touch neither the queue nor a consent, all that is unsent was granted before and still is.
    """
    if not draft.queue and not any(key.kind == "consent" for key in draft.rows):
        return
    queue = draft.queued()
    asking = [one for one in queue if one.seq is None and is_of_epoch(one.op.kind)]
    if not asking:
        return
    now = Replica(draft.standing, {row.key: row for row in draft.held() if row.kind == "consent"}, queue)
    granted = {purpose: consent(now, purpose).is_granted for purpose in {"sync", *(one.op.purpose for one in asking)}}
    for one in asking:
        if not (granted["sync"] and granted[one.op.purpose]):
            draft.void(one)


def is_of_epoch(kind: str) -> bool:
    """Return whether an erasure of everything takes what is of this kind: all but what the user decided."""
    return kind not in ("consent", "erase", "nop")


def own_erase(draft: Draft, id: str) -> int | None:
    """Return the dseq of an erasure that this device asked for; None for another's."""
    return next((one.op.dseq for one in draft.queued() if one.op.kind == "erase" and one.op.id == id), None)


def pending_erasures(queue: Iterable[Queued], cursor: int) -> list[Op]:
    """Return the erasures of this device that no page has brought yet."""
    return [one.op for one in queue if one.op.kind == "erase" and (one.seq is None or one.seq > cursor)]
