"""A sealed profile's keys in its file, and what they do there: open what other devices said, seal what this one says.

The keys lie in the profile's own file, as private as that is: in the clear with the plain engine, under the profile's
key with the encrypted one. Rows stay as the server has them; queued events are sealed before a rule sees them, and what
was never sent is sealed anew where the key has changed. All here runs in the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

from xrec_sdk.keyring import KIND, Vault, forget, new_vault, read_vault, take_all, write_vault
from xrec_sdk.seal import TAMPERED, seal, unseal
from xrec_sdk.store import Connection
from xrec_sdk.sync import BAD_BODY, LIMITS, Dead, Op, Queued, Replica, Row, SyncError
from xrec_sdk.sync_draft import nop
from xrec_sdk.sync_tables import OP, ROW, keep_dead, op_of, put_op, row_of, standing

CODES = "e2e.%"
_LAST_ERASURE = "SELECT coalesce(max(dseq), 0) FROM queue WHERE kind = 'erase' AND seq IS NULL"
# Before an erasure that waits, events stay under the keys that it names.
_UNSENT_EVENTS = """SELECT dseq, body FROM queue WHERE seq IS NULL AND kind = 'event' AND dseq > ?
    AND instr(body, CASE WHEN dseq > ? THEN ? ELSE '"sealed":"' END) = 0 ORDER BY dseq"""


def load(connection: Connection) -> Vault | None:
    """Return the keys of a sealed profile; None of one that is not."""
    found = connection.execute("SELECT body FROM vault").fetchone()
    return read_vault(found[0]) if found else None


def save(connection: Connection, vault: Vault) -> None:
    """Write the keys."""
    connection.execute("DELETE FROM vault")
    connection.execute("INSERT INTO vault VALUES (?)", (write_vault(vault),))


def begin(connection: Connection) -> bool:
    """Make this a sealed profile; return whether it is one: what was ever synced in the clear can't become one."""
    if load(connection) is not None:
        return True
    if standing(connection).device:
        return False
    save(connection, new_vault("device"))
    return True


def key_rows(connection: Connection) -> list[Row]:
    """Return the key rows that this device holds."""
    return [row_of(found) for found in connection.execute(f"SELECT {ROW} FROM rows WHERE kind = ?", (KIND,)).fetchall()]


def seal_queue(connection: Connection) -> Vault | None:
    """Seal the queued events that were never sent: with the current key, or with the last one, to compare them by."""
    vault = load(connection)
    if vault is None or not vault.secrets:
        return vault
    current = vault.current
    key = current or max(vault.secrets, key=lambda one: one.seq)
    mark = _mark(current.id) if current else '"sealed":"'
    fixed = connection.execute(_LAST_ERASURE).fetchone()[0]
    for dseq, body in connection.execute(_UNSENT_EVENTS, (standing(connection).sent, fixed, mark)).fetchall():
        try:
            sealed = seal(key.raw, unseal(vault.ring, body) if '"sealed":"' in body else body)
            code = None if len(sealed.encode()) <= LIMITS.body_bytes else BAD_BODY
        except SyncError as refusal:
            code = refusal.code
        if code:
            _give_up(connection, dseq, code)
        else:
            connection.execute("UPDATE queue SET body = ? WHERE dseq = ?", (sealed, dseq))
    return vault


def _mark(key: str) -> str:
    return f'"key":"{key}"'


def _give_up(connection: Connection, dseq: int, code: str) -> None:
    op = op_of(connection.execute(f"SELECT {OP} FROM queue WHERE dseq = ?", (dseq,)).fetchone())
    put_op(connection, Queued(nop(dseq)))
    keep_dead(connection, [Dead(op, code)])


def sendable(connection: Connection, replica: Replica) -> Replica:
    """Return the replica with as much of its queue as may leave: no event that the current key has not sealed."""
    vault = load(connection)
    if vault is None:
        return replica
    fixed, mark = connection.execute(_LAST_ERASURE).fetchone()[0], _mark(vault.current.id if vault.current else "none")
    found = connection.execute(_UNSENT_EVENTS, (replica.standing.sent, fixed, mark)).fetchone()
    if found is None:
        return replica
    return replace(replica, queue=list(takewhile(lambda one: one.op.dseq < found[0], replica.queue)))


def needs_key(connection: Connection) -> bool:
    """Return whether this device has to make a key: none is current, and it is a member with something to say."""
    vault = load(connection)
    if vault is None or not vault.is_member or vault.current or not standing(connection).is_rebuilt:
        return False
    unsent = "SELECT count(*) FROM queue WHERE seq IS NULL AND kind = 'event'"
    return bool(vault.secrets) or connection.execute(unsent).fetchone()[0] > 0


def hear(connection: Connection, put_rows: Sequence[Row], is_new_epoch: bool) -> tuple[Vault | None, bool]:
    """Take the keys of rows that came and forget those of an epoch that ended; return the vault, and if more opens now.

    Key rows that no device of the user made are kept among the dead.
    """
    vault = load(connection)
    if vault is None:
        return None, False
    was = vault
    if is_new_epoch:
        kept = {id for (id,) in connection.execute("SELECT id FROM rows WHERE kind = ?", (KIND,)).fetchall()}
        kept |= {id for (id,) in connection.execute("SELECT id FROM queue WHERE kind = ?", (KIND,)).fetchall()}
        vault = replace(forget(vault, kept), missed=0)
    came = {row.id for row in put_rows if row.kind == KIND}
    if came:
        vault, wrong = take_all(vault, key_rows(connection))
        dead = [Dead(_op(row), refusal.code) for row, refusal in wrong if row.id in came]
        _keep_dead(connection, dead)
    if vault != was:
        save(connection, vault)
    return vault, vault.ring.keys() != was.ring.keys()


def opened(ring: Mapping[str, bytes], row: Row) -> str:
    """Return the body of an event's row in the clear; SyncError where it is not what a device of the user said."""
    body = unseal(ring, row.body)
    if json.loads(body)["id"] != row.id:
        raise SyncError(TAMPERED, "a sealed event stands under another id")
    return body


def keep_unreadable(connection: Connection, touched: Sequence[str], found: Mapping[str, tuple[Row, str]]) -> None:
    """Keep events that do not open among the dead, once each, and take from there what opens now."""
    listed = connection.execute("SELECT place, id FROM dead WHERE kind = 'event' AND code LIKE ?", (CODES,)).fetchall()
    ids = set(touched)
    for place, id in listed:
        if id in ids:
            connection.execute("DELETE FROM dead WHERE place = ?", (place,))
    keep_dead(connection, [Dead(_op(row), code) for row, code in found.values()])


def problems(connection: Connection) -> dict[str, int]:
    """Return how many rows were not what a device of the user said, by code."""
    found = "SELECT code, count(*) FROM dead WHERE code LIKE ? GROUP BY code"
    return dict(connection.execute(found, (CODES,)).fetchall())


def _keep_dead(connection: Connection, dead: Sequence[Dead]) -> None:
    for one in dead:
        connection.execute("DELETE FROM dead WHERE kind = ? AND id = ?", one.op.key)
    keep_dead(connection, dead)


def _op(row: Row) -> Op:
    return Op(row.dseq, row.kind, row.id, row.epoch, row.hlc, 0, "", row.body)
