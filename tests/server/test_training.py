"""What leaves for training: the events of those who agreed, under pseudonyms; and the circle back to the device."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from served import Client, event, granted, op, served, settings, token, until
from small_shop import small_config
from xrec_export.cli import main as export_main
from xrec_export.keys import public_key, write_key
from xrec_sdk import Recommender
from xrec_server.cli import main
from xrec_server.errors import ServerError
from xrec_server.training import export_training
from xrec_trainer.fit import fit
from xrec_trainer.prepare import prepare

AGREES = op("consent", "train", json.dumps({"granted": True, "policy": "1"}))
SECRET = b"s" * 32


def export(folder: Path, secret: bytes = SECRET) -> tuple[Any, list[dict[str, Any]]]:
    """Export the folder's database and return the counts and the lines."""
    done = asyncio.run(export_training(str(folder / "profiles.db"), secret, folder / "logs"))
    return done, [json.loads(line) for line in gzip.open(folder / "logs" / "events.jsonl.gz", "rt", encoding="utf-8")]


def test_only_the_events_of_those_who_agree_leave_and_under_pseudonyms(tmp_path: Path) -> None:
    with served(settings(tmp_path)) as port:
        for subject, said in (("anna", [AGREES]), ("berta", []), ("cleo", [AGREES])):
            client = Client(port, token(tmp_path, subject))
            device = client.register()
            ops = [*granted(), *said, event(f"sku-{subject}"), event("sku-42")]
            assert client.push(device, 1, ops).json["rejected"] == []
            if subject == "cleo":  # a refusal wins, whatever was granted before
                refused = op("consent", "train", json.dumps({"granted": False, "policy": "1"}))
                client.push(device, 1 + len(ops), [refused])
        done, lines = export(tmp_path)  # beside the server that is at work
    assert (done.users, done.events, done.left_out) == (1, 2, 2)
    assert {line["item_id"] for line in lines} == {"sku-anna", "sku-42"}
    assert len({line["user_id"] for line in lines}) == 1 and "anna" not in lines[0]["user_id"]
    assert export(tmp_path)[1] == lines
    assert export(tmp_path, b"t" * 32)[1][0]["user_id"] != lines[0]["user_id"]


def test_who_erases_is_in_no_later_export(tmp_path: Path) -> None:
    with served(settings(tmp_path)) as port:
        client = Client(port, token(tmp_path, "anna"))
        device = client.register()
        client.push(device, 1, [*granted(), AGREES, event()])
        assert len(export(tmp_path)[1]) == 1
        client.push(device, 5, [op("erase", "all-of-it", "{}")])
        assert export(tmp_path)[1] == []


def test_a_database_that_is_not_there_is_an_error_and_leaves_no_half_export(tmp_path: Path) -> None:
    with pytest.raises(ServerError) as caught:
        export(tmp_path)
    assert caught.value.code == "server.database"
    assert list((tmp_path / "logs").iterdir()) == []
    assert not (tmp_path / "profiles.db").exists()


def build(run: Path, folder: Path, release: int) -> Path:
    """Build and sign the bundle of a run."""
    key, out = folder / "key.pem", folder / f"shop-{release}.xrec"
    if not key.exists():
        write_key(key)
    words = ["build", str(run), "--out", str(out), "--key", str(key), "--release", str(release), "--name", "shop"]
    built = CliRunner().invoke(export_main, [*words, "--min-overlap", "0.5", "--max-ndcg-loss", "0.5"])
    assert built.exit_code == 0, built.output
    return out


def test_what_users_do_with_a_list_comes_back_as_another_list(trained: Path, tmp_path: Path) -> None:
    # The shop's users buy item i + 1 after item i; these buy along a ring of 24 others, on their phones.
    ring, hour_ms, now_ms = [f"sku-{place * 37 % 150}" for place in range(24)], 3_600_000, time.time_ns() // 1_000_000
    first = build(trained, tmp_path, 1)
    key = public_key((tmp_path / "key.pem").read_bytes())
    with served(settings(tmp_path)) as port:
        for user in range(12):
            with Recommender(first, trusted_keys=[key]) as phone:
                for purpose in ("personalise", "sync", "train"):
                    phone.set_consent(purpose, True, policy="1")
                shown = phone.recommend(10)[0].recommendation_id
                for place in range(12):
                    at_ms = now_ms - (20 - place) * hour_ms
                    phone.feedback(shown, ring[(2 * user + place) % 24], "purchase", device="phone", at_ms=at_ms)
                phone.start_sync(f"http://127.0.0.1:{port}", lambda user=user: token(tmp_path, f"user-{user}"))
                until(lambda phone=phone: phone.sync_status().state == "up_to_date" and not phone.sync_status().queued)
        words = ["--database", str(tmp_path / "profiles.db"), "--secret", str(tmp_path / "dev" / "secret")]
        exported = CliRunner().invoke(main, ["training-events", *words, "--out", str(tmp_path / "logs"), "--json"])
        assert json.loads(exported.output) == {"users": 12, "events": 144, "left_out": 0}
        prepare(tmp_path / "logs" / "sources.toml", tmp_path / "data")
        config = small_config(split="leave-one-out", max_epochs=60, patience=60, batch_tokens=64)
        fit(tmp_path / "data", tmp_path / "run", config)
        second = build(tmp_path / "run", tmp_path, 2)
        for bundle, next_ones in ((first, ["sku-32"]), (second, ring[14:17])):
            with Recommender(bundle, trusted_keys=[key]) as pc:
                for purpose in ("personalise", "sync"):
                    pc.set_consent(purpose, True, policy="1")
                pc.start_sync(f"http://127.0.0.1:{port}", lambda: token(tmp_path, "user-1"))
                until(lambda pc=pc: len(pc.profile.events()) == 12)
                assert pc.profile.events()[-1].item_id == ring[13] == "sku-31"
                assert pc.recommend(1, filter_seen=True)[0].item_id in next_ones
