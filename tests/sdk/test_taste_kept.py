"""What a profile's events mean to a bundle is kept between starts, changes no list, and goes with what is erased."""

from __future__ import annotations

import random
import shutil

import pytest
from xrec_sdk import Recommender, taste_kept
from xrec_sdk.profile import Profile

NOW_MS = 1_700_000_000_000
KEY = bytes(range(32))


@pytest.fixture
def start(shared_bundle, tmp_path, monkeypatch):
    """Return a function that opens a recommender on one profile, which keeps its taste after every ten places."""
    monkeypatch.setattr("xrec_sdk.taste_kept.KEEP_EVERY", 10)

    def opened(path=tmp_path / "p.db", folder=shared_bundle.folder, **options):
        profile = Profile(path, **options)
        made = Recommender(folder, profile, allow_unsigned=True, clock_ms=lambda: NOW_MS)
        made.set_consent("personalise", True)
        return made

    return opened


def record(made, luck, count, at_ms):
    for number in range(count):
        item_id, event = f"sku-{luck.randint(0, 310)}", luck.choice(("view", "purchase", "wished"))
        made.record(event, item_id, device=luck.choice(("phone", "watch")), at_ms=at_ms + number * 1_000)


def listed(made):
    asked = [made.recommend(12, filter_seen=filter_seen, explain=True) for filter_seen in (True, False)]
    return [(item.item_id, item.score, item.reasons) for one in asked for item in one]


def kept(made):
    return taste_kept.read(made.profile, made._reader.bundle_key)


@pytest.mark.parametrize("options", [{}, {"key_provider": lambda: KEY}], ids=["plain", "encrypted"])
@pytest.mark.parametrize("seed", range(4))
def test_a_start_from_what_was_kept_gives_the_list_that_all_events_give(start, tmp_path, options, seed):
    if options:
        pytest.importorskip("apsw", reason="the extra encrypted (apsw-sqlite3mc) is not installed")
    luck = random.Random(seed)
    with start(**options) as made:
        for _ in range(3):
            record(made, luck, luck.randint(8, 30), NOW_MS - luck.randint(1, 10) * 86_400_000)
            made.recommend()
    with start(**options) as made:
        mark, _ = kept(made)
        record(made, luck, luck.randint(0, 5), NOW_MS - 86_400_000 * luck.randint(0, 11))
        shutil.copy(tmp_path / "p.db", tmp_path / "copy.db")
        shutil.copy(tmp_path / "p.db-wal", tmp_path / "copy.db-wal")
        given = listed(made)
        assert len(made.profile.read(mark)[1]) <= 5
    with start(tmp_path / "copy.db", **options) as made:
        made.profile.store.write(lambda connection: connection.execute("DELETE FROM kept"))
        assert listed(made) == given


def test_what_is_kept_goes_with_any_erasure_and_leaves_no_byte(start, tmp_path):
    with start() as made:
        record(made, random.Random(1), 20, NOW_MS)
        made.record("view", "sku-SECRET", device="phone", at_ms=NOW_MS + 50_000)
        made.record("purchase", "sku-7", device="SECRET", at_ms=NOW_MS + 50_000)
        made.recommend()
    with start() as made:
        assert kept(made) is not None
        assert made.forget(item_id="sku-7") == 1
        assert kept(made) is None
        record(made, random.Random(1), 1, NOW_MS + 60_000)
        before = listed(made)
    left = [path.name for path in tmp_path.iterdir() if b"SECRET" in path.read_bytes() and path.name != "p.db"]
    assert not left
    with start() as made:
        assert listed(made) == before
        made.forget()
    assert not [path.name for path in tmp_path.iterdir() if b"SECRET" in path.read_bytes()]


def test_without_consent_nothing_is_kept_and_what_was_kept_is_not_read(start):
    with start() as made:
        record(made, random.Random(1), 20, NOW_MS)
        made.recommend()
    with start() as made:
        made.set_consent("personalise", False)
        assert kept(made) is None
        made.set_consent("personalise", True)
        assert kept(made) is None


def test_what_is_kept_for_one_bundle_is_not_read_for_another(start, own_bundle):
    with start() as made:
        record(made, random.Random(1), 20, NOW_MS)
        made.recommend()
    own_bundle.resign(seen_events=("view",))
    with start(folder=own_bundle.folder) as made:
        assert kept(made) is None
        record(made, random.Random(2), 12, NOW_MS + 60_000)
        other = listed(made)
    with start(folder=own_bundle.folder) as made:
        assert kept(made) is not None and listed(made) == other
    with start() as made:
        assert kept(made) is None


@pytest.mark.parametrize("damage", ["zeroblob(40)", "'[]'", "substr(content, 1, length(content) - 3)"])
def test_a_damaged_taste_is_read_anew_from_the_events(start, damage):
    with start() as made:
        record(made, random.Random(1), 20, NOW_MS)
        given = listed(made)
    with start() as made:
        made.profile.store.write(lambda connection: connection.execute(f"UPDATE kept SET content = {damage}"))
        assert kept(made) is None and listed(made) == given


def test_a_profile_that_cant_be_written_keeps_none_and_record_says_nothing_of_it(start, monkeypatch):
    with start() as made:
        record(made, random.Random(1), 20, NOW_MS)
        made.recommend()
        made.profile.store.write(lambda connection: connection.execute("ALTER TABLE kept RENAME TO gone"))
        assert made.record("view", "sku-1", device="phone", at_ms=NOW_MS + 60_000)
        made.profile.store.write(lambda connection: connection.execute("ALTER TABLE gone RENAME TO kept"))
        assert kept(made) is None
