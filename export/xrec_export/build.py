"""Build a bundle: stage every file beside the target, measure it through the SDK, sign it, and put it in place."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from xrec_sdk import manifest as manifest_format
from xrec_sdk.bundle import open_bundle
from xrec_sdk.catalog import pack_catalog
from xrec_sdk.conformance import check_conformance
from xrec_sdk.errors import DataError, UsageError
from xrec_sdk.idtable import pack_ids
from xrec_sdk.manifest import FileRecord, ItemSections, Manifest, RankerRecord, Section
from xrec_sdk.runtime import Runtime
from xrec_sdk.signature import sign

from xrec_export import card, conformance, parity
from xrec_export.encoder_graph import build_encoder
from xrec_export.export_model import ExportModel, ParityCase
from xrec_export.graph_parts import IR_VERSION, OPSET, operators
from xrec_export.parity import Parity, Tolerance
from xrec_export.quantize import dequantize, pack_items, quantize_table
from xrec_export.scorer_graph import build_scorer


@dataclass(frozen=True)
class Release:
    """What the release engineer decides: name, number, time and the key that signs."""

    name: str
    number: int
    created_at: str
    private_pem: bytes


def build_bundle(
    model: ExportModel, cases: Sequence[ParityCase], target: Path, *, release: Release, tolerance: Tolerance
) -> Parity:
    """Write the bundle folder ``target`` and return its certificate; nothing is left where any step fails.

    A bundle that already stands there is replaced. Raises GateError ``gate.parity`` where the bundle loses more than
    ``tolerance`` on ``cases``.
    """
    _check_model(model)
    _check_target(target)
    stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        measured = _stage(stage, model, cases, release, tolerance)
        _put_in_place(stage, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return measured


def _check_model(model: ExportModel) -> None:
    counts = {len(model.item_table), len(model.ids), len(model.entries), len(model.categories)}
    if len(counts) != 1 or not model.ids:
        raise DataError("data.item_count", f"the table, ids, entries and categories have {sorted(counts)} rows")
    if model.prior is not None and model.prior.shape != (len(model.ids),):
        raise DataError("data.item_count", f"the prior has shape {model.prior.shape} for {len(model.ids)} items")
    if not np.isfinite(model.item_table).all() or (model.prior is not None and not np.isfinite(model.prior).all()):
        raise DataError("data.item_table", "the item table or the prior holds values that are not finite; train again")


def _check_target(target: Path) -> None:
    if not target.parent.is_dir():
        raise UsageError("usage.out", f"the folder of {target} does not exist")
    if target.is_symlink() or (target.exists() and not (target / "manifest.json").is_file()):
        raise UsageError("usage.out", f"{target} exists and is not a bundle; choose another name")


def _stage(
    stage: Path, model: ExportModel, cases: Sequence[ParityCase], release: Release, tolerance: Tolerance
) -> Parity:
    """Write a draft, measure it with the SDK as a device would run it, and write the signed bundle over it."""
    ranker = model.ranker
    items = quantize_table(model.item_table, model.prior, None if ranker is None else ranker.item_features)
    packed, sections = pack_items(items)
    encoder, scorer = build_encoder(model.encoder, items, sections), build_scorer(items, sections, ranker)
    draft: dict[str, bytes] = {
        "encoder.onnx": encoder.SerializeToString(deterministic=True),
        "scorer.onnx": scorer.SerializeToString(deterministic=True),
        "items.bin": packed,
        "ids.bin": pack_ids(model.ids),
        "catalog.bin": pack_catalog(model.entries, model.categories),
        "conformance.json": b"{}",
        "card.md": b"",
    }
    for name, content in draft.items():
        _write(stage / name, content)
    draft_manifest = _manifest(model, sections, draft, release, operators(encoder, scorer), {})
    _write(stage / "manifest.json", manifest_format.to_bytes(draft_manifest))
    drafted = open_bundle(stage, allow_unsigned=True)
    runtime = Runtime(drafted)

    measured = parity.measure(model, runtime, cases)
    if ranker is not None:
        measured = replace(
            measured, probability_gap=parity.probability_gap(ranker, model.prior, drafted, runtime, cases)
        )
    parity.check(measured, tolerance)
    golden = conformance.make(model.vocabulary, dequantize(items)[: len(model.ids)], model.prior, runtime, ranker)
    text = card.render(model, release.name, release.number, release.created_at, measured, tolerance)
    final = {**draft, "conformance.json": golden, "card.md": text.encode("utf-8")}
    certificate = parity.to_manifest(measured, tolerance)
    signed = _manifest(model, sections, final, release, draft_manifest.operators, certificate)
    for name in ("conformance.json", "card.md"):
        _write(stage / name, final[name])
    manifest_bytes = manifest_format.to_bytes(signed)
    _write(stage / "manifest.json", manifest_bytes)
    _write(stage / "manifest.sig", sign(manifest_bytes, release.private_pem))
    bundle = open_bundle(stage, allow_unsigned=True)
    check_conformance(Runtime(bundle), bundle)
    return measured


def _manifest(
    model: ExportModel,
    sections: Mapping[str, Section],
    files: Mapping[str, bytes],
    release: Release,
    used: Sequence[str],
    certificate: Mapping[str, object],
) -> Manifest:
    records = {name: FileRecord(hashlib.sha256(content).hexdigest(), len(content)) for name, content in files.items()}
    return Manifest(
        name=release.name,
        release=release.number,
        created_at=release.created_at,
        item_count=len(model.ids),
        width=model.item_table.shape[1],
        opset=OPSET,
        ir_version=IR_VERSION,
        operators=tuple(used),
        vocabulary=model.vocabulary,
        seen_events=model.seen_events,
        filter_seen=model.filter_seen,
        repeat=model.repeat,
        items=ItemSections(**sections),
        files=records,
        parity=certificate,
        model=model.facts,
        ranker=None if model.ranker is None else RankerRecord(model.ranker.events, model.ranker.horizon_ms),
    )


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(stage: Path, target: Path) -> None:
    os.chmod(stage, 0o755)
    if not target.exists():
        os.replace(stage, target)
        return
    # A folder that is not empty can't be replaced in one step; the old bundle steps aside and returns if that fails.
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    os.replace(target, aside / target.name)
    try:
        os.replace(stage, target)
    except OSError:
        os.replace(aside / target.name, target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
