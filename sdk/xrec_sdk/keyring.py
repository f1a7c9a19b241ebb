"""Which devices are a user's and which keys they share: the vault of one device, and the key rows that change it.

A *key row* (kind ``key``, the id its key's) makes a new key. It says who the devices are, who was removed and which
keys came before, sealed under the new key, and gives that key to each device by HPKE. The device that made it signs it.
Rules:

1. A row counts if a device signed it that was a member, and not removed, when it came.
2. Members and removals only grow: of rows made at once the join stands.
3. The current key is the last that was given to exactly the members that are not removed. Where there is none, a member
   makes one.
4. What a row says of older keys is taken for reading only.

Values in, values out. What a server could do with these rows is in docs/threat-model.md.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from xrec_sdk.errors import UsageError
from xrec_sdk.member import Identity, Member, give, member_id, taken
from xrec_sdk.seal import KEY_BYTES, key_id, lock, new_secret, spell, unlock, unspell
from xrec_sdk.sync import LIMITS, Row, SyncError
from xrec_sdk.sync_body import compact_json, is_text, read_json
from xrec_sdk.sync_merge import netstrings

KIND = "key"
BAD_KEY = "e2e.bad_key"
NO_KEY = "e2e.no_key"
MAX_MEMBERS = 24
MAX_LABEL = 64
TOLD_REMOVALS = 32
FORGOTTEN_KEYS = 512
PENDING = 1 << 62
"""From here on are the places of keys whose rows have not come back: after all that have."""


@dataclass(frozen=True)
class Recovery:
    """What devices know of the recovery code: its member's id, the salt, and the key that proves rows to it."""

    id: str
    salt: str
    proof_key: str


@dataclass(frozen=True)
class Secret:
    """A key that this device holds, to whom it was given and where its row stands.

    ``to`` is empty where that is not known for sure; ``is_opened`` is False until the row has been read;
    ``is_passed_on`` says that a later row tells of this key.
    """

    id: str
    secret: str
    to: tuple[str, ...] = ()
    seq: int = 0
    is_opened: bool = False
    is_passed_on: bool = False

    @property
    def raw(self) -> bytes:
        """The key itself."""
        return unspell(self.secret, KEY_BYTES)


@dataclass(frozen=True)
class Vault:
    """All that a device keeps of the keys.

    ``missed`` is the seq of the last row that was given to others only; ``forgotten`` are keys of what was erased: they
    are not taken again.
    """

    own: Identity
    members: tuple[Member, ...] = ()
    removed: tuple[str, ...] = ()
    recovery: Recovery | None = None
    secrets: tuple[Secret, ...] = ()
    missed: int = 0
    forgotten: tuple[str, ...] = ()

    @property
    def ring(self) -> dict[str, bytes]:
        """Every key that this device can open with, by its id."""
        return {one.id: one.raw for one in self.secrets}

    @property
    def wanted(self) -> tuple[str, ...]:
        """Who is to be given the next key."""
        return tuple(sorted({one.id for one in self.members} - set(self.removed)))

    @property
    def is_member(self) -> bool:
        """Whether this device may make keys, as far as it knows."""
        last = max((one.seq for one in self.secrets if one.to), default=0)
        return self.own.member().id in self.wanted and self.missed <= last

    @property
    def current(self) -> Secret | None:
        """The key to seal with; None where there is none that all members have and no removed one."""
        last = max((one for one in self.secrets if one.to), key=lambda one: one.seq, default=None)
        return last if last and self.is_member and last.to == self.wanted else None


def new_vault(label: str) -> Vault:
    """Return the vault of a device that is nobody's member yet."""
    if not is_text(label) or not 1 <= len(label) <= MAX_LABEL:
        raise UsageError("usage.label", f"the label is {label!r}; expected a text of 1 to {MAX_LABEL} characters")
    return Vault(Identity.of(os.urandom(KEY_BYTES), os.urandom(KEY_BYTES), label))


def write_vault(vault: Vault) -> str:
    """Return the vault as JSON. It holds every key: it may lie nowhere but in the profile's own file."""
    return compact_json(asdict(vault))


def read_vault(text: str) -> Vault:
    """Return the vault of its JSON."""
    given = json.loads(text)
    recovery = given["recovery"]
    return Vault(
        Identity(**given["own"]),
        tuple(Member(**one) for one in given["members"]),
        tuple(given["removed"]),
        Recovery(**recovery) if recovery else None,
        tuple(Secret(**{**one, "to": tuple(one["to"])}) for one in given["secrets"]),
        given["missed"],
        tuple(given["forgotten"]),
    )


def renew(
    vault: Vault,
    *,
    add: Iterable[Member] = (),
    remove: Iterable[str] = (),
    recovery: Recovery | None = None,
    is_fresh: bool = False,
    signer: Identity | None = None,
) -> tuple[Vault, str, str]:
    """Return the vault with a new key, the key's id and the body of its row.

    ``is_fresh`` tells nothing of older keys, and forgets them: what was sealed with them is erased. ``signer`` is who
    makes the row, this device if None. UsageError ``e2e.too_many_devices``.
    """
    members = {one.id: one for one in (*vault.members, *add)}
    removed = (*vault.removed, *(id for id in remove if id not in vault.removed))
    recovery = recovery or vault.recovery
    wanted = sorted(set(members) - set(removed))
    if len(wanted) > MAX_MEMBERS:
        raise UsageError("e2e.too_many_devices", f"{len(wanted)} devices; expected at most {MAX_MEMBERS}: remove one")
    secret, by = new_secret(), (signer or vault.own).member().id
    id = key_id(secret)
    past = () if is_fresh else tuple(one for one in vault.secrets if not one.is_passed_on)
    inside = {
        "members": [asdict(members[one]) for one in wanted],
        "removed": removed[-TOLD_REMOVALS:],
        "recovery": asdict(recovery) if recovery else None,
        "past": [[one.id, one.secret] for one in past],
    }
    to = {one: spell(give(secret, members[one].public, netstrings(("xrec-key", id, by, one)))) for one in wanted}
    body: dict[str, Any] = {"by": by, "key": id, "to": to, "salt": recovery.salt if recovery else ""}
    body["inside"] = spell(lock(secret, "inside", netstrings(("xrec-inside", id, by)), compact_json(inside).encode()))
    signed = _signed(body)
    body["proof"] = _proof(recovery, signed) if recovery else ""
    body["signature"] = (signer or vault.own).sign(signed)
    text = compact_json(body)
    if len(text.encode()) > LIMITS.body_bytes:
        raise UsageError("e2e.too_many_devices", f"a key for {len(wanted)} devices is too long to send: remove one")
    if is_fresh:
        vault = forget(vault, ())
    kept = tuple(replace(one, is_passed_on=True) for one in vault.secrets)
    place = max((PENDING, *(one.seq + 1 for one in vault.secrets)))
    fresh = Secret(id, spell(secret), tuple(wanted), place, is_opened=True)
    made = replace(
        vault, members=tuple(members.values()), removed=removed, recovery=recovery, secrets=(*kept, fresh), missed=0
    )
    return made, id, text


def forget(vault: Vault, kept: Container[str]) -> Vault:
    """Return the vault without all keys but those that are kept: what was sealed with the others is erased."""
    gone = tuple(one.id for one in vault.secrets if one.id not in kept)
    secrets = tuple(one for one in vault.secrets if one.id in kept)
    return replace(vault, secrets=secrets, forgotten=(*vault.forgotten, *gone)[-FORGOTTEN_KEYS:])


def take(vault: Vault, row: Row) -> Vault:
    """Return the vault after a key row; SyncError ``e2e.bad_key`` of one that no device of the user made.

    A row whose key this device was given by a pairing or by its recovery code counts, whoever signed it.
    """
    body = _read(row)
    own, id = vault.own.member().id, row.id
    if id in vault.forgotten:
        raise _bad("a key row of what was erased came again")
    held = next((one for one in vault.secrets if one.id == id), None)
    if held and held.is_opened:
        return _put(vault, replace(held, seq=row.seq)) if held.seq >= PENDING else vault
    if held is None:
        if not vault.members:
            return vault  # nobody's member yet: whose row this is can't be told
        _check_signature(vault, body)
        if own not in body["to"]:
            return replace(vault, missed=max(vault.missed, row.seq))
        secret = _taken(vault.own, body, own)
    else:
        secret = held.raw
    inside = _inside(secret, body)
    is_past = held is not None and held.is_passed_on
    # Who was removed may know an older key and write its row anew: it must not become the current one.
    to = () if is_past else tuple(sorted(body["to"]))
    vault = _put(vault, Secret(id, spell(secret), to, row.seq, True, is_past))
    if not is_past:
        vault = _join(vault, inside)
    for other, raw in inside["past"]:
        if other in vault.forgotten:
            continue
        known = next((one for one in vault.secrets if one.id == other), Secret(other, raw))
        vault = _put(vault, replace(known, is_passed_on=True))
    return vault


def take_all(vault: Vault, rows: Iterable[Row]) -> tuple[Vault, list[tuple[Row, SyncError]]]:
    """Return the vault after all key rows, in whatever order they stand, and what was wrong with which."""
    listed = sorted(rows, key=lambda row: row.seq)
    while True:
        before, wrong = vault, list[tuple[Row, SyncError]]()
        for row in listed:
            try:
                vault = take(vault, row)
            except SyncError as refusal:
                wrong.append((row, refusal))
        if vault == before:
            return vault, wrong


def adopt(vault: Vault, secret: bytes) -> Vault:
    """Return the vault with a key that came by a pairing or a recovery code: its row will tell the rest."""
    id = key_id(secret)
    known = next((one for one in vault.secrets if one.id == id), Secret(id, spell(secret)))
    return _put(vault, replace(known, is_passed_on=False))


def proves(recovery: Recovery, row: Row) -> bool:
    """Return whether a device that knew this recovery code's proof key made the row."""
    body = _read(row)
    return body["salt"] == recovery.salt and hmac.compare_digest(
        body["proof"].encode(), _proof(recovery, _signed(body)).encode()
    )


def given_to(own: Identity, row: Row) -> bytes:
    """Return the key that a row gives to an identity; SyncError ``e2e.bad_key`` where it gives none."""
    body, id = _read(row), own.member().id
    if id not in body["to"]:
        raise _bad("the key was given to others")
    return _taken(own, body, id)


def salt_of(row: Row) -> str:
    """Return the salt of the recovery code that a row names, "" for none."""
    salt: str = _read(row)["salt"]
    return salt


def _put(vault: Vault, secret: Secret) -> Vault:
    others = tuple(one for one in vault.secrets if one.id != secret.id)
    return replace(vault, secrets=tuple(sorted((*others, secret), key=lambda one: (one.seq, one.id))))


def _join(vault: Vault, inside: dict[str, Any]) -> Vault:
    try:
        return _joined(vault, inside)
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise _bad(f"what a key row says of the devices is malformed: {type(cause).__name__}") from cause


def _joined(vault: Vault, inside: dict[str, Any]) -> Vault:
    members = {one.id: one for one in (*vault.members, *map(_member, inside["members"]))}
    removed = (*vault.removed, *(id for id in inside["removed"] if id not in vault.removed))
    recovery = Recovery(**inside["recovery"]) if inside["recovery"] else vault.recovery
    return replace(vault, members=tuple(members.values()), removed=removed, recovery=recovery)


def _taken(own: Identity, body: dict[str, Any], id: str) -> bytes:
    try:
        secret = taken(own, unspell(body["to"][id]), netstrings(("xrec-key", body["key"], body["by"], id)))
    except ValueError as cause:
        raise _bad(f"a key row's key does not open: {cause}") from cause
    if key_id(secret) != body["key"]:
        raise _bad("a key row gives another key than it names")
    return secret


def _inside(secret: bytes, body: dict[str, Any]) -> dict[str, Any]:
    try:
        bound = netstrings(("xrec-inside", body["key"], body["by"]))
        inside: dict[str, Any] = json.loads(unlock(secret, "inside", bound, unspell(body["inside"])))
        for other, raw in inside["past"]:
            if key_id(unspell(raw, KEY_BYTES)) != other:
                raise ValueError("an older key has another id")
        return inside
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        raise _bad(f"a key row does not open: {cause}") from cause


def _read(row: Row) -> dict[str, Any]:
    """Return a key row's body, every field a text but ``to``, an object of texts; SyncError where it is none."""
    try:
        body = read_json(row.body)
        if not isinstance(body, dict) or not isinstance(body.get("to"), dict):
            raise ValueError("expected an object with an object to")
        texts = [body.get(name) for name in ("by", "key", "inside", "salt", "proof", "signature")]
        if not all(isinstance(one, str) for one in (*texts, *body["to"].values())) or body["key"] != row.id:
            raise ValueError("expected texts, and the row's id as key")
        return body
    except ValueError as cause:
        raise _bad(f"a key row is malformed: {cause}") from cause


def _check_signature(vault: Vault, body: dict[str, Any]) -> None:
    signer = next((one for one in vault.members if one.id == body["by"] and one.id not in vault.removed), None)
    if signer is None:
        raise _bad("a key row is by no device of this user, or by one that was removed")
    if not signer.has_signed(_signed(body), body["signature"]):
        raise _bad("a key row's signature does not hold")


def _signed(body: dict[str, Any]) -> bytes:
    to = [part for pair in sorted(body["to"].items()) for part in pair]
    return netstrings(("xrec-key", body["key"], body["by"], body["inside"], body["salt"], *to))


def _proof(recovery: Recovery, signed: bytes) -> str:
    return spell(hmac.new(unspell(recovery.proof_key, KEY_BYTES), signed, hashlib.sha256).digest())


def _member(given: dict[str, str]) -> Member:
    one = Member(**given)
    if one.id != member_id(one.public, one.verifying):
        raise _bad("a member's id is not that of its keys")
    return one


def _bad(message: str) -> SyncError:
    return SyncError(BAD_KEY, message)
