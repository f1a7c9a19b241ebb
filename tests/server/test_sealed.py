"""What the server does with what it can't read: it keeps it, erases it by trapdoors, carries letters for pairing."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from xrec_sdk.seal import key_id, seal, seal_criteria
from xrec_sdk.sync import LIMITS
from xrec_server.training import export_training

sys.path.insert(0, str(Path(__file__).parent))
from places import Place, places
from served import Client, event, granted, now_ms, op, served, settings, token

SECRET = bytes(range(32))
RING = {key_id(SECRET): SECRET}


def sealed(item_id: str, /, *, at_ms: int | None = None, **changed: Any) -> dict[str, Any]:
    """Return a sealed view of an item, now."""
    id = str(uuid.uuid4())
    said = {"id": id, "at_ms": at_ms or now_ms(), "event": "view", "item_id": item_id, "device": "phone"}
    return op("event", id, json.dumps({**json.loads(seal(SECRET, json.dumps(said))), **changed}), "personalise")


def rows(client: Client, kind: str = "event") -> list[str]:
    export = client.ask("GET", "/v1/profile/export").json
    return [row["id"] for row in export["rows"] if row["kind"] == kind]


@pytest.fixture(params=places())
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Client:
    """Serve over a store of each kind that can be had here; the value is a user's client."""
    place: Place = request.param(tmp_path)
    database, ledger = place.address()
    with served(settings(tmp_path, database=database, ledger=ledger)) as port:
        yield Client(port, token(tmp_path))


def test_sealed_events_are_kept_and_a_sealed_erasure_takes_those_that_it_means(stored: Client) -> None:
    device = stored.register()
    ops = [sealed("sku-1"), sealed("sku-2"), sealed("sku-1")]
    assert stored.push(device, 1, [*granted(), *ops]).json["rejected"] == []
    erasure = op("erase", "e-1", json.dumps(seal_criteria(RING, {"item_id": "sku-1"})))
    assert stored.push(device, 6, [erasure]).json["rejected"] == []
    assert rows(stored) == [ops[1]["id"]]
    late = stored.register()
    assert stored.push(late, 1, [sealed("sku-1"), sealed("sku-3")]).json["rejected"] == [[1, "sync.erased"]]
    views = op("erase", "e-2", json.dumps(seal_criteria(RING, {"event": "view", "to_ms": now_ms() + 9_000})))
    stored.push(device, 7, [views])
    assert rows(stored) == []


def test_a_letter_waits_for_its_device_and_the_next_takes_its_place(stored: Client) -> None:
    old, new = stored.register(), stored.register()
    assert stored.ask("GET", f"/v1/devices/{new}/key").json == {"v": 1, "letter": ""}
    for letter in ("first", "苹果", ""):
        assert stored.ask("POST", f"/v1/devices/{new}/key", {"v": 1, "letter": letter}).status == 204
        stored.push(new, 1, [])
        assert stored.ask("GET", f"/v1/devices/{new}/key").json["letter"] == letter
        assert stored.ask("GET", f"/v1/devices/{old}/key").json["letter"] == ""


@pytest.mark.parametrize(
    "changed",
    [
        {"item_id": "sku-42"},
        {"tags": {}},
        {"sealed": "A" * 207},
        {"sealed": "A" * 20_000},
        {"key": "view"},
        {"at_ms": "1"},
    ],
)
def test_a_body_that_only_claims_to_be_sealed_is_rejected_alone(client: Client, changed: dict[str, Any]) -> None:
    device, good = client.register(), sealed("sku-2")
    answer = client.push(device, 1, [*granted(), sealed("sku-1", **changed), good])
    assert answer.json["rejected"] == [[3, "sync.bad_body"]]
    assert rows(client) == [good["id"]]


def test_a_sealed_event_is_held_to_the_clock_and_the_retention(client: Client) -> None:
    device = client.register()
    old = sealed("sku-1", at_ms=now_ms() - LIMITS.retention_ms - 1_000)
    assert client.push(device, 1, [*granted(), old]).json["rejected"] == [[3, "sync.too_old"]]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"v": 1}, 400, "sync.malformed"),
        ({"v": 1, "letter": 7}, 400, "sync.malformed"),
        ({"v": 1, "letter": "a\0b"}, 400, "sync.malformed"),
        ({"v": 1, "letter": "x" * (LIMITS.letter_bytes + 1)}, 400, "sync.malformed"),
        ({"v": 2, "letter": "x"}, 400, "sync.version"),
        (b"x" * 5_000, 413, "sync.too_large"),
        (b"[", 400, "sync.malformed"),
    ],
)
def test_a_letter_that_is_none_is_refused(client: Client, body: Any, status: int, code: str) -> None:
    device = client.register()
    answer = client.ask("POST", f"/v1/devices/{device}/key", body)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert client.ask("GET", f"/v1/devices/{device}/key").json["letter"] == ""


def test_letters_of_another_user_or_token_can_not_be_read_or_left(client: Client, port: int, house: Path) -> None:
    device = client.register()
    other = Client(port, token(house, "somebody else"))
    other.register()
    for method, body in (("GET", None), ("POST", {"v": 1, "letter": "x"})):
        for name in (device, "nobody", quote("a\0b"), "%ED%A0%80"):
            answer = other.ask(method, f"/v1/devices/{name}/key", body)
            assert (answer.status, answer.json["code"]) == (404, "sync.unknown_device")
    bound = Client(port, token(house, "bound", device="one"))
    mine = bound.register()
    theirs = Client(port, token(house, "bound", device="two"))
    assert theirs.ask("GET", f"/v1/devices/{mine}/key").status == 404
    assert theirs.ask("POST", f"/v1/devices/{mine}/key", {"v": 1, "letter": "x"}).status == 204
    assert bound.ask("GET", f"/v1/devices/{mine}/key").json["letter"] == "x"


def test_the_export_for_training_leaves_out_what_is_sealed(tmp_path: Path) -> None:
    with served(settings(tmp_path)) as port:
        client = Client(port, token(tmp_path))
        agrees = op("consent", "train", json.dumps({"granted": True, "policy": "1"}))
        client.push(client.register(), 1, [*granted(), agrees, sealed("sku-1"), event("sku-2")])
        done = asyncio.run(export_training(str(tmp_path / "profiles.db"), b"s" * 32, tmp_path / "logs"))
    with gzip.open(tmp_path / "logs" / "events.jsonl.gz", "rt", encoding="utf-8") as written:
        lines = [json.loads(line) for line in written]
    assert done.events == 1 and [line["item_id"] for line in lines] == ["sku-2"]
