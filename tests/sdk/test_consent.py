from __future__ import annotations

import json
import subprocess
import sys

import pytest
from xrec_sdk import ProfileError, Recommender, UsageError
from xrec_sdk.profile import PURPOSES, Profile
from xrec_sdk.sync import PURPOSES as PURPOSES_OF_THE_PROTOCOL

NOW_MS = 1_700_000_000_000


@pytest.fixture
def profile(tmp_path):
    made = Profile(tmp_path / "p.db")
    yield made
    made.close()


def test_the_purposes_are_those_of_the_protocol():
    assert PURPOSES == PURPOSES_OF_THE_PROTOCOL


def test_nothing_is_recorded_before_consent_and_the_error_says_what_to_call(profile):
    assert profile.consent() == dict.fromkeys(PURPOSES, False)
    for purpose in ("sync", "train", "analytics"):  # consent to other purposes is none to this one
        profile.set_consent(purpose, True)
    with pytest.raises(ProfileError) as caught:
        profile.record("view", "a", "phone", 1)
    assert caught.value.code == "profile.no_consent"
    assert 'set_consent("personalise", True)' in str(caught.value)
    assert profile.events() == [] and profile.export() == []


def test_consent_holds_at_once_for_every_thread_and_process_and_over_a_restart(profile, tmp_path):
    other = Profile(tmp_path / "p.db")
    profile.set_consent("personalise", True, policy="2026-11")
    other.record("view", "a", "phone", 1)
    code = "import sys; from xrec_sdk import Profile; Profile(sys.argv[1]).set_consent('personalise', False)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "p.db")], check=True)
    for one in (profile, other):
        with pytest.raises(ProfileError):
            one.record("view", "b", "phone", 2)
    other.close()
    again = Profile(tmp_path / "p.db")
    assert again.consent()["personalise"] is False and len(again.events()) == 1
    again.close()


def test_withdrawal_hides_the_history_from_recommendations_and_a_grant_shows_it_again(profile):
    profile.set_consent("personalise", True)
    profile.record("view", "a", "phone", 1)
    granted, events = profile.read()
    profile.set_consent("personalise", False)
    withdrawn, none = profile.read(granted)
    assert none == [] and withdrawn.erasures > granted.erasures and profile.read(withdrawn) == (withdrawn, [])
    assert profile.events() == events  # the user still sees it, until it is erased
    profile.set_consent("personalise", True)
    assert profile.read(withdrawn)[1] == events == profile.read()[1]


def test_saying_again_what_stands_says_nothing_and_another_policy_does(profile):
    def words():
        said = "SELECT body FROM queue WHERE kind = 'consent'"
        rows = profile.store.read(lambda connection: connection.execute(said).fetchall())
        return [(json.loads(body)["granted"], json.loads(body)["policy"]) for (body,) in rows]

    profile.set_consent("train", False)
    profile.set_consent("train", False)
    for policy in ("1", "1", "2"):
        profile.set_consent("train", True, policy=policy)
    assert words() == [(False, ""), (True, "1"), (True, "2")]
    assert profile.consent()["train"] is True


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("ads", True, ""), "usage.purpose"),
        (("sync", 1, ""), "usage.granted"),
        (("sync", True, 7), "usage.policy"),
        (("sync", True, "x" * 513), "usage.policy"),
    ],
)
def test_a_wrong_word_is_a_usage_error(profile, arguments, code):
    purpose, granted, policy = arguments
    with pytest.raises(UsageError) as caught:
        profile.set_consent(purpose, granted, policy=policy)
    assert caught.value.code == code and not any(profile.consent().values())


def test_without_consent_a_list_is_the_one_that_is_not_personalised(shared_bundle, tmp_path):
    with Recommender(shared_bundle.folder, tmp_path / "p.db", trusted_keys=[shared_bundle.key]) as made:
        made.set_consent("personalise", True)
        made.record("purchase", "sku-0", device="phone")
        made.record("view", "sku-5", device="phone")
        own = [item.item_id for item in made.recommend(5)]
        made.set_consent("personalise", False)
        for filter_seen in (None, True, False):
            listed = made.recommend(5, filter_seen=filter_seen, explain=True)
            plain = made.recommend(5, filter_seen=filter_seen, personalised=False)
            assert [(item.item_id, item.score) for item in listed] == [(item.item_id, item.score) for item in plain]
            assert not any(item.reasons for item in listed)
        with pytest.raises(ProfileError) as caught:
            made.feedback("r", "sku-1", "impression")
        assert caught.value.code == "profile.no_consent"
        made.set_consent("personalise", True)
        assert [item.item_id for item in made.recommend(5)] == own != [item.item_id for item in plain]
        assert made.export_my_data()["consent"] == {**made.consent(), "personalise": True}


def test_a_withdrawal_survives_a_power_cut(profile, monkeypatch):
    connection, said = profile.store.connection(), []

    class Watched:
        in_transaction = property(lambda self: connection.in_transaction)

        def execute(self, statement, values=()):
            if statement == "COMMIT":
                said.append(connection.execute("PRAGMA synchronous").fetchone()[0])
            return connection.execute(statement, values)

    monkeypatch.setattr(profile.store, "connection", Watched)
    profile.set_consent("personalise", True)
    profile.record("view", "a", "phone", 1)
    profile.set_consent("personalise", False)
    profile.forget()
    assert said == [2, 1, 2, 2]  # 2 is FULL, 1 NORMAL: the record came within a second of a full commit
