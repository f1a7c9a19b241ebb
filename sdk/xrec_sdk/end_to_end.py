"""A sealed profile as an app sees it: make its keys, pair a new device, approve it, recover, remove a device.

The keys travel in rows of the protocol, so what is decided offline goes out with the next push; only a pairing asks the
server itself, which carries the letters of the two devices (docs/sync-protocol.md, "End to end").
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import quote

from xrec_sdk import vault
from xrec_sdk.errors import UsageError
from xrec_sdk.keyring import NO_KEY, Vault, adopt, new_vault, renew, take_all
from xrec_sdk.member import check_extra
from xrec_sdk.pairing import Approver, Newcomer
from xrec_sdk.profile import Profile
from xrec_sdk.recovery import new_recovery, open_recovery
from xrec_sdk.store import Connection
from xrec_sdk.sync import VERSION, ChangesRequest, Letter, SyncError
from xrec_sdk.sync_client import PROFILE_PATH, SyncClient
from xrec_sdk.sync_http import UNREACHABLE
from xrec_sdk.sync_http import Connection as Network
from xrec_sdk.sync_json import read_letter, read_page, write, write_query
from xrec_sdk.sync_show import show_again
from xrec_sdk.sync_store import SyncStore
from xrec_sdk.sync_view import say_key

T = TypeVar("T")
LOOK_EVERY_S = 0.5
TIMED_OUT = "e2e.timed_out"


@dataclass(frozen=True)
class DeviceKeys:
    """A device that shares the profile's keys."""

    id: str
    label: str
    is_this: bool


class EndToEnd:
    """The keys of a profile that `start_sync(..., end_to_end=True)` keeps in step.

    Waits are for the server and end after ``timeout_s`` with SyncError ``e2e.timed_out``. Call from any thread but that
    of a user interface.
    """

    def __init__(self, profile: Profile, client: SyncClient) -> None:
        self._profile = profile
        self._client = client
        self._store = SyncStore(profile)

    def state(self) -> str:
        """Return ``"no_key"`` (make keys, pair or recover), ``"ready"``, or ``"waiting"``.

        A device waits for a key where another has made one that this one was not given: it has just been approved, or
        it was removed, and then it waits for ever. What it records is kept and not sent.
        """
        known = self._vault()
        if not known.secrets and not known.members:
            return "no_key"
        return "ready" if known.current else "waiting"

    def create(self, label: str, *, timeout_s: float = 30.0) -> None:
        """Make the keys of a profile that has none, on the user's first device; ``label`` is what the user calls it.

        UsageError ``e2e.exists`` where the profile has keys: pair or recover then.
        """
        self._caught_up(timeout_s)

        def make(connection: Connection, known: Vault) -> tuple[Vault, str, str]:
            if known.secrets or vault.key_rows(connection):
                raise UsageError("e2e.exists", "the profile has keys; pair this device, or use the recovery code")
            known = _labelled(known, label)
            return renew(known, add=[known.own.member()])

        self._say(make)

    def pair(self, label: str, *, timeout_s: float = 30.0) -> Pairing:
        """Begin to pair this new device; show the text of what is returned, as a QR code, to a device that has keys."""
        device = self._registered(timeout_s)
        known = self._change(lambda connection, known: _labelled(known, label))
        return Pairing(self, Newcomer(known.own, device), self._mailbox(device))

    def approve(self, text: str, *, timeout_s: float = 30.0) -> Approval:
        """Begin to approve the new device that shows this text; UsageError ``usage.pairing_text`` where none does."""
        self._member()
        device = self._registered(timeout_s)
        return Approval(self, Approver(text, device), self._mailbox(device))

    def recovery_code(self) -> str:
        """Return a new recovery code, in place of the one before; show it once, for the user to keep on paper."""
        self._member()
        code, identity, recovery = new_recovery()

        def make(connection: Connection, known: Vault) -> tuple[Vault, str, str]:
            before = () if known.recovery is None else (known.recovery.id,)
            return renew(self._member(), add=[identity.member()], remove=before, recovery=recovery)

        self._say(make)
        return code

    def recover(self, code: str, label: str, *, timeout_s: float = 30.0) -> None:
        """Join the profile by its recovery code, where no other device is at hand.

        UsageError ``usage.recovery_code`` of what is no code; SyncError ``e2e.recovery_code`` of another one.
        """
        self._caught_up(timeout_s)
        identity, secret = open_recovery(code, self._profile.store.read(vault.key_rows))

        def make(connection: Connection, known: Vault) -> tuple[Vault, str, str]:
            joined, _ = take_all(adopt(_labelled(known, label), secret), vault.key_rows(connection))
            return renew(joined, add=[joined.own.member()], signer=identity)

        self._say(make)

    def devices(self) -> list[DeviceKeys]:
        """Return the devices that share the keys, as far as this one has heard."""
        known = self._vault()
        code, own, wanted = known.recovery.id if known.recovery else "", known.own.member().id, set(known.wanted)
        listed = [one for one in known.members if one.id in wanted and one.id != code]
        return [DeviceKeys(one.id, one.label, one.id == own) for one in sorted(listed, key=lambda one: one.label)]

    def remove_device(self, id: str) -> None:
        """Give a device no later key: what is sealed from now on it can't read; what it holds, it keeps.

        ``DELETE /v1/devices/{id}`` of the server, and the end of its token, keep it from the ciphertext too.
        """

        def make(connection: Connection, known: Vault) -> tuple[Vault, str, str]:
            if not any(one.id == id and not one.is_this for one in self.devices()):
                raise UsageError("usage.device", f"no other device has the id {id!r}; devices() lists them")
            return renew(self._member(), remove=[id])

        self._say(make)

    def problems(self) -> dict[str, int]:
        """Return how many rows of the server were not what a device of the user said, by code (docs/errors.md)."""
        return self._profile.store.read(vault.problems)

    # For the two sides of a pairing.

    def add(self, approver: Approver) -> bytes:
        """Make a key for the devices that there are and the new one, and return it."""
        newcomer = approver.member
        if newcomer is None:
            raise UsageError("usage.digits", "ask for digits() and let the user compare them before confirm()")

        def make(connection: Connection, known: Vault) -> tuple[Vault, str, str]:
            current = known.current
            is_there = current is not None and newcomer.id in current.to
            return (known, "", "") if is_there else renew(self._member(), add=[newcomer])

        made = self._say(make)
        return max((one for one in made.secrets if newcomer.id in one.to), key=lambda one: one.seq).raw

    def join(self, secret: bytes) -> None:
        """Take up the key that a pairing has given."""
        now_ms = self._profile.clock_ms()

        def take_up(connection: Connection, known: Vault) -> Vault:
            joined, _ = take_all(adopt(known, secret), vault.key_rows(connection))
            return joined

        self._change(take_up, lambda connection: show_again(connection, now_ms))

    def _vault(self) -> Vault:
        known = self._profile.store.read(vault.load)
        if known is None:
            raise UsageError("e2e.off", "the profile is not sealed: start_sync(..., end_to_end=True)")
        return known

    def _member(self) -> Vault:
        known = self._vault()
        if not known.is_member or not known.secrets:
            raise SyncError(NO_KEY, "this device has no key of the profile: create, pair or recover first")
        return known

    def _say(self, make: Callable[[Connection, Vault], tuple[Vault, str, str]]) -> Vault:
        now_ms = self._profile.clock_ms()

        def work(connection: Connection) -> Vault:
            made = make(connection, self._vault())
            if made[1]:
                say_key(connection, made, now_ms)
                show_again(connection, now_ms)
            return made[0]

        known = self._profile.store.write(work, is_durable=True)
        if self._profile.on_change:
            self._profile.on_change()
        return known

    def _change(
        self, make: Callable[[Connection, Vault], Vault], after: Callable[[Connection], None] = lambda _: None
    ) -> Vault:
        def work(connection: Connection) -> Vault:
            known = make(connection, self._vault())
            vault.save(connection, known)
            after(connection)
            return known

        return self._profile.store.write(work, is_durable=True)

    def _caught_up(self, timeout_s: float) -> None:
        """Wait until this device has what the server has now; the state of the sync may be of a moment ago."""
        self._registered(timeout_s)
        network = self._client.connection()

        def look() -> bool | None:
            now = self._store.standing()
            asked = write_query(ChangesRequest(now.device, now.generation, now.cursor))
            page = read_page(network.ask("GET", f"{PROFILE_PATH}/changes?{asked}"))
            return True if now.is_rebuilt and page.code is None and page.next == now.cursor else None

        wait_for(look, timeout_s, self._client)
        network.close()

    def _registered(self, timeout_s: float) -> str:
        return wait_for(lambda: self._store.standing().device or None, timeout_s, self._client)

    def _mailbox(self, device: str) -> Mailbox:
        return Mailbox(self._client, device)


class Mailbox:
    """The letters of a pairing: the last that was left for this device, and one to leave for another."""

    def __init__(self, client: SyncClient, device: str) -> None:
        self._client = client
        self._network: Network = client.connection()
        self._device = device
        self._read = ""
        self.leave(device, "")

    def leave(self, device: str, letter: str) -> None:
        """Leave a letter for a device."""
        self._network.ask("POST", _path(device), write(Letter(VERSION, letter)))

    def next(self, timeout_s: float) -> str:
        """Return the next letter that was left for this device; SyncError ``e2e.timed_out`` where none comes."""

        def look() -> str | None:
            letter = read_letter(self._network.ask("GET", _path(self._device))).letter
            return letter if letter not in ("", self._read) else None

        self._read = wait_for(look, timeout_s, self._client)
        return self._read

    def close(self) -> None:
        """Take the letter away and close the connection."""
        self.leave(self._device, "")
        self._network.close()


class Pairing:
    """The new device's side: show ``text``, then ``digits()``, and ``confirm()`` once both devices show the same."""

    def __init__(self, keys: EndToEnd, newcomer: Newcomer, mailbox: Mailbox) -> None:
        self._keys, self._newcomer, self._mailbox = keys, newcomer, mailbox
        self._digits = ""
        self.text = newcomer.text

    def digits(self, *, timeout_s: float = 300.0) -> str:
        """Wait until the other device has read the text and return the six digits; SyncError ``e2e.pairing``."""
        if not self._digits:
            reveal, digits = self._newcomer.reveal(self._mailbox.next(timeout_s))
            self._mailbox.leave(self._newcomer.answerer, reveal)
            self._digits = digits
        return self._digits

    def confirm(self, *, timeout_s: float = 300.0) -> None:
        """Wait for the key, once the user has compared the digits, and take it up; SyncError ``e2e.pairing``."""
        self._keys.join(self._newcomer.secret(self._mailbox.next(timeout_s)))
        self._mailbox.close()


class Approval:
    """The old device's side: show ``digits()``, and ``confirm()`` once the user says that both show the same."""

    def __init__(self, keys: EndToEnd, approver: Approver, mailbox: Mailbox) -> None:
        self._keys, self._approver, self._mailbox = keys, approver, mailbox
        self._digits = ""

    def digits(self, *, timeout_s: float = 300.0) -> str:
        """Wait until the new device has answered and return the six digits; SyncError ``e2e.pairing``."""
        if not self._digits:
            self._mailbox.leave(self._approver.newcomer, self._approver.answer)
            self._digits = self._approver.digits(self._mailbox.next(timeout_s))
        return self._digits

    def confirm(self) -> None:
        """Give the new device the keys, once the user has compared the digits; may be called again where it fails."""
        secret = self._keys.add(self._approver)
        self._mailbox.leave(self._approver.newcomer, self._approver.key_letter(secret))
        self._mailbox.close()


def wait_for(look: Callable[[], T | None], timeout_s: float, client: SyncClient) -> T:
    """Return what ``look`` finds, looking now and then; SyncError ``e2e.timed_out`` where it finds nothing."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            found = look()
        except SyncError as failure:
            if failure.code != UNREACHABLE:
                raise
            found = None
        if found is not None:
            return found
        if time.monotonic() >= until or client.status().state == "off":
            message = f"nothing came within {timeout_s:g} s; the sync is {client.status().state}"
            raise SyncError(TIMED_OUT, message)
        time.sleep(LOOK_EVERY_S)


def seal_profile(profile: Profile) -> None:
    """Make a profile a sealed one; UsageError ``e2e.in_the_clear`` where it was ever synced in the clear."""
    check_extra()
    if not profile.store.write(vault.begin, is_durable=True):
        raise UsageError(
            "e2e.in_the_clear",
            "the profile was synced in the clear: erase it everywhere, then begin with a new file",
        )


def _labelled(known: Vault, label: str) -> Vault:
    return replace(known, own=replace(known.own, label=new_vault(label).own.label))


def _path(device: str) -> str:
    return f"/v1/devices/{quote(device, safe='')}/key"
