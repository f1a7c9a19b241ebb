"""A bad network between devices and a server: delays, cuts, lost answers, requests twice, half-open connections."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Sequence

FATES = {"through": 40, "slow": 15, "refused": 10, "cut": 12, "answer lost": 10, "twice": 10, "half open": 3}
HALF_OPEN_S = 1.0


class ChaosProxy:
    """Listen on a free port and pass each connection on to one of ``upstreams``; its fate is drawn from the seed."""

    def __init__(self, upstreams: Sequence[int], seed: int) -> None:
        self.upstreams, self.is_calm = upstreams, False
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._open: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def calm(self) -> None:
        """Pass everything on from now on, and cut what is open."""
        self.is_calm = True
        self._loop.call_soon_threadsafe(self._cut_all)

    def _cut_all(self) -> None:
        for task in self._open:
            task.cancel()

    def close(self) -> None:
        """Stop serving."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        self._cut_all()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._pass_on(reader, writer))
        self._open.add(task)
        try:
            await asyncio.gather(task, return_exceptions=True)
        finally:
            self._open.discard(task)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fate = "through" if self.is_calm else self._random.choices([*FATES], [*FATES.values()])[0]
        self.counts[fate] += 1
        if fate == "refused":
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._random.choice(self.upstreams))
        except OSError:
            self.counts["no server"] += 1
            return
        try:
            if fate == "twice":
                await self._twice(reader, writer, up_writer)
            elif fate == "half open":
                await asyncio.sleep(HALF_OPEN_S)
            else:
                await self._both_ways(fate, reader, writer, up_reader, up_writer)
        except OSError:
            self.counts["broken"] += 1
        finally:
            up_writer.close()

    async def _both_ways(
        self,
        fate: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        left = [self._random.randint(0, 6_000)] if fate == "cut" else []
        there = asyncio.ensure_future(self._pump(reader, up_writer, left, fate))
        back = asyncio.ensure_future(self._pump(up_reader, None if fate == "answer lost" else writer, left, fate))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (there, back):
                one.cancel()
            await asyncio.gather(there, back, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, left: list[int], fate: str
    ) -> None:
        """Pass bytes on until either end closes, the bytes that are left have gone, or the answer is to be lost."""
        while data := await reader.read(4096):
            if fate == "slow":
                await asyncio.sleep(self._random.uniform(0, 0.1))
            if left:
                data, left[0] = data[: left[0]], max(0, left[0] - len(data))
            if writer is None:
                return
            writer.write(data)
            await writer.drain()
            if left and not left[0]:
                return

    async def _twice(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up_writer: asyncio.StreamWriter
    ) -> None:
        """Send what the client says first on two connections; the client gets the second one's answer."""
        request = await reader.read(65_536)
        up_writer.write(request)
        await up_writer.drain()
        await asyncio.sleep(self._random.uniform(0, 0.05))
        again_reader, again_writer = await asyncio.open_connection("127.0.0.1", self._random.choice(self.upstreams))
        try:
            again_writer.write(request)
            await self._both_ways("through", reader, writer, again_reader, again_writer)
        finally:
            again_writer.close()
