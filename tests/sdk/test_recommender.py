from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import xrec_sdk
from xrec_sdk import ProfileError, Recommender, UsageError, check_conformance, open_bundle
from xrec_sdk.history import MINUTE_MS, encode_history
from xrec_sdk.profile import Profile
from xrec_sdk.reasons import MOST_ASKED
from xrec_sdk.results import Recommendation
from xrec_sdk.taste import Taste, add_events, history_of

ITEMS, NOW_MS = 300, 1_700_000_000_000


def ids(listed):
    return [entry.item_id for entry in listed]


def expected_order(bundle, weights):
    """Rank by hand: the encoder is the mean of rows times their event code."""
    rows = list(weights)
    user = (bundle.vectors[rows] * np.asarray([weights[row] for row in rows], np.float32)[:, None]).mean(axis=0)
    scores = bundle.vectors @ user
    return np.lexsort((np.arange(ITEMS), -scores)), scores


def test_an_empty_history_gives_the_most_popular_first(recommender):
    assert ids(recommender.recommend(4)) == ["sku-0", "sku-1", "sku-2", "sku-3"]


def test_the_list_is_the_ranking_worked_by_numpy(recommender, shared_bundle):
    recommender.record("view", "sku-5", device="phone", at_ms=NOW_MS - 2000)
    recommender.record("purchase", "sku-200", device="pc", at_ms=NOW_MS - 1000)
    order, scores = expected_order(shared_bundle, {5: 1, 200: 2})
    listed = recommender.recommend(20)
    assert ids(listed) == [f"sku-{row}" for row in order if row != 200][:20]
    np.testing.assert_allclose(
        [entry.score for entry in listed], [scores[row] for row in order if row != 200][:20], rtol=1e-4
    )
    assert [entry.rank for entry in listed] == list(range(1, 21))
    assert listed[0].item["title"] == f"Thing {listed[0].item_id[4:]}" == listed[0].title
    assert listed[0].probability is None
    assert len({entry.recommendation_id for entry in listed}) == 1


def test_seen_items_are_left_out_or_gain_by_the_repeat_rule(recommender):
    recommender.record("purchase", "sku-40", device="pc", at_ms=NOW_MS)
    plain = recommender.score(["sku-40"])["sku-40"]
    assert "sku-40" not in ids(recommender.recommend(ITEMS))
    again = {entry.item_id: entry.score for entry in recommender.recommend(ITEMS, filter_seen=False)}
    assert again["sku-40"] == pytest.approx(plain + 2.0 * np.log1p(1.0), rel=1e-5)


@pytest.mark.parametrize("k", [-1, True, 2.0, "3", None])
def test_a_k_that_is_not_a_whole_number_is_a_usage_error(recommender, k):
    with pytest.raises(UsageError) as caught:
        recommender.recommend(k)
    assert caught.value.code == "usage.k"


def test_k_of_zero_gives_nothing_and_a_large_k_gives_everything(recommender):
    assert recommender.recommend(0) == []
    assert len(recommender.recommend(ITEMS + 1)) == len(recommender.recommend(10**9)) == ITEMS


def test_unknown_items_and_events_are_kept_but_not_encoded(recommender):
    recommender.record("view", "sku-5", device="phone")
    before = ids(recommender.recommend(5))
    recommender.record("view", "not in the bundle", device="phone")
    recommender.record("swipe", "sku-6", device="watch")
    assert ids(recommender.recommend(5)) == before
    assert [event["item_id"] for event in recommender.export_my_data()["events"]] == [
        "sku-5",
        "not in the bundle",
        "sku-6",
    ]


def test_candidates_exclude_and_where_restrict_the_list(recommender):
    assert ids(recommender.recommend(9, candidates=["sku-9", "sku-4", "nothing"])) == ["sku-4", "sku-9"]
    assert recommender.recommend(9, candidates=[]) == recommender.recommend(9, candidates=["nothing"]) == []
    assert ids(recommender.recommend(2, exclude=["sku-0", "sku-0", "nothing"])) == ["sku-1", "sku-2"]
    assert ids(recommender.recommend(2, where={"category": "group 3"})) == ["sku-3", "sku-13"]
    assert ids(recommender.recommend(3, where={"category": ["group 3", "group 4", "?"]})) == [
        "sku-3",
        "sku-4",
        "sku-13",
    ]
    assert recommender.recommend(3, where={"category": "?"}) == []
    assert ids(recommender.recommend(2, where=lambda entry: entry["price"] >= 290)) == ["sku-290", "sku-291"]
    assert recommender.recommend(2, where=lambda entry: False) == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"candidates": "sku-1"}, "usage.candidates"),
        ({"exclude": [1]}, "usage.exclude"),
        ({"where": {"brand": "x"}}, "usage.where"),
        ({"diversity": 1.5}, "usage.diversity"),
        ({"diversity": float("nan")}, "usage.diversity"),
        ({"max_per_category": -1}, "usage.max_per_category"),
        ({"filter_seen": 1}, "usage.filter_seen"),
    ],
)
def test_a_wrong_rule_is_a_usage_error(recommender, arguments, code):
    with pytest.raises(UsageError) as caught:
        recommender.recommend(3, **arguments)
    assert caught.value.code == code


@pytest.mark.parametrize("diversity", [0.0, 0.4])
def test_a_cap_per_category_holds_for_any_depth(recommender, diversity):
    recommender.record("view", "sku-5", device="phone")
    listed = recommender.recommend(
        18, max_per_category=2, diversity=diversity, where=lambda entry: entry["price"] % 10 != 9
    )
    groups = [int(entry.item_id[4:]) % 10 for entry in listed]
    assert len(listed) == 18
    assert all(groups.count(group) == 2 for group in range(9))
    uncategorised = recommender.recommend(ITEMS, max_per_category=0, diversity=diversity)
    assert len(uncategorised) == 30
    assert all(int(entry.item_id[4:]) % 10 == 9 for entry in uncategorised)


def test_diversity_keeps_the_best_item_and_spreads_the_rest(recommender, shared_bundle):
    recommender.record("view", "sku-5", device="phone")

    def likeness(listed):
        vectors = shared_bundle.vectors[[int(entry.item_id[4:]) for entry in listed]]
        directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return float((directions @ directions.T)[np.triu_indices(len(listed), 1)].mean())

    plain, spread = recommender.recommend(8), recommender.recommend(8, diversity=0.7)
    assert spread[0].item_id == plain[0].item_id
    assert likeness(spread) < likeness(plain) - 0.1


def test_not_personalised_does_not_read_the_profile(recommender):
    recommender.record("purchase", "sku-0", device="phone")
    recommender.close()
    assert ids(recommender.recommend(2, personalised=False)) == ["sku-0", "sku-1"]
    with pytest.raises(ProfileError) as caught:
        recommender.recommend(2)
    assert caught.value.code == "profile.closed"


def test_reasons_are_what_the_score_loses_without_an_event(recommender, shared_bundle):
    for place, row in enumerate((5, 6, 7)):
        recommender.record("view", f"sku-{row}", device="phone", at_ms=NOW_MS + place * MINUTE_MS)
    best = recommender.recommend(1, explain=True)[0]
    item = shared_bundle.vectors[int(best.item_id[4:])]
    whole = shared_bundle.vectors[[5, 6, 7]].mean(axis=0) @ item
    losses = {
        f"sku-{left}": whole - shared_bundle.vectors[[row for row in (5, 6, 7) if row != left]].mean(axis=0) @ item
        for left in (5, 6, 7)
    }
    expected = sorted(((loss, item_id) for item_id, loss in losses.items() if loss > 0), reverse=True)
    assert [reason.item_id for reason in best.reasons] == [item_id for _, item_id in expected]
    np.testing.assert_allclose([reason.loss for reason in best.reasons], [loss for loss, _ in expected], rtol=1e-3)
    assert best.reasons[0].text == f"because you viewed Thing {best.reasons[0].item_id[4:]} on your phone"


def test_one_event_and_more_events_than_the_history_holds_are_explained(recommender):
    recommender.record("view", "sku-5", device="phone")
    assert recommender.recommend(1, explain=True)[0].reasons[0].item_id == "sku-5"
    for row in range(12):
        recommender.record("view", f"sku-{row}", device="phone")
    assert all(len(entry.reasons) <= 3 for entry in recommender.recommend(4, explain=True))


def test_only_the_events_most_like_the_list_are_left_out_in_turn(recommender, shared_bundle, monkeypatch):
    for place in range(12):
        recommender.record("view", f"sku-{place}", device="phone", at_ms=NOW_MS + place * MINUTE_MS)
    asked, encode_batch = [], recommender.runtime.encode_batch
    monkeypatch.setattr(
        recommender.runtime, "encode_batch", lambda *batch: asked.append(len(batch[0])) or encode_batch(*batch)
    )
    length = recommender.bundle.manifest.vocabulary.max_history
    history = shared_bundle.vectors[12 - length : 12]
    user = history.mean(axis=0)
    for best in recommender.recommend(3, explain=True):
        item = shared_bundle.vectors[int(best.item_id[4:])]
        for reason in best.reasons:
            row = int(reason.item_id[4:])
            rest = np.delete(np.arange(max(0, 11 - length), 12), row - max(0, 11 - length))[-length:]
            expected = (user - shared_bundle.vectors[rest].mean(axis=0)) @ item
            assert reason.loss == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert asked == [min(MOST_ASKED, length)]


def test_order_is_by_time_and_only_the_last_events_count(recommender, shared_bundle):
    for row in range(10, 16):
        recommender.record("view", f"sku-{row}", device="phone", at_ms=NOW_MS + row)
    recommender.record("view", "sku-99", device="phone", at_ms=NOW_MS - 1)
    order, _ = expected_order(shared_bundle, dict.fromkeys(range(10, 16), 1))
    assert ids(recommender.recommend(5)) == [f"sku-{row}" for row in order[:5]]


def test_similar_ranks_by_the_item_itself_and_leaves_it_out(recommender, shared_bundle):
    scores = shared_bundle.vectors @ shared_bundle.vectors[17]
    order = [row for row in np.lexsort((np.arange(ITEMS), -scores)) if row != 17]
    assert ids(recommender.similar("sku-17", 5)) == [f"sku-{row}" for row in order[:5]]
    assert len(recommender.similar("sku-17", 10**6)) == ITEMS - 1
    with pytest.raises(UsageError):
        recommender.similar("nothing")


def test_score_agrees_with_the_list(recommender):
    recommender.record("view", "sku-5", device="phone")
    listed = recommender.recommend(30)
    scores = recommender.score([*ids(listed), "nothing"])
    assert list(scores) == ids(listed)
    np.testing.assert_allclose(list(scores.values()), [entry.score for entry in listed], rtol=1e-5, atol=1e-6)


def test_feedback_names_its_list_and_forget_erases_everything(recommender):
    shown = recommender.recommend(1)[0]
    recommender.feedback(shown.recommendation_id, shown.item_id, "purchase")
    kept = recommender.export_my_data()["events"]
    assert [(event["event"], event["recommendation_id"]) for event in kept] == [("purchase", shown.recommendation_id)]
    assert recommender.recommend(1)[0].item_id != shown.item_id
    assert recommender.forget() == 1
    assert recommender.recommend(1)[0].item_id == shown.item_id
    assert recommender.export_my_data()["events"] == []


def test_two_recommenders_on_one_file_see_each_other(shared_bundle, tmp_path):
    options = {"trusted_keys": [shared_bundle.key]}
    with (
        Recommender(shared_bundle.folder, tmp_path / "p.db", **options) as one,
        Recommender(shared_bundle.folder, tmp_path / "p.db", **options) as other,
    ):
        assert ids(other.recommend(1)) == ["sku-0"]
        one.set_consent("personalise", True)
        one.record("purchase", "sku-0", device="phone")
        assert "sku-0" not in ids(other.recommend(ITEMS))


def test_a_second_process_changes_the_next_list(shared_bundle, tmp_path):
    code = """
import sys
from xrec_sdk.profile import Profile
profile = Profile(sys.argv[1])
profile.forget() if sys.argv[2] == "forget" else profile.record("purchase", sys.argv[2], "phone", int(sys.argv[3]))
profile.close()
"""

    def elsewhere(*words):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "p.db"), *words], check=True)

    with Recommender(shared_bundle.folder, tmp_path / "p.db", trusted_keys=[shared_bundle.key]) as made:
        made.set_consent("personalise", True)
        made.record("view", "sku-5", device="phone", at_ms=NOW_MS)
        assert ids(made.recommend(3)) == ids(made.recommend(3)) != ["sku-0", "sku-1", "sku-2"]
        for at_ms in (NOW_MS + 1, NOW_MS - 1):  # after the last event, and before it
            item_id = ids(made.recommend(1))[0]
            elsewhere(item_id, str(at_ms))
            assert item_id not in ids(made.recommend(ITEMS))
        elsewhere("forget")
        assert ids(made.recommend(3)) == ["sku-0", "sku-1", "sku-2"]


def test_events_as_they_come_give_what_a_fresh_reader_of_the_profile_gives(shared_bundle, tmp_path):
    random = np.random.default_rng(0)
    options = {"trusted_keys": [shared_bundle.key], "max_events": 40, "clock_ms": lambda: NOW_MS}

    def lists(who):
        asked = [who.recommend(5, filter_seen=filter_seen, explain=True) for filter_seen in (True, False)]
        return [(item.item_id, item.score, item.reasons) for listed in asked for item in listed]

    with Recommender(shared_bundle.folder, tmp_path / "p.db", **options) as made:
        made.set_consent("personalise", True)
        for number in range(120):
            event, device = random.choice(["view", "purchase", "wished"]), random.choice(["phone", "pc", "watch"])
            late_by_ms = int(random.choice([0, 0, 0, 0, random.integers(0, 90_000)]))
            at_ms = NOW_MS + 1000 * number - late_by_ms
            made.record(str(event), f"sku-{random.integers(0, 320)}", device=str(device), at_ms=at_ms)
            if random.integers(0, 60) == 0:
                made.forget()
            with Recommender(shared_bundle.folder, tmp_path / "p.db", **options) as fresh:
                assert lists(made) == lists(fresh)


def test_the_history_is_encoded_again_only_when_it_has_changed(recommender, monkeypatch):
    encoded = []
    encode = recommender.runtime.encode
    monkeypatch.setattr(recommender.runtime, "encode", lambda history: encoded.append(len(history)) or encode(history))
    recommender.record("view", "sku-5", device="phone", at_ms=NOW_MS)
    first = recommender.recommend(3)
    assert ids(recommender.recommend(3, filter_seen=False)) == ids(first)
    recommender.feedback(first[0].recommendation_id, first[0].item_id, "impression")  # no event of the bundle's
    assert ids(recommender.recommend(3)) == ids(first)
    other = threading.Thread(target=recommender.recommend)
    other.start()
    other.join()
    assert encoded == [1]
    recommender.record("view", "sku-6", device="phone", at_ms=NOW_MS)
    recommender.recommend(3)
    recommender.forget()
    recommender.recommend(3)
    assert encoded == [1, 2, 0]


def test_an_array_that_changes_between_two_calls_is_read_anew(recommender):
    runtime, user = recommender.runtime, np.zeros(8, dtype=np.float32)
    item_bias = runtime.no_bias().copy()
    rows, values = np.asarray([7], dtype=np.int32), np.asarray([1.0], dtype=np.float32)
    assert runtime.top(user, 3, item_bias, rows, values)[0].tolist() == [7, 0, 1]
    item_bias[0], rows[0], values[0] = -np.inf, 9, 2.0
    top, scores = runtime.top(user, 3, item_bias, rows, values)
    assert (top.tolist(), scores.tolist()) == ([9, 1, 2], [2.0, 0.0, 0.0])
    assert runtime.top(user, 2, runtime.no_bias(), rows[:0], values[:0])[0].tolist() == [0, 1]
    user[:] = recommender.bundle.item_vectors(np.asarray([200], dtype=np.int32))[0]
    assert runtime.top(user, 3, item_bias, rows[:0], values[:0])[1][0] > 0
    assert (top.tolist(), scores.tolist()) == ([9, 1, 2], [2.0, 0.0, 0.0])  # the caller's own


def test_threads_record_and_recommend_at_once(shared_bundle, tmp_path):
    with Recommender(shared_bundle.folder, tmp_path / "p.db", trusted_keys=[shared_bundle.key]) as made:
        made.set_consent("personalise", True)
        failures = []

        def work(number):
            try:
                for place in range(15):
                    made.record("view", f"sku-{number * 20 + place}", device="phone")
                    assert len(made.recommend(5)) == 5
            except Exception as failure:
                failures.append(failure)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(made.export_my_data()["events"]) == 60


def test_the_golden_cases_pass_and_a_wrong_one_is_seen(recommender, own_bundle):
    assert check_conformance(recommender.runtime, recommender.bundle) == 2
    text = (own_bundle.folder / "conformance.json").read_text()
    (own_bundle.folder / "conformance.json").write_text(text.replace('"top_rows": [0, 1]', '"top_rows": [0, 2]'))
    own_bundle.resign()
    changed = Recommender(own_bundle.folder, trusted_keys=[own_bundle.key])
    check_conformance(changed.runtime, changed.bundle)  # the scores tie, so that either row may come
    (own_bundle.folder / "conformance.json").write_text(
        text.replace('"top_scores": [0.0, 0.0]', '"top_scores": [9.0, 0.0]')
    )
    own_bundle.resign()
    changed = Recommender(own_bundle.folder, trusted_keys=[own_bundle.key])
    with pytest.raises(xrec_sdk.BundleDamaged) as caught:
        check_conformance(changed.runtime, changed.bundle)
    assert caught.value.code == "bundle.conformance_failed"


def test_the_module_functions_need_init_and_then_share_one_recommender(shared_bundle, tmp_path):
    with pytest.raises(UsageError) as caught:
        xrec_sdk.recommend()
    assert caught.value.code == "usage.not_initialised"
    xrec_sdk.init(shared_bundle.folder, profile=tmp_path / "p.db", trusted_keys=[shared_bundle.key])
    try:
        xrec_sdk.set_consent("personalise", True)
        assert xrec_sdk.consent()["personalise"] is True
        xrec_sdk.record("purchase", "sku-0", device="phone")
        assert xrec_sdk.recommend(1)[0].item_id != "sku-0"
        assert xrec_sdk.similar("sku-1", 1) and xrec_sdk.score(["sku-1"])
        assert xrec_sdk.forget() == 1
        assert xrec_sdk.export_my_data()["events"] == []
    finally:
        xrec_sdk.close()
        xrec_sdk.close()


@pytest.mark.parametrize("is_distinct", [False, True])
def test_the_history_read_in_parts_is_the_one_that_training_makes_of_the_whole(shared_bundle, is_distinct):
    bundle = open_bundle(shared_bundle.folder, trusted_keys=[shared_bundle.key])
    vocabulary = replace(bundle.manifest.vocabulary, distinct_items=is_distinct)
    bundle = replace(bundle, manifest=replace(bundle.manifest, vocabulary=vocabulary))
    random = np.random.default_rng(31)  # seeded
    rows, events = random.integers(0, 9, size=40).astype(np.int32), random.integers(1, 3, size=40).astype(np.int32)
    at_ms = np.cumsum(random.integers(0, 4_000_000, size=40))
    profile, taste, read = Profile(":memory:"), Taste(), 0
    profile.set_consent("personalise", True)
    for part in np.split(np.arange(40), [1, 7, 8, 30]):
        for place in part:
            name = vocabulary.events[events[place] - 1]
            profile.record(name, f"sku-{rows[place]}", "phone", int(at_ms[place]))
        taste = add_events(taste, profile.events()[read:], bundle)
        read = int(part[-1]) + 1
        known = slice(0, read)
        phone = np.ones(read, dtype=np.int32)
        expected = encode_history(rows[known], events[known], phone, at_ms[known], vocabulary)
        history = history_of(taste, bundle.manifest)
        for name in ("rows", "events", "devices", "gaps"):
            np.testing.assert_array_equal(getattr(history, name), getattr(expected, name))
    profile.close()


@pytest.mark.parametrize(
    "name",
    [
        "record",
        "recommend",
        "similar",
        "score",
        "feedback",
        "set_consent",
        "start_sync",
        "stop_sync",
        "sync_status",
        "consent",
        "forget",
        "export_my_data",
        "close",
    ],
)
def test_a_module_function_takes_what_its_method_takes(name):
    (_, *method), function = inspect.signature(getattr(Recommender, name)).parameters.values(), getattr(xrec_sdk, name)
    assert list(inspect.signature(function).parameters.values()) == method


def test_an_entry_is_read_when_it_is_asked_for_and_once() -> None:
    reads: list[int] = []

    def read() -> dict[str, object]:
        reads.append(1)
        return {"title": "Tea"}

    item = Recommendation("sku-1", 0.5, 1, "list", item=read)
    assert not reads and item.title == "Tea" and item.item == {"title": "Tea"} and len(reads) == 1


def test_copies_and_pickles_of_a_recommendation_hold_its_entry() -> None:
    item = Recommendation("sku-1", 0.5, 1, "list", item=lambda: {"title": "Tea"})
    for copied in (copy.deepcopy(item), pickle.loads(pickle.dumps(item)), dataclasses.replace(item)):
        assert copied == item and copied.title == "Tea"
    assert dataclasses.asdict(item)["item"] == {"title": "Tea"}
