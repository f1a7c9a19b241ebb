"""Sync a profile in the background: one thread asks for changes and waits for news, one says what is queued.

Nothing here is on the way of `record()` or `recommend()`: they touch the disk alone, and the threads look at the disk.
One process at a time syncs a profile, under a lock beside it; the others wait for their turn.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xrec_sdk import sync_device as rules
from xrec_sdk.errors import ProfileError, XrecError
from xrec_sdk.filelock import try_lock
from xrec_sdk.profile import Profile
from xrec_sdk.store import IN_MEMORY
from xrec_sdk.sync import (
    LIMITS,
    MALFORMED,
    TOO_LARGE,
    VERSION,
    Changes,
    ChangesRequest,
    Push,
    RegisterRequest,
    Replica,
    Standing,
)
from xrec_sdk.sync_http import UNAUTHORISED, UNREACHABLE, AskError, Connection, TokenProvider, check_url
from xrec_sdk.sync_json import read_page, read_push_answer, read_registered, write, write_query
from xrec_sdk.sync_store import SyncStore

PROFILE_PATH = "/v1/profile"
CLOSE_S = 0.9
_LUCK = random.Random()  # its own, so that nobody who seeds the shared one makes all devices come at once


@dataclass(frozen=True)
class Timing:
    """How long the client waits for what, in seconds.

    ``wait_s`` is the long poll, ``gather_s`` how long words are gathered before a push, ``look_every_s`` how often it
    looks for what other processes recorded; a failure is followed by ``first_delay_s``, doubled each time up to
    ``longest_delay_s``, of which a random half is waited at least.
    """

    wait_s: int = 25
    gather_s: float = 0.3
    look_every_s: float = 5.0
    first_delay_s: float = 1.0
    longest_delay_s: float = 300.0


@dataclass(frozen=True)
class SyncStatus:
    """How the sync of a profile stands.

    ``state`` is ``off``, ``no_consent`` (nothing was ever sent), ``elsewhere`` (another process syncs this profile),
    ``catching_up``, ``up_to_date``, ``retrying`` or ``unauthorised``. ``last_contact_ms`` is the server's time when it
    was last heard, 0 for never; ``queued`` operations are to be sent, ``dead`` ones were given up; ``last_error`` is
    the code of the last failure, None once a request has succeeded.
    """

    state: str = "off"
    last_contact_ms: int = 0
    queued: int = 0
    dead: int = 0
    last_error: str | None = None


class SyncClient:
    """Keep a profile in step with the server at ``url`` until :meth:`close`.

    ``token_provider`` gives the user's bearer token. ``installation`` tells this installation from a copy of its files,
    by default an id of the machine and the file; give one that neither backups nor clones carry, if there is one.
    """

    def __init__(
        self,
        profile: Profile,
        url: str,
        token_provider: TokenProvider,
        *,
        installation: str | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._profile = profile
        self._store = SyncStore(profile)
        self._timing = timing or Timing()
        self._url = check_url(url)
        self._installation = installation or _installation(profile.path)
        self._token_provider = token_provider
        self._asking = Connection(self._url, token_provider)
        self._telling = Connection(self._url, token_provider)
        self._closing = threading.Event()
        self._woken = threading.Event()
        self._state = "catching_up"
        self._last_error: str | None = None
        self._is_opened = False
        self._is_cut = False
        self._threads = [threading.Thread(target=self._run, name="xrec-sync", daemon=True)]
        profile.on_change = self._woken.set
        self._threads[0].start()

    def connection(self) -> Connection:
        """Return one more connection to the server, with tokens of the same provider."""
        return Connection(self._url, self._token_provider)

    def status(self) -> SyncStatus:
        """Return how the sync stands; reads the disk and asks nobody."""
        queued, dead = self._store.count()
        return SyncStatus(self._state, self._store.standing().contact_ms, queued, dead, self._last_error)

    def close(self) -> None:
        """Stop within a second, even where the server lets a request wait; what is queued goes out the next time."""
        self._closing.set()
        self._woken.set()
        self._profile.on_change = None
        for connection in (self._asking, self._telling):
            connection.cut()
        for thread in self._threads:
            thread.join(CLOSE_S / len(self._threads))
        self._state = "off"

    def _run(self) -> None:
        """Wait for this profile's turn, then sync until the end."""
        while not self._closing.is_set():
            if self._profile.path == IN_MEMORY:
                return self._sync()
            with try_lock(Path(f"{self._profile.path}-sync")) as is_mine:
                if is_mine:
                    return self._sync()
            self._state = "elsewhere"
            self._closing.wait(self._timing.look_every_s)

    def _sync(self) -> None:
        telling = threading.Thread(target=self._keep, args=(self._tell, self._telling), name="xrec-push", daemon=True)
        self._threads.append(telling)
        telling.start()
        self._keep(self._ask, self._asking)
        telling.join()

    def _keep(self, step: Callable[[], None], connection: Connection) -> None:
        """Repeat a step until the end, each failure followed by a longer rest."""
        failures = 0
        while not self._closing.is_set():
            try:
                step()
                failures = 0
            except ProfileError as failure:
                if failure.code in ("profile.closed", "profile.forked"):
                    break
                failures = self._rest(failures, failure.code, 0.0)
            except AskError as failure:
                if self._is_cut and failure.code == UNREACHABLE:
                    self._is_cut = False
                else:
                    failures = self._rest(failures, failure.code, failure.retry_after_s)
            except XrecError as failure:
                failures = self._rest(failures, failure.code, 0.0)
            except Exception as failure:
                # A server that makes the client stumble must not end its sync; the status says what it was.
                failures = self._rest(failures, f"sync.failed: {type(failure).__name__}", 0.0)
        connection.close()

    def _rest(self, failures: int, code: str, retry_after_s: float) -> int:
        if self._closing.is_set():
            return failures
        self._last_error = code
        self._state = "unauthorised" if code == UNAUTHORISED else "retrying"
        longest_s = min(self._timing.longest_delay_s, self._timing.first_delay_s * 2 ** min(failures, 20))
        self._closing.wait(max(retry_after_s, longest_s * _LUCK.uniform(0.5, 1.0)))
        return failures + 1

    # Ask for changes.

    def _ask(self) -> None:
        if not self._is_opened:
            self._store.change(lambda replica: rules.opened(replica, self._installation))
            self._is_opened = True
        standing = self._store.standing()
        if not standing.device and not self._profile.consent()["sync"]:
            self._state = "no_consent"
            self._woken.wait(self._timing.look_every_s)
            self._woken.clear()
            return
        now_ms = self._profile.clock_ms()
        if standing.device and now_ms - standing.contact_local_ms > LIMITS.lease_ms:
            self._store.change(lambda replica: rules.lease_ended(replica, now_ms))
            standing = self._store.standing()
        if standing.must_register or not standing.device:
            self._register(standing)
            return
        is_waiting = self._state == "up_to_date" and standing.is_rebuilt
        wait_s = self._timing.wait_s if is_waiting else 0
        asked = ChangesRequest(standing.device, standing.generation, standing.cursor, wait_s)
        answer = self._asking.ask("GET", f"{PROFILE_PATH}/changes?{write_query(asked)}", wait_s=wait_s)
        page = read_page(answer)
        self._apply(standing, lambda replica: rules.apply_page(replica, page, self._profile.clock_ms()))
        now = self._store.standing()
        is_done = page.code is None and not page.more and now.is_rebuilt and not now.must_register
        self._heard("up_to_date" if is_done else "catching_up", "sync.diverged" if now.is_diverged else None)
        if is_done and not wait_s:
            self._woken.set()  # the other thread may push now

    def _register(self, standing: Standing) -> None:
        asked = RegisterRequest(VERSION, standing.device, standing.checked, standing.generation, standing.floor)
        answer = read_registered(self._asking.ask("POST", f"{PROFILE_PATH}/register", write(asked)))
        self._apply(standing, lambda replica: rules.registered(replica, answer, self._profile.clock_ms()))
        self._heard("catching_up", None)

    # Tell what is queued.

    def _tell(self) -> None:
        if self._state == "up_to_date":
            self._store.make_key()
        standing = self._store.standing()
        if not self._is_opened or (standing.last_dseq == standing.acked and not standing.must_probe):
            self._pause()
            return
        said: list[Push] = []

        def rule(replica: Replica) -> Changes | None:
            # Whichever thread comes first after a long silence: what the lease ended must not be sent.
            if ended := rules.lease_ended(replica, self._profile.clock_ms()):
                return ended
            found = rules.next_push(self._store.sendable(replica))
            if found is None:
                return None
            said.append(found[0])
            return found[1]

        self._store.change(rule)
        if not said:
            self._pause()
            return
        push = said[0]
        try:
            answer = read_push_answer(self._telling.ask("POST", f"{PROFILE_PATH}/push", write(push)))
        except AskError as refused:
            # A bare status may be a proxy's. Its bound on bytes is met by less; nothing is given up on its word.
            is_ours = refused.code in (TOO_LARGE, MALFORMED)
            if is_ours or (refused.status == 413 and len(push.ops) > 1):
                self._apply(standing, lambda replica: rules.refused(replica, push))
            raise
        self._apply(standing, lambda replica: rules.pushed(replica, push, answer, self._profile.clock_ms()))
        now = self._store.standing()
        self._heard(self._state, None)
        if now.must_register or not now.is_rebuilt:
            # Only the other thread can help: it must not wait for news.
            self._state, self._is_cut = "catching_up", True
            self._asking.cut()
            self._pause()

    def _pause(self) -> None:
        """Wait until something was recorded here, or perhaps elsewhere."""
        if self._woken.wait(self._timing.look_every_s) and not self._closing.is_set():
            self._closing.wait(self._timing.gather_s)
        self._woken.clear()

    def _apply(self, asked_as: Standing, rule: Callable[[Replica], Changes]) -> None:
        """Commit what an answer asks for, unless the device has got another name since it asked."""
        self._store.change(lambda replica: rule(replica) if replica.standing.device == asked_as.device else None)

    def _heard(self, state: str, error: str | None) -> None:
        if not self._closing.is_set():
            self._state, self._last_error = state, error


def status_of(profile: Profile, client: SyncClient | None) -> SyncStatus:
    """Return how the sync of a profile stands, with or without a client at work."""
    if client is not None:
        return client.status()
    store = SyncStore(profile)
    queued, dead = store.count()
    return SyncStatus("off", store.standing().contact_ms, queued, dead)


def _installation(path: str) -> str:
    """Return an id that a copy of the file, or the same file on another machine, does not have."""
    if path == IN_MEMORY:
        return os.urandom(8).hex()
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        machine = ""
    return hashlib.sha256(f"{machine} {os.stat(path).st_ino}".encode()).hexdigest()[:16]
