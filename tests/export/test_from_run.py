"""A trained run becomes a bundle that answers as the run does."""

from __future__ import annotations

from pathlib import Path

from xrec_export.build import Release, build_bundle
from xrec_export.from_run import load
from xrec_export.inspect import verify_bundle
from xrec_export.parity import Tolerance
from xrec_sdk.signature import generate_key


def test_a_trained_run_becomes_a_bundle_within_tolerance(trained: Path, tmp_path: Path) -> None:
    pem, public = generate_key()
    model, cases = load(trained, case_limit=30)
    release = Release("shop", 1, "2026-01-02T03:04:05Z", pem)
    made = build_bundle(model, cases, tmp_path / "shop.xrec", release=release, tolerance=Tolerance(0.95, 0.05))
    assert made.parity.cases == len(cases) and 1 <= len(cases) <= 30
    assert verify_bundle(tmp_path / "shop.xrec", public)["golden_cases"]
