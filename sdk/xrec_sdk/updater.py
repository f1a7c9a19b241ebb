"""Fetch bundles over the air: what a TUF repository offers becomes the pending bundle of the slots (slots.py).

Only :meth:`BundleUpdater.check` touches the network; call it from a thread of the app's own when it suits. python-tuf
(extra ``update``) keeps old, mixed and endless answers away and follows changes of the repository's keys; the bundle
itself is then checked as any, by the keys that the app pins, and by its golden cases on this device. A download that
breaks goes on where it stopped. Metadata that has expired means that the bundle at hand goes on, marked stale.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from xrec_sdk.bundle import Bundle, open_bundle, read_checked
from xrec_sdk.conformance import check_conformance
from xrec_sdk.delta import apply_delta
from xrec_sdk.disk import write_synced
from xrec_sdk.errors import BundleDamaged, BundleError, BundleUntrusted, UsageError
from xrec_sdk.filelock import try_lock
from xrec_sdk.runtime import Runtime
from xrec_sdk.signature import check_trusted_keys
from xrec_sdk.slots import Slot, Slots, slot_of

TIMEOUT_S = 30
CHUNK_BYTES = 1 << 16
MAX_BUNDLE_BYTES = 1 << 33
MAX_RELEASE = 1 << 53


@dataclass(frozen=True)
class CheckResult:
    """What a check found, and the newest release that is installed.

    ``installed`` is a new bundle, which :meth:`BundleUpdater.open` gives from now on; ``current``: nothing is newer;
    ``offline``: the network failed, nothing is lost; ``expired``: the repository's own metadata is out of date, or held
    back by someone; ``busy``: another process checks.
    """

    state: Literal["installed", "current", "offline", "expired", "busy"]
    release: int
    message: str = ""


class BundleUpdater:
    """Bundles of one name and channel, kept in ``folder``, from the repository at ``url``.

    ``root`` is the path of the repository's first root.json, which the app ships, as it ships ``trusted_keys``;
    ``shipped`` is that of the bundle in the app's package, used until a newer one is there. ``clock_ms`` gives the
    time. Several processes may share the folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        url: str,
        *,
        name: str,
        root: str | os.PathLike[str],
        trusted_keys: Sequence[str],
        channel: str = "stable",
        shipped: str | os.PathLike[str] | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        if not check_trusted_keys(trusted_keys):
            raise UsageError("usage.trusted_keys", "pin at least one key in trusted_keys")
        self._folder, self._url, self._root = Path(folder), url.rstrip("/"), Path(root)
        self._target, self._name = f"{channel}/{name}.xrec", name
        self._keys, self._clock_ms = trusted_keys, clock_ms
        self._slots = Slots(self._folder, trusted_keys, None if shipped is None else Path(shipped))

    @property
    def is_stale(self) -> bool:
        """Whether the repository's word on what is newest has run out; what is at hand can be used all the same."""
        return self._clock_ms() >= self._slots.read().fresh_until_ms

    def open(self) -> Bundle:
        """Return the bundle to use, without a word to the network: a pending one first, else the one before.

        Raises BundleError where there is none that verifies.
        """
        return self._slots.open()

    def confirm(self, bundle: Bundle) -> None:
        """Say that ``bundle`` has answered well. A pending one that nobody confirms is given up after three starts."""
        self._slots.confirm(bundle)

    def check(self) -> CheckResult:
        """Ask the repository and install what is newer; blocks while it downloads.

        Raises BundleUntrusted ``update.repository`` where the repository's signatures or versions do not hold, another
        BundleError where the bundle that it offers is not one that may be used (it is not asked for again), UsageError
        ``usage.extra_missing`` without python-tuf and ``usage.root`` without root.json.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with try_lock(self._folder / "check.lock") as is_free:
            if not is_free:
                return CheckResult("busy", self._slots.read().newest)
            self._slots.clean()
            return self._check()

    def _check(self) -> CheckResult:
        tuf, newest = _tuf(), self._slots.read().newest
        try:
            root = self._root.read_bytes()
        except OSError as cause:
            raise UsageError("usage.root", f"{self._root.name}, the first root.json, can't be read") from cause
        try:
            updater = tuf.Updater(
                str(_made(self._folder / "metadata")),
                f"{self._url}/metadata",
                fetcher=tuf.Urllib3Fetcher(TIMEOUT_S),
                bootstrap=root,
            )
            updater.refresh()
            self._keep_fresh_until()
            offered = updater.get_targetinfo(self._target)
            if offered is None:
                return CheckResult("current", newest, f"the repository has no {self._target}")
            return self._install(tuf, updater, offered)
        except tuf.DownloadError as cause:
            return CheckResult("offline", newest, str(cause))
        except tuf.ExpiredMetadataError as cause:
            return CheckResult("expired", newest, str(cause))
        except tuf.RepositoryError as cause:
            raise BundleUntrusted("update.repository", f"the repository does not verify: {cause}") from cause

    def _install(self, tuf: Any, updater: Any, offered: Any) -> CheckResult:
        state = self._slots.read()
        release, manifest = _said(offered)
        floor = max(state.floor, state.newest + 1)
        if release < floor or manifest in state.failed or release <= self._slots.shipped_release():
            return CheckResult("current", state.newest)
        try:
            with tempfile.TemporaryDirectory(prefix="part-", dir=self._folder) as name:
                part = self._by_delta(tuf, updater, Path(name)) or self._whole(tuf, offered, Path(name))
                slot = self._verified(part, floor, release)
                self._slots.install(part, slot)
        except BundleError:
            self._slots.refuse(manifest)
            raise
        return CheckResult("installed", release)

    def _verified(self, part: Path, floor: int, release: int) -> Slot:
        """Check a folder as any bundle, and that it is the one that was asked for and answers right on this device."""
        bundle = open_bundle(part, trusted_keys=self._keys, minimum_release=floor)
        if bundle.manifest.name != self._name or bundle.manifest.release != release:
            raise BundleUntrusted(
                "update.another_bundle",
                f"{bundle.manifest.name!r} of release {bundle.manifest.release} came for {self._name!r} of {release}",
            )
        check_conformance(Runtime(bundle), bundle)
        return slot_of((part / "manifest.json").read_bytes(), release)

    def _by_delta(self, tuf: Any, updater: Any, folder: Path) -> Path | None:
        """Return the new bundle made of the installed one, None where there is no delta for it or it does not fit."""
        current = self._slots.read().current
        if current is None:
            return None
        offered = updater.get_targetinfo(f"{self._target}.{current.manifest[:16]}.delta")
        if offered is None:
            return None
        try:
            delta = self._download(tuf, offered)
            apply_delta(self._folder / current.folder, delta, folder / "bundle", trusted_keys=self._keys)
        except BundleError:
            return None
        return folder / "bundle"

    def _whole(self, tuf: Any, offered: Any, folder: Path) -> Path:
        packed = self._download(tuf, offered)
        checked = read_checked(packed, trusted_keys=self._keys, allow_unsigned=False, minimum_release=0)
        part = _made(folder / "bundle")
        signed = {"manifest.json": checked.manifest_bytes, "manifest.sig": checked.sig_bytes or b""}
        files: dict[str, bytes | memoryview] = {**signed, **checked.files}
        for name, content in files.items():
            write_synced(part / name, content)
        packed.unlink()
        return part

    def _download(self, tuf: Any, target: Any) -> Path:
        """Return the file of a target, whose length and hash hold; goes on with what an earlier call has."""
        sha256, length = str(target.hashes["sha256"]), int(target.length)
        downloads = _made(self._folder / "downloads")
        path = downloads / sha256
        for other in downloads.iterdir():
            if other != path:
                other.unlink()
        folder, _, name = target.path.rpartition("/")
        if not path.exists() or path.stat().st_size < length:
            _fetch(tuf, f"{self._url}/targets/{quote(folder)}/{sha256}.{quote(name)}", path, length)
        try:
            with open(path, "rb") as file:
                target.verify_length_and_hashes(file)
        except tuf.LengthOrHashMismatchError as cause:
            path.unlink()
            raise tuf.DownloadError(f"{target.path} did not come as the repository names it") from cause
        return path

    def _keep_fresh_until(self) -> None:
        said = json.loads((self._folder / "metadata" / "timestamp.json").read_text(encoding="utf-8"))
        expires = datetime.fromisoformat(said["signed"]["expires"].replace("Z", "+00:00"))
        with self._slots.changing() as change:
            change(replace(self._slots.read(), fresh_until_ms=int(expires.timestamp() * 1000)))


def _fetch(tuf: Any, url: str, path: Path, length: int) -> None:
    """Append what is missing of a file; raise DownloadError where the network fails, keeping what has come."""
    have = path.stat().st_size if path.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        response = tuf.urllib3.request(
            "GET", url, headers=headers, preload_content=False, timeout=TIMEOUT_S, retries=False
        )
        if response.status >= 400:
            raise tuf.DownloadError(f"{url} answered {response.status}")
        # A server that knows no ranges begins anew.
        with open(path, "ab" if response.status == 206 else "wb") as file:
            for chunk in response.stream(CHUNK_BYTES):
                if file.tell() + len(chunk) > length:
                    raise tuf.DownloadError(f"{url} is longer than the {length} bytes that the repository says")
                file.write(chunk)
    except (tuf.urllib3.exceptions.HTTPError, OSError) as cause:
        raise tuf.DownloadError(f"{url} broke off: {cause}") from cause


def _said(offered: Any) -> tuple[int, str]:
    """Return the release and the sha256 of the manifest that a target's entry names."""
    custom = offered.unrecognized_fields.get("custom")
    release = custom.get("release") if isinstance(custom, dict) else None
    manifest = custom.get("manifest") if isinstance(custom, dict) else None
    if type(release) is not int or not 1 <= release <= MAX_RELEASE or not isinstance(manifest, str):
        raise BundleDamaged("update.target", "the repository does not say which release it offers")
    if offered.length > MAX_BUNDLE_BYTES:
        raise BundleDamaged("update.target", f"the repository offers a bundle of {offered.length} bytes")
    return release, manifest


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class _Tuf:
    """The names of python-tuf and urllib3 that are used, imported when the first check is made."""

    def __init__(self) -> None:
        import urllib3
        from tuf.api import exceptions
        from tuf.ngclient.updater import Updater
        from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher

        self.urllib3, self.Updater, self.Urllib3Fetcher = urllib3, Updater, Urllib3Fetcher
        self.DownloadError, self.RepositoryError = exceptions.DownloadError, exceptions.RepositoryError
        self.ExpiredMetadataError = exceptions.ExpiredMetadataError
        self.LengthOrHashMismatchError = exceptions.LengthOrHashMismatchError


def _tuf() -> _Tuf:
    try:
        return _Tuf()
    except ImportError as cause:
        raise UsageError("usage.extra_missing", "updates need python-tuf: pip install 'xrec[update]'") from cause
