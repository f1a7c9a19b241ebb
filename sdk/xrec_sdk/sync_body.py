"""What an operation may hold: strict JSON, the body that each kind needs, the bounds; nothing else enters a queue."""

from __future__ import annotations

import base64
import hmac
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeGuard

from xrec_sdk.sync import Limits, Op

MAX_NUMBER = (1 << 53) - 1
MAX_COUNTER = (1 << 31) - 1
MAX_DEPTH = 32
PAD_BYTES = 128
"""What is sealed is padded to a multiple of this."""
SEAL_BYTES = 28
"""What sealing adds: a nonce of 12 bytes and a tag of 16."""
_NAME = re.compile("[A-Za-z0-9_-]{22}")
_SEALED = re.compile("[A-Za-z0-9_-]+")


def is_number(value: object) -> TypeGuard[int]:
    """Return whether this is a whole number that every language holds exactly: 0 to 2^53 - 1."""
    return type(value) is int and 0 <= value <= MAX_NUMBER


def is_text(value: object) -> TypeGuard[str]:
    """Return whether this is text that UTF-8 and every database can hold: no NUL, no half of a surrogate pair."""
    if not isinstance(value, str) or "\0" in value:
        return False
    return value.isascii() or not any("\ud800" <= one <= "\udfff" for one in value)


def read_json(text: str | bytes) -> Any:
    """Return what strict JSON says; ValueError for anything else.

    Refused beside bad syntax: more than MAX_DEPTH levels, numbers that are not finite, half of a surrogate pair.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"JSON is nested too deep; expected at most {MAX_DEPTH} levels") from None
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"JSON is nested too deep; expected at most {MAX_DEPTH} levels")
        if any(type(one) is float and not math.isfinite(one) for one in level):
            raise ValueError("JSON has a number that is not finite")
        nested = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [child for one in nested for child in one]
    if not text.isascii() or (b"\\u" in text if isinstance(text, bytes) else "\\u" in text):
        json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError.
    return value


def compact_json(value: object) -> str:
    """Return JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class Criteria:
    """Which events an erasure takes: those that meet all that is given, times as claimed in [from_ms, to_ms).

    Of a sealed erasure ``item_id`` and ``event`` give a trapdoor for each key that it names (seal.py).
    """

    item_id: str | Mapping[str, str] | None = None
    event: str | Mapping[str, str] | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing is named: then the erasure takes the whole profile and begins an epoch."""
        return self == Criteria()


@lru_cache(maxsize=256)
def criteria(body: str) -> Criteria:
    """Return the criteria of an erase operation; ValueError where its body is malformed."""
    fields = _object(body)
    unknown = fields.keys() - Criteria.__dataclass_fields__.keys()
    if unknown:
        # Never less than what was meant: an erasure that names more than is understood would take too much.
        raise ValueError(f"an erasure names {sorted(unknown)}; expected item_id, event, from_ms, to_ms")
    for name, is_right in (("item_id", _is_named), ("event", _is_named), ("from_ms", is_number), ("to_ms", is_number)):
        if fields.get(name) is not None and not is_right(fields[name]):
            raise ValueError(f"{name} of an erasure is {_short(fields[name])}; expected text, or milliseconds")
    return Criteria(**fields)


def _is_named(value: object) -> bool:
    """Return whether this is text, or a trapdoor for each key of a sealed profile."""
    if isinstance(value, dict):
        return all(isinstance(one, str) and _NAME.fullmatch(one) for pair in value.items() for one in pair)
    return is_text(value)


def tag(trapdoor: str, id: str) -> str:
    """Return what marks the sealed event ``id`` for a trapdoor: nobody else can tell two marks of one item apart."""
    mark = hmac.digest(trapdoor.encode(), id.encode(), "sha256")[:16]
    return base64.urlsafe_b64encode(mark).decode()[:22]


def takes(erasure: Criteria, body: str) -> bool:
    """Return whether an erasure takes the event of this body; an event that it can't tell apart is taken."""
    try:
        event = json.loads(body)
        at_ms: int = event["at_ms"]
        return (
            _is_meant(erasure.item_id, "item_id", event)
            and _is_meant(erasure.event, "event", event)
            and (erasure.from_ms is None or erasure.from_ms <= at_ms)
            and (erasure.to_ms is None or at_ms < erasure.to_ms)
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return True


def _is_meant(named: str | Mapping[str, str] | None, field: str, event: dict[str, Any]) -> bool:
    if named is None:
        return True
    if isinstance(named, str):
        return bool(named == event[field])
    return bool(tag(named[event["key"]], event["id"]) == event["tags"][field])


@lru_cache(maxsize=256)
def consent_said(body: str) -> tuple[bool, str, Mapping[str, int]]:
    """Return (granted, policy, over) of a consent operation; ValueError where its body is malformed."""
    fields = _object(body)
    is_granted, policy, over = fields.get("granted"), fields.get("policy"), fields.get("over", {})
    if not isinstance(is_granted, bool) or not isinstance(policy, str) or not _is_vector(over):
        raise ValueError("a consent expects granted (bool), policy (text) and over (an object of whole numbers)")
    return is_granted, policy, over


@lru_cache(maxsize=256)
def register_said(body: str) -> tuple[bool, Mapping[str, int], Mapping[str, int], str]:
    """Return (was_granted, refused, over, policy) of a purpose's row; ValueError where its body is malformed."""
    fields = _object(body)
    was_granted, refused, over = fields.get("was_granted"), fields.get("refused"), fields.get("over")
    policy = fields.get("policy")
    if not isinstance(was_granted, bool) or not _is_vector(refused) or not _is_vector(over):
        raise ValueError("a register expects was_granted (bool), refused and over (objects of whole numbers)")
    if not isinstance(policy, str):
        raise ValueError(f"policy of a register is {_short(policy)}; expected text")
    return was_granted, refused, over, policy


def _is_vector(value: object) -> TypeGuard[dict[str, int]]:
    return isinstance(value, dict) and all(map(is_number, value.values()))


def event_time(op: Op, limits: Limits) -> int:
    """Return an event's claimed time in ms; ValueError where its body is not that of an event."""
    fields = _object(op.body)
    if fields.get("id") != op.id:
        raise ValueError(f"the body of event {_short(op.id)} has the id {_short(fields.get('id'))}")
    if "sealed" in fields:
        _check_sealed(fields)
        return _time(fields)
    for name in ("event", "item_id", "device", "recommendation_id"):
        value = fields.get(name)
        is_absent = value is None and name == "recommendation_id"
        if not is_absent and not (is_text(value) and 1 <= len(value) <= limits.id_characters):
            raise ValueError(f"{name} of an event is {_short(value)}; expected 1 to {limits.id_characters} characters")
    value = fields.get("value")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"value of an event is {_short(value)}; expected a number")
    return _time(fields)


def is_sealed(body: str) -> bool:
    """Return whether this is the body of an event that only the user's devices can read."""
    try:
        return "sealed" in json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return False


def _check_sealed(fields: dict[str, Any]) -> None:
    """Raise ValueError where a sealed event says more than id, time, key, tags and ciphertext, or not as it must."""
    tags, sealed = fields.get("tags"), fields["sealed"]
    is_whole = fields.keys() == {"id", "at_ms", "key", "tags", "sealed"}
    if not is_whole or not isinstance(tags, dict) or tags.keys() != {"item_id", "event"}:
        raise ValueError("a sealed event has id, at_ms, key, sealed and tags of item_id and event, and nothing else")
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in (fields["key"], *tags.values())):
        raise ValueError("key or tags of a sealed event are not 16 bytes in base64url")
    if not isinstance(sealed, str) or not _SEALED.fullmatch(sealed):
        raise ValueError(f"sealed is {_short(sealed)}; expected base64url without padding")
    length = len(sealed) * 3 // 4 - SEAL_BYTES
    if length < PAD_BYTES or length % PAD_BYTES:
        raise ValueError(f"sealed holds {length} bytes; expected a multiple of {PAD_BYTES}")


def _time(fields: dict[str, Any]) -> int:
    at_ms = fields.get("at_ms")
    if not is_number(at_ms):
        raise ValueError(f"at_ms of an event is {_short(at_ms)}; expected Unix milliseconds")
    return at_ms


def check(op: Op, limits: Limits) -> object:
    """Return what the body says, of an event its claimed time in ms; a nop always stands.

    Raises ValueError, saying what was found, where no profile may hold this operation.
    """
    if op.kind == "nop":
        return None
    for name in ("kind", "id", "purpose"):
        value = getattr(op, name)
        if not is_text(value) or not 1 <= len(value) <= limits.id_characters:
            raise ValueError(f"{name} is {_short(value)}; expected text of 1 to {limits.id_characters} characters")
    if not all(is_number(number) for number in (op.epoch, op.contact_ms, op.hlc.ms)):
        raise ValueError(f"epoch, contact_ms or hlc is {(op.epoch, op.contact_ms, op.hlc)}; expected 0 to 2^53 - 1")
    if not 0 <= op.hlc.counter <= MAX_COUNTER:
        raise ValueError(f"the counter of hlc is {op.hlc.counter}; expected 0 to {MAX_COUNTER}")
    # UnicodeEncodeError is a ValueError.
    if len(op.body.encode()) > limits.body_bytes:
        raise ValueError(f"the body has {len(op.body.encode())} bytes; expected at most {limits.body_bytes}")
    return _BODIES.get(op.kind, _any)(op, limits)


def _any(op: Op, limits: Limits) -> object:
    return read_json(op.body)


_BODIES: dict[str, Callable[[Op, Limits], object]] = {
    "event": event_time,
    "consent": lambda op, _: consent_said(op.body),
    "erase": lambda op, _: criteria(op.body),
}


def _object(body: str) -> dict[str, Any]:
    value = read_json(body)
    if not isinstance(value, dict):
        raise ValueError(f"the body is {_short(value)}; expected a JSON object")
    return value


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
