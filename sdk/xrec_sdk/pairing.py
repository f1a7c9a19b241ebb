"""Pair two devices by six digits that the user compares, whoever carries their letters.

The new device commits to its keys and a nonce in the text that it shows (a QR code); the old one answers with a key for
this pairing and a nonce; only then does the new one reveal what it committed to. Both take six digits from all of it
(Vaudenay 2005, "Secure communications over insecure channels based on short authenticated strings"). Who stands between
them must choose what it says before it knows what the digits will be, so it is right once in a million tries, each of
which the user sees. The key itself then goes sealed to the new device's HPKE key, under a MAC that only the old device
could make.

Values in, values out; a letter is JSON text. Each side is used once: a letter that does not fit ends the pairing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from dataclasses import asdict
from typing import Any

from xrec_sdk.errors import UsageError
from xrec_sdk.keyring import MAX_LABEL
from xrec_sdk.member import Identity, Member, agree, give, member_id, taken
from xrec_sdk.seal import KEY_BYTES, spell, subkey, unspell
from xrec_sdk.sync import LIMITS, SyncError
from xrec_sdk.sync_body import compact_json, is_text, read_json
from xrec_sdk.sync_merge import netstrings

PREFIX = "xrec-pair:1:"
FAILED = "e2e.pairing"


class Newcomer:
    """The new device's side; ``device`` is its name at the server, ``text`` what it shows."""

    def __init__(self, own: Identity, device: str) -> None:
        self._own, self._nonce = own, spell(os.urandom(16))
        self._commitment = _commitment(device, own.member(), self._nonce)
        self._agreed: _Agreed | None = None
        self.text = f"{PREFIX}{self._commitment}:{device}"
        self.answerer = ""

    def reveal(self, answer: str) -> tuple[str, str]:
        """Return the letter that reveals this device to the one that answered, and the six digits."""
        given = _read(answer, "answer", ("device", "public", "nonce"))
        if self._agreed is not None:
            raise _failed("a second answer came")
        self.answerer = given["device"]
        member = self._own.member()
        transcript = _transcript(self._commitment, given["public"], given["nonce"], member, self._nonce)
        self._agreed = _Agreed(self._own, given["public"], transcript)
        letter = compact_json({"step": "reveal", "member": asdict(member), "nonce": self._nonce})
        return letter, self._agreed.digits

    def secret(self, letter: str) -> bytes:
        """Return the key that the other device gave, once the user has compared the digits."""
        given = _read(letter, "key", ("sealed", "mac"))
        if self._agreed is None or not hmac.compare_digest(given["mac"], self._agreed.mac(given["sealed"])):
            raise _failed("the key was not sent by the device that was paired")
        try:
            return taken(self._own, unspell(given["sealed"]), self._agreed.info)
        except ValueError as cause:
            raise _failed(f"the key does not open: {cause}") from cause


class Approver:
    """The old device's side; ``text`` is what the new one shows, ``device`` this one's name at the server.

    UsageError ``usage.pairing_text`` where the text is not one that a device shows. ``newcomer`` is the new device's
    name at the server, ``member`` who it is once it has revealed itself.
    """

    def __init__(self, text: str, device: str) -> None:
        commitment, _, self.newcomer = text.removeprefix(PREFIX).partition(":") if isinstance(text, str) else ("",) * 3
        is_name = is_text(self.newcomer) and 1 <= len(self.newcomer) <= LIMITS.id_characters
        if not is_name or not text.startswith(PREFIX) or len(commitment) != 43:
            raise UsageError("usage.pairing_text", f"the text is not what a new device shows; expected {PREFIX}...")
        self._commitment, self._nonce = commitment, spell(os.urandom(16))
        self._own = Identity.of(os.urandom(KEY_BYTES), os.urandom(KEY_BYTES), "pairing")
        self._agreed: _Agreed | None = None
        public = self._own.member().public
        self.answer = compact_json({"step": "answer", "device": device, "public": public, "nonce": self._nonce})
        self.member: Member | None = None

    def digits(self, reveal: str) -> str:
        """Return the six digits, once the new device has revealed what it committed to."""
        given = _read(reveal, "reveal", ("nonce",))
        member = _member(given)
        if _commitment(self.newcomer, member, given["nonce"]) != self._commitment:
            raise _failed("the new device's keys are not those that its text commits to")
        public = self._own.member().public
        transcript = _transcript(self._commitment, public, self._nonce, member, given["nonce"])
        self._agreed, self.member = _Agreed(self._own, member.public, transcript), member
        return self._agreed.digits

    def key_letter(self, secret: bytes) -> str:
        """Return the letter that gives the key, once the user has compared the digits."""
        if self._agreed is None or self.member is None:
            raise _failed("the new device has not revealed itself")
        sealed = spell(give(secret, self.member.public, self._agreed.info))
        return compact_json({"step": "key", "sealed": sealed, "mac": self._agreed.mac(sealed)})


class _Agreed:
    """What both sides know once the new device is revealed: the digits, and a key that nobody between them has."""

    def __init__(self, own: Identity, public: str, transcript: bytes) -> None:
        said = hashlib.sha256(transcript).digest()
        self.digits = f"{int.from_bytes(said[:8], 'big') % 1_000_000:06d}"
        self.info = netstrings(("xrec-pair", said.hex()))
        try:
            shared = agree(own, public)
        except ValueError as cause:
            raise _failed(f"the other device's key is none: {cause}") from cause
        # HKDF (RFC 5869): extract with the transcript as salt, then expand.
        self._mac_key = subkey(hmac.digest(said, shared, "sha256"), "pair")

    def mac(self, sealed: str) -> str:
        return spell(hmac.digest(self._mac_key, sealed.encode(), "sha256"))


def _commitment(device: str, member: Member, nonce: str) -> str:
    said = ("xrec-commitment", device, member.public, member.verifying, member.label, nonce)
    return spell(hashlib.sha256(netstrings(said)).digest())


def _transcript(commitment: str, public: str, nonce: str, member: Member, revealed: str) -> bytes:
    who = (member.public, member.verifying, member.label)
    return netstrings(("xrec-pairing", commitment, public, nonce, *who, revealed))


def _read(letter: str, step: str, texts: tuple[str, ...]) -> dict[str, Any]:
    try:
        given = read_json(letter)
        is_step = isinstance(given, dict) and given.get("step") == step
        if not is_step or not all(isinstance(given.get(name), str) and given[name].isascii() for name in texts):
            raise ValueError(f"expected the letter {step!r} with {', '.join(texts)}")
        fields: dict[str, Any] = given
        return fields
    except ValueError as cause:
        raise _failed(f"a letter is none of a pairing: {cause}") from cause


def _member(given: dict[str, Any]) -> Member:
    try:
        member = Member(**given["member"])
        if not is_text(member.label) or not 1 <= len(member.label) <= MAX_LABEL:
            raise ValueError("its label is too long")
        for key in (member.public, member.verifying):
            unspell(key, KEY_BYTES)
        if member.id != member_id(member.public, member.verifying):
            raise ValueError("its id is not that of its keys")
        return member
    except (ValueError, TypeError, KeyError) as cause:
        raise _failed(f"the new device is malformed: {cause}") from cause


def _failed(message: str) -> SyncError:
    return SyncError(FAILED, f"{message}; end both sides and pair again")


def is_letter(text: str, step: str) -> bool:
    """Return whether a letter claims to be this step's."""
    try:
        given = json.loads(text)
        return isinstance(given, dict) and given.get("step") == step
    except (ValueError, RecursionError):
        return False
