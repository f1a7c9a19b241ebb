"""Build a bundle: stage every file beside the target, measure it through the SDK, sign it, and put it in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from xrec_sdk import manifest as manifest_format
from xrec_sdk.bundle import open_bundle
from xrec_sdk.catalog import pack_catalog
from xrec_sdk.conformance import check_conformance
from xrec_sdk.errors import DataError
from xrec_sdk.idtable import pack_ids
from xrec_sdk.manifest import ItemSections, Manifest, RankerRecord, Section
from xrec_sdk.runtime import Runtime
from xrec_sdk.signature import generate_key

from xrec_export import card, conformance, parity
from xrec_export.budget import Budget
from xrec_export.budget import lines as budget_lines
from xrec_export.certificate import Certificate, Gate
from xrec_export.encoder_graph import build_encoder
from xrec_export.export_model import ExportModel, ParityCase
from xrec_export.graph_parts import IR_VERSION, OPSET, operators
from xrec_export.parity import Tolerance
from xrec_export.quantize import block_rows, pack_items, store_rows
from xrec_export.scorer_graph import build_scorer
from xrec_export.speed import measure_speed
from xrec_export.staging import records, signed, staged, write


@dataclass(frozen=True)
class Release:
    """What the release engineer decides: name, number, time, the key that signs, and int8, fp16 or fp32 items."""

    name: str
    number: int
    created_at: str
    private_pem: bytes
    table_format: str = "int8"


def build_bundle(
    model: ExportModel,
    cases: Sequence[ParityCase],
    target: Path,
    *,
    release: Release,
    tolerance: Tolerance,
    budget: Budget | None = None,
    cpus: Sequence[str] = (),
) -> Certificate:
    """Write the bundle folder ``target`` and return its certificate; nothing is left where any step fails.

    A bundle that already stands there is replaced. Raises GateError: ``gate.parity`` where the bundle loses more than
    ``tolerance`` on ``cases``, ``gate.runtime`` where this machine and an emulated one of ``cpus`` answer differently,
    ``gate.budget`` (BudgetMissed, with every line) where it costs more than ``budget``.
    """
    _check_model(model)
    with staged(target) as stage:
        return _stage(stage, model, cases, release, Gate(tolerance, budget, tuple(cpus)))


def _check_model(model: ExportModel) -> None:
    counts = {len(model.item_table), len(model.ids), len(model.entries), len(model.categories)}
    if len(counts) != 1 or not model.ids:
        raise DataError("data.item_count", f"the table, ids, entries and categories have {sorted(counts)} rows")
    if model.prior is not None and model.prior.shape != (len(model.ids),):
        raise DataError("data.item_count", f"the prior has shape {model.prior.shape} for {len(model.ids)} items")
    if not np.isfinite(model.item_table).all() or (model.prior is not None and not np.isfinite(model.prior).all()):
        raise DataError("data.item_table", "the item table or the prior holds values that are not finite; train again")


def _stage(stage: Path, model: ExportModel, cases: Sequence[ParityCase], release: Release, gate: Gate) -> Certificate:
    """Write a draft, measure it with the SDK as a device would run it, and write the signed bundle over it."""
    ranker = model.ranker
    features = None if ranker is None else ranker.item_features
    rows = store_rows(release.table_format, model.item_table)
    items = block_rows(rows, model.prior, features)
    packed, sections = pack_items(items)
    encoder = build_encoder(model.encoder, model.item_table.shape[1], model.query_rows, release.table_format)
    scorer = build_scorer(items, sections, ranker)
    files: dict[str, bytes] = {
        "encoder.onnx": encoder.SerializeToString(deterministic=True),
        "scorer.onnx": scorer.SerializeToString(deterministic=True),
        "items.bin": packed,
        "ids.bin": pack_ids(model.ids),
        "catalog.bin": pack_catalog(model.entries, model.categories),
        "conformance.json": b"{}",
        "card.md": b"",
    }
    used = operators(encoder, scorer)
    draft = _manifest(model, sections, release, used)
    # A key of its own, thrown away, so that no draft is ever one that an app would load.
    draft_pem, draft_key = generate_key()
    drafted = manifest_format.to_bytes(replace(draft, files=records(files)))
    write(stage, {**files, **signed(drafted, draft_pem)})
    bundle = open_bundle(stage, trusted_keys=[draft_key])
    runtime = Runtime(bundle)

    measured = parity.measure(model, stage, bundle, cases, gate.cpus)
    if ranker is not None:
        gap = parity.probability_gap(ranker, model.prior, bundle, runtime, cases)
        measured = replace(measured, probability_gap=gap)
    needs_speed = gate.budget is not None and gate.budget.needs_speed
    speed = measure_speed(stage, draft_key, threads=gate.budget.threads) if gate.budget and needs_speed else None
    files["conformance.json"] = conformance.make(model.vocabulary, rows.vectors(), model.prior, runtime, ranker)
    certificate, whole = _certify(
        files, draft, Certificate(measured, gate.tolerance, speed=speed), gate, model, release
    )
    certificate.check()
    write(stage, whole)
    final = open_bundle(stage, allow_unsigned=True)
    check_conformance(Runtime(final), final)
    return certificate


def _certify(
    files: Mapping[str, bytes],
    draft: Manifest,
    certificate: Certificate,
    gate: Gate,
    model: ExportModel,
    release: Release,
) -> tuple[Certificate, dict[str, bytes]]:
    """Return the certificate with the lines of the budget, and every file with it, card and manifest.

    The certificate says how large the folder is, itself among it: it is written until that is so. Each round can only
    add digits, so that the rounds end.
    """
    sizes: dict[str, int] = {}
    while True:
        if gate.budget is not None:
            asked = gate.budget.with_quality(gate.tolerance)
            lines = budget_lines(asked, certificate.parity, sizes, draft.operators, draft.opset, certificate.speed)
            certificate = replace(certificate, lines=tuple(lines))
        text = card.render(model, draft, certificate)
        written = {**files, "card.md": text.encode("utf-8")}
        manifest = replace(draft, files=records(written), parity=certificate.to_manifest())
        whole = {**written, **signed(manifest_format.to_bytes(manifest), release.private_pem)}
        found = {name: len(content) for name, content in whole.items()}
        if gate.budget is None or found == sizes:
            return certificate, whole
        sizes = found


def _manifest(model: ExportModel, sections: Mapping[str, Section], release: Release, used: Sequence[str]) -> Manifest:
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
        files={},
        model=model.facts,
        ranker=None if model.ranker is None else RankerRecord(model.ranker.events, model.ranker.horizon_ms),
        table_format=release.table_format,
    )
