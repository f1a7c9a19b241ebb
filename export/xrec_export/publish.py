"""Publish a bundle for devices that fetch it: a TUF repository of plain files, for any static web server.

python-tuf (https://theupdateframework.io) makes what keeps an attacker on the way from old, mixed or endless files: the
release key signs ``root`` and ``targets``, a key of the server ``snapshot`` and ``timestamp``, which expire soon. The
newest bundle is the target ``CHANNEL/NAME.xrec``, one uncompressed zip; a delta from each of the last releases lies
beside it. timestamp.json is written last, so that a repository that is read meanwhile is whole.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from xrec_sdk.bundle import Checked, open_bundle, read_checked
from xrec_sdk.conformance import check_conformance
from xrec_sdk.disk import write_synced
from xrec_sdk.errors import DataError, UsageError
from xrec_sdk.runtime import Runtime

from xrec_export.delta_plan import make_delta
from xrec_export.keys import public_key

ROOT_DAYS, TARGETS_DAYS = 365, 120
KEPT = 3
"""A delta is made from each of so many releases before the one that is published."""
_ROLES = (Root.type, Targets.type, Snapshot.type, Timestamp.type)


@dataclass(frozen=True)
class Publication:
    """Where and how: a channel such as ``stable``, the two keys in PEM, the time, days until the timestamp expires."""

    channel: str
    release_pem: bytes
    online_pem: bytes
    now: datetime
    fresh_days: float = 7.0


def publish(path: Path, repository: Path, how: Publication) -> dict[str, object]:
    """Add the bundle at ``path``, signed by the release key, to the repository, which is made where there is none.

    Publishing the same bundle again renews what expires. Raises BundleError where it does not verify, UsageError
    ``usage.release`` where a later release, or other bytes of this one, are there, DataError ``data.repository``.
    """
    key = public_key(how.release_pem)
    bundle = open_bundle(path, trusted_keys=[key])
    check_conformance(Runtime(bundle), bundle)
    checked = _checked(path, key)
    name, release = checked.manifest.name, checked.manifest.release
    if "/" in how.channel + name or name.startswith(".") or not how.channel or how.channel.startswith("."):
        raise UsageError("usage.channel", f"channel {how.channel!r} and name {name!r} must be names of plain folders")
    roles = _load(repository, how)
    target_path = f"{how.channel}/{name}.xrec"
    known = roles[Targets.type].signed.targets.get(target_path)
    history = [] if known is None else known.unrecognized_fields["custom"]["history"]
    sha256 = hashlib.sha256(checked.manifest_bytes).hexdigest()
    if history and (
        release < history[0]["release"] or (release == history[0]["release"] and sha256 != history[0]["manifest"])
    ):
        raise UsageError(
            "usage.release", f"release {history[0]['release']} of {name} is published; {release} must be a later one"
        )
    if not history or release > history[0]["release"]:
        _add(repository, roles[Targets.type].signed, target_path, checked, history)
    _save(repository, roles, how)
    sizes = {path: target.length for path, target in roles[Targets.type].signed.targets.items()}
    return {"target": target_path, "release": release, "key": key, "targets": sizes}


def _checked(path: Path, key: str) -> Checked:
    return read_checked(path, trusted_keys=[key], allow_unsigned=False, minimum_release=0)


def _add(repository: Path, targets: Targets, target_path: str, new: Checked, history: list[dict[str, Any]]) -> None:
    """Write the bundle as a zip and the deltas to it, and put both among the targets in place of the ones before."""
    packed = _zip(new)
    for stale in [name for name in targets.targets if name.startswith(target_path)]:
        del targets.targets[stale]
    manifest = hashlib.sha256(new.manifest_bytes).hexdigest()
    entry = {"release": new.manifest.release, "manifest": manifest, "zip": hashlib.sha256(packed).hexdigest()}
    for past in history[:KEPT]:
        kept = _target_file(repository, target_path, past["zip"])
        if kept.is_file():
            old = read_checked(kept, trusted_keys=(), allow_unsigned=True, minimum_release=0)
            delta = make_delta(old, new)
            if len(delta) < len(packed) / 2:
                _put(repository, targets, f"{target_path}.{past['manifest'][:16]}.delta", delta, entry)
    _put(repository, targets, target_path, packed, {**entry, "history": [entry, *history[:KEPT]]})


def _zip(bundle: Checked) -> bytes:
    """Return the bundle as one uncompressed zip, the same bytes for the same bundle."""
    files = {"manifest.json": bundle.manifest_bytes, "manifest.sig": bundle.sig_bytes or b"", **bundle.files}
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
            for name in sorted(files):
                packed.writestr(zipfile.ZipInfo(f"{bundle.manifest.name}.xrec/{name}"), bytes(files[name]))
        file.seek(0)
        return file.read()


def _put(repository: Path, targets: Targets, name: str, content: bytes, custom: dict[str, Any]) -> None:
    target = TargetFile.from_data(name, content, ["sha256"])
    target.unrecognized_fields["custom"] = custom
    _write(_target_file(repository, name, target.hashes["sha256"]), content)
    targets.targets[name] = target


def _target_file(repository: Path, target_path: str, sha256: str) -> Path:
    folder, _, name = target_path.rpartition("/")
    return repository / "targets" / folder / f"{sha256}.{name}"


def _load(repository: Path, how: Publication) -> dict[str, Metadata[Any]]:
    """Return the newest metadata of each role, new ones in a folder that is empty or not there."""
    folder = repository / "metadata"
    if not (folder / "timestamp.json").exists():
        return _fresh(how)
    try:
        timestamp = Metadata[Timestamp].from_file(str(folder / "timestamp.json"))
        snapshot_version = timestamp.signed.snapshot_meta.version
        snapshot = Metadata[Snapshot].from_file(str(folder / f"{snapshot_version}.snapshot.json"))
        targets_version = snapshot.signed.meta["targets.json"].version
        targets = Metadata[Targets].from_file(str(folder / f"{targets_version}.targets.json"))
        roots = sorted(folder.glob("*.root.json"), key=lambda path: int(path.name.partition(".")[0]))
        root = Metadata[Root].from_file(str(roots[-1]))
    except (OSError, ValueError, IndexError, KeyError, RepositoryError) as cause:
        raise DataError("data.repository", f"{repository} is not a repository that publish wrote: {cause}") from cause
    return {Root.type: root, Targets.type: targets, Snapshot.type: snapshot, Timestamp.type: timestamp}


def _fresh(how: Publication) -> dict[str, Metadata[Any]]:
    root = Root(consistent_snapshot=True)
    for role in _ROLES:
        root.add_key(_signer(how, role).public_key, role)
    made: dict[str, Metadata[Any]] = {
        Root.type: Metadata(root),
        Targets.type: Metadata(Targets()),
        Snapshot.type: Metadata(Snapshot()),
        Timestamp.type: Metadata(Timestamp()),
    }
    for metadata in made.values():
        metadata.signed.version = 0
    return made


def _signer(how: Publication, role: str) -> CryptoSigner:
    pem = how.release_pem if role in (Root.type, Targets.type) else how.online_pem
    public_key(pem)  # says what is wrong with a key that is none
    return CryptoSigner(serialization.load_pem_private_key(pem, password=None))


def _save(repository: Path, roles: dict[str, Metadata[Any]], how: Publication) -> None:
    """Sign and write a new version of each role, each after what it names, the timestamp last.

    A new version of root is made only where its keys are to change or half its time is over.
    """
    folder = repository / "metadata"
    root = roles[Root.type].signed
    days = {
        Root.type: ROOT_DAYS,
        Targets.type: TARGETS_DAYS,
        Snapshot.type: TARGETS_DAYS,
        Timestamp.type: how.fresh_days,
    }
    for role in _ROLES:
        metadata, keeper = roles[role], _signer(how, role)
        if keeper.public_key.keyid not in root.roles[role].keyids:
            raise UsageError("usage.key", f"the repository's {role} is signed by another key than the one given")
        if role == Root.type and root.version and root.expires > how.now + timedelta(days=ROOT_DAYS / 2):
            continue
        metadata.signed.version += 1
        metadata.signed.expires = (how.now + timedelta(days=days[role])).replace(microsecond=0)
        if role == Snapshot.type:
            metadata.signed.meta["targets.json"] = MetaFile(roles[Targets.type].signed.version)
        if role == Timestamp.type:
            metadata.signed.snapshot_meta = MetaFile(roles[Snapshot.type].signed.version)
        metadata.signatures.clear()
        metadata.sign(keeper)
        name = "timestamp.json" if role == Timestamp.type else f"{metadata.signed.version}.{role}.json"
        _write(folder / name, metadata.to_bytes())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    write_synced(part, content)
    os.replace(part, path)


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(timezone.utc)
