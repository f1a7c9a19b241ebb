"""A push as the server applies it, operation by operation, and what comes of it: rows put and dropped, the digest."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace
from typing import cast

import xrec_sdk.sync as sync
from xrec_sdk.sync import Key, Limits, Op, Push, Row
from xrec_sdk.sync_body import Criteria, check, criteria, takes
from xrec_sdk.sync_held import LASTING, Device, History, Profile, Writes
from xrec_sdk.sync_merge import (
    clamp,
    consent_body,
    consent_of_op,
    consent_of_row,
    digest_change,
    digest_of,
    join_consent,
    order_ms,
    winner,
)


class Work:
    """A push as it is applied, operation by operation, to the rows that are known."""

    def __init__(
        self,
        profile: Profile,
        device: Device,
        push: Push,
        known: dict[Key, Row],
        now_ms: int,
        limits: Limits,
        forgotten: Container[str] = (),
    ) -> None:
        self.profile, self.device, self.push, self.known, self.forgotten = profile, device, push, known, forgotten
        self.head, self.seq, self.now_ms, self.limits = profile.head, profile.head.seq, now_ms, limits
        self.was = dict(known)
        # An erasure is the last operation of its push: no event comes after one that is not among these.
        self.erasures = [row for row in known.values() if row.kind == "erase"]
        self.granted: dict[str, bool] = {}
        self.history: list[History] = []
        self.purge: int | None = None

    def apply(self, op: Op) -> str | None:
        """Apply one operation; return the code of its rejection."""
        try:
            said = check(op, self.limits)
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
                return self._event(op, cast(int, said))
        return self._register(op)

    def _consent(self, op: Op) -> str | None:
        said, held = consent_of_op(op, self.device.id), consent_of_row(self.known.get(op.key))
        # Nobody can have seen a refusal that the server has not: it would be refused in vain when it comes.
        over = {name: min(dseq, held.refused[name]) for name, dseq in said.over.items() if name in held.refused}
        hlc = clamp(op.hlc, self.now_ms, self.limits.ahead_ms)
        joined = join_consent(held, replace(said, over=over, hlc=hlc))
        self.put(replace(op, hlc=joined.hlc, body=consent_body(joined)), joined.device)
        self.granted.clear()
        self.history.append(History(self.now_ms, self.device.id, op.dseq, op.id, op.body))
        return None

    def _erase(self, op: Op) -> str | None:
        erasure = criteria(op.body)
        # A device that was set back to an older self says again what all have forgotten.
        if op.key in self.known or op.id == self.head.erased_by or op.id in self.forgotten:
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
        self.head, self.seq = replace(self.head, epoch=epoch, erased_by=erased_by), self.seq + 1
        self.known = {key: row for key, row in self.known.items() if key.kind in LASTING}
        self.purge = epoch

    def _event(self, op: Op, at_ms: int) -> str | None:
        failure = self._unwelcome(op)
        if failure:
            return failure
        if op.contact_ms < self.device.copied_ms and self.head.floor > self.device.floor and op.key not in self.known:
            return sync.COPIED
        if at_ms < self.now_ms - self.limits.retention_ms:
            return sync.TOO_OLD
        if any(self._is_erased_by(row, op) for row in self.erasures):
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
        return None if self._is_granted("sync") and self._is_granted(op.purpose) else sync.NO_CONSENT

    def _is_granted(self, purpose: str) -> bool:
        if purpose not in self.granted:
            self.granted[purpose] = consent_of_row(self.known.get(Key("consent", purpose))).is_granted
        return self.granted[purpose]

    def _row(self, op: Op, device: str, ranked_ms: int = 0) -> Row:
        return Row(
            self.seq + 1, op.kind, op.id, self.head.epoch, op.hlc, device, op.dseq, ranked_ms, self.now_ms, op.body
        )

    def put(self, op: Op, device: str, ranked_ms: int = 0) -> None:
        """Give an operation the next place in the profile."""
        row = self._row(op, device, ranked_ms)
        self.seq = row.seq
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
        profile = Profile(replace(self.head, seq=self.seq), digest, events)
        return Writes(profile, device, None, self.purge, drop, put, tuple(self.history))


def _count_events(rows: Iterable[Row]) -> int:
    return sum(row.kind == "event" for row in rows)
