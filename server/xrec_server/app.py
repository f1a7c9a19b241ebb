"""The door: HTTP endpoints of docs/sync-protocol.md over the service, each within its bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from xrec_sdk import sync
from xrec_sdk.sync import Page, Push
from xrec_sdk.sync_body import MAX_NUMBER

from xrec_server.bell import Bell
from xrec_server.errors import Refused
from xrec_server.identity import Identities, Identity, TokenRules, load_secret
from xrec_server.quota import Quota
from xrec_server.service import Register, Service
from xrec_server.settings import Settings
from xrec_server.stores import open_store
from xrec_server.wire import answer, decode, read_body, refusal

_pushes = msgspec.json.Decoder(Push)
_registers = msgspec.json.Decoder(Register)


@dataclass(frozen=True)
class Door:
    """The endpoints, with what they share."""

    service: Service
    bell: Bell
    identities: Identities
    quota: Quota
    settings: Settings

    async def push(self, request: Request) -> Response:
        """POST /v1/profile/push."""
        who = self._who(request)
        push = decode(await read_body(request, self.settings.limits.push_bytes), _pushes)
        self.quota.spend(who.profile, 1 + len(push.ops))
        return answer(request, await self.service.push(who.profile, replace(push, device=who.own(push.device))))

    async def changes(self, request: Request) -> Response:
        """GET /v1/profile/changes; waits for news where the client has all and asks for it."""
        who = self._who(request)
        self.quota.spend(who.profile, 1)
        device = who.own(request.query_params.get("device", ""))
        generation, after = _number(request, "generation"), _number(request, "after")
        wait_s = min(_number(request, "wait", "0"), self.settings.max_wait_s)
        if self.bell.waiting_on(who.profile) >= self.settings.polls_per_profile:
            wait_s = 0
        loop = asyncio.get_running_loop()
        end_s = loop.time() + wait_s
        with self.bell.listen(who.profile) as heard:
            while True:
                heard.clear()
                page = await self.service.changes(who.profile, device, generation, after)
                left_s = end_s - loop.time()
                if _is_news(page) or left_s <= 0 or self.bell.is_closed:
                    return answer(request, page)
                try:
                    await asyncio.wait_for(heard.wait(), left_s)
                except asyncio.TimeoutError:
                    end_s = 0

    async def register(self, request: Request) -> Response:
        """POST /v1/profile/register."""
        who = self._who(request)
        asked = decode(await read_body(request, self.settings.limits.push_bytes), _registers)
        self.quota.spend(who.profile, 10)
        return answer(request, await self.service.register(who.profile, asked, who.tag))

    async def health(self, request: Request) -> Response:
        """GET /healthz: whether the database answers."""
        await self.service.store.profiles("", 1)
        return answer(request, {"status": "ok"})

    def _who(self, request: Request) -> Identity:
        return self.identities.of(request.headers.get("authorization"))


def _is_news(page: Page) -> bool:
    return page.code is not None or page.next != page.after


def _number(request: Request, name: str, default: str = "") -> int:
    text = request.query_params.get(name, default)
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= MAX_NUMBER):
        raise Refused(400, sync.MALFORMED, f"the query's {name} must be a whole number from 0 to 2^53 - 1")
    return int(text)


def build(settings: Settings) -> Starlette:
    """Return the application; its files are open from its start to its stop."""
    bell = Bell()
    identities = Identities(settings.keys, load_secret(settings.secret), TokenRules(settings.audience, settings.issuer))
    store = open_store(settings, bell)
    door = Door(Service(store, settings.limits), bell, identities, Quota(settings.events_per_minute), settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await store.close()

    app = Starlette(
        routes=_routes(door, settings),
        exception_handlers={Refused: _refused, HTTPException: _http_error},
        lifespan=lifespan,
    )
    app.state.bell = bell
    return app


def _routes(door: Door, settings: Settings) -> list[BaseRoute]:
    routes: list[BaseRoute] = [
        Route("/v1/profile/register", door.register, methods=["POST"]),
        Route("/v1/profile/push", door.push, methods=["POST"]),
        Route("/v1/profile/changes", door.changes, methods=["GET"]),
        Route("/healthz", door.health, methods=["GET"]),
    ]
    if settings.bundles:
        routes.append(Mount("/v1/bundles", StaticFiles(directory=settings.bundles)))
    return routes


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refusal(request, error)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "server.not_found", 405: "server.method"}.get(error.status_code, "server.http")
    body = {"code": code, "message": error.detail}
    return answer(request, body, error.status_code, dict(error.headers or {}))
