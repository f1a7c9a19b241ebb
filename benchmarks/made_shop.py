"""Make the shop that the speed benchmarks ask: an untrained model over made-up items, its bundle, its profiles."""

# N items, D width, L events in a history

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from xrec_export.build import Release, build_bundle
from xrec_export.certificate import Certificate
from xrec_export.export_model import ExportModel, ParityCase, excluding
from xrec_export.from_run import LastPosition
from xrec_export.parity import Tolerance
from xrec_sdk.history import History, Vocabulary
from xrec_sdk.profile import Profile
from xrec_sdk.signature import generate_key
from xrec_trainer.encoders.lowpass import LowPassTransformer

VOCABULARY = Vocabulary(("view", "cart", "purchase"), ("phone", "pc", "mini_program"))
K = 10
PARITY_CASES = 10
"""The certificate is of no interest here, and asks a million items slowly."""


@dataclass(frozen=True)
class MadeShop:
    """A model, its bundle at ``path``, the public key that signed it, and what its build measured."""

    model: ExportModel
    path: Path
    key: str
    certificate: Certificate


def make_shop(items: int, width: int, history: int, folder: Path) -> MadeShop:
    """Write shop.xrec into ``folder``; the table is drawn with seed 0."""
    model = make_model(items, width)
    pem, public = generate_key()
    cases = [make_case(items, history, seed) for seed in range(PARITY_CASES)]
    release = Release("shop", 1, "2026-01-01T00:00:00Z", pem)
    certificate = build_bundle(model, cases, folder / "shop.xrec", release=release, tolerance=Tolerance(0, 1))
    return MadeShop(model, folder / "shop.xrec", public, certificate)


def make_model(items: int, width: int) -> ExportModel:
    """Return an untrained transformer over normal rows (N, D)."""
    torch.manual_seed(0)
    encoder = LowPassTransformer(width, 2, 2, 0.0, VOCABULARY).eval()
    table = np.random.default_rng(0).normal(size=(items, width)).astype(np.float32) / np.float32(width**0.5)
    ids = [f"sku-{row}" for row in range(items)]
    return ExportModel(
        encoder=LastPosition(encoder).eval(),
        item_table=table,
        ids=ids,
        entries=[{"title": item_id} for item_id in ids],
        categories=[f"shelf {row % 100}" for row in range(items)],
        vocabulary=VOCABULARY,
        seen_events=("purchase",),
    )


def make_case(items: int, length: int, seed: int) -> ParityCase:
    """Return a history of distinct items, all of them left out of the answer."""
    random = np.random.default_rng(seed)
    bounds = (VOCABULARY.event_count, VOCABULARY.device_count, VOCABULARY.gap_count)
    rows = random.choice(items, size=length, replace=False).astype(np.int32)
    history = History(rows, *(random.integers(0, bound, size=length, dtype=np.int32) for bound in bounds))
    return excluding(history, rows[:1], rows)


def fill_profile(profile: Profile, items: int, length: int) -> None:
    """Record the purchases of a user who agreed, a second apart, so that ``length`` items are excluded."""
    profile.set_consent("personalise", True)
    for place, row in enumerate(make_case(items, length, 0).history.rows.tolist()):
        profile.record("purchase", f"sku-{row}", "phone", 1_750_000_000_000 + 1000 * place)
