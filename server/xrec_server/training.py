"""Export events for training, as `xrec-train prepare` reads them: of users whose consent to `train` stands, no others.

Users stand under pseudonyms, HMAC-SHA256 under the tenant's secret: still personal data, which an erasure must reach.
So an export is for one training and is deleted after it; the next one no longer has who has erased or withdrawn.
Everything is read from one state of the database, beside a server that is at work.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import os
from dataclasses import dataclass
from pathlib import Path

from xrec_sdk.sync import Row
from xrec_sdk.sync_merge import netstrings

from xrec_server.consented import consented

EVENTS, SOURCES = "events.jsonl.gz", "sources.toml"
_SOURCES = f"""\
# Events of users who agreed to training, under pseudonyms; delete this folder once the model is trained.
[[source]]
name = "profiles"
files = "{EVENTS}"
format = "jsonl"
unknown_event = "keep"

[source.columns]
user_id = "user_id"
item_id = "item_id"
event = "event"
at = "at_ms"
device = "device"
value = "value"
recommendation_id = "recommendation_id"
"""


@dataclass(frozen=True)
class Exported:
    """What was written: the users who agreed and their events; ``left_out`` is how many users did not agree."""

    users: int
    events: int
    left_out: int


async def export_training(database: str, secret: bytes, out: Path) -> Exported:
    """Write the events and a sources.toml to the folder ``out``, replacing those of an earlier export.

    Raises ServerError ``server.database`` where the database can't be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    part = out / f"{EVENTS}.part"
    users = events = left_out = 0
    try:
        with part.open("wb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as packed:
                async for profile, rows in consented(database, "train"):
                    if rows is None:
                        left_out += 1
                        continue
                    user = _pseudonym(secret, profile)
                    lines = [_line(user, row) for row in rows]
                    packed.write("".join(lines).encode())
                    users, events = users + bool(lines), events + len(lines)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(part, out / EVENTS)
    finally:
        part.unlink(missing_ok=True)
    (out / SOURCES).write_text(_SOURCES, encoding="utf-8")
    return Exported(users, events, left_out)


def _line(user: str, row: Row) -> str:
    """Return the line of an event; its time is the one that ranking uses, the claimed one within what is possible."""
    body = json.loads(row.body)
    kept = {name: body.get(name) for name in ("item_id", "event", "device", "value", "recommendation_id")}
    return json.dumps({"user_id": user, "at_ms": row.order_ms, **kept}, ensure_ascii=False) + "\n"


def _pseudonym(secret: bytes, profile: str) -> str:
    return hmac.new(secret, netstrings(("train", profile)), hashlib.sha256).hexdigest()[:32]
