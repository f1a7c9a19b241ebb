"""diff says what changed, sign refuses what does not verify, bench measures, doctor finds what is wrong."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from torch import nn
from xrec_export import doctor
from xrec_export.build import Release, build_bundle
from xrec_export.cli import main
from xrec_export.compare import compare
from xrec_export.inspect import verify_bundle
from xrec_export.keys import public_key
from xrec_export.parity import Tolerance
from xrec_sdk.signature import generate_key

sys.path.insert(0, str(Path(__file__).parent))
from small_models import make_cases, make_model

PEM, PUBLIC = generate_key()
VECTORS = Path(__file__).parents[1] / "vectors"
VECTORS_KEY = json.loads((VECTORS / "index.json").read_text(encoding="utf-8"))["key"]


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words), "--json"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("built") / "small.xrec"
    release = Release("small", 3, "2026-01-02T03:04:05Z", PEM)
    build_bundle(make_model(), make_cases(20), target, release=release, tolerance=Tolerance(0.9, 0.2))
    return target


@pytest.fixture
def bundle(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "small.xrec"))


def counts(said: dict[str, Any]) -> dict[str, int]:
    return {name: one["count"] for name, one in said["items"].items()}


def test_a_bundle_differs_in_nothing_from_itself(built: Path) -> None:
    said = compare(built, built, [PUBLIC])
    assert set(counts(said).values()) == {0}
    assert said["golden_overlap"] == 1.0
    assert said["model"] == {
        "encoder": "same",
        "scorer": "same",
        "width": [64, 64],
        "rows_changed": 0,
        "ranker": [False, False],
    }
    assert said["vocabulary"]["same_order"]  # type: ignore[index]


def test_diff_names_what_changed(built: Path, tmp_path: Path) -> None:
    model = make_model()
    kept = [row for row in range(len(model.ids)) if row not in (5, 17)]
    order = [*kept[:100][::-1], *kept[100:]]
    table = model.item_table[order]
    table[40] = 0
    entries = [dict(model.entries[row]) for row in order]
    entries[7]["price"] = 99
    other = replace(
        model,
        item_table=np.concatenate([table, table[:1] / 2]),
        ids=[*(model.ids[row] for row in order), "sku-new"],
        entries=[*entries, {"title": "New"}],
        categories=[*(model.categories[row] for row in order), "shelf 9"],
        vocabulary=replace(model.vocabulary, devices=("pc", "tv"), max_history=30),
    )
    model.encoder.position = nn.Embedding(30, 64)
    new = tmp_path / "new.xrec"
    release = Release("small", 4, "2026-01-02T03:04:05Z", PEM)
    cases = [
        replace(case, bias_rows=case.bias_rows[:0], bias_values=case.bias_values[:0]) for case in make_cases(9, 299)
    ]
    build_bundle(other, cases, new, release=release, tolerance=Tolerance(0, 1))
    result = run("diff", built, new, "--key", PUBLIC)
    said = json.loads(result.stdout)
    assert counts(said) == {"added": 1, "removed": 2, "changed": 1, "no longer offered": 0}
    assert said["items"]["added"]["first"] == ["sku-new"] and said["items"]["removed"]["first"] == ["sku-5", "sku-17"]
    assert said["items"]["changed"]["first"] == [other.ids[7]]
    assert said["categories"] == {"added": ["shelf 9"], "removed": []}
    assert said["vocabulary"]["devices"] == {"added": ["tv"], "removed": ["phone"]}
    assert said["vocabulary"]["max_history"] == [20, 30] and not said["vocabulary"]["same_order"]
    assert said["model"]["rows_changed"] == 1 and said["model"]["encoder"] == "changed"
    assert 0 <= said["golden_overlap"] < 1
    assert said["bytes"]["total"][1] == sum(pair[1] for name, pair in said["bytes"].items() if name != "total")


def test_items_that_only_moved_are_the_same_items_with_the_same_lists(built: Path, tmp_path: Path) -> None:
    model = make_model()
    order = list(range(len(model.ids)))[::-1]
    moved = replace(
        model,
        item_table=model.item_table[order],
        ids=[model.ids[row] for row in order],
        entries=[model.entries[row] for row in order],
        categories=[model.categories[row] for row in order],
    )
    release = Release("small", 4, "2026-01-02T03:04:05Z", PEM)
    build_bundle(moved, make_cases(9), tmp_path / "new.xrec", release=release, tolerance=Tolerance(0, 1))
    said = compare(built, tmp_path / "new.xrec")
    assert set(counts(said).values()) == {0}
    assert said["golden_overlap"] == 1.0 and said["model"]["rows_changed"] == 0  # type: ignore[index]


def test_diff_of_a_bundle_of_another_key_is_refused(built: Path) -> None:
    result = run("diff", built, VECTORS / "pool.xrec", "--key", PUBLIC)
    assert result.exit_code == 1 and "bundle.key_untrusted" in result.stderr


def test_an_unsigned_bundle_is_signed(bundle: Path, tmp_path: Path) -> None:
    (bundle / "manifest.sig").unlink()
    (tmp_path / "key.pem").write_bytes(PEM)
    result = run("sign", bundle, "--key", tmp_path / "key.pem")
    assert json.loads(result.stdout)["key"] == PUBLIC
    assert verify_bundle(bundle, PUBLIC)["release"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.pem", "small.xrec"]


def test_a_key_takes_over_from_a_trusted_one_only(bundle: Path, tmp_path: Path) -> None:
    pem, public = generate_key()
    (tmp_path / "new.pem").write_bytes(pem)
    before = (bundle / "manifest.sig").read_bytes()
    refused = run("sign", bundle, "--key", tmp_path / "new.pem")
    assert refused.exit_code == 1 and "bundle.key_untrusted" in refused.stderr
    assert (bundle / "manifest.sig").read_bytes() == before
    assert run("sign", bundle, "--key", tmp_path / "new.pem", "--trusted-key", PUBLIC).exit_code == 0
    assert verify_bundle(bundle, public)["key"] == public


@pytest.mark.parametrize(
    ("name", "code"), [("items.bin", "bundle.hash_mismatch"), ("manifest.json", "bundle.signature_invalid")]
)
def test_a_changed_bundle_is_not_signed(name: str, code: str, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(PEM)
    content = bytearray((bundle / name).read_bytes())
    content[100] ^= 1
    (bundle / name).write_bytes(content)
    before = (bundle / "manifest.sig").read_bytes()
    result = run("sign", bundle, "--key", tmp_path / "key.pem")
    assert result.exit_code == 1 and code in result.stderr
    assert (bundle / "manifest.sig").read_bytes() == before


def test_bench_measures_on_this_machine() -> None:
    result = run("bench", VECTORS / "pool.xrec", "--key", VECTORS_KEY, "--starts", 1, "--calls", 20)
    said = json.loads(result.stdout)
    assert 0 < said["import_ms"] < said["cold_start_ms"]
    assert 0 < said["again_p50_ms"] <= said["again_p99_ms"]
    assert said["anonymous_added_bytes"] > 0 and said["calls"] == 20


def test_bench_of_a_bundle_of_another_key_is_refused() -> None:
    result = run("bench", VECTORS / "pool.xrec", "--key", PUBLIC)
    assert result.exit_code == 1 and "bundle.key_untrusted" in result.stderr


def test_doctor_finds_this_machine_well(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(PEM)
    (tmp_path / "key.pem").chmod(0o600)
    result = run("doctor", "--key", tmp_path / "key.pem", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["key"]["found"] == PUBLIC == public_key(PEM)
    assert {"onnx", "onnxruntime", "torch", "cpu features", "emulator", "disk"} <= said.keys()


def test_doctor_finds_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.pem").write_bytes(PEM)
    (tmp_path / "key.pem").chmod(0o644)
    result = run("doctor", "--key", tmp_path / "key.pem", "--out", tmp_path / "nowhere")
    assert result.exit_code == 1 and "[gate.doctor]" in result.stderr and "key, disk" in result.stderr
    monkeypatch.setattr(doctor, "LIBRARIES", ("numpy", "no-such-library"))
    monkeypatch.setattr(doctor, "_least", lambda name: "99.0")
    found = {one.name: one.is_wrong for one in doctor.examine(tmp_path / "none.pem", tmp_path)}
    assert found["numpy"] and found["no-such-library"] and found["key"] and not found["disk"]


@pytest.mark.parametrize("name", ["lowpass", "pool"])
def test_a_reduced_runtime_keeps_what_the_graphs_need_before_and_after_onnxruntime_rewrites_them(
    name: str, tmp_path: Path
) -> None:
    path = VECTORS / f"{name}.xrec"
    assert run("inspect", path, "--required-operators", tmp_path / "required_operators.config").exit_code == 0
    head, line = (tmp_path / "required_operators.config").read_text().splitlines()
    assert head == f"# {name} vectors, release 3"
    domain, opset, operators = line.split(";")
    assert (domain, opset) == ("ai.onnx", "21")
    assert {*json.loads((path / "manifest.json").read_bytes())["operators"]} <= {*operators.split(",")}
    assert [path.name for path in tmp_path.iterdir()] == ["required_operators.config"]


def test_what_onnxruntime_puts_in_is_kept_too(tmp_path: Path) -> None:
    from xrec_export.required_operators import required_operators

    path = VECTORS / "ranked.xrec"
    manifest = json.loads((path / "manifest.json").read_bytes())
    added = {*required_operators(path).split(";")[2].strip().split(",")} - {*manifest["operators"]}
    assert added == {"Gemm"}  # of the ranker's product and sum
