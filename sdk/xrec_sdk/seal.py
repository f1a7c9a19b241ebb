"""Seal what only the user's devices may read: events and erasures under a key of 32 random bytes, never the same twice.

A sealed event keeps its id and its time, which the server's rules need, and says nothing else: type, item, device and
value are ChaCha20-Poly1305 (RFC 8439) under the key, padded to 128 bytes; id, time, key and tags are associated data.

An erasure must be obeyed by a server that can't read it. So each event carries a tag of its item and one of its type,
``HMAC(trapdoor, id)`` where ``trapdoor = HMAC(key, text)``: no two tags are alike, and who is given the trapdoor of an
item finds its events and no others (Song, Wagner and Perrig 2000, "hidden search"). `sync_body.takes` does.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache

from xrec_sdk.sync import SyncError
from xrec_sdk.sync_body import PAD_BYTES, Criteria, compact_json, tag
from xrec_sdk.sync_merge import netstrings

KEY_BYTES = 32
NONCE_BYTES = 12
TAMPERED = "e2e.tampered"
UNSEALED = "e2e.unsealed"
UNKNOWN_KEY = "e2e.unknown_key"


def new_secret() -> bytes:
    """Return a new key."""
    return os.urandom(KEY_BYTES)


def spell(data: bytes) -> str:
    """Return bytes in base64url without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unspell(text: object, length: int | None = None) -> bytes:
    """Return the bytes of base64url without padding in its one spelling; ValueError for anything else."""
    if not isinstance(text, str):
        raise ValueError("expected base64url text")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as cause:
        raise ValueError("expected base64url text") from cause
    if spell(data) != text or (length is not None and len(data) != length):
        raise ValueError(f"expected base64url of {length} bytes")
    return data


@lru_cache(maxsize=256)
def subkey(secret: bytes, label: str) -> bytes:
    """Return a key for one purpose: HKDF-Expand (RFC 5869) of 32 bytes."""
    return hmac.digest(secret, f"xrec {label}".encode() + b"\x01", "sha256")


def key_id(secret: bytes) -> str:
    """Return the name of a key, which says nothing of it."""
    return spell(subkey(secret, "id")[:16])


def lock(secret: bytes, label: str, bound: bytes, plain: bytes) -> bytes:
    """Return nonce and ciphertext of JSON, padded with spaces; ``bound`` is the associated data.

    The nonce is a MAC of all of it (as in RFC 8452), so that the same is sealed alike, and nothing else ever under the
    same nonce.
    """
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    padded = plain.ljust(-(-max(len(plain), 1) // PAD_BYTES) * PAD_BYTES)
    mac = hmac.digest(subkey(secret, f"{label} nonce"), b"%d:%s," % (len(bound), bound) + padded, "sha256")
    nonce = mac[:NONCE_BYTES]
    return nonce + ChaCha20Poly1305(subkey(secret, label)).encrypt(nonce, padded, bound)


def unlock(secret: bytes, label: str, bound: bytes, sealed: bytes) -> bytes:
    """Return what was locked; ValueError where it is not what this key has locked."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    try:
        opened = ChaCha20Poly1305(subkey(secret, label))
        return opened.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
    except (InvalidTag, ValueError) as cause:
        raise ValueError("it is not what this key has sealed") from cause


def seal(secret: bytes, body: str) -> str:
    """Return the sealed body of an event's body."""
    fields = json.loads(body)
    id, at_ms = fields.pop("id"), fields.pop("at_ms")
    tags = {name: tag(trapdoor(secret, name, fields[name]), id) for name in ("item_id", "event")}
    said = {"id": id, "at_ms": at_ms, "key": key_id(secret), "tags": tags}
    sealed = lock(secret, "event", _bound(said), compact_json(fields).encode())
    return compact_json({**said, "sealed": spell(sealed)})


def unseal(secrets: Mapping[str, bytes], body: str) -> str:
    """Return the body that was sealed; ``secrets`` are the keys by their ids.

    SyncError ``e2e.unsealed`` of an event in the clear, which a sealed profile does not hold, ``e2e.unknown_key``, and
    ``e2e.tampered`` of one that was changed, moved to another id or time, or never sealed by a device of the user.
    """
    try:
        fields = json.loads(body)
        if "sealed" not in fields:
            raise SyncError(UNSEALED, "an event of a sealed profile is in the clear; no device of the user says such")
        if fields["key"] not in secrets:
            raise SyncError(UNKNOWN_KEY, "an event is sealed with a key that this device does not hold")
        secret = secrets[fields["key"]]
        plain = json.loads(unlock(secret, "event", _bound(fields), unspell(fields["sealed"])))
        return compact_json({**plain, "id": fields["id"], "at_ms": fields["at_ms"]})
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        raise SyncError(TAMPERED, f"a sealed event does not open: {cause}") from cause


def _bound(fields: Mapping[str, object]) -> bytes:
    """Return what an event's ciphertext is bound to."""
    tags = fields["tags"]
    if not isinstance(tags, dict):
        raise ValueError("the tags of a sealed event are no object")
    return netstrings(("xrec-event", fields["id"], fields["at_ms"], fields["key"], tags["item_id"], tags["event"]))


def trapdoor(secret: bytes, field: str, text: str) -> str:
    """Return what finds the events of an item (``item_id``) or a type (``event``) that were sealed with this key."""
    return spell(hmac.digest(subkey(secret, "trapdoor"), netstrings((field, text)), "sha256")[:16])


def seal_criteria(secrets: Mapping[str, bytes], asked: Mapping[str, object]) -> dict[str, object]:
    """Return an erasure's body with trapdoors in place of item and type; times stay."""
    sealed = dict(asked)
    for field in ("item_id", "event"):
        if isinstance(text := asked.get(field), str):
            sealed[field] = {id: trapdoor(secret, field, text) for id, secret in secrets.items()}
    return sealed


def takes_plain(secrets: Mapping[str, bytes], erasure: Criteria, event: str, item_id: str) -> bool:
    """Return whether a sealed erasure means this type and item, whatever the time; what it can't tell it takes."""
    return all(
        not isinstance(named, Mapping) or _is_meant(secrets, named, field, text)
        for named, field, text in ((erasure.item_id, "item_id", item_id), (erasure.event, "event", event))
    )


def _is_meant(secrets: Mapping[str, bytes], named: Mapping[str, str], field: str, text: str) -> bool:
    known: Iterable[str] = named.keys() & secrets.keys()
    found = [trapdoor(secrets[id], field, text) == named[id] for id in known]
    return any(found) or not found
