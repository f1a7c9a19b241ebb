"""What a server does unasked: it applies the retention to every profile and raises the mark, again and again."""

from __future__ import annotations

import asyncio
import logging

from xrec_sdk.sync import DAY_MS

from xrec_server.errors import Refused
from xrec_server.metrics import Metrics
from xrec_server.service import Service

_log = logging.getLogger("xrec_server")
PROFILES_AT_ONCE = 100
WIPE_AFTER_S = 86_400
FORGOTTEN_MS = 365 * DAY_MS
"""How long after it arrived an erasure that all devices have passed is known again."""


async def compact_all(service: Service, metrics: Metrics | None = None) -> int:
    """Apply the retention to every profile; return how many rows and devices went."""
    last, gone = "", 0
    while profiles := await service.store.profiles(last, PROFILES_AT_ONCE):
        for profile in profiles:
            gone += await service.compact(profile)
        last = profiles[-1]
    if metrics:
        metrics.count("xrec_retired_total", gone)
    return gone


async def restore_all(service: Service) -> int:
    """Apply the ledger to every profile of a restored backup; return how many there are."""
    last, count = "", 0
    while profiles := await service.store.profiles(last, PROFILES_AT_ONCE):
        for profile in profiles:
            await service.restore(profile)
        last, count = profiles[-1], count + len(profiles)
    await service.store.mark()
    return count


async def keep_up(service: Service, metrics: Metrics, every_s: int) -> None:
    """Raise the mark, apply the retention and wipe, at once and every ``every_s`` seconds, until cancelled."""
    while True:
        try:
            await service.store.mark()
            gone = await compact_all(service, metrics)
            await service.store.forget(service.clock() - FORGOTTEN_MS)
            await service.store.wipe(WIPE_AFTER_S)
            _log.info("retention", extra={"fields": {"gone": gone}})
        except Refused as refused:
            _log.error("retention failed", extra={"fields": {"code": refused.code}})
        await asyncio.sleep(every_s)
