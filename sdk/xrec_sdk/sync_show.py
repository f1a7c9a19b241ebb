"""What the user should see of each event, once rows and queue are written: `events`, which the recommender reads.

Of a sealed profile rows are opened here, and those that do not open are kept among the dead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from xrec_sdk import sync, vault
from xrec_sdk.event import INSERT_EVENT, Event
from xrec_sdk.keyring import Vault
from xrec_sdk.seal import TAMPERED, unseal
from xrec_sdk.store import Connection
from xrec_sdk.sync import Changes, Key, Op, Row, SyncError
from xrec_sdk.sync_body import Criteria, criteria, is_sealed, takes
from xrec_sdk.sync_merge import order_ms
from xrec_sdk.sync_tables import Rows, erasures_said, queued, standing


class View:
    """What the user should see of one event, once the changes are written."""

    def __init__(
        self,
        connection: Connection,
        changes: Changes,
        was_epoch: int,
        hidden: Sequence[Criteria],
        now_ms: int,
        known: Vault | None,
    ) -> None:
        self._ring = known.ring if known else None
        self.unreadable: dict[str, tuple[Row, str]] = {}
        self._connection = connection
        self._rows = Rows(connection)
        self._changes = changes
        self._was_epoch = was_epoch
        self._hidden = hidden
        self._now_ms = now_ms
        self._own: dict[str, Op] | None = None
        flags = connection.execute("SELECT personalise, sync FROM state").fetchone()
        self._is_granted = all(flags)
        self._codes = {one.op.id: one.code for one in changes.dead}
        erasures = [row.body for row in changes.put_rows if row.kind == "erase"]
        erasures += [one.op.body for one in changes.put_queue if one.op.kind == "erase"]
        self._erasures = list(map(criteria, erasures))

    def event(self, id: str) -> tuple[int, Event] | None:
        """Return the time that was claimed and the event with its time for ranking; None where there is none."""
        row = self._rows.get(Key("event", id))
        if row is not None and not any(_takes(erasure, row.body) for erasure in self._hidden):
            return self._event_of(row)
        op = self._pending().get(id)
        if op is None:
            return None
        at_ms: int = json.loads(op.body)["at_ms"]
        body = unseal(self._ring, op.body) if self._ring and is_sealed(op.body) else op.body
        return event_of(body, order_ms(at_ms, op.contact_ms, self._now_ms))

    def _event_of(self, row: Row) -> tuple[int, Event] | None:
        if self._ring is None:
            return event_of(row.body, row.order_ms)
        try:
            event = event_of(vault.opened(self._ring, row), row.order_ms)
            code = TAMPERED
        except SyncError as refusal:
            event, code = None, refusal.code
        if event is None:
            self.unreadable[row.id] = (row, code)
        return event

    def _pending(self) -> dict[str, Op]:
        """Return what this device said that the cursor has not passed, by id."""
        if self._own is None:
            where = "kind = 'event' AND (seq IS NULL OR seq > ?)"
            cursor = self._changes.standing.cursor
            self._own = {one.op.id: one.op for one in queued(self._connection, where, (cursor,))}
        return self._own

    def is_only_unsent(self, op: Op | None) -> bool:
        """Whether an operation that is no longer queued was taken back for want of consent: it stays here, unsent."""
        if op is None or self._changes.standing.epoch != self._was_epoch:
            return False
        code = self._codes.get(op.id)
        is_erased = any(_takes(erasure, op.body) for erasure in self._erasures)
        return code == sync.NO_CONSENT or (code is None and not self._is_granted and not is_erased)


def _takes(erasure: Criteria, body: str) -> bool:
    return erasure.is_everything or takes(erasure, body)


def event_of(body: str, at_ms: int) -> tuple[int, Event] | None:
    """Return the claimed time and the event of a body, with ``at_ms`` as its time; None where it can't be read."""
    try:
        fields = json.loads(body)
        texts = [fields[name] for name in ("id", "event", "item_id", "device")]
        value, shown = fields.get("value"), fields.get("recommendation_id")
        claimed = fields["at_ms"]
        is_well = all(isinstance(text, str) for text in (*texts, shown or "")) and type(claimed) is int
        if not is_well or isinstance(value, (bool, str, list, dict)):
            return None
        id, event, item_id, device = texts
        return claimed, Event(id, at_ms, event, item_id, device, value, shown)
    except (ValueError, KeyError, TypeError):
        return None


def show(connection: Connection, touched: Mapping[str, Op | None], view: View) -> None:
    """Bring the events that may look otherwise in step with rows and queue."""
    last = connection.execute("SELECT max(place) FROM events").fetchone()[0] or 0
    is_changed = False
    for id, op in touched.items():
        wanted = view.event(id)
        shown = connection.execute("SELECT at_ms, is_local FROM events WHERE id = ?", (id,)).fetchone()
        if wanted is None:
            if shown is None or shown[1]:
                continue
            if view.is_only_unsent(op):
                connection.execute("UPDATE events SET is_local = 1 WHERE id = ?", (id,))
            else:
                connection.execute("DELETE FROM events WHERE id = ?", (id,))
                is_changed = True
            continue
        claimed, event = wanted
        differs = None if claimed == event.at_ms else claimed
        if shown is None:
            last += 1
            connection.execute(INSERT_EVENT, (last, *event, differs, 0, 0))
        elif tuple(shown) != (event.at_ms, 0):
            update = "UPDATE events SET at_ms = ?, claimed_ms = ?, is_local = 0 WHERE id = ?"
            connection.execute(update, (event.at_ms, differs, id))
            is_changed |= shown[0] != event.at_ms
    if is_changed:
        connection.execute("UPDATE state SET erasures = erasures + 1")


def show_again(connection: Connection, now_ms: int) -> None:
    """Bring every event in step with its row, where more can be opened than before."""
    known, now = vault.load(connection), standing(connection)
    held = [id for (id,) in connection.execute("SELECT id FROM rows WHERE kind = 'event'").fetchall()]
    pending = [op for op, seq in erasures_said(connection).values() if seq is None or seq > now.cursor]
    view = View(connection, Changes(now), now.epoch, [criteria(op.body) for op in pending], now_ms, known)
    show(connection, dict.fromkeys(held, None), view)
    vault.keep_unreadable(connection, held, view.unreadable if known and known.secrets else {})
