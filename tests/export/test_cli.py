"""The command line says what went wrong with a code, and prints JSON when asked."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from xrec_export import from_run
from xrec_export.cli import main

sys.path.insert(0, str(Path(__file__).parent))
from small_models import make_cases, make_model


def test_a_release_from_key_to_verified_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_run, "load", lambda run, cases: (make_model(), make_cases(30)))
    runner = CliRunner()
    key, out = tmp_path / "release.pem", tmp_path / "shop.xrec"
    made = runner.invoke(main, ["keygen", str(key), "--json"])
    public = json.loads(made.stdout)["public_key"]
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    arguments = ["build", "RUN", "--out", str(out), "--key", str(key), "--release", "4", "--json"]
    built = runner.invoke(main, [*arguments, "--min-overlap", "0.9", "--max-ndcg-loss", "0.5"])
    assert built.exit_code == 0, built.output
    assert json.loads(built.stdout)["cases"] == 30
    verified = runner.invoke(main, ["verify", str(out), "--key", public, "--json"])
    assert json.loads(verified.stdout)["release"] == 4
    shown = runner.invoke(main, ["inspect", str(out)])
    assert "item_count: 300" in shown.stdout and "name: shop" in shown.stdout


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    runner = CliRunner()
    runner.invoke(main, ["keygen", str(tmp_path / "key.pem")])
    again = runner.invoke(main, ["keygen", str(tmp_path / "key.pem")])
    assert again.exit_code == 1
    assert again.stderr.startswith("error [usage.key_exists]")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["verify", "nowhere.xrec", "--key", "ed25519:" + "A" * 43 + "="], "bundle.not_found"),
        (["verify", "nowhere.xrec", "--key", "nonsense"], "usage.trusted_keys"),
        (["inspect", "nowhere.xrec"], "bundle.not_found"),
        (["build", "nowhere", "--out", "x.xrec", "--key", "nowhere.pem"], "data.private_key"),
    ],
)
def test_an_error_has_its_code(arguments: list[str], code: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error [{code}]")


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_shows_an_example_and_json(command: str) -> None:
    said = CliRunner().invoke(main, [command, "--help"]).output
    assert f"xrec-export {command}" in said and "--json" in said
