"""The bundles that were fetched: a current one and a pending one, which takes its place once it has answered well.

The rules, in order. A pending bundle is opened first, MAX_TRIES times at most: one that does not verify, or that was
opened so often and never confirmed, is given up for good. Then the newer of the current one and the one that the app
ships. A bundle below the floor, the newest release ever confirmed, is never opened. What is decided is on the disk
before a bundle is handed out, so that a process that dies at any point leaves a bundle that opens.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from xrec_sdk.bundle import Bundle, open_bundle, read_checked
from xrec_sdk.disk import write_synced
from xrec_sdk.errors import BundleDamaged, BundleError
from xrec_sdk.filelock import try_lock

MAX_TRIES = 3
MAX_FAILED = 16
MAX_CHANGES = 16
LOCK_TIMEOUT_S = 2.0
STATE = "state.json"


@dataclass(frozen=True)
class Slot:
    """An installed bundle: its folder's name, its release and the sha256 of its manifest.json."""

    folder: str
    release: int
    manifest: str


@dataclass(frozen=True)
class State:
    """What state.json holds; ``failed`` are the manifests of bundles that were given up."""

    current: Slot | None = None
    pending: Slot | None = None
    tries: int = 0
    floor: int = 0
    failed: tuple[str, ...] = ()
    fresh_until_ms: int = 0

    @property
    def newest(self) -> int:
        """The newest release that is installed, 0 where there is none."""
        return max((slot.release for slot in (self.current, self.pending) if slot), default=0)


@dataclass(frozen=True)
class Slots:
    """The slots in ``folder``, whose bundles one of ``trusted_keys`` signed; ``shipped`` is the app's own bundle."""

    folder: Path
    trusted_keys: Sequence[str]
    shipped: Path | None = None

    def read(self) -> State:
        """Return the state; an empty one where there is no file, or none that was written here."""
        try:
            fields: dict[str, Any] = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
            for name in ("current", "pending"):
                fields[name] = Slot(**fields[name]) if fields[name] else None
            return State(**{**fields, "failed": tuple(fields["failed"])})
        except (OSError, ValueError, TypeError, KeyError):
            return State()

    def open(self) -> Bundle:
        """Return the bundle to use, by the rules above; raise BundleError where there is none."""
        for _ in range(MAX_CHANGES):
            state = self.read()
            if state.pending is not None:
                if bundle := self._try_pending(state.pending):
                    return bundle
                continue
            try:
                return self._open_settled(state)
            except BundleError:
                # Another process may have put another bundle there meanwhile; its state says so.
                if self.read() == state:
                    raise
        raise BundleDamaged("bundle.not_found", "the installed bundles change faster than they can be opened")

    def confirm(self, bundle: Bundle) -> None:
        """Say that ``bundle`` has answered well: a pending one becomes the current one, and its release the floor."""
        with self.changing() as change:
            state = self.read()
            pending = state.pending
            state = replace(state, floor=max(state.floor, bundle.manifest.release))
            # A pending release is above every other one that is installed or shipped.
            if pending is not None and pending.release == bundle.manifest.release:
                state = replace(state, current=pending, pending=None, tries=0)
            change(state)
        self.clean()

    def install(self, part: Path, slot: Slot) -> None:
        """Make the checked folder ``part`` the pending bundle."""
        target = self.folder / slot.folder
        shutil.rmtree(target, ignore_errors=True)
        os.replace(part, target)
        with self.changing() as change:
            change(replace(self.read(), pending=slot, tries=0))
        self.clean()

    def refuse(self, manifest: str) -> None:
        """Give up the bundle whose manifest.json has this sha256."""
        with self.changing() as change:
            change(_refused(self.read(), manifest))

    def shipped_release(self) -> int:
        """Return the release of the app's own bundle, 0 where it ships none; BundleError if it does not verify."""
        if self.shipped is None:
            return 0
        keys = self.trusted_keys
        return read_checked(self.shipped, trusted_keys=keys, allow_unsigned=False, minimum_release=0).manifest.release

    def clean(self) -> None:
        """Remove the folders that no slot names."""
        state = self.read()
        kept = {slot.folder for slot in (state.current, state.pending) if slot}
        for path in self.folder.glob("slot-*"):
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def changing(self) -> Iterator[Callable[[State], None]]:
        """Give what writes another state, while no other process does; one that hangs is waited for two seconds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            with try_lock(self.folder / "state.lock") as is_free:
                if is_free or time.monotonic() > until:
                    yield self._write
                    return
            time.sleep(0.005)

    def _write(self, state: State) -> None:
        part = self.folder / f"{STATE}.part"
        write_synced(part, json.dumps(asdict(state)).encode())
        os.replace(part, self.folder / STATE)

    def _try_pending(self, slot: Slot) -> Bundle | None:
        """Return the pending bundle, None where it was given up."""
        with self.changing() as change:
            state = self.read()
            if state.pending != slot:
                return None
            is_over = state.tries >= MAX_TRIES
            change(self._without_pending(state) if is_over else replace(state, tries=state.tries + 1))
        if is_over:
            return None
        try:
            return self._open_slot(slot, state.floor)
        except BundleError:
            with self.changing() as change:
                state = self.read()
                if state.pending == slot:
                    change(self._without_pending(state))
            return None

    def _without_pending(self, state: State) -> State:
        state = state if state.pending is None else _refused(state, state.pending.manifest)
        return replace(state, pending=None, tries=0)

    def _open_settled(self, state: State) -> Bundle:
        if state.current is not None and state.current.release >= self.shipped_release():
            try:
                return self._open_slot(state.current, state.floor)
            except BundleError:
                # Forgotten, so that the next check fetches it again.
                with self.changing() as change:
                    change(replace(self.read(), current=None))
                if self.shipped is None:
                    raise
        if self.shipped is None:
            raise BundleDamaged("bundle.not_found", "no bundle was fetched yet and the app ships none")
        return open_bundle(self.shipped, trusted_keys=self.trusted_keys, minimum_release=state.floor)

    def _open_slot(self, slot: Slot, floor: int) -> Bundle:
        return open_bundle(self.folder / slot.folder, trusted_keys=self.trusted_keys, minimum_release=floor)


def _refused(state: State, manifest: str) -> State:
    return replace(state, failed=(*state.failed, manifest)[-MAX_FAILED:])


def slot_of(manifest_bytes: bytes, release: int) -> Slot:
    """Return the slot for a bundle with these bytes of manifest.json."""
    digest = hashlib.sha256(manifest_bytes).hexdigest()
    return Slot(f"slot-{release}-{digest[:16]}.xrec", release, digest)
