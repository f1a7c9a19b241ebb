from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from xrec_sdk.doctor import _wal_reset, doctor
from xrec_sdk.errors import ProfileError, UsageError
from xrec_sdk.eventid import new_event_id, uuid7
from xrec_sdk.profile import Profile
from xrec_sdk.store_encrypted import EncryptedEngine
from xrec_sdk.store_sqlite import SqliteEngine

sys.path.insert(0, str(Path(__file__).parent))
import kill_loop
from kill_loop import KEY, kills

GOLDEN = Path(__file__).parent / "golden"
ENGINES = ("plain", "encrypted")


@pytest.fixture(params=ENGINES)
def options(request):
    """Return the options of a profile for each engine; the encrypted one needs the extra."""
    if request.param == "plain":
        return {}
    pytest.importorskip("apsw", reason="the extra encrypted (apsw-sqlite3mc) is not installed")
    return {"key_provider": lambda: KEY}


@pytest.fixture
def opened(tmp_path, options):
    """Return a function that opens a profile with consent; all are closed at the end."""
    made = []

    def open_profile(path=None, max_events=5000, **more):
        made.append(Profile(tmp_path / "p.db" if path is None else path, max_events, **{**options, **more}))
        made[-1].set_consent("personalise", True)
        return made[-1]

    yield open_profile
    for profile in made:
        profile.close()


@pytest.fixture
def profile(opened):
    return opened()


def writer(path, name, count, options):
    return kill_loop.writer(path, name, count, KEY if options else b"", "process")


def as_plain(path, options):
    """Return a bare connection to a profile, of its engine."""
    engine = EncryptedEngine(KEY) if options else SqliteEngine()
    return engine.connect(str(path), 10.0)


def test_events_come_back_by_time_and_then_by_id(profile):
    late = profile.record("view", "b", "phone", 20, 1.5)
    early = profile.record("cart", "a", "pc", 10)
    tie = profile.record("view", "c", "phone", 20, recommendation_id="r")
    assert [event.id for event in profile.events()] == [early, late, tie]
    assert profile.events()[1].value == 1.5
    assert profile.export()[2] == {
        "id": tie,
        "at_ms": 20,
        "event": "view",
        "item_id": "c",
        "device": "phone",
        "value": None,
        "recommendation_id": "r",
    }


def test_a_closed_and_reopened_profile_holds_the_same_events(opened, code_of):
    first = opened()
    kept = first.record("view", "a", "phone", 1)
    first.close()
    first.close()
    with pytest.raises(ProfileError) as caught:
        first.events()
    assert code_of(caught) == "profile.closed"
    assert [event.id for event in opened().events()] == [kept]


@pytest.mark.parametrize("path", [None, ":memory:"])
def test_a_full_profile_sheds_its_oldest_events(opened, path):
    profile = opened(path, max_events=50)
    for number in range(500):
        profile.record("view", f"i{number}", "phone", 1000 - number)
        assert len(profile.events()) <= 50
    kept = [event.at_ms for event in profile.events()]
    assert len(kept) >= 45
    assert kept == sorted(kept)


def test_a_profile_that_two_fill_stays_within_its_bound(opened):
    one, other = opened(max_events=20), opened(max_events=20)
    for number in range(120):
        (one, other, one)[number % 3].record("view", f"i{number}", "phone", number)
        assert len(one.events()) <= 20
        if number == 70:
            other.forget()


def test_forget_leaves_no_byte_of_an_event_in_any_file(opened, options, tmp_path):
    profile = opened()
    for number in range(300):
        profile.record("view", f"SECRET-{number}", "phone", number)
    is_there = any(b"SECRET-" in path.read_bytes() for path in tmp_path.iterdir())
    assert is_there == (not options)  # an encrypted file never shows it
    assert profile.forget() == 300
    assert profile.events() == []
    assert not any(b"SECRET-" in path.read_bytes() for path in tmp_path.iterdir())


def test_forget_leaves_no_byte_that_sqlite_left_in_the_free_space_of_a_page(tmp_path):
    # SQLite moves rows within a page and does not clear where they were, `secure_delete` or not: seen in 2 of 3
    # files of a long `make chaos`. Here the piece is put there by hand.
    profile = Profile(tmp_path / "p.db")
    profile.set_consent("personalise", True)
    for number in range(300):
        profile.record("view", f"SECRET-{number}", "phone", number)
    profile.close()
    whole = bytearray((tmp_path / "p.db").read_bytes())
    for start in range(4096, len(whole), 4096):
        page = whole[start : start + 4096]
        cells, content = int.from_bytes(page[3:5], "big"), int.from_bytes(page[5:7], "big")
        free = 8 + 2 * cells
        if page[0] == 13 and content - free > 20:  # a leaf of a table
            whole[start + free + 4 : start + free + 10] = b"SECRET"
    (tmp_path / "p.db").write_bytes(whole)
    profile = Profile(tmp_path / "p.db")
    assert profile.forget() == 300
    assert not any(b"SECRET" in path.read_bytes() for path in tmp_path.iterdir())
    profile.close()


def test_forget_takes_what_meets_all_that_is_named(profile):
    for number, (event, item) in enumerate([("view", "a"), ("cart", "a"), ("view", "b"), ("view", "a"), ("view", "c")]):
        profile.record(event, item, "phone", number)
    before, _ = profile.read()
    assert profile.forget(item_id="a", event="view", to_ms=3) == 1
    after, left = profile.read(before)
    assert after.erasures > before.erasures
    assert [(event.event, event.item_id) for event in left] == [
        ("cart", "a"),
        ("view", "b"),
        ("view", "a"),
        ("view", "c"),
    ]
    assert profile.forget(from_ms=3) == 2 and profile.forget(item_id="a") == 1 and profile.forget(event="view") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("durability", ["process", "power"])
def test_what_record_returned_survives_kill_9(options, tmp_path, durability):
    count, lost = kills(tmp_path, 3, KEY if options else b"", durability)
    assert count > 100 and lost == 0


def test_a_profile_that_another_process_is_making_is_waited_for(opened, options, tmp_path):
    other = as_plain(tmp_path / "p.db", options)
    other.execute("BEGIN IMMEDIATE")
    end = threading.Timer(0.2, other.execute, ["COMMIT"])
    end.start()
    profile = opened()
    profile.record("view", "a", "phone", 1)
    assert len(profile.events()) == 1
    end.join()
    other.close()


def test_two_processes_write_one_profile_at_once(opened, options, tmp_path):
    processes = [writer(tmp_path / "p.db", name, 300, options) for name in ("one", "two")]
    outputs = [process.communicate()[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert {event.id for event in opened().events()} == set(outputs[0][1:] + outputs[1][1:])


def test_a_mark_divides_what_was_read_from_what_came_after_it_from_anywhere(profile, options, tmp_path):
    start, none = profile.read()
    assert none == [] and profile.read(start) == (start, [])
    late = profile.record("view", "b", "phone", 20)
    own, events = profile.read(start)
    assert own != start and [event.id for event in events] == [late]
    output = writer(tmp_path / "p.db", "other", 2, options).communicate()[0].splitlines()
    both, events = profile.read(own)
    assert [event.id for event in events] == output[1:] and both.erasures == own.erasures
    assert [event.id for event in profile.read(start)[1]] == [*output[1:], late]
    assert profile.read(both) == (both, [])


def test_a_mark_from_before_an_erasure_gives_everything_again(opened):
    profile = opened(max_events=10)
    profile.record("view", "a", "phone", 1)
    before, _ = profile.read()
    other = opened(max_events=10)
    other.forget()
    other.record("view", "b", "phone", 2)  # at the place that "a" had
    after, events = profile.read(before)
    assert after != before and [event.item_id for event in events] == ["b"]
    for number in range(10):  # one too many
        other.record("view", f"c{number}", "phone", 3 + number)
    shed, events = profile.read(after)
    assert shed.erasures != after.erasures
    assert (
        [event.item_id for event in events]
        == [f"c{number}" for number in range(1, 10)]
        == [event.item_id for event in profile.events()]
    )


@pytest.mark.parametrize("durability", ["process", "power"])
def test_threads_share_a_profile(opened, durability):
    profile = opened(durability=durability)

    def work(number):
        for place in range(20):
            profile.record("view", f"{number}-{place}", "phone", place)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(profile.events()) == 80


def test_of_writes_that_wait_at_once_one_that_is_refused_stops_no_other(opened):
    profile = opened(durability="power")
    holds, failures, kept = threading.Event(), [], []
    profile.store._leading.acquire()  # as if another thread were committing

    def work(event, item):
        holds.wait(10)
        try:
            kept.append(profile.store.write(lambda connection: check(connection, item)))
        except UsageError as failure:
            failures.append(failure.code)

    def check(connection, item):
        if item == "bad":
            raise UsageError("usage.item_id", "refused before it wrote")
        connection.execute("UPDATE state SET erasures = erasures + 1")
        return item

    threads = [threading.Thread(target=work, args=("view", item)) for item in ("a", "bad", "b")]
    for thread in threads:
        thread.start()
    holds.set()
    while len(profile.store._waiting) < 3:
        pass
    profile.store._leading.release()
    for thread in threads:
        thread.join()
    assert sorted(kept) == ["a", "b"] and failures == ["usage.item_id"]
    assert profile.store._writes == 3  # the tables, the consent, and one transaction for the three


def test_a_write_that_fails_at_power_durability_fails_for_all_who_waited(opened, code_of):
    profile = opened(durability="power")
    profile.store.connection().execute("PRAGMA query_only=ON")
    with pytest.raises(ProfileError) as caught:
        profile.record("view", "a", "phone", 1)
    assert code_of(caught) == "profile.unavailable" and profile.events() == []
    profile.store.connection().execute("PRAGMA query_only=OFF")
    profile.record("view", "a", "phone", 1)


def test_a_file_that_is_no_database_is_refused(options, tmp_path, code_of):
    (tmp_path / "p.db").write_bytes(b"this is a text, not a database" * 100)
    with pytest.raises(ProfileError) as caught:
        Profile(tmp_path / "p.db", **options)
    assert code_of(caught) == "profile.not_a_database"


def test_a_database_of_another_program_is_refused_and_left_alone(options, tmp_path, code_of):
    connection = as_plain(tmp_path / "p.db", options)
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    with pytest.raises(ProfileError) as caught:
        Profile(tmp_path / "p.db", **options)
    assert code_of(caught) == "profile.not_a_profile"


def test_a_profile_of_a_newer_sdk_is_refused(options, tmp_path, code_of):
    Profile(tmp_path / "p.db", **options).close()
    connection = as_plain(tmp_path / "p.db", options)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ProfileError) as caught:
        Profile(tmp_path / "p.db", **options)
    assert code_of(caught) == "profile.newer"


def test_a_damaged_file_gives_a_profile_error(opened, options, tmp_path, code_of):
    profile = opened()
    for number in range(500):
        profile.record("view", f"i{number}", "phone", number)
    profile.close()
    whole = (tmp_path / "p.db").read_bytes()
    (tmp_path / "p.db").write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with pytest.raises(ProfileError) as caught:
        Profile(tmp_path / "p.db", **options).events()
    assert code_of(caught) in ("profile.damaged", "profile.not_a_database")


def test_a_full_disk_gives_a_profile_error_and_keeps_what_was_there(profile, code_of):
    profile.record("view", "a", "phone", 1)
    connection = profile.store.connection()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}").fetchall()
    with pytest.raises(ProfileError) as caught:
        for number in range(2000):
            profile.record("view", "x" * 400, "phone", number)
    assert code_of(caught) == "profile.full"
    connection.execute("PRAGMA max_page_count=1000000").fetchall()
    assert "a" in [event.item_id for event in profile.events()]
    profile.record("view", "b", "phone", 1)


def test_a_folder_that_is_missing_gives_a_profile_error(options, tmp_path, code_of):
    with pytest.raises(ProfileError) as caught:
        Profile(tmp_path / "missing" / "p.db", **options)
    assert code_of(caught) == "profile.unavailable"


def test_another_key_opens_nothing_and_changes_nothing(tmp_path, code_of):
    pytest.importorskip("apsw", reason="the extra encrypted (apsw-sqlite3mc) is not installed")
    profile = Profile(tmp_path / "p.db", key_provider=lambda: KEY)
    profile.set_consent("personalise", True)
    kept = profile.record("view", "a", "phone", 1)
    profile.close()
    for provider in (lambda: KEY[::-1], None):
        with pytest.raises(ProfileError) as caught:
            Profile(tmp_path / "p.db", key_provider=provider)
        assert code_of(caught) == "profile.not_a_database"
    again = Profile(tmp_path / "p.db", key_provider=lambda: KEY)
    assert [event.id for event in again.events()] == [kept]
    again.close()


def test_one_flipped_bit_of_an_encrypted_profile_is_refused(tmp_path, code_of):
    pytest.importorskip("apsw", reason="the extra encrypted (apsw-sqlite3mc) is not installed")
    Profile(tmp_path / "p.db", key_provider=lambda: KEY).close()
    whole = bytearray((tmp_path / "p.db").read_bytes())
    for place in range(200, len(whole), 4096):  # one in each page
        flipped = whole.copy()
        flipped[place] ^= 1
        (tmp_path / "p.db").write_bytes(flipped)
        with pytest.raises(ProfileError) as caught:
            profile = Profile(tmp_path / "p.db", key_provider=lambda: KEY)
            profile.store.read(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
            profile.set_consent("personalise", True)
            profile.record("view", "a", "phone", 1)
        assert code_of(caught) in ("profile.damaged", "profile.not_a_database")


@pytest.mark.parametrize("key", [b"short", "k" * 32, None])
def test_a_key_of_another_shape_is_refused(tmp_path, code_of, key):
    pytest.importorskip("apsw", reason="the extra encrypted (apsw-sqlite3mc) is not installed")
    with pytest.raises(ProfileError) as caught:
        Profile(tmp_path / "p.db", key_provider=lambda: key)
    assert code_of(caught) == "profile.key" and not (tmp_path / "p.db").exists()


def test_a_profile_of_schema_1_opens_with_its_events(tmp_path):
    # Written by the SDK before consent and sync; ids of 24 November 2026.
    shutil.copy(GOLDEN / "profile-schema-1.db", tmp_path / "p.db")
    profile = Profile(tmp_path / "p.db", clock_ms=lambda: 1_795_600_000_000)
    assert [tuple(event)[1:] for event in profile.events()] == [
        (1_700_000_000_000, "view", "sku-1", "phone", None, None),
        (1_700_000_050_000, "view", "sku-3", "phone", None, None),
        (1_700_000_100_000, "purchase", "苹果", "pc", 2.5, "r-1"),
    ]
    assert profile.read()[1] == [] and not any(profile.consent().values())
    profile.set_consent("personalise", True)
    assert profile.read()[1] == profile.events()
    profile.record("view", "sku-4", "phone", 1_700_000_200_000)
    assert len(profile.events()) == 4
    profile.close()


def test_a_profile_of_schema_2_opens_with_its_events_its_consent_and_its_queue(tmp_path):
    # Written by the SDK before it kept a taste; ids of 24 November 2026.
    shutil.copy(GOLDEN / "profile-schema-2.db", tmp_path / "p.db")
    profile = Profile(tmp_path / "p.db", clock_ms=lambda: 1_795_600_000_000)
    assert [tuple(event)[1:] for event in profile.read()[1]] == [
        (1_700_000_000_000, "view", "sku-1", "phone", None, None),
        (1_700_000_100_000, "purchase", "苹果", "pc", 2.5, "r-1"),
    ]
    assert profile.consent() == {"personalise": True, "sync": True, "train": False, "analytics": False}
    queued = profile.store.read(lambda connection: connection.execute("SELECT kind FROM queue").fetchall())
    assert [kind for (kind,) in queued] == ["consent", "consent", "event", "event"]
    profile.close()


def test_events_leave_when_the_retention_ends_whatever_time_they_claim(opened, options, tmp_path):
    day_ms, now = 86_400_000, time.time_ns() // 1_000_000
    clock = [now]
    profile = opened(retention_days=180, clock_ms=lambda: clock[0])
    profile.record("view", "old", "phone", 1)
    profile.record("view", "future", "phone", now + 900 * day_ms)
    clock[0] = now + 179 * day_ms
    profile.record("view", "kept", "phone", 5)  # its id is of now
    before, _ = profile.read()
    assert len(profile.events()) == 3
    clock[0] = now + 181 * day_ms
    Profile(tmp_path / "p.db", clock_ms=lambda: clock[0], **options).close()
    assert profile.events() == []
    assert profile.read(before)[0].erasures > before.erasures


def test_the_doctor_names_the_engine_and_how_its_bug_is_avoided(profile, options):
    findings = {finding.name: finding for finding in doctor(profile)}
    assert all(finding.is_well for finding in findings.values())
    engine = profile.store.engine
    text = findings["sqlite"].text
    assert text.startswith(f"{engine.name} {engine.version} ")
    is_old = tuple(map(int, engine.version.split("."))) < (3, 51, 3)
    assert ("one process at a time under a lock" in text) == is_old
    assert _wal_reset("sqlite3", "3.51.2").text != _wal_reset("sqlite3", "3.51.3").text


def test_the_doctor_sees_a_damaged_index(profile):
    profile.record("view", "a", "phone", 1)
    connection = profile.store.connection()
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'at_ms, id', 'id, at_ms') WHERE type = 'index'")
    connection.execute("PRAGMA writable_schema=RESET")
    assert not {finding.name: finding for finding in doctor(profile)}["integrity"].is_well


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"event": ""}, "usage.event"),
        ({"item_id": 7}, "usage.item_id"),
        ({"item_id": "a\0b"}, "usage.item_id"),
        ({"item_id": "\ud800"}, "usage.item_id"),
        ({"item_id": "x" * 513}, "usage.item_id"),
        ({"device": None}, "usage.device"),
        ({"at_ms": 1.5}, "usage.at_ms"),
        ({"at_ms": -1}, "usage.at_ms"),
        ({"at_ms": True}, "usage.at_ms"),
        ({"value": float("inf")}, "usage.value"),
        ({"value": "1"}, "usage.value"),
    ],
)
def test_a_wrong_value_is_a_usage_error_and_nothing_is_kept(profile, change, code):
    with pytest.raises(UsageError) as caught:
        profile.record(**{"event": "view", "item_id": "a", "device": "phone", "at_ms": 1, **change})
    assert caught.value.code == code
    assert profile.events() == []


def test_event_ids_are_uuid7_and_ascend():
    made = [new_event_id() for _ in range(2000)]
    assert made == sorted(set(made))
    assert {uuid.UUID(text).version for text in made} == {7}
    # The example of RFC 9562, appendix A.6.
    assert uuid7(0x017F22E279B0, 0xCC3 << 62 | 0x18C4DC0C0C07398F) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_is_told_to_open_the_profile_again(tmp_path):
    code = """
import os, sys
from xrec_sdk import Profile, ProfileError
profile = Profile(sys.argv[1])
profile.set_consent("personalise", True)
profile.record("view", "a", "phone", 1)
child = os.fork()
if child == 0:
    try:
        profile.record("view", "b", "phone", 2)
    except ProfileError as caught:
        os._exit(7 if caught.code == "profile.forked" else 1)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(profile.events()))
"""
    output = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "p.db")], capture_output=True, text=True, check=True
    ).stdout
    assert output.split() == ["7", "1"]
