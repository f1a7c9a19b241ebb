"""The command line makes development keys, looks a server over, and says what is wrong."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from xrec_server.cli import main

sys.path.insert(0, str(Path(__file__).parent))
from served import Client, event, granted, served, settings, token


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def doctor(folder: Path) -> dict[str, dict[str, object]]:
    """Return what the doctor found of a folder's server, by name."""
    given = settings(folder)
    files = ["--database", given.database, "--ledger", given.ledger, "--keys", given.keys, "--secret", given.secret]
    result = run("doctor", *files, "--json")
    found = {one["name"]: one for one in json.loads(result.stdout)}
    assert result.exit_code == (2 if any(one["is_wrong"] for one in found.values()) else 0)
    return found


def test_development_keys_are_made_once_and_give_a_token(tmp_path: Path) -> None:
    first, second = (run("keygen-dev", tmp_path / "dev", "--json") for _ in range(2))
    one, other = json.loads(first.stdout), json.loads(second.stdout)
    assert one["keys"] == other["keys"] and one["token"].count(".") == 2
    assert Path(one["private"]).stat().st_mode & 0o077 == 0
    assert "For development only" in run("keygen-dev", tmp_path / "dev").stderr


def test_the_doctor_finds_nothing_wrong_with_a_new_server_and_with_one_that_runs(tmp_path: Path) -> None:
    assert "not there yet" in str(doctor(tmp_path)["database"]["found"])
    with served(settings(tmp_path)) as port:
        client = Client(port, token(tmp_path))
        client.push(client.register(), 1, [*granted(), event()])
        found = doctor(tmp_path)
        assert "1 profiles" in str(found["marks"]["found"]) and not found["clock"]["is_wrong"]
        assert "one loss can take both" in str(found["ledger apart"]["found"])
        assert client.ask("GET", "/healthz").status == 200


def test_the_doctor_names_what_is_wrong(tmp_path: Path) -> None:
    with served(settings(tmp_path)) as port:
        Client(port, token(tmp_path)).register()
    given = settings(tmp_path)
    given.secret.chmod(0o644)
    given.keys.write_text("{}")
    with sqlite3.connect(given.database) as file:
        file.execute("UPDATE mark SET mark = 0")
        file.execute("UPDATE devices SET contact_ms = contact_ms + 400000")
    file.close()
    found = doctor(tmp_path)
    assert {name for name, one in found.items() if one["is_wrong"]} == {"secret mode", "keys", "marks", "clock"}
    assert "xrec-server restored" in str(found["marks"]["found"])
    given.secret.write_text("short")
    Path(given.ledger).write_bytes(b"no database at all, but long enough to be looked at" * 99)
    assert {name for name, one in doctor(tmp_path).items() if one["is_wrong"]} > {"secret", "ledger"}


def test_restored_applies_the_ledger_and_says_to_how_many(tmp_path: Path) -> None:
    given = settings(tmp_path)
    with served(given) as port:
        Client(port, token(tmp_path)).register()
        busy = run("restored", "--database", given.database, "--ledger", given.ledger)
        assert busy.exit_code == 2 and "server.database_in_use" in busy.stderr
    done = run("restored", "--database", given.database, "--ledger", given.ledger, "--json")
    assert json.loads(done.stdout) == {"profiles": 1}
    with served(given) as port:
        client = Client(port, token(tmp_path))
        assert client.ask("GET", "/v1/profile/export").json["head"]["generation"] == 2


@pytest.mark.parametrize("name", ["serve", "doctor", "restored", "keygen-dev"])
def test_each_command_shows_an_example(name: str) -> None:
    assert f"Example: xrec-server {name}" in run(name, "--help").stdout


@pytest.mark.parametrize(
    ("file", "content", "code"),
    [
        ("secret", b"short", "server.secret_short"),
        ("keys", b"{}", "server.key_malformed"),
        ("database", b"x" * 9999, "server.database"),
    ],
)
def test_a_server_that_can_not_start_says_why(tmp_path: Path, file: str, content: bytes, code: str) -> None:
    given = settings(tmp_path)
    Path(getattr(given, file)).write_bytes(content)
    words = ["serve", "--port", "0"]
    for name in ("database", "ledger", "keys", "secret"):
        words += [f"--{name}", str(getattr(given, name))]
    result = run(*words)
    assert result.exit_code == 2 and f"error [{code}]" in result.stderr


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    given = settings(tmp_path)
    with served(settings(tmp_path)) as port:
        words = ["--keys", given.keys, "--secret", given.secret, "--port", str(port)]
        result = run("serve", "--database", tmp_path / "b.db", "--ledger", tmp_path / "c.db", *words)
    assert result.exit_code == 2 and "server.address" in result.stderr


def test_the_package_is_light_until_it_serves() -> None:
    heavy = ("uvicorn", "starlette", "joserfc")
    code = f"import sys, xrec_server.cli; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
