"""Bring a bundle's catalogue up to date without training: new items by their content, entries, what is offered."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from xrec_sdk import manifest as manifest_format
from xrec_sdk.bundle import Bundle, open_bundle, read_checked
from xrec_sdk.catalog import pack_catalog
from xrec_sdk.conformance import check_conformance
from xrec_sdk.delta import apply_delta
from xrec_sdk.errors import UsageError
from xrec_sdk.idtable import pack_ids
from xrec_sdk.manifest import ItemSections, Manifest, Section
from xrec_sdk.runtime import Runtime
from xrec_trainer.rank import load_ranker
from xrec_trainer.run import Run

from xrec_export import conformance
from xrec_export.delta_plan import make_delta
from xrec_export.export_ranker import fold
from xrec_export.graph_parts import operators
from xrec_export.item_changes import Change
from xrec_export.item_tower import load_tower
from xrec_export.item_update import Items, Update, apply_changes
from xrec_export.keys import public_key
from xrec_export.quantize import block_rows, pack_items
from xrec_export.ranker_graph import ExportRanker
from xrec_export.scorer_graph import build_scorer
from xrec_export.staging import records, signed, staged, write

SECTION = "\n## Items since"


@dataclass(frozen=True)
class Next:
    """The release that an update makes, by default the one after that of the bundle.

    The bundle at hand is signed by this key or by one of ``trusted_keys``.
    """

    number: int | None
    created_at: str
    private_pem: bytes
    trusted_keys: tuple[str, ...] = ()


def update_bundle(path: Path, changes: Sequence[Change], run: Path, target: Path, release: Next) -> Update:
    """Write the bundle at ``path`` with the changes as the folder ``target``; it may stand there already.

    New rows come from the item tower of ``run``, of which the bundle was made. Nothing is left where any step fails.
    """
    bundle = _opened(path, release)
    with staged(target) as stage:
        return _stage(stage, bundle, changes, load_tower(run, bundle), release)


def update_delta(path: Path, changes: Sequence[Change], run: Path, target: Path, release: Next) -> tuple[Update, int]:
    """Write what leads from the bundle at ``path`` to the updated one as the file ``target``, once it was tried.

    Returns the update and the bytes of the whole bundle.
    """
    if target.is_dir() or not target.parent.is_dir():
        raise UsageError("usage.out", f"{target} is a folder, or its folder does not exist; a delta is a file")
    bundle = _opened(path, release)
    keys = [public_key(release.private_pem), *release.trusted_keys]
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as name:
        whole, tried = Path(name) / "whole.xrec", Path(name) / "tried.xrec"
        with staged(whole) as stage:
            update = _stage(stage, bundle, changes, load_tower(run, bundle), release)
        old, new = (
            read_checked(one, trusted_keys=keys, allow_unsigned=False, minimum_release=0) for one in (path, whole)
        )
        write(Path(name), {"delta": make_delta(old, new)})
        apply_delta(path, Path(name) / "delta", tried, trusted_keys=keys)
        os.replace(Path(name) / "delta", target)
        return update, sum(file.stat().st_size for file in tried.iterdir())


def _opened(path: Path, release: Next) -> Bundle:
    bundle = open_bundle(path, trusted_keys=[public_key(release.private_pem), *release.trusted_keys])
    if release.number is not None and release.number <= bundle.manifest.release:
        raise UsageError(
            "usage.release", f"--release is {release.number}; the bundle is {bundle.manifest.release}, say a later one"
        )
    return bundle


def _stage(stage: Path, bundle: Bundle, changes: Sequence[Change], run: Run, release: Next) -> Update:
    items, update = apply_changes(bundle, changes, run)
    has_prior = bundle.manifest.items.prior is not None
    table = block_rows(items.rows, items.prior, items.features, items.is_offered)
    packed, sections = pack_items(table)
    ranker = None if items.features is None else _ranker(run, items.features)
    scorer = build_scorer(table, sections, ranker)
    categories = [str(entry["category"]) if entry.get("category") else None for entry in items.entries]
    files = {
        "encoder.onnx": bundle.encoder,
        "scorer.onnx": scorer.SerializeToString(deterministic=True),
        "items.bin": packed,
        "ids.bin": pack_ids(items.ids),
        "catalog.bin": pack_catalog(items.entries, categories),
        "conformance.json": b"{}",
        "card.md": b"",
    }
    manifest = _manifest(bundle.manifest, items, sections, release, update)
    used = operators(onnx.load_model_from_string(bundle.encoder), scorer)
    manifest = replace(manifest, operators=tuple(used))
    write(stage, {**files, "manifest.json": manifest_format.to_bytes(replace(manifest, files=records(files)))})
    runtime = Runtime(open_bundle(stage, allow_unsigned=True))
    prior, vocabulary = items.prior if has_prior else None, bundle.manifest.vocabulary
    vectors = items.rows.vectors()
    files["conformance.json"] = conformance.make(vocabulary, vectors, prior, runtime, ranker, items.is_offered)
    files["card.md"] = _card(bundle, manifest.release, update).encode("utf-8")
    manifest_bytes = manifest_format.to_bytes(replace(manifest, files=records(files)))
    write(stage, {**files, **signed(manifest_bytes, release.private_pem)})
    final = open_bundle(stage, trusted_keys=[public_key(release.private_pem)])
    check_conformance(Runtime(final), final)
    return update


def _ranker(run: Run, features: NDArray[np.float32]) -> ExportRanker | None:
    loaded = load_ranker(run)
    if loaded is None:
        return None
    ranker, found = loaded
    horizon_ms = round(found["horizon_days"] * 86_400_000)
    return fold(ranker, features, run.vocabulary.device_count, run.config.targets, horizon_ms)


def _manifest(base: Manifest, items: Items, sections: dict[str, Section], release: Next, update: Update) -> Manifest:
    return replace(
        base,
        release=base.release + 1 if release.number is None else release.number,
        created_at=release.created_at,
        item_count=len(items.ids),
        items=ItemSections(**sections),
        parity={**base.parity, "catalogue": asdict(update)},
    )


def _card(bundle: Bundle, release: int, update: Update) -> str:
    body = bundle.card.partition(SECTION)[0].partition("\n")[2].rstrip("\n")
    lines = [
        f"# {bundle.manifest.name}, release {release}",
        body,
        f"{SECTION} release {update.base_release}\n",
        "The catalogue was updated without training; what stands above was measured before that. "
        f"{update.added:,} items are new and have a row from their content alone, {update.without_content:,} of them "
        f"without any known content; {update.changed:,} have another entry, {update.moved:,} of them another row; "
        f"{update.withdrawn:,} are no longer offered, {update.offered_again:,} are again.",
        "",
    ]
    return "\n".join(lines)
