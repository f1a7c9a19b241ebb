"""How messages of the sync protocol are written as JSON and read again, each field by hand: its type and its range."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode

from xrec_sdk.sync import (
    BAD_ANSWER,
    LIMITS,
    ChangesRequest,
    EraseRequest,
    Head,
    Hlc,
    Letter,
    Op,
    Page,
    Push,
    PushAnswer,
    Receipt,
    Registered,
    RegisterRequest,
    Row,
    SyncError,
)
from xrec_sdk.sync_body import criteria, is_number, is_text, read_json
from xrec_sdk.sync_merge import consent_of_row

Message = Push | PushAnswer | Page | Registered | RegisterRequest | EraseRequest | Receipt | Letter
_Value = TypeVar("_Value")
_MAX_REQUEST_BYTES = 4_096
_MAX_WAIT_S = 60


def write(message: Message | Op | Row) -> bytes:
    """Return a message as UTF-8 JSON: its fields by name, keys sorted, no spaces; an HLC is [ms, counter]."""
    text = json.dumps(message, default=vars, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def write_query(asked: ChangesRequest) -> str:
    """Return a request for changes as the query of its URL."""
    return urlencode(vars(asked))


def read_query(query: str) -> ChangesRequest:
    """Return the request for changes that a URL's query makes; SyncError where it makes none."""
    if len(query) > _MAX_REQUEST_BYTES:
        raise _bad("the query", f"{len(query)} characters", f"at most {_MAX_REQUEST_BYTES}")
    given: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    for name in ("generation", "after", "wait"):
        if re.fullmatch("[0-9]{1,16}", given.get(name, "")):
            given[name] = int(given[name])
    fields = _Fields("the query", {"wait": 0, **given})
    wait = fields.number("wait")
    if wait > _MAX_WAIT_S:
        raise _bad("wait", wait, f"at most {_MAX_WAIT_S} seconds")
    return ChangesRequest(fields.name("device"), fields.number("generation"), fields.number("after"), wait)


def read_push(data: bytes, max_bytes: int = LIMITS.push_bytes) -> Push:
    """Return the push that was sent; SyncError where it is none.

    An operation's values may be out of bounds, but not of another type: ``accept`` rejects it alone.
    """
    fields = _read(data, max_bytes, json.loads)
    ops = tuple(_op(one) for one in fields.several("ops", "op"))
    generation, checked, first = fields.numbers("generation", "checked", "first")
    return Push(fields.number("v"), fields.text("device"), generation, checked, first, ops)


def _op(op: _Fields) -> Op:
    kind, id, purpose, body = (op.typed(name, str) for name in ("kind", "id", "purpose", "body"))
    dseq, epoch, contact_ms = (op.typed(name, int) for name in ("dseq", "epoch", "contact_ms"))
    return Op(dseq, kind, id, epoch, Hlc(*op.pair("hlc", int, int)), contact_ms, purpose, body)


def read_push_answer(data: bytes, max_bytes: int = LIMITS.answer_bytes) -> PushAnswer:
    """Return the answer to a push; SyncError where it is none."""
    fields = _read(data, max_bytes)
    return PushAnswer(
        fields.head(),
        fields.number("now_ms"),
        fields.number("high_water"),
        fields.pairs("acks", int, int),
        fields.pairs("rejected", int, str),
        fields.code(),
    )


def read_page(data: bytes, max_bytes: int = LIMITS.answer_bytes) -> Page:
    """Return a page of changes; SyncError where it is none, or its rows are not in order within (after, next]."""
    fields = _read(data, max_bytes)
    now_ms, high_water, after, end = fields.numbers("now_ms", "high_water", "after", "next")
    rows = tuple(_row(one) for one in fields.several("rows", "row"))
    places = [after, *(row.seq for row in rows)]
    if places != sorted(set(places)) or end < places[-1]:
        raise _bad("the rows' seq", [*places[:3], "...", end], "one after the other, from after to next")
    more, digest, code = fields.typed("more", bool), fields.text("digest"), fields.code()
    if code is None and not more and not re.fullmatch("[0-9a-f]{64}", digest):
        raise _bad("digest", digest, "64 lower-case hexadecimal digits at the end of the changes")
    return Page(fields.head(), now_ms, high_water, after, rows, end, more, digest, code)


def _row(fields: _Fields) -> Row:
    seq, epoch, dseq, order_ms, received_ms = fields.numbers("seq", "epoch", "dseq", "order_ms", "received_ms")
    kind, id, device, body = fields.name("kind"), fields.name("id"), fields.text("device"), fields.text("body")
    row = Row(seq, kind, id, epoch, fields.hlc(), device, dseq, order_ms, received_ms, body)
    try:
        # A device obeys these, so it must be able to read them.
        if kind == "erase":
            criteria(body)
        elif kind == "consent":
            consent_of_row(row)
    except ValueError as cause:
        raise _bad(f"the body of a row of kind {kind}", body, str(cause)) from cause
    return row


def read_registered(data: bytes, max_bytes: int = LIMITS.answer_bytes) -> Registered:
    """Return the answer to a device that asked for a name; SyncError where it is none."""
    fields = _read(data, max_bytes)
    return Registered(
        fields.head(),
        fields.number("now_ms"),
        fields.name("device"),
        fields.number("former_high_water"),
        fields.pairs("former_prints", int, str),
        fields.typed("is_former_known", bool),
    )


def read_register_request(data: bytes) -> RegisterRequest:
    """Return the request for a name; SyncError where it is none."""
    fields = _read(data, _MAX_REQUEST_BYTES)
    return RegisterRequest(fields.number("v"), fields.text("device"), *fields.numbers("checked", "generation", "floor"))


def read_erase_request(data: bytes) -> EraseRequest:
    """Return the account's request to erase everything; SyncError where it is none."""
    fields = _read(data, _MAX_REQUEST_BYTES)
    return EraseRequest(fields.number("v"), fields.name("id"))


def read_letter(data: bytes) -> Letter:
    """Return a letter that one device left for another; SyncError where it is none."""
    fields = _read(data, _MAX_REQUEST_BYTES)
    return Letter(fields.number("v"), fields.text("letter"))


def read_receipt(data: bytes, max_bytes: int = LIMITS.answer_bytes) -> Receipt:
    """Return the receipt of an erasure; SyncError where it is none."""
    fields = _read(data, max_bytes)
    pending = fields.typed("pending", list)
    if not all(map(is_text, pending)):
        raise _bad("pending", pending, "names of devices")
    return Receipt(fields.name("id"), fields.number("at_ms"), fields.number("epoch"), tuple(pending))


def _read(data: bytes, max_bytes: int, parse: Callable[[str], Any] = read_json) -> _Fields:
    if len(data) > max_bytes:
        raise _bad("the message", f"{len(data)} bytes long", f"at most {max_bytes}")
    try:
        return _Fields("the message", parse(data.decode()))
    except (ValueError, RecursionError) as cause:
        raise _bad("the message", data[:60], f"JSON ({cause})") from cause


class _Fields:
    """The fields of one JSON object; unknown ones are left alone, each that is asked for is checked."""

    def __init__(self, where: str, given: object) -> None:
        if not isinstance(given, dict):
            raise _bad(where, given, "an object")
        self.where, self.given = where, given

    def typed(self, name: str, kind: type[_Value]) -> _Value:
        """Return a field of exactly this type."""
        value = self.given.get(name, _MISSING)
        if type(value) is not kind:
            raise self.bad(name, kind.__name__)
        return value

    def number(self, name: str) -> int:
        value = self.given.get(name, _MISSING)
        if not is_number(value):
            raise self.bad(name, "a whole number from 0 to 2^53 - 1")
        return value

    def numbers(self, *names: str) -> tuple[int, ...]:
        return tuple(map(self.number, names))

    def text(self, name: str) -> str:
        value = self.given.get(name, _MISSING)
        if not is_text(value):
            raise self.bad(name, "text")
        return value

    def name(self, name: str) -> str:
        """Return a text that is not empty and no longer than an id may be."""
        value = self.text(name)
        if not 1 <= len(value) <= LIMITS.id_characters:
            raise self.bad(name, f"1 to {LIMITS.id_characters} characters")
        return value

    def code(self) -> str | None:
        return None if self.given.get("code", _MISSING) is None else self.name("code")

    def several(self, name: str, each: str) -> list[_Fields]:
        return [_Fields(each, one) for one in self.typed(name, list)]

    def pair(self, name: str, first: type[Any], second: type[Any]) -> tuple[Any, Any]:
        """Return a list of two values of these types."""
        value = self.typed(name, list)
        if [type(one) for one in value] != [first, second]:
            raise self.bad(name, f"[{first.__name__}, {second.__name__}]")
        return value[0], value[1]

    def pairs(self, name: str, first: type[Any], second: type[Any]) -> tuple[tuple[Any, Any], ...]:
        """Return a list of lists of two values of these types, numbers in range."""
        value = self.typed(name, list)
        for one in value:
            is_pair = isinstance(one, list) and [type(part) for part in one] == [first, second]
            if not is_pair or not all(is_number(part) or isinstance(part, str) for part in one):
                raise self.bad(name, f"pairs of [{first.__name__}, {second.__name__}]")
        return tuple((one[0], one[1]) for one in value)

    def hlc(self) -> Hlc:
        ms, counter = self.pair("hlc", int, int)
        if not is_number(ms) or not is_number(counter):
            raise self.bad("hlc", "two whole numbers from 0")
        return Hlc(ms, counter)

    def head(self) -> Head:
        head = _Fields("head", self.given.get("head", _MISSING))
        generation, base, epoch = head.numbers("generation", "base", "epoch")
        return Head(generation, base, epoch, head.text("erased_by"), *head.numbers("seq", "floor", "forgotten"))

    def bad(self, name: str, expected: str) -> SyncError:
        return _bad(f"{name} of {self.where}", self.given.get(name, _MISSING), expected)


class _Missing:
    def __repr__(self) -> str:
        return "missing"


_MISSING = _Missing()


def _bad(what: str, found: object, expected: str) -> SyncError:
    text = ascii(found)
    return SyncError(BAD_ANSWER, f"{what} is {text[:60]}; expected {expected}")
