"""How values of the profile are joined, in any order and any number of times: clocks, registers, digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from xrec_sdk.sync import ZERO, Hlc, Op, Row
from xrec_sdk.sync_body import MAX_COUNTER, compact_json, consent_said, register_said

DIGEST_MODULUS = 1 << 256


def tick(hlc: Hlc, now_ms: int) -> Hlc:
    """Return the clock's next time: greater than ``hlc`` and not before ``now_ms``."""
    return Hlc(now_ms, 0) if now_ms > hlc.ms else after(hlc)


def after(hlc: Hlc) -> Hlc:
    """Return the least time after ``hlc`` whose counter is in bounds."""
    return Hlc(hlc.ms, hlc.counter + 1) if hlc.counter < MAX_COUNTER else Hlc(hlc.ms + 1, 0)


def clamp(hlc: Hlc, now_ms: int, ahead_ms: int) -> Hlc:
    """Return the clock, or the latest that is allowed where it runs more than ``ahead_ms`` before ``now_ms``."""
    return hlc if hlc.ms <= now_ms + ahead_ms else Hlc(now_ms + ahead_ms, 0)


def order_ms(at_ms: int, contact_ms: int, now_ms: int) -> int:
    """Return an event's time for ranking: the claimed one, within [last contact, now]."""
    return min(max(at_ms, contact_ms), now_ms)


@dataclass(frozen=True)
class Consent:
    """The register of one purpose.

    ``refused`` and ``over`` give a dseq for each device: of its last refusal, and of the last of its refusals that a
    later grant was given in sight of. Granted is what was granted at least once and has no refusal that no grant has
    seen; so of a grant and a refusal that did not know each other, the refusal holds, whatever the clocks say.
    """

    was_granted: bool = False
    refused: Mapping[str, int] = field(default_factory=dict)
    over: Mapping[str, int] = field(default_factory=dict)
    policy: str = ""
    hlc: Hlc = ZERO
    device: str = ""

    @property
    def is_granted(self) -> bool:
        """Whether the purpose may be pursued now."""
        return self.was_granted and all(self.over.get(device, 0) >= dseq for device, dseq in self.refused.items())


def join_consent(one: Consent, other: Consent) -> Consent:
    """Return the join of two registers: commutative, associative and idempotent."""
    latest = max(one, other, key=lambda consent: (consent.hlc, consent.device, consent.policy))
    return Consent(
        was_granted=one.was_granted or other.was_granted,
        refused=_join_vectors(one.refused, other.refused),
        over=_join_vectors(one.over, other.over),
        policy=latest.policy,
        hlc=latest.hlc,
        device=latest.device,
    )


def _join_vectors(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {device: max(one.get(device, 0), other.get(device, 0)) for device in sorted(one.keys() | other.keys())}


def consent_of_op(op: Op, device: str) -> Consent:
    """Return what one consent operation of a device says; ValueError where its body is malformed."""
    is_granted, policy, over = consent_said(op.body)
    if is_granted:
        return Consent(True, {}, over, policy, op.hlc, device)
    return Consent(False, {device: op.dseq}, {}, policy, op.hlc, device)


def consent_of_row(row: Row | None) -> Consent:
    """Return the register that a row holds; an empty one for None; ValueError where its body is malformed."""
    if row is None:
        return Consent()
    was_granted, refused, over, policy = register_said(row.body)
    return Consent(was_granted, refused, over, policy, row.hlc, row.device)


def consent_body(consent: Consent) -> str:
    """Return the body of a register's row."""
    return compact_json(
        {
            "granted": consent.is_granted,
            "over": dict(consent.over),
            "policy": consent.policy,
            "refused": dict(consent.refused),
            "was_granted": consent.was_granted,
        }
    )


def later(one: Row, other: Row) -> Row:
    """Return the last writer's row of one key: by clock, then device, then body, so that all agree."""
    return max(one, other, key=lambda row: (row.hlc, row.device, row.body))


def winner(held: Row | None, given: Row) -> Row:
    """Return the row that stays when a device writes over what is held; a device always wins over itself.

    A clamped clock may not pass what the same device wrote before it; it is then counted on from there.
    """
    if held is None:
        return given
    if held.device == given.device and given.hlc <= held.hlc:
        return replace(given, hlc=after(held.hlc))
    return later(held, given)


def netstrings(fields: Iterable[object]) -> bytes:
    """Return each field's UTF-8 text as a netstring ``length:bytes,`` (Bernstein 1997), one after the other."""
    # What holds half of a surrogate pair is never stored, but it is printed before it is rejected.
    texts = [str(field).encode(errors="surrogatepass") for field in fields]
    return b"".join([b"%d:%s," % (len(text), text) for text in texts])


def row_bytes(row: Row) -> bytes:
    """Return the bytes of a row that its digest is taken of."""
    hlc = row.hlc
    return netstrings(
        (
            *("xrec-row", row.seq, row.kind, row.id, row.epoch, hlc.ms, hlc.counter),
            *(row.device, row.dseq, row.order_ms, row.body),
        )
    )


def row_digest(row: Row) -> int:
    """Return the SHA-256 of a row as a big-endian number."""
    return int.from_bytes(hashlib.sha256(row_bytes(row)).digest(), "big")


def digest_of(rows: Iterable[Row], start: int = 0) -> int:
    """Return the sum of the rows' digests modulo 2^256, in any order (AdHash, Bellare and Micciancio 1997)."""
    return sum(map(row_digest, rows), start) % DIGEST_MODULUS


def digest_change(digest: int, put: Iterable[Row] = (), dropped: Iterable[Row] = ()) -> int:
    """Return the digest after rows have come and gone."""
    return (digest_of(put, digest) - digest_of(dropped)) % DIGEST_MODULUS


def digest_text(digest: int) -> str:
    """Return the digest as it is sent: 64 hexadecimal digits in lower case."""
    return f"{digest:064x}"


def print_of(op: Op) -> str:
    """Return 16 hexadecimal digits that tell an operation from another of its dseq; "" of a nop."""
    if op.kind == "nop":
        return ""
    fields = netstrings(("xrec-op", op.kind, op.id, op.hlc.ms, op.hlc.counter, op.body))
    return hashlib.sha256(fields).hexdigest()[:16]
