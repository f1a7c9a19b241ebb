"""What no honest device would send is refused with a code, and nothing of it is stored."""

from __future__ import annotations

import gzip
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from xrec_sdk.sync import LIMITS
from xrec_server.errors import ServerError
from xrec_server.identity import Identities, TokenRules, load_keys, load_secret

sys.path.insert(0, str(Path(__file__).parent))
from served import PUSH, REGISTER, Client, event, granted, op, served, settings, token

VECTORS = Path(__file__).parents[1] / "vectors" / "sync" / "10-bad-messages.json"
PATHS = {"push": PUSH, "register_request": REGISTER, "erase_request": "/v1/profile/erase"}


def held(client: Client) -> Any:
    """Return what the server holds of the client's user, without the time of asking."""
    export = client.ask("GET", "/v1/profile/export").json
    return {name: export[name] for name in ("head", "rows", "consent_history")}


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", {}, 400, "sync.malformed"),
        (b"{", {}, 400, "sync.malformed"),
        (b"null", {}, 400, "sync.malformed"),
        (b"[" * 200_000, {}, 400, "sync.malformed"),
        (b'{"a":' * 40_000, {}, 400, "sync.malformed"),
        (b'{"v":1,"device":"\xff"}', {}, 400, "sync.malformed"),
        (b'{"v":1,"device":"\\ud800"}', {}, 400, "sync.malformed"),
        (b'{"v":1e400}', {}, 400, "sync.malformed"),
        (b"x" * (LIMITS.push_bytes + 1), {}, 413, "sync.too_large"),
        (gzip.compress(b" " * 50_000_000), {"Content_Encoding": "gzip"}, 413, "sync.too_large"),
        (gzip.compress(b"{}")[:-4], {"Content_Encoding": "gzip"}, 400, "sync.malformed"),
        (gzip.compress(b"{}") + b"more", {"Content_Encoding": "gzip"}, 400, "sync.malformed"),
        (b"not gzip", {"Content_Encoding": "gzip"}, 400, "sync.malformed"),
        (b"{}", {"Content_Encoding": "br"}, 415, "server.encoding"),
    ],
)
def test_a_body_that_is_no_push_is_refused(
    client: Client, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    before = held(client)
    answer = client.ask("POST", PUSH, body, **headers)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert held(client) == before


def test_the_damaged_messages_of_the_vectors_are_refused(client: Client) -> None:
    cases = [case for case in json.loads(VECTORS.read_text()) if case["type"] in PATHS]
    assert {case["type"] for case in cases} == set(PATHS)
    for case in cases:
        answer = client.ask("POST", PATHS[case["type"]], case["json"].encode())
        refused = answer.status == 400 or answer.json.get("code") in ("sync.malformed", "sync.unknown_device")
        assert refused and "code" in answer.json, case["json"]
    assert held(client)["rows"] == []


def test_numbers_and_texts_that_a_database_can_not_hold_are_rejected_alone(client: Client) -> None:
    device = client.register()
    nul = {**event(), "id": "a\0b"}
    huge = {**event(), "epoch": 10**40}
    future = {**event(), "hlc": [2**80, 2**80]}
    answer = client.push(device, 1, [*granted(), nul, huge, future, event()])
    assert answer.json["rejected"] == [[place, "sync.bad_body"] for place in (3, 4, 5)]
    assert client.changes("d%00").json["code"] == "sync.unknown_device"
    assert [row["kind"] for row in held(client)["rows"]] == ["consent", "consent", "event"]


def test_more_operations_than_a_push_may_have_are_refused_whole(client: Client) -> None:
    device = client.register()
    ops = [op("nop", "", "") for _ in range(LIMITS.push_ops + 1)]
    assert client.push(device, 1, ops).json["code"] == "sync.too_large"
    assert client.changes(device).json["high_water"] == 0


@pytest.mark.parametrize(
    "query",
    [
        "",
        "device=d&generation=1",
        "device=d&generation=x&after=0",
        "device=d&generation=1&after=-1",
        "device=d&generation=1&after=9007199254740992",
        "device=d&generation=1&after=0&wait=61",
        "device=d&generation=1&after=%E0%A5%A7",
    ],
)
def test_a_query_that_asks_nothing_is_refused(client: Client, query: str) -> None:
    answer = client.ask("GET", f"/v1/profile/changes?{query}")
    assert (answer.status, answer.json["code"]) == (400, "sync.malformed")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", PUSH, 405, "server.method"),
        ("PUT", "/v1/profile/erase", 405, "server.method"),
        ("DELETE", "/v1/devices", 405, "server.method"),
        ("POST", "/v1/nothing", 404, "server.not_found"),
    ],
)
def test_a_wrong_method_or_path_is_refused(client: Client, method: str, path: str, status: int, code: str) -> None:
    answer = client.ask(method, path, b"{}")
    assert (answer.status, answer.json["code"]) == (status, code)


def test_one_user_can_not_reach_the_profile_of_another(client: Client, house: Path) -> None:
    device = client.register()
    client.push(device, 1, [*granted(), event("secret")])
    before = held(client)
    other = Client(client.port, token(house, "mallory"))
    assert other.push(device, 4, [op("erase", "e", "{}")]).json["code"] == "sync.unknown_device"
    assert other.changes(device).json["code"] == "sync.unknown_device"
    assert other.ask("DELETE", f"/v1/devices/{quote(device)}").status == 204
    assert other.ask("POST", "/v1/profile/erase", {"v": 1, "id": "x"}).json["pending"] == []
    assert b"secret" not in other.ask("GET", "/v1/profile/export").body
    assert held(client) == before and client.changes(device).json["code"] is None


def test_a_token_of_one_device_does_not_speak_for_another(client: Client, house: Path) -> None:
    phone, tablet = (Client(client.port, token(house, "nora", device=name)) for name in ("phone", "tablet"))
    device = phone.register()
    assert phone.push(device, 1, granted()).json["code"] is None
    assert tablet.push(device, 3, [event()]).json["code"] == "sync.unknown_device"
    assert Client(client.port, token(house, "nora")).changes(device).json["code"] == "sync.unknown_device"


def claims(**changed: Any) -> dict[str, Any]:
    """Return the claims of a good token, changed; None leaves one out."""
    now_s = int(time.time())
    good = {"sub": "anna", "aud": "xrec", "exp": now_s + 600, **changed}
    return {name: value for name, value in good.items() if value is not None}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"exp": 1}, "auth.expired"),
        ({"exp": None}, "auth.invalid"),
        ({"exp": "soon"}, "auth.invalid"),
        ({"exp": float("inf")}, "auth.invalid"),
        ({"nbf": int(time.time()) + 3_600}, "auth.invalid"),
        ({"aud": "another"}, "auth.invalid"),
        ({"aud": None}, "auth.invalid"),
        ({"sub": None}, "auth.invalid"),
        ({"sub": ""}, "auth.invalid"),
        ({"sub": 7}, "auth.invalid"),
        ({"sub": "x" * 600}, "auth.invalid"),
        ({"sub": "\ud800"}, "auth.invalid"),
        ({"device": ["d"]}, "auth.invalid"),
        ({"iss": {"a": 1}}, "auth.invalid"),
    ],
)
def test_a_token_that_says_wrong_things_is_refused(
    client: Client, house: Path, changed: dict[str, Any], code: str
) -> None:
    key = OKPKey.import_key(json.loads((house / "dev" / "private.json").read_text()))
    payload = json.dumps(claims(**changed)).encode()
    signed = jws.serialize_compact({"alg": "Ed25519"}, payload, key, algorithms=["Ed25519"])
    answer = Client(client.port, signed).ask("GET", "/v1/devices")
    assert (answer.status, answer.json["code"]) == (401, code)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_token_that_nobody_here_signed_is_refused(client: Client, house: Path) -> None:
    good = token(house)
    header, payload, signature = good.split(".")
    none = "eyJhbGciOiJub25lIn0"
    stranger = OKPKey.generate_key("Ed25519")
    public = (house / "dev" / "jwks.json").read_bytes()
    shared = OctKey.import_key(public)
    forged = (
        jwt.encode({"alg": "Ed25519"}, claims(), stranger, algorithms=["Ed25519"]),
        jwt.encode({"alg": "HS256"}, claims(), shared, algorithms=["HS256"]),
        f"{none}.{payload}.",
        f"{none}.{payload}.{signature}",
        f"{header}.{payload}.{'A' * 86}",
        f"{header}.{payload[:-2]}AA.{signature}",
        f"{header}.{payload}",
        "a.b.c",
        "",
        "x" * 9_000,
    )
    for one in forged:
        answer = Client(client.port, one).ask("GET", "/v1/devices")
        assert answer.status == 401 and answer.json["code"].startswith("auth."), one[:60]
    assert Client(client.port, None).ask("GET", "/v1/devices").json["code"] == "auth.missing"
    assert Client(client.port, None).ask("GET", "/v1/devices", Authorization="Basic YTpi").status == 401
    assert Client(client.port, good).ask("GET", "/v1/devices").status == 200


@pytest.mark.parametrize(
    ("made", "algorithm"),
    [
        (OKPKey.generate_key("Ed25519"), "Ed25519"),
        (ECKey.generate_key("P-256"), "ES256"),
        (RSAKey.generate_key(2048), "RS256"),
    ],
)
def test_a_key_of_each_kind_is_read_from_pem_and_its_private_half_is_refused(
    tmp_path: Path, made: Any, algorithm: str
) -> None:
    public, private, secret = (tmp_path / name for name in ("public.pem", "private.pem", "secret"))
    public.write_bytes(made.as_pem(private=False))
    private.write_bytes(made.as_pem(private=True))
    secret.write_text("s" * 32)
    given = jwt.encode({"alg": algorithm}, claims(), made, algorithms=[algorithm])
    identities = Identities(public, load_secret(secret), TokenRules("xrec"))
    assert identities.of(f"Bearer {given}") == identities.of(f"bearer {given}")
    for file in (private, secret, tmp_path / "nothing"):
        with pytest.raises(ServerError, match=r"server\.|key|read"):
            load_keys(file)


def test_a_key_that_is_taken_away_is_not_accepted_for_long(tmp_path: Path) -> None:
    given = settings(tmp_path)
    old, now_s = token(tmp_path), [time.time()]
    identities = Identities(given.keys, load_secret(given.secret), TokenRules("xrec"), clock=lambda: now_s[0])
    assert identities.of(f"Bearer {old}")
    fresh = OKPKey.generate_key("Ed25519")
    given.keys.write_text(json.dumps({"keys": [fresh.as_dict(private=False)]}))
    now_s[0] += 31
    with pytest.raises(Exception, match="not valid here"):
        identities.of(f"Bearer {old}")


def test_a_client_that_goes_away_or_lies_about_its_length_does_no_harm(client: Client) -> None:
    before = held(client)
    for length, sent in ((1000, b"{}"), (10**12, b"{"), (5, b"{")):
        with socket.create_connection(("127.0.0.1", client.port)) as raw:
            fields = f"Host: x\r\nAuthorization: Bearer {client.token}\r\nContent-Length: {length}"
            raw.sendall(f"POST {PUSH} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + sent)
    assert held(client) == before


def test_a_failure_of_ours_has_a_code_and_its_log_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from xrec_server import service
    from xrec_server.observe import JsonLines

    def broken(*_: object, **__: object) -> None:
        raise KeyError("anna likes sku-42")

    monkeypatch.setattr(service.sync_server, "register", broken)
    with served(settings(tmp_path)) as port:
        answer = Client(port, token(tmp_path)).ask(
            "POST", REGISTER, {"v": 1, "device": "", "checked": 0, "generation": 1, "floor": 0}
        )
    assert (answer.status, answer.json["code"]) == (500, "server.error")
    lines = [JsonLines().format(record) for record in caplog.records if record.name == "xrec_server"]
    assert any("KeyError" in line and "service.py" in line for line in lines)
    assert not any("sku-42" in line or "anna" in line for line in lines)
