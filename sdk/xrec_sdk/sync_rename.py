"""A device's new name: what of its queue the former one delivered, what is numbered again from 1, and what is lost."""

from __future__ import annotations

import json
from dataclasses import replace

import xrec_sdk.sync as sync
from xrec_sdk.sync import Dead, Op, Queued, Registered, Row, Standing
from xrec_sdk.sync_body import compact_json, consent_said
from xrec_sdk.sync_draft import Draft
from xrec_sdk.sync_merge import consent_body, consent_of_op, consent_of_row, join_consent, print_of


def renumber(draft: Draft, was: Standing, answer: Registered) -> None:
    """Take up the new name; ``was`` is where the device stood under the former one."""
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


def _hold(draft: Draft, op: Op, device: str) -> None:
    """Know a decision that the server has until a page brings it: the row stands at seq 0."""
    row = {**draft.replica.rows, **draft.rows}.get(op.key)
    joined = join_consent(consent_of_row(row), consent_of_op(op, device))
    if joined == consent_of_row(row):
        return
    body = consent_body(joined)
    draft.rows[op.key] = Row(0, "consent", op.id, op.epoch, joined.hlc, joined.device, op.dseq, 0, 0, body)


def _is_covered(draft: Draft, op: Op, device: str) -> bool:
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
