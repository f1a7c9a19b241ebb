"""What users did with lists comes back as rates by release and by arm, of those who agreed and of no small group."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from served import Client, event, granted, op, served, settings, token, until
from test_training import build
from xrec_export.keys import public_key
from xrec_sdk import Recommender, assign
from xrec_server.cli import main
from xrec_server.feedback import Counts, as_text, rate_of, report_feedback

ARMS = {"old": 1, "new": 1}


def answered(list_id: str, event_name: str, item_id: str) -> dict[str, Any]:
    """Return the event of an answer to a list."""
    said = event(item_id)
    body = {**json.loads(said["body"]), "event": event_name, "recommendation_id": list_id}
    return {**said, "body": json.dumps(body)}


def agrees(is_granted: bool) -> dict[str, Any]:
    return op("consent", "analytics", json.dumps({"granted": is_granted, "policy": "1"}))


def asked(folder: Path, *words: str) -> Any:
    given = ["feedback-metrics", "--database", str(folder / "profiles.db"), "--json", *words]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_the_rate_and_its_error_are_those_worked_by_hand() -> None:
    # 3 of 10 clicked; the residuals c - 0.3 s are 0.2, 0.4 and -0.6, their squares 0.56 in all:
    # sqrt(3 / 2 * 0.56) / 10 = 0.0916515...
    users = [Counts(6, 2, 0), Counts(2, 1, 1), Counts(2, 0, 0)]
    assert rate_of(users, "clicked") == pytest.approx((0.3, 0.0916515139), abs=1e-9)
    # 1 of 10: residuals -0.6, 0.8 and -0.2, squares 1.04.
    assert rate_of(users, "converted") == pytest.approx((0.1, 0.1248999600), abs=1e-9)


def test_lists_are_counted_once_by_release_and_arm_and_only_of_those_who_agree(tmp_path: Path) -> None:
    said = {
        "anna": [agrees(True), ("a.3.rank=new", "impression", "x"), ("a.3.rank=new", "impression", "y")],
        "berta": [agrees(True), ("b.3.rank=old", "impression", "x"), ("old id", "impression", "x")],
        "cleo": [agrees(True), agrees(False), ("c.3", "impression", "x")],
        "dora": [("d.3", "impression", "x")],
    }
    said["anna"] += [("a.3.rank=new", "view", "x"), ("a.3.rank=new", "view", "x"), ("a.3.rank=new", "purchase", "x")]
    said["anna"] += [("a.3.rank=new", "view", "not shown")]
    with served(settings(tmp_path)) as port:
        for subject, done in said.items():
            client = Client(port, token(tmp_path, subject))
            ops = [one if isinstance(one, dict) else answered(*one) for one in done]
            assert client.push(client.register(), 1, [*granted(), *ops]).json["rejected"] == []
        alone = asked(tmp_path)
        report = asked(tmp_path, "--min-users", "1")
        other = asked(tmp_path, "--min-users", "2", "--click", "purchase")
    assert (report["left_out"], report["unshown"]) == (2, 1)
    assert [(line["group"], line["users"]) for line in alone["lines"]] == [
        ("rank=new", 1),
        ("rank=old", 1),
        ("release 3", 2),
        ("release unknown", 1),
    ]
    assert all(line["click_through"] is None for line in alone["lines"]) and alone["differences"] == []
    release = next(line for line in report["lines"] if line["group"] == "release 3")
    assert release["shown"] == 3
    assert (release["click_through"]["value"], release["conversion"]["value"]) == pytest.approx((1 / 3, 1 / 3))
    assert next(line for line in other["lines"] if line["users"] == 2)["click_through"]["value"] == pytest.approx(1 / 3)


def test_an_experiment_on_devices_is_read_from_what_they_sent(trained: Path, tmp_path: Path) -> None:
    """Users of one arm click the first of their list, those of the other none; the arm is that of their user id."""
    bundle, arms = build(trained, tmp_path, 5), {}
    key = public_key((tmp_path / "key.pem").read_bytes())
    with served(settings(tmp_path)) as port:
        for number in range(8):
            user = f"user-{number}"
            arm = arms[user] = assign("rank", user, ARMS)
            with Recommender(bundle, trusted_keys=[key]) as phone:
                for purpose in ("personalise", "sync", "analytics"):
                    phone.set_consent(purpose, True, policy="1")
                listed = phone.recommend(4, arm=arm)
                for item in listed:
                    phone.feedback(item.recommendation_id, item.item_id, "impression", device="phone")
                if arm.name == "new":
                    phone.feedback(listed[0].recommendation_id, listed[0].item_id, "view", device="phone")
                phone.start_sync(f"http://127.0.0.1:{port}", lambda user=user: token(tmp_path, user))
                until(lambda phone=phone: phone.sync_status().state == "up_to_date" and not phone.sync_status().queued)
        report = asked(tmp_path, "--min-users", "2")
    many = {name: sum(arm.name == name for arm in arms.values()) for name in ARMS}
    assert min(many.values()) >= 2
    lines = {line["group"]: line for line in report["lines"]}
    assert {group: (line["users"], line["shown"]) for group, line in lines.items()} == {
        "rank=new": (many["new"], 4 * many["new"]),
        "rank=old": (many["old"], 4 * many["old"]),
        "release 5": (8, 32),
    }
    assert lines["rank=new"]["click_through"]["value"] == 0.25 and lines["rank=old"]["click_through"]["value"] == 0
    (difference,) = report["differences"]
    assert (difference["arm"], difference["against"]) == ("rank=old", "rank=new")
    assert difference["click_through"]["value"] == -0.25 and difference["conversion"]["value"] == 0


def test_an_empty_database_has_an_empty_report(tmp_path: Path) -> None:
    with served(settings(tmp_path)):
        pass
    report = asyncio.run(report_feedback(str(tmp_path / "profiles.db")))
    assert asdict(report) == {"lines": (), "differences": (), "left_out": 0, "unshown": 0}
    assert as_text(report).startswith("0 users did not agree")
    missing = CliRunner().invoke(main, ["feedback-metrics", "--database", str(tmp_path / "none.db")])
    assert missing.exit_code == 2 and "server.database" in missing.output
