"""Who asks: a bearer token (JWT, RFC 7519) is checked and becomes a profile's pseudonym.

The token is signed with EdDSA (Ed25519), ES256 or RS256 by a key that the operator gave; ``aud``, ``exp`` and ``sub``
must be there, ``iss`` where an issuer was set, ``nbf`` is obeyed, ``device`` may be there. The profile's id is
HMAC-SHA256 of (issuer, subject) under the tenant's secret: still personal data, but of no use without the secret.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError, SecurityWarning
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey
from xrec_sdk.sync_body import is_text
from xrec_sdk.sync_merge import netstrings

from xrec_server.errors import Refused, ServerError

ALGORITHMS = ("Ed25519", "EdDSA", "ES256", "RS256")
MAX_TOKEN_CHARACTERS = 8_192
MAX_CLAIM_CHARACTERS = 512
MIN_SECRET_BYTES = 32
REMEMBERED_TOKENS = 10_000
LOOK_AGAIN_S = 30.0
NAME_CHARACTERS = 34
"""Length of a device's name before its tag: "d-" and 32 random hexadecimal digits."""


@dataclass(frozen=True)
class Identity:
    """Whose profile it is, and the tag that ends the names of this token's device."""

    profile: str
    tag: str

    def own(self, device: str) -> str:
        """Return a device's name where this token may speak for it, else ""."""
        return device if device[NAME_CHARACTERS:] == self.tag and "\0" not in device else ""


@dataclass(frozen=True)
class TokenRules:
    """What a token must say; ``issuer`` None takes any. ``leeway_s`` is for clocks that differ."""

    audience: str
    issuer: str | None = None
    leeway_s: int = 60


def load_keys(path: Path) -> KeySet:
    """Return the public keys of a JWKS file (RFC 7517) or of a PEM file; a private key is refused."""
    try:
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)
            keys = _pem_keys(data) if data.lstrip().startswith(b"-----") else _jwks_keys(data)
    except (OSError, ValueError, KeyError, TypeError, JoseError) as error:
        raise ServerError(
            "server.key_malformed", f"{path} is not a JWKS or PEM file of public keys that can be read: {error}"
        ) from error
    if any(key.key_type == "oct" or key.is_private for key in keys):
        raise ServerError("server.key_private", f"{path} holds a private or shared key; give the public one alone")
    return keys


def _jwks_keys(data: bytes) -> KeySet:
    return KeySet.import_key_set(json.loads(data))


def _pem_keys(data: bytes) -> KeySet:
    key = load_pem_public_key(data)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return KeySet([OKPKey.import_key(data)])
    if isinstance(key, ec.EllipticCurvePublicKey):
        return KeySet([ECKey.import_key(data)])
    if isinstance(key, rsa.RSAPublicKey):
        return KeySet([RSAKey.import_key(data)])
    raise ValueError(f"a key of type {type(key).__name__}; expected Ed25519, P-256 or RSA")


def load_secret(path: Path) -> bytes:
    """Return the tenant's secret from a file; it must have 32 bytes or more."""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise ServerError("server.secret_unreadable", f"can't read the tenant's secret {path}: {error}") from error
    if len(secret) < MIN_SECRET_BYTES:
        raise ServerError(
            "server.secret_short",
            f"{path} has {len(secret)} bytes; expected {MIN_SECRET_BYTES} or more: `openssl rand -hex 32`",
        )
    return secret


class Identities:
    """Tokens to identities; what was verified is remembered until it expires, and a changed key file is read again."""

    def __init__(self, keys: Path, secret: bytes, rules: TokenRules, *, clock: Callable[[], float] = time.time) -> None:
        self._path, self._secret, self._rules, self._clock = keys, secret, rules, clock
        self._keys, self._stamp, self._looked_s = load_keys(keys), keys.stat().st_mtime_ns, clock()
        self._known: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()

    def of(self, authorization: str | None) -> Identity:
        """Return the identity of an Authorization header; Refused with 401 and a code where there is none."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refused(401, "auth.missing", "expected the header Authorization: Bearer TOKEN")
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            raise Refused(401, "auth.malformed", f"the token is not ASCII, or longer than {MAX_TOKEN_CHARACTERS}")
        self._look_at_the_keys()
        name = hashlib.sha256(token.encode()).digest()
        until_s, identity = self._known.get(name, (0.0, None))
        if identity is None or until_s <= self._clock():
            claims = self._verify(token)
            identity = self._identity(claims)
            self._known[name] = (float(claims["exp"]) + self._rules.leeway_s, identity)
            if len(self._known) > REMEMBERED_TOKENS:
                self._known.popitem(last=False)
        return identity

    def _look_at_the_keys(self) -> None:
        if self._clock() - self._looked_s < LOOK_AGAIN_S:
            return
        self._looked_s = self._clock()
        try:
            stamp = self._path.stat().st_mtime_ns
            if stamp != self._stamp:
                self._keys, self._stamp = load_keys(self._path), stamp
                self._known.clear()
        except (OSError, ServerError):
            return  # A key file that is being written: the keys that were good stay until the next look.

    def _verify(self, token: str) -> dict[str, Any]:
        rules = self._rules
        wanted: dict[str, Any] = {"aud": {"essential": True, "value": rules.audience}}
        wanted |= {"sub": {"essential": True}, "exp": {"essential": True}}
        if rules.issuer is not None:
            wanted["iss"] = {"essential": True, "value": rules.issuer}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SecurityWarning)  # "EdDSA" is the older name of "Ed25519".
                claims = jwt.decode(token, self._keys, algorithms=ALGORITHMS).claims
            jwt.JWTClaimsRegistry(now=int(self._clock()), leeway=rules.leeway_s, **wanted).validate(claims)
            if not math.isfinite(claims["exp"]):
                raise ValueError("exp is no time")
        except ExpiredTokenError as error:
            raise Refused(401, "auth.expired", "the token has expired: fetch a new one") from error
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            # What the token says is not repeated: it goes to a log.
            raise Refused(401, "auth.invalid", f"the token is not valid here: {type(error).__name__}") from error
        return claims

    def _identity(self, claims: dict[str, Any]) -> Identity:
        issuer, subject, device = claims.get("iss", ""), claims["sub"], claims.get("device", "")
        for claim in (issuer, subject, device):
            if not is_text(claim) or len(claim) > MAX_CLAIM_CHARACTERS:
                raise Refused(401, "auth.invalid", f"iss, sub, device: expected text of {MAX_CLAIM_CHARACTERS} or less")
        profile = self._pseudonym("profile", issuer, subject)
        return Identity(profile, f"-{self._pseudonym('device', profile, device)[:16]}" if device else "")

    def _pseudonym(self, *fields: str) -> str:
        return hmac.new(self._secret, netstrings(fields), hashlib.sha256).hexdigest()
