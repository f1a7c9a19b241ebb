"""The recovery code: twenty letters on paper from which the keys of one more member follow, by Argon2id (RFC 9106)."""

from __future__ import annotations

import os

from xrec_sdk.errors import UsageError
from xrec_sdk.keyring import NO_KEY, Recovery, given_to, proves, salt_of
from xrec_sdk.member import Identity
from xrec_sdk.seal import KEY_BYTES, spell, unspell
from xrec_sdk.sync import Row, SyncError

WRONG_CODE = "e2e.recovery_code"
LABEL = "recovery code"
CODE_LETTERS = 20
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# The second recommended option of RFC 9106, section 4.
_ITERATIONS, _LANES, _MEMORY_KIB = 3, 4, 65_536


def new_code() -> str:
    """Return a code of 100 random bits, in groups of four (Crockford's base 32)."""
    number = int.from_bytes(os.urandom(13), "big")
    letters = "".join(_LETTERS[number >> 5 * place & 31] for place in range(CODE_LETTERS))
    return "-".join(letters[place : place + 4] for place in range(0, CODE_LETTERS, 4))


def new_recovery() -> tuple[str, Identity, Recovery]:
    """Return a new code, the member that follows from it, and what devices keep of it."""
    code, salt = new_code(), spell(os.urandom(16))
    identity, proof_key = _derived(_plain(code), salt)
    return code, identity, Recovery(identity.member().id, salt, proof_key)


def open_recovery(code: str, rows: list[Row]) -> tuple[Identity, bytes]:
    """Return the member that follows from a code, and the last key that was given to it.

    ``rows`` are the profile's key rows. SyncError ``e2e.no_key`` where no code was made, ``e2e.recovery_code`` where it
    is another; UsageError ``usage.recovery_code`` where it is none.
    """
    plain = _plain(code)
    named = [row for row in sorted(rows, key=lambda row: -row.seq) if _names_a_code(row)]
    if not named:
        raise SyncError(NO_KEY, "the profile has no recovery code, or its key rows have not come yet")
    row = named[0]
    identity, proof_key = _derived(plain, salt_of(row))
    if not proves(Recovery(identity.member().id, salt_of(row), proof_key), row):
        raise SyncError(WRONG_CODE, "the recovery code is not the last that was made for this profile")
    return identity, given_to(identity, row)


def _names_a_code(row: Row) -> bool:
    try:
        return len(unspell(salt_of(row))) == 16
    except (SyncError, ValueError):
        return False


def _plain(code: str) -> str:
    """Return the letters of a code as they were made, whatever its case, spaces and look-alikes."""
    kept = "".join(code.split()).replace("-", "").upper() if isinstance(code, str) else ""
    plain = kept.replace("O", "0").replace("I", "1").replace("L", "1")
    if len(plain) != CODE_LETTERS or not set(plain) <= set(_LETTERS):
        raise UsageError(
            "usage.recovery_code", f"a recovery code has {CODE_LETTERS} letters and digits in groups of four"
        )
    return plain


def _derived(plain: str, salt: str) -> tuple[Identity, str]:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    stretch = Argon2id(
        salt=unspell(salt), length=3 * KEY_BYTES, iterations=_ITERATIONS, lanes=_LANES, memory_cost=_MEMORY_KIB
    )
    keys = stretch.derive(plain.encode())
    private, signing, proof_key = (keys[place : place + KEY_BYTES] for place in range(0, 3 * KEY_BYTES, KEY_BYTES))
    return Identity.of(private, signing, LABEL), spell(proof_key)
