"""Sign a manifest and check its signature against pinned keys: Ed25519 over the manifest's bytes."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence

from xrec_sdk.errors import BundleUntrusted, DataError, UsageError

ALGORITHM = "ed25519"
MAX_SIGNATURE_FILE_BYTES = 1024


def generate_key() -> tuple[bytes, str]:
    """Return a new private key (PKCS 8, PEM, not encrypted) and its public key as an app pins it, ``ed25519:...``."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem, _spell_key(private.public_key().public_bytes_raw())


def sign(manifest_bytes: bytes, private_pem: bytes) -> bytes:
    """Return the bytes of manifest.sig; raise DataError where the private key isn't an Ed25519 key in PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        private = serialization.load_pem_private_key(private_pem, password=None)
    except (TypeError, ValueError) as cause:
        raise DataError("data.private_key", "the private key is not an unencrypted PEM file") from cause
    if not isinstance(private, Ed25519PrivateKey):
        raise DataError("data.private_key", "the private key is not an Ed25519 key")
    return _spell(_spell_key(private.public_key().public_bytes_raw()), private.sign(manifest_bytes))


def verify(manifest_bytes: bytes, sig_bytes: bytes, trusted_keys: Sequence[str]) -> str:
    """Return the pinned key that signed these bytes; raise BundleUntrusted where none did.

    Only the one spelling that :func:`sign` writes is accepted, so that a signature file cannot be changed unseen.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    pinned = {key: _key_bytes(key) for key in check_trusted_keys(trusted_keys)}
    key, signature = _read(sig_bytes)
    if key not in pinned:
        raise BundleUntrusted("bundle.key_untrusted", f"the bundle is signed by {key}, which the app does not pin")
    try:
        Ed25519PublicKey.from_public_bytes(pinned[key]).verify(signature, manifest_bytes)
    except (InvalidSignature, ValueError) as cause:
        raise BundleUntrusted(
            "bundle.signature_invalid", "manifest.json is not what its signature was made for"
        ) from cause
    return key


def check_trusted_keys(trusted_keys: Sequence[str]) -> Sequence[str]:
    """Return the keys as they are; raise UsageError where one is not spelt ``ed25519:<base64 of 32 bytes>``."""
    if isinstance(trusted_keys, str):
        raise UsageError("usage.trusted_keys", "trusted_keys must be a list of keys, not one string")
    for key in trusted_keys:
        try:
            _key_bytes(key)
        except (ValueError, AttributeError) as cause:
            raise UsageError("usage.trusted_keys", f"{key!r} is not ed25519:<base64 of 32 bytes>") from cause
    return trusted_keys


def _spell_key(raw: bytes) -> str:
    return f"{ALGORITHM}:{base64.b64encode(raw).decode('ascii')}"


def _key_bytes(key: str) -> bytes:
    raw = base64.b64decode(key.partition(":")[2], validate=True)
    if len(raw) != 32 or _spell_key(raw) != key:
        raise ValueError("not the one spelling of a key")
    return raw


def _spell(key: str, signature: bytes) -> bytes:
    fields = {"algorithm": ALGORITHM, "key": key, "signature": base64.b64encode(signature).decode("ascii")}
    return json.dumps(fields, separators=(",", ":")).encode("ascii")


def _read(sig_bytes: bytes) -> tuple[str, bytes]:
    malformed = "manifest.sig is not a signature as xrec writes it"
    if len(sig_bytes) > MAX_SIGNATURE_FILE_BYTES:
        raise BundleUntrusted("bundle.signature_malformed", malformed)
    try:
        fields = json.loads(sig_bytes.decode("ascii"))
        key = fields["key"]
        signature = base64.b64decode(fields["signature"], validate=True)
        _key_bytes(key)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error) as cause:
        raise BundleUntrusted("bundle.signature_malformed", malformed) from cause
    if len(signature) != 64 or _spell(key, signature) != sig_bytes:
        raise BundleUntrusted("bundle.signature_malformed", malformed)
    return key, signature
