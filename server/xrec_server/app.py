"""The door: HTTP endpoints of docs/sync-protocol.md over the service, each within its bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from xrec_sdk import sync
from xrec_sdk.sync import ChangesRequest, EraseRequest, Letter, Page, Push, RegisterRequest
from xrec_sdk.sync_body import MAX_NUMBER, is_text

from xrec_server.bell import Bell
from xrec_server.errors import Refused
from xrec_server.identity import Identities, Identity, TokenRules, load_secret
from xrec_server.metrics import Metrics
from xrec_server.observe import Observed
from xrec_server.openapi import document
from xrec_server.quota import Quota
from xrec_server.service import Service
from xrec_server.settings import Settings
from xrec_server.store import Store
from xrec_server.upkeep import keep_up
from xrec_server.wire import answer, decode, read_body, refusal

SMALL_BYTES = 4_096
MAX_WAIT_S = 60
BYTES_A_UNIT = 512
"""What a push costs of the quota: 1, and 1 for each operation or each of so many bytes, whichever is more."""

_pushes = msgspec.json.Decoder(Push)
_registers = msgspec.json.Decoder(RegisterRequest)
_erasures = msgspec.json.Decoder(EraseRequest)
_letters = msgspec.json.Decoder(Letter)


@dataclass(frozen=True)
class Door:
    """The endpoints, with what they share."""

    service: Service
    bell: Bell
    identities: Identities
    quota: Quota
    metrics: Metrics
    settings: Settings

    async def push(self, request: Request) -> Response:
        """POST /v1/profile/push."""
        who = self._who(request)
        body = await read_body(request, self.settings.limits.push_bytes)
        push = decode(body, _pushes)
        _check_numbers(push.v, push.generation, push.checked, push.first)
        self.quota.spend(who.profile, 1 + max(len(push.ops), len(body) // BYTES_A_UNIT))
        made = await self.service.push(who.profile, replace(push, device=who.own(push.device)))
        self.metrics.count("xrec_operations_total", len(made.acks), outcome="acknowledged")
        for _, code in made.rejected:
            self.metrics.count("xrec_operations_total", outcome=code)
        return answer(request, made, code=made.code)

    async def changes(self, request: Request) -> Response:
        """GET /v1/profile/changes; waits for news where the client has all and asks for it."""
        who = self._who(request)
        asked = _changes(request)
        self.quota.spend(who.profile, 1)
        page = await self._page(who.profile, replace(asked, device=who.own(asked.device)))
        return answer(request, page, code=page.code)

    async def _page(self, profile: str, asked: ChangesRequest) -> Page:
        is_crowded = self.bell.waiting_on(profile) >= self.settings.polls_per_profile
        loop = asyncio.get_running_loop()
        end_s = loop.time() + (0 if is_crowded else min(asked.wait, self.settings.max_wait_s))
        with self.bell.listen(profile) as heard:
            while True:
                heard.clear()
                page = await self.service.changes(profile, asked)
                left_s = end_s - loop.time()
                if page.code or page.next != page.after or left_s <= 0 or self.bell.is_closed:
                    return page
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(heard.wait(), left_s)

    async def register(self, request: Request) -> Response:
        """POST /v1/profile/register."""
        who = self._who(request)
        asked = decode(await read_body(request, SMALL_BYTES), _registers)
        _check_numbers(asked.v, asked.checked, asked.generation, asked.floor)
        self.quota.spend(who.profile, 10)
        return answer(request, await self.service.register(who.profile, asked, who.tag))

    async def erase(self, request: Request) -> Response:
        """POST /v1/profile/erase."""
        who = self._who(request)
        asked = decode(await read_body(request, SMALL_BYTES), _erasures)
        if asked.v != sync.VERSION:
            raise Refused(400, sync.VERSION_UNKNOWN, f"version {asked.v}; this server speaks {sync.VERSION}")
        if not is_text(asked.id) or not 1 <= len(asked.id) <= self.settings.limits.id_characters:
            raise Refused(400, sync.MALFORMED, "expected an id of 1 to 512 characters, random")
        self.quota.spend(who.profile, 10)
        receipt = await self.service.erase(who.profile, asked.id)
        self.metrics.count("xrec_erasures_total")
        return answer(request, receipt)

    async def export(self, request: Request) -> Response:
        """GET /v1/profile/export."""
        who = self._who(request)
        self.quota.spend(who.profile, 100)
        return answer(request, await self.service.export(who.profile))

    async def devices(self, request: Request) -> Response:
        """GET /v1/devices."""
        who = self._who(request)
        self.quota.spend(who.profile, 10)
        return answer(request, await self.service.devices(who.profile))

    async def remove_device(self, request: Request) -> Response:
        """DELETE /v1/devices/{id}."""
        who = self._who(request)
        self.quota.spend(who.profile, 10)
        await self.service.remove_device(who.profile, _device_of(request))
        return Response(status_code=204)

    async def letter_box(self, request: Request) -> Response:
        """Leave a letter or return it; one route, so that a 405 names both methods."""
        return await (self.leave_letter(request) if request.method == "POST" else self.letter(request))

    async def leave_letter(self, request: Request) -> Response:
        """POST /v1/devices/{id}/key."""
        who = self._who(request)
        asked = decode(await read_body(request, SMALL_BYTES), _letters)
        if asked.v != sync.VERSION:
            raise Refused(400, sync.VERSION_UNKNOWN, f"version {asked.v}; this server speaks {sync.VERSION}")
        most = self.settings.limits.letter_bytes
        if not is_text(asked.letter) or len(asked.letter.encode()) > most:
            raise Refused(400, sync.MALFORMED, f"expected a letter of at most {most} bytes")
        self.quota.spend(who.profile, 10)
        await self.service.leave_letter(who.profile, _device_of(request), asked.letter)
        return Response(status_code=204)

    async def letter(self, request: Request) -> Response:
        """GET /v1/devices/{id}/key."""
        who = self._who(request)
        self.quota.spend(who.profile, 1)
        return answer(request, await self.service.letter(who.profile, who.own(_device_of(request))))

    async def health(self, request: Request) -> Response:
        """GET /healthz: whether the database answers."""
        await self.service.store.profiles("", 1)
        return answer(request, {"status": "ok"})

    async def scrape(self, request: Request) -> Response:
        """GET /metrics."""
        text = self.metrics.text({"xrec_long_polls": self.bell.waiting})
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        return answer(request, document(self.settings.limits))

    def _who(self, request: Request) -> Identity:
        return self.identities.of(request.headers.get("authorization"))


def _device_of(request: Request) -> str:
    """Return the device that the path names; "", which is none's name, where no database could be asked for it."""
    device: str = request.path_params["id"]
    return device if is_text(device) else ""


def _changes(request: Request) -> ChangesRequest:
    query = request.query_params
    numbers = {name: query.get(name, "") for name in ("generation", "after")} | {"wait": query.get("wait", "0")}
    for name, text in numbers.items():
        if not (text.isascii() and text.isdigit() and len(text) <= 16):
            raise Refused(400, sync.MALFORMED, f"the query's {name} must be a whole number from 0 to 2^53 - 1")
    _check_numbers(*map(int, numbers.values()))
    if int(numbers["wait"]) > MAX_WAIT_S:
        raise Refused(400, sync.MALFORMED, f"the query's wait is {numbers['wait']} s; expected at most {MAX_WAIT_S}")
    return ChangesRequest(query.get("device", ""), **{name: int(text) for name, text in numbers.items()})


def _check_numbers(*numbers: int) -> None:
    if not all(0 <= number <= MAX_NUMBER for number in numbers):
        raise Refused(400, sync.MALFORMED, "a number is negative or beyond 2^53 - 1")


def build(settings: Settings, store: Store, bell: Bell) -> Starlette:
    """Return the application over an open store, which it closes when it stops; ``bell`` is the one that it rings."""
    metrics = Metrics()
    rules = TokenRules(settings.audience, settings.issuer)
    identities = Identities(settings.keys, load_secret(settings.secret), rules)
    service = Service(store, settings.limits)
    door = Door(service, bell, identities, Quota(settings.events_per_minute), metrics, settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        upkeep = asyncio.create_task(keep_up(service, metrics, settings.retention_every_s))
        yield
        upkeep.cancel()
        await asyncio.gather(upkeep, return_exceptions=True)
        await store.close()

    return Starlette(
        routes=_routes(door, settings),
        middleware=[*_cors(settings), Middleware(Observed, metrics=metrics)],
        exception_handlers={Refused: _refused, HTTPException: _http_error},
        lifespan=lifespan,
    )


def _routes(door: Door, settings: Settings) -> list[BaseRoute]:
    routes: list[BaseRoute] = [
        Route("/v1/profile/register", door.register, methods=["POST"]),
        Route("/v1/profile/push", door.push, methods=["POST"]),
        Route("/v1/profile/changes", door.changes, methods=["GET"]),
        Route("/v1/profile/erase", door.erase, methods=["POST"]),
        Route("/v1/profile/export", door.export, methods=["GET"]),
        Route("/v1/devices", door.devices, methods=["GET"]),
        Route("/v1/devices/{id}", door.remove_device, methods=["DELETE"]),
        Route("/v1/devices/{id}/key", door.letter_box, methods=["GET", "POST"]),
        Route("/healthz", door.health, methods=["GET"]),
        Route("/metrics", door.scrape, methods=["GET"]),
        Route("/openapi.json", door.openapi, methods=["GET"]),
    ]
    if settings.bundles:
        routes.append(Mount("/v1/bundles", StaticFiles(directory=settings.bundles)))
    return routes


def _cors(settings: Settings) -> list[Middleware]:
    if not settings.origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("Authorization", "Content-Type", "Content-Encoding"),
            expose_headers=("Retry-After",),
        )
    ]


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refusal(request, error)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "server.not_found", 405: "server.method"}.get(error.status_code, "server.http")
    body = {"code": code, "message": error.detail}
    return answer(request, body, status=error.status_code, code=code, headers=dict(error.headers or {}))
