"""A server to ask: started in a thread over a store, with tokens of its own key, and a plain HTTP client."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xrec_server.development import make_keys, make_token
from xrec_server.run import listen, open_server
from xrec_server.settings import Settings

PUSH, REGISTER = "/v1/profile/push", "/v1/profile/register"


def settings(folder: Path, **changed: Any) -> Settings:
    """Return settings of a server whose files, key and secret are in ``folder``."""
    paths = make_keys(folder / "dev")
    base = Settings(
        str(folder / "profiles.db"),
        str(folder / "ledger.db"),
        paths["keys"],
        paths["secret"],
        "xrec",
        events_per_minute=1_000_000,
    )
    return replace(base, **changed)


@contextmanager
def served(given: Settings) -> Iterator[int]:
    """Serve in a thread within the block; the value is the port."""
    listener = listen("127.0.0.1", 0)
    loop = asyncio.new_event_loop()
    try:
        server = loop.run_until_complete(open_server(given))
    except BaseException:
        listener.close()
        loop.close()
        raise
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve([listener])))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
        loop.close()
        listener.close()


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """A device's requests, each on a connection of its own; ``token`` None asks without one."""

    port: int
    token: str | None

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Ask; a body that is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token is not None:
            given.setdefault("Authorization", f"Bearer {self.token}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, data, given)
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, fields, answer.read())
        finally:
            connection.close()

    def register(self, former: str = "", **said: int) -> str:
        """Register and return the device's name."""
        asked = {"v": 1, "device": former, "checked": 0, "generation": 1, "floor": 0, **said}
        name: str = self.ask("POST", REGISTER, asked).json["device"]
        return name

    def push(self, device: str, first: int, ops: list[dict[str, Any]], **changed: Any) -> Answer:
        """Push operations, numbered from ``first``."""
        numbered = [{**op, "dseq": first + place} for place, op in enumerate(ops)]
        push = {"v": 1, "device": device, "generation": 1, "checked": 0, "first": first, "ops": numbered, **changed}
        return self.ask("POST", PUSH, push)

    def changes(self, device: str, after: int = 0, wait: int = 0, generation: int = 1) -> Answer:
        """Ask for changes."""
        return self.ask("GET", f"/v1/profile/changes?{device=!s}&{generation=}&{after=}&{wait=}")


def token(folder: Path, subject: str = "anna", **claims: Any) -> str:
    """Return a token of the folder's key."""
    return make_token(folder / "dev", subject, **claims)


def op(kind: str, id: str, body: str, purpose: str = "sync", **changed: Any) -> dict[str, Any]:
    """Return an operation, without its number."""
    said = {"epoch": 1, "hlc": [now_ms(), 0], "contact_ms": now_ms(), "purpose": purpose, "body": body}
    return {"kind": kind, "id": id, **said, **changed}


def granted() -> list[dict[str, Any]]:
    """Return the two consents that events need."""
    body = json.dumps({"granted": True, "policy": "1"})
    return [op("consent", purpose, body) for purpose in ("sync", "personalise")]


def event(item_id: str = "sku-42", **changed: Any) -> dict[str, Any]:
    """Return a view of an item, now."""
    id = str(uuid.uuid4())
    body = {"id": id, "at_ms": now_ms(), "event": "view", "item_id": item_id, "device": "phone"}
    return op("event", id, json.dumps(body), "personalise", **changed)


def now_ms() -> int:
    """Return Unix milliseconds."""
    return time.time_ns() // 1_000_000


def until(holds: Callable[[], bool], within_s: float = 60) -> None:
    """Wait until something is so; fail after a minute."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
