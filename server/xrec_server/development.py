"""FOR DEVELOPMENT ONLY: a key pair, a tenant's secret and tokens; so a server runs without an identity provider."""

from __future__ import annotations

import json
import os
import secrets
import time
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import OKPKey

from xrec_server.errors import ServerError

_MARK = "xrec development key: never use in production"


def make_keys(folder: Path) -> dict[str, Path]:
    """Write jwks.json, private.json and secret into ``folder`` where they are not, and return their paths."""
    paths = {"keys": folder / "jwks.json", "private": folder / "private.json", "secret": folder / "secret"}
    there = [path for path in paths.values() if path.exists()]
    if there and len(there) < len(paths):
        raise ServerError("server.key_malformed", f"{folder} holds {there[0].name} but not all of a key: empty it")
    if not there:
        folder.mkdir(parents=True, exist_ok=True)
        key = OKPKey.generate_key("Ed25519")
        public = {**key.as_dict(private=False), "kid": key.thumbprint(), "alg": "Ed25519", "use": "sig"}
        _write(paths["private"], json.dumps({**key.as_dict(private=True), "_": _MARK}))
        _write(paths["secret"], secrets.token_hex(32))
        _write(paths["keys"], json.dumps({"keys": [public], "_": _MARK}))
    return paths


def _write(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def make_token(
    folder: Path, subject: str, *, device: str = "", audience: str = "xrec", issuer: str = "", hours: float = 24.0
) -> str:
    """Return a token of ``subject``, signed by the folder's private key."""
    private = json.loads((folder / "private.json").read_text(encoding="utf-8"))
    key = OKPKey.import_key({name: private[name] for name in ("kty", "crv", "x", "d")})
    now_s = int(time.time())
    claims = {"sub": subject, "aud": audience, "iat": now_s, "exp": now_s + int(hours * 3600)}
    claims |= {name: value for name, value in (("device", device), ("iss", issuer)) if value}
    return jwt.encode({"alg": "Ed25519", "kid": key.thumbprint()}, claims, key, algorithms=["Ed25519"])
