"""A device as other devices of its user know it, and its private keys: it is given keys by HPKE and signs what it says.

HPKE is RFC 9180's base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20Poly1305, signatures are Ed25519
(RFC 8032); both are those of `cryptography`, 47 or later (extra ``end-to-end``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from xrec_sdk.errors import UsageError
from xrec_sdk.seal import KEY_BYTES, spell, unspell
from xrec_sdk.sync_merge import netstrings


@dataclass(frozen=True)
class Member:
    """A device of the user, or the recovery code: its HPKE key, the key that it signs with, what the user calls it."""

    id: str
    public: str
    verifying: str
    label: str

    def has_signed(self, said: bytes, signature: str) -> bool:
        """Return whether this member said it."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            public = Ed25519PublicKey.from_public_bytes(unspell(self.verifying, KEY_BYTES))
            public.verify(unspell(signature, 64), said)
            return True
        except (InvalidSignature, ValueError):
            return False


@dataclass(frozen=True)
class Identity:
    """A private pair of keys, as 32 bytes each: X25519 to be given keys, Ed25519 to sign with."""

    private: str
    signing: str
    label: str

    @classmethod
    def of(cls, private: bytes, signing: bytes, label: str) -> Identity:
        """Return the identity of raw keys; any 32 bytes are a key of either kind."""
        return cls(spell(private), spell(signing), label)

    def member(self) -> Member:
        """Return what others know of it; the id follows from the keys."""
        return _member_of(self)

    def sign(self, said: bytes) -> str:
        """Return the Ed25519 signature of what is said."""
        return spell(_ed25519(self).sign(said))


def give(secret: bytes, public: str, info: bytes) -> bytes:
    """Return a key sealed to a device's HPKE key: 80 bytes."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    sealed: bytes = _suite().encrypt(secret, X25519PublicKey.from_public_bytes(unspell(public, KEY_BYTES)), info=info)
    return sealed


def taken(own: Identity, sealed: bytes, info: bytes) -> bytes:
    """Return the key that was sealed to this device; ValueError where there is none in it."""
    from cryptography.exceptions import InvalidTag

    try:
        secret: bytes = _suite().decrypt(sealed, _x25519(own), info=info)
    except InvalidTag as cause:
        raise ValueError("it was not sealed to this device") from cause
    if len(secret) != KEY_BYTES:
        raise ValueError(f"it holds {len(secret)} bytes; expected a key of {KEY_BYTES}")
    return secret


def agree(own: Identity, public: str) -> bytes:
    """Return what this identity and the holder of a public X25519 key have in common (X25519); ValueError for none."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    shared: bytes = _x25519(own).exchange(X25519PublicKey.from_public_bytes(unspell(public, KEY_BYTES)))
    return shared


@lru_cache(maxsize=8)
def _member_of(own: Identity) -> Member:
    public = spell(_x25519(own).public_key().public_bytes_raw())
    verifying = spell(_ed25519(own).public_key().public_bytes_raw())
    return Member(member_id(public, verifying), public, verifying, own.label)


def member_id(public: str, verifying: str) -> str:
    """Return the id of a member, which follows from its keys."""
    return spell(hashlib.sha256(netstrings(("xrec-member", public, verifying))).digest()[:16])


def _x25519(own: Identity) -> Any:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(unspell(own.private, KEY_BYTES))


def _ed25519(own: Identity) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(unspell(own.signing, KEY_BYTES))


def check_extra() -> None:
    """Raise UsageError ``usage.extra_missing`` where `cryptography` is too old for HPKE."""
    _suite()


def _suite() -> Any:
    try:
        from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
    except ImportError as missing:
        message = "end-to-end mode needs cryptography 47 or later; pip install 'xrec[end-to-end]'"
        raise UsageError("usage.extra_missing", message) from missing
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
