"""What device and server say to each other: operations, rows, messages, limits and codes of the sync protocol.

Values only; docs/sync-protocol.md is the protocol. `sync_merge` joins values, `sync_device` holds a device's rules and
`sync_server` the server's. A body is JSON text: whoever carries an operation carries its body byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from xrec_sdk.errors import XrecError

VERSION = 1
PURPOSES = ("personalise", "sync", "train", "analytics")
DAY_MS = 86_400_000

# Codes of a whole message that was refused: nothing of it was applied; ANSWERS in docs/errors.md says what to do.
VERSION_UNKNOWN = "sync.version"
TOO_LARGE = "sync.too_large"
MALFORMED = "sync.malformed"
GENERATION = "sync.generation"
GAP = "sync.gap"
COPIED = "sync.copied"
BEHIND = "sync.behind"
UNKNOWN_DEVICE = "sync.unknown_device"
# Codes of one operation that was rejected for good; the others of its push stand.
OLD_EPOCH = "sync.old_epoch"
ERASED = "sync.erased"
NO_CONSENT = "sync.no_consent"
TOO_OLD = "sync.too_old"
BAD_BODY = "sync.bad_body"
# Code of a device alone: a snapshot was applied whole and its digest is still not the server's.
DIVERGED = "sync.diverged"
# Code of a device alone: the server's answer is not one of the protocol.
BAD_ANSWER = "sync.bad_answer"


class SyncError(XrecError):
    """An operation can't be taken up, or an answer can't be used; the code says which, the message what was found."""


class Hlc(NamedTuple):
    """A hybrid logical clock's time: Unix milliseconds and a counter within them (Kulkarni et al. 2014)."""

    ms: int = 0
    counter: int = 0


ZERO = Hlc()


class Key(NamedTuple):
    """What a row is about: ``("event", id)``, ``("preference", name)``, ``("consent", purpose)``."""

    kind: str
    id: str


@dataclass(frozen=True)
class Op:
    """One thing that a device says; ``dseq`` counts from 1 without gaps, per registered device.

    ``kind`` is event, preference, consent, erase, nop or one that a later version knows; ``contact_ms`` the server's
    time when the device last heard from it before the op, 0 for never; ``purpose`` what the user is asked for.
    """

    dseq: int
    kind: str
    id: str
    epoch: int
    hlc: Hlc
    contact_ms: int
    purpose: str
    body: str

    @property
    def key(self) -> Key:
        """What the operation is about."""
        return Key(self.kind, self.id)


@dataclass(frozen=True)
class Row:
    """One thing that the server holds; ``seq`` is its place in the profile, ``order_ms`` its time for ranking."""

    seq: int
    kind: str
    id: str
    epoch: int
    hlc: Hlc
    device: str
    dseq: int
    order_ms: int
    received_ms: int
    body: str

    @property
    def key(self) -> Key:
        """What the row is about; a profile holds one row of a key."""
        return Key(self.kind, self.id)


@dataclass(frozen=True)
class Head:
    """Where a profile stands; every answer of the server carries it.

    ``generation`` counts the restores of the server from a backup, ``base`` is the ``seq`` that the backup had reached.
    ``erased_by`` is the id of the erasure that began ``epoch``. Events at or below ``floor`` and erasures
    at or below ``forgotten`` are no longer held, by anyone.
    """

    generation: int = 1
    base: int = 0
    epoch: int = 1
    erased_by: str = ""
    seq: int = 0
    floor: int = 0
    forgotten: int = 0


@dataclass(frozen=True)
class Push:
    """A device's operations ``first``, ``first + 1``...; an erase is the last of its push.

    ``checked`` is the seq up to which all erasures have been applied to these operations. A push of no operations asks
    whether the server still has all below ``first``.
    """

    v: int
    device: str
    generation: int
    checked: int
    first: int
    ops: tuple[Op, ...]


@dataclass(frozen=True)
class PushAnswer:
    """What became of a push: ``acks`` of (dseq, seq), ``rejected`` of (dseq, code), or refused whole by ``code``.

    The row of an acknowledged operation, if it has one, is at or below its seq. ``high_water`` is the last dseq that
    the server has of the device.
    """

    head: Head
    now_ms: int
    high_water: int
    acks: tuple[tuple[int, int], ...] = ()
    rejected: tuple[tuple[int, str], ...] = ()
    code: str | None = None


@dataclass(frozen=True)
class Page:
    """Rows after ``after`` by seq; the device stands at ``next`` once it has them.

    ``digest`` is that of every row at or below ``next``, given where ``more`` is false.
    """

    head: Head
    now_ms: int
    high_water: int
    after: int
    rows: tuple[Row, ...]
    next: int
    more: bool
    digest: str
    code: str | None = None


@dataclass(frozen=True)
class Registered:
    """A device's new name, and what the server has of the one that it had before: its last dseq and recent prints."""

    head: Head
    now_ms: int
    device: str
    former_high_water: int = 0
    former_prints: tuple[tuple[int, str], ...] = ()
    is_former_known: bool = False


@dataclass(frozen=True)
class RegisterRequest:
    """What a device says of itself when it asks for a name: the one that it had, "" for none, and where it stood."""

    v: int
    device: str
    checked: int
    generation: int
    floor: int


@dataclass(frozen=True)
class ChangesRequest:
    """A request for the page after ``after``; the answer may come ``wait`` seconds later, once there is something."""

    device: str
    generation: int
    after: int
    wait: int = 0


@dataclass(frozen=True)
class EraseRequest:
    """An erasure of everything from the account itself; repeated with the same ``id`` it is done once."""

    v: int
    id: str


@dataclass(frozen=True)
class Letter:
    """What one device leaves for another while the two are paired; "" is no letter, and takes one away."""

    v: int
    letter: str


@dataclass(frozen=True)
class Receipt:
    """What proves an erasure: when the server did it, the epoch that it began, the devices that have not heard of it.

    ``at_ms`` is 0 once every device has passed it and it is forgotten.
    """

    id: str
    at_ms: int
    epoch: int
    pending: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """Bounds that device and server share; bytes are those of UTF-8 JSON."""

    push_ops: int = 500
    push_bytes: int = 256_000
    page_rows: int = 500
    answer_bytes: int = 16_777_216
    id_characters: int = 512
    body_bytes: int = 16_384
    letter_bytes: int = 2_048
    ahead_ms: int = 300_000
    lease_ms: int = 90 * DAY_MS
    lease_grace_ms: int = DAY_MS
    retention_ms: int = 180 * DAY_MS
    max_events: int = 5_000
    queue_ops: int = 10_000
    window_ops: int = 1_000


LIMITS = Limits()


@dataclass(frozen=True)
class Queued:
    """An operation in a device's queue; ``seq`` is None until it is acknowledged. Kept after that to be sent again."""

    op: Op
    seq: int | None = None


@dataclass(frozen=True)
class Dead:
    """An operation that will never be part of the profile, and the code that says why."""

    op: Op
    code: str


@dataclass(frozen=True)
class Standing:
    """All that a device keeps beside its rows and its queue; ``device`` is "" before it is first registered.

    ``instance`` marks the installation; ``copied_through`` is the dseq at which this copy of a device parted from
    another, or -1. ``sent`` is the highest dseq that was ever put in a push, ``acked`` the end of the acknowledged.
    ``push_ops`` is how many go in the next push, after one was refused for its size or shape; 0 for as many as may.
    """

    device: str = ""
    instance: str = ""
    copied_through: int = -1
    generation: int = 1
    epoch: int = 1
    floor: int = 0
    forgotten: int = 0
    cursor: int = 0
    checked: int = 0
    last_dseq: int = 0
    sent: int = 0
    acked: int = 0
    hlc: Hlc = ZERO
    contact_ms: int = 0
    contact_local_ms: int = 0
    digest: int = 0
    shed: int = 0
    push_ops: int = 0
    must_register: bool = False
    must_probe: bool = False
    is_rebuilt: bool = True
    is_diverged: bool = False


@dataclass(frozen=True)
class Replica:
    """A device's whole part of the protocol, as the rules read it; the queue is in order of dseq."""

    standing: Standing
    rows: Mapping[Key, Row]
    queue: Sequence[Queued]


@dataclass(frozen=True)
class Changes:
    """What a device's store writes in one transaction: all or nothing."""

    standing: Standing
    put_rows: tuple[Row, ...] = ()
    drop_rows: tuple[Key, ...] = ()
    put_queue: tuple[Queued, ...] = ()
    drop_queue: tuple[int, ...] = ()
    dead: tuple[Dead, ...] = ()


class LocalStore(Protocol):
    """The seam to a device's disk. Rows and queue may be views that read when they are asked."""

    def replica(self) -> Replica:
        """Return the replica as it was last committed."""

    def commit(self, changes: Changes) -> None:
        """Write the changes whole or not at all: drops first, then puts; the dead are kept for the app to see."""
