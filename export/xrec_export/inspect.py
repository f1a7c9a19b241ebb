"""Look into a bundle: verify it as an app would, or show what it says of itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from xrec_sdk.bundle import Bundle, open_bundle
from xrec_sdk.conformance import check_conformance
from xrec_sdk.runtime import Runtime


def verify_bundle(path: Path, key: str) -> dict[str, object]:
    """Open a bundle with a pinned key, run its golden cases, and return what was checked; raise BundleError."""
    bundle = open_bundle(path, trusted_keys=[key])
    cases = check_conformance(Runtime(bundle), bundle)
    return {"name": bundle.manifest.name, "release": bundle.manifest.release, "key": bundle.key, "golden_cases": cases}


def describe_bundle(path: Path) -> dict[str, object]:
    """Return what a bundle says of itself; its hashes are checked, its signature is not."""
    bundle = open_bundle(path, allow_unsigned=True)
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "release": manifest.release,
        "created_at": manifest.created_at,
        "item_count": manifest.item_count,
        "width": manifest.width,
        "events": list(manifest.vocabulary.events),
        "devices": list(manifest.vocabulary.devices),
        "max_history": manifest.vocabulary.max_history,
        "seen": {"events": list(manifest.seen_events), "filter": manifest.filter_seen},
        "repeat": asdict(manifest.repeat) if manifest.repeat else None,
        "operators": list(manifest.operators),
        "bytes": _sizes(bundle),
        "parity": dict(manifest.parity),
        "model": dict(manifest.model),
    }


def _sizes(bundle: Bundle) -> dict[str, int]:
    sizes = {name: record.bytes for name, record in sorted(bundle.manifest.files.items())}
    return {**sizes, "total": sum(sizes.values())}
