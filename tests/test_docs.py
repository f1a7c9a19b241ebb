"""What README.md and docs/ show works: Python blocks run against a built bundle, command lines parse."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from xrec_export import from_run
from xrec_export.cli import main as export
from xrec_server.cli import main as server
from xrec_trainer.cli import main as train

sys.path.insert(0, str(Path(__file__).parent / "export"))
from small_models import make_cases, make_model

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A line of its own, or inline code.
COMMAND = re.compile(r"(?:^|`)(xrec-(?:train|export|server) \w[^`#\n]*)", re.MULTILINE)
TOOLS = {"xrec-train": train, "xrec-export": export, "xrec-server": server}
KEY = "ed25519:..."  # stands for the app's own key


def found(pattern: re.Pattern[str]) -> list[object]:
    """Return every match on every page, named by its page and line."""
    texts = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
    return [
        pytest.param(match[1], id=f"{page}:{text.count(chr(10), 0, match.start()) + 1}")
        for page, text in texts.items()
        for match in pattern.finditer(text)
    ]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a folder with an untrained but built and signed shop.xrec, and the key that it was signed with."""
    folder = tmp_path_factory.mktemp("app")
    made = CliRunner().invoke(export, ["keygen", str(folder / "release.pem"), "--json"])
    arguments = ["build", "RUN", "--out", str(folder / "shop.xrec"), "--key", str(folder / "release.pem")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_run, "load", lambda run, cases: (make_model(), make_cases(30)))
        built = CliRunner().invoke(export, [*arguments, "--min-overlap", "0.9", "--max-ndcg-loss", "0.5"])
    assert built.exit_code == 0, built.output
    return folder, json.loads(made.stdout)["public_key"]


@pytest.mark.parametrize("code", found(PYTHON))
def test_a_python_block_runs(code: str, release: tuple[Path, str]) -> None:
    folder, key = release
    words = [sys.executable, "-W", "error", "-c", code.replace(KEY, key)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", found(COMMAND))
def test_a_command_line_parses(line: str) -> None:
    tool, name, *rest = shlex.split(line)
    TOOLS[tool].commands[name].make_context(name, rest)


def test_the_pages_show_code_and_commands() -> None:
    assert found(PYTHON) and found(COMMAND)
