"""Make the release key: a private key that never leaves the release engineer, and the public one that apps pin."""

from __future__ import annotations

import json
import os
from pathlib import Path

from xrec_sdk.errors import DataError, UsageError
from xrec_sdk.signature import generate_key, sign


def write_key(path: Path) -> str:
    """Write a new private key, readable by its owner only, and return its public key; never replaces a file."""
    pem, public = generate_key()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as cause:
        raise UsageError("usage.key_exists", f"{path} exists; a key is never replaced, choose another path") from cause
    except OSError as cause:
        raise DataError("data.unwritable", f"{path} can't be written: {cause.strerror}") from cause
    with open(descriptor, "wb") as file:
        file.write(pem)
    return public


def read_key(path: Path) -> bytes:
    """Return the bytes of a private key's file."""
    try:
        return path.read_bytes()
    except OSError as cause:
        message = f"{path} can't be read: {cause.strerror}; make a key with: xrec-export keygen PATH"
        raise DataError("data.private_key", message) from cause


def public_key(private_pem: bytes) -> str:
    """Return the public key of a private one as apps pin it; raise DataError where it is not an Ed25519 key in PEM."""
    return str(json.loads(sign(b"", private_pem))["key"])
