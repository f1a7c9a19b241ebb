"""The seam between the sync rules and a profile on the disk: read a replica, commit what a rule makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from xrec_sdk import vault
from xrec_sdk.keyring import renew
from xrec_sdk.profile import Profile
from xrec_sdk.store import Connection
from xrec_sdk.sync import Changes, Replica, Standing
from xrec_sdk.sync_tables import UNSENT, replica, standing
from xrec_sdk.sync_view import commit, say_key


class SyncStore:
    """The seam `sync.LocalStore` over a profile; what is committed survives a power cut, before anything is sent."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._must_wipe = False

    def replica(self) -> Replica:
        """Return the replica as it was last committed."""
        return self._profile.store.read_whole(_loaded)

    def commit(self, changes: Changes) -> None:
        """Write the changes whole or not at all."""
        self.change(lambda _: changes)

    def change(self, rule: Callable[[Replica], Changes | None]) -> bool:
        """Commit what a rule makes of the replica, in one transaction; return whether it changed anything."""
        now_ms = self._profile.clock_ms()

        def work(connection: Connection) -> bool | None:
            vault.seal_queue(connection)
            changes = rule(replica(connection))
            if changes is None:
                return None
            is_erased = commit(connection, changes, now_ms)
            self._profile.shed(connection)
            return is_erased

        is_erased = self._profile.store.write(work, is_durable=True)
        self._must_wipe |= bool(is_erased)
        if self._must_wipe and self._profile.store.wipe(0.0):
            self._must_wipe = False
        return is_erased is not None

    def sendable(self, replica: Replica) -> Replica:
        """Return what a rule may push of a replica that it was given: of a sealed profile, no event in the clear."""
        return vault.sendable(self._profile.store.connection(), replica)

    def make_key(self) -> None:
        """Make a sealed profile's next key where that is this device's to do."""
        if not self._profile.store.read(vault.needs_key):
            return
        now_ms = self._profile.clock_ms()

        def work(connection: Connection) -> None:
            if vault.needs_key(connection) and (known := vault.load(connection)):
                say_key(connection, renew(known), now_ms)

        self._profile.store.write(work, is_durable=True)

    def standing(self) -> Standing:
        """Return what the device keeps beside rows and queue."""
        return self._profile.store.read(standing)

    def count(self) -> tuple[int, int]:
        """Return how many operations are to be sent, and how many are dead."""
        count = f"SELECT (SELECT count(*) FROM queue WHERE {UNSENT}), (SELECT count(*) FROM dead)"
        found: tuple[int, int] = self._profile.store.read(lambda connection: connection.execute(count).fetchone())
        return found


def _loaded(connection: Connection) -> Replica:
    found = replica(connection)
    return replace(found, rows=dict(found.rows), queue=list(found.queue))
