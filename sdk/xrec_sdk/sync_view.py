"""What the user sees of a synced profile: every change of the sync tables, and `events` (sync_show.py) in step with it.

`events`, which the recommender reads, holds the rows of the server, over them what this device said and has not seen
come back, and what it never queued (`is_local`). The rules are sync_device.py; all here runs in the caller's
transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from xrec_sdk import sync_device as rules
from xrec_sdk import vault
from xrec_sdk.event import COLUMNS, PURPOSES, Event
from xrec_sdk.eventid import new_event_id
from xrec_sdk.keyring import KIND, Vault, renew
from xrec_sdk.seal import seal_criteria, takes_plain
from xrec_sdk.store import Connection
from xrec_sdk.sync import LIMITS, Changes, Key, Limits, Op, Queued, Replica, Row, Standing
from xrec_sdk.sync_body import Criteria, compact_json, criteria
from xrec_sdk.sync_draft import nop
from xrec_sdk.sync_merge import order_ms
from xrec_sdk.sync_show import View, show
from xrec_sdk.sync_tables import (
    PUT_OP,
    UNSENT,
    WORDS,
    Rows,
    erasures_said,
    forget_dead,
    is_held,
    keep_dead,
    put_op,
    put_standing,
    queued,
    replica,
    standing,
    write,
)

MOST_KEYS = 96
"""Of a sealed profile that has more, what is erased in part makes no new key: an erasure names them all."""
_body = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event_body(event: Event, at_ms: int) -> str:
    """Return the body of an event's operation."""
    body: dict[str, object] = {"id": event.id, "at_ms": at_ms, "event": event.event, "item_id": event.item_id}
    body["device"] = event.device
    if event.value is not None:
        body["value"] = event.value
    if event.recommendation_id is not None:
        body["recommendation_id"] = event.recommendation_id
    return _body(body)


def append_event(
    connection: Connection,
    event: Event,
    epoch: int,
    contact_ms: int,
    tail: Sequence[int],
    now_ms: int,
    limits: Limits = LIMITS,
) -> None:
    """Queue an event as `sync_device.record` would, without reading the queue; consent is the caller's to check.

    ``tail`` is last_dseq, acked and the clock's milliseconds and counter.
    """
    last_dseq, acked, hlc_ms, hlc_counter = tail
    hlc = (now_ms, 0) if now_ms > hlc_ms else (hlc_ms, hlc_counter + 1)
    dseq, shed_first = last_dseq + 1, 2 if event.event == "view" else 1
    values = (dseq, "event", event.id, epoch, *hlc, contact_ms, "personalise", event_body(event, event.at_ms))
    connection.execute(PUT_OP, (None, shed_first, *values))
    connection.execute("UPDATE state SET last_dseq = ?, hlc_ms = ?, hlc_counter = ?", (dseq, *hlc))
    if dseq - acked > limits.queue_ops:
        _shed(connection, limits)


def _shed(connection: Connection, limits: Limits) -> None:
    """Make nops of the oldest views, then of the oldest events, that were never sent, as `sync_device` would."""
    spare = connection.execute(f"SELECT count(*) FROM queue WHERE {UNSENT}").fetchone()[0] - limits.queue_ops
    if spare <= 0:
        return
    now = standing(connection)
    victims: list[tuple[int, str]] = []
    for shed_first in (2, 1):
        oldest = f"SELECT dseq, id FROM queue WHERE {UNSENT} AND shed_first = ? AND dseq > ? ORDER BY dseq LIMIT ?"
        victims += connection.execute(oldest, (shed_first, now.sent, spare - len(victims))).fetchall()
    for dseq, id in victims:
        put_op(connection, Queued(nop(dseq)))
        if not is_held(connection, Key("event", id)):
            connection.execute("DELETE FROM events WHERE id = ? AND NOT is_local", (id,))
    put_standing(connection, replace(now, shed=now.shed + len(victims)))
    connection.execute("UPDATE state SET erasures = erasures + 1")


def set_consent(connection: Connection, purpose: str, granted: bool, policy: str, now_ms: int) -> None:
    """Say a consent; saying again what stands, of the same policy, says nothing."""
    flag, policies = connection.execute(f"SELECT {purpose}, policies FROM state").fetchone()
    if bool(flag) == granted and json.loads(policies).get(purpose) == policy:
        return
    commit(connection, rules.consent_change(replica(connection), purpose, granted, policy, now_ms), now_ms)


def erase(connection: Connection, asked: Mapping[str, object], now_ms: int) -> int:
    """Erase the events that meet ``asked`` here, and everywhere where the profile is synced; return how many."""
    erasure = criteria(compact_json(asked))
    count = _erase_view(connection, erasure)
    is_synced = connection.execute("SELECT sync FROM state").fetchone()[0] or standing(connection).device
    if is_synced:
        _say_erasure(connection, asked, now_ms)
    forget_dead(connection, erasure)
    connection.execute("UPDATE state SET erasures = erasures + 1")
    return count


def _say_erasure(connection: Connection, asked: Mapping[str, object], now_ms: int) -> None:
    """Queue an erasure; in a sealed profile with trapdoors, and a new key after it."""
    known = vault.seal_queue(connection)
    body = compact_json(seal_criteria(known.ring, asked) if known and known.secrets else asked)
    changes = rules.record(replica(connection), "erase", new_event_id(), body, "personalise", now_ms)
    if known and not known.secrets and asked:
        # Who has no key has said nothing to others, and can't tell them which events it means.
        silent = tuple(Queued(nop(one.op.dseq)) if one.op.kind == "erase" else one for one in changes.put_queue)
        changes = replace(changes, put_queue=silent)
    commit(connection, changes, now_ms)
    if known and known.is_member and (not asked or len(known.secrets) < MOST_KEYS):
        say_key(connection, renew(known, is_fresh=not asked), now_ms)


def say_key(connection: Connection, made: tuple[Vault, str, str], now_ms: int) -> None:
    """Keep and queue a new key of a sealed profile, as `keyring.renew` has made it."""
    fresh, id, body = made
    changes = rules.record(replica(connection), KIND, id, body, "sync", now_ms)
    vault.save(connection, fresh)
    commit(connection, changes, now_ms)


def _erase_view(connection: Connection, erasure: Criteria, where: str = "1") -> int:
    if isinstance(erasure.item_id, Mapping) or isinstance(erasure.event, Mapping):
        known = vault.load(connection)
        found = connection.execute(f"SELECT DISTINCT event, item_id FROM events WHERE {where}").fetchall()
        meant = [one for one in found if takes_plain(known.ring if known else {}, erasure, *one)]
        plain = [replace(erasure, event=event, item_id=item_id) for event, item_id in meant]
        return sum(_erase_view(connection, one, where) for one in plain)
    at_ms = "coalesce(claimed_ms, at_ms)"
    named: dict[str, object] = {"item_id = ?": erasure.item_id, "event = ?": erasure.event}
    named |= {f"{at_ms} >= ?": erasure.from_ms, f"{at_ms} < ?": erasure.to_ms}
    asked = {part: value for part, value in named.items() if value is not None}
    where = " AND ".join((where, *asked))
    values = tuple(asked.values())
    count: int = connection.execute(f"SELECT count(*) FROM events WHERE {where}", values).fetchone()[0]
    connection.execute(f"DELETE FROM events WHERE {where}", values)
    return count


def commit(connection: Connection, changes: Changes, now_ms: int) -> bool:
    """Write the changes in the caller's transaction, bring what the user sees in step, and say if that erased any."""
    was, pending = standing(connection), erasures_said(connection)
    known = {key for key in (row.key for row in changes.put_rows) if key.kind == "erase" and is_held(connection, key)}
    touched = write(connection, changes, was.cursor)
    put_standing(connection, changes.standing)
    is_said = any(key.kind == "consent" for key in _keys(changes))
    if is_said:
        _put_consents(connection)
    fresh = [row for row in changes.put_rows if row.kind == "erase" and row.key not in known]
    is_erased = _erase_local(connection, changes, was, pending, [row for row in fresh if row.id not in pending])
    keep_dead(connection, changes.dead)
    hidden = [op for op, seq in erasures_said(connection).values() if seq is None or seq > changes.standing.cursor]
    if len(hidden) < sum(seq is None or seq > was.cursor for _, seq in pending.values()):
        # An erasure of this device is done: what it hid may show again, if the server still brings it.
        held = connection.execute("SELECT id FROM rows WHERE kind = 'event'").fetchall()
        touched = {**dict.fromkeys((id for (id,) in held), None), **touched}
    known_keys, is_more = vault.hear(connection, changes.put_rows, changes.standing.epoch > was.epoch)
    if is_more:
        held = connection.execute("SELECT id FROM rows WHERE kind = 'event'").fetchall()
        touched = {**dict.fromkeys((id for (id,) in held), None), **touched}
    view = View(connection, changes, was.epoch, [criteria(op.body) for op in hidden], now_ms, known_keys)
    show(connection, touched, view)
    if known_keys and touched:
        vault.keep_unreadable(connection, list(touched), view.unreadable if known_keys.secrets else {})
    if is_said:
        _queue_local(connection, now_ms)
    return is_erased or bool(fresh)


def _keys(changes: Changes) -> Iterator[Key]:
    yield from changes.drop_rows
    yield from (row.key for row in changes.put_rows)
    yield from (one.op.key for one in changes.put_queue)


def _put_consents(connection: Connection) -> None:
    """Write what now stands of each purpose where every write looks, whatever it was joined from."""
    rows = {Key("consent", purpose) for purpose in PURPOSES}
    held = {key: row for key, row in ((key, Rows(connection).get(key)) for key in rows) if row is not None}
    said = Replica(standing(connection), held, queued(connection, f"{WORDS} AND kind = 'consent'"))
    registers = {purpose: rules.consent(said, purpose) for purpose in PURPOSES}
    policies = {name: one.policy for name, one in registers.items() if one.was_granted or one.refused}
    flags = [registers[purpose].is_granted for purpose in PURPOSES]
    was = connection.execute("SELECT personalise FROM state").fetchone()[0]
    columns = ", ".join(f"{purpose} = ?" for purpose in PURPOSES)
    values = (*flags, compact_json(policies), bool(was) != flags[0])
    connection.execute(f"UPDATE state SET {columns}, policies = ?, erasures = erasures + ?", values)


def _erase_local(
    connection: Connection,
    changes: Changes,
    was: Standing,
    own: Mapping[str, tuple[Op, int | None]],
    erasures: Sequence[Row],
) -> bool:
    """Erase what was never queued, and the dead, as other devices' erasures ask; say whether anything was erased.

    What a device said after its own erasure stands; a device that gives up its rows gives up all.
    """
    now = changes.standing
    is_given_up = was.is_rebuilt and not now.is_rebuilt and (now.checked > was.checked or now.must_register)
    is_own_epoch = any(criteria(op.body).is_everything for op, _ in own.values())
    is_taken = is_given_up or (now.epoch > was.epoch and not is_own_epoch and was.device != "")
    if is_taken:
        connection.execute("DELETE FROM events WHERE is_local")
    if is_given_up or now.epoch > was.epoch:
        forget_dead(connection, Criteria())
    for row in erasures:
        erasure = criteria(row.body)
        if not erasure.is_everything:
            _erase_view(connection, erasure, "is_local")
            forget_dead(connection, erasure)
    if is_taken or erasures:
        connection.execute("UPDATE state SET erasures = erasures + 1")
    return is_given_up or now.epoch > was.epoch


def _queue_local(connection: Connection, now_ms: int, limits: Limits = LIMITS) -> None:
    """Queue what this device kept to itself, where sync has now been granted."""
    if not all(connection.execute("SELECT personalise, sync FROM state").fetchone()):
        return
    found = f"SELECT contact_ms, coalesce(claimed_ms, at_ms), {COLUMNS} FROM events WHERE is_local ORDER BY place"
    for contact_ms, claimed, *fields in connection.execute(found).fetchall():
        epoch, *tail = connection.execute("SELECT epoch, last_dseq, acked, hlc_ms, hlc_counter FROM state").fetchone()
        event, at_ms = Event._make(fields), order_ms(claimed, contact_ms, now_ms)
        append_event(connection, event._replace(at_ms=claimed), epoch, contact_ms, tail, now_ms, limits)
        differs = None if at_ms == claimed else claimed
        update = "UPDATE events SET at_ms = ?, claimed_ms = ?, is_local = 0 WHERE id = ?"
        connection.execute(update, (at_ms, differs, event.id))
    connection.execute("UPDATE state SET erasures = erasures + 1")
