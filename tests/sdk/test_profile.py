from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid

import pytest
from xrec_sdk.errors import ProfileError, UsageError
from xrec_sdk.eventid import new_event_id, uuid7
from xrec_sdk.profile import Profile

WRITER = """
import sys
from xrec_sdk.profile import Profile
profile = Profile(sys.argv[1])
print("ready", flush=True)
for number in range(int(sys.argv[3])):
    print(profile.record("view", f"{sys.argv[2]}-{number}", "phone", number), flush=True)
"""


def writer(path, name, count):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(count)], stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def profile(tmp_path):
    made = Profile(tmp_path / "p.db")
    yield made
    made.close()


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


def test_a_closed_and_reopened_profile_holds_the_same_events(tmp_path):
    with_path = tmp_path / "p.db"
    first = Profile(with_path)
    kept = first.record("view", "a", "phone", 1)
    first.close()
    first.close()
    with pytest.raises(ProfileError) as caught:
        first.events()
    assert caught.value.code == "profile.closed"
    second = Profile(with_path)
    assert [event.id for event in second.events()] == [kept]
    second.close()


@pytest.mark.parametrize("path", ["file", ":memory:"])
def test_a_full_profile_sheds_its_oldest_events(tmp_path, path):
    profile = Profile(tmp_path / "p.db" if path == "file" else path, max_events=50)
    for number in range(500):
        profile.record("view", f"i{number}", "phone", 1000 - number)
        assert len(profile.events()) <= 50
    kept = [event.at_ms for event in profile.events()]
    assert len(kept) >= 45
    assert kept == sorted(kept)
    profile.close()


def test_forget_leaves_no_byte_of_an_event_in_any_file(tmp_path):
    profile = Profile(tmp_path / "p.db")
    for number in range(300):
        profile.record("view", f"SECRET-{number}", "phone", number)
    assert any(b"SECRET-" in path.read_bytes() for path in tmp_path.iterdir())
    assert profile.forget() == 300
    assert profile.events() == []
    assert not any(b"SECRET-" in path.read_bytes() for path in tmp_path.iterdir())
    profile.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_what_record_returned_survives_kill_9(tmp_path):
    acknowledged = []
    for turn in range(5):
        process = writer(tmp_path / "p.db", f"turn{turn}", 100_000)
        lines = [process.stdout.readline() for _ in range(40 + 30 * turn)]
        os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout.readlines()
        process.stdout.close()
        process.wait()
        acknowledged += [line.strip() for line in lines[1:] if line.endswith("\n")]
        profile = Profile(tmp_path / "p.db", max_events=1_000_000)
        held = {event.id for event in profile.events()}
        profile.close()
        assert len(acknowledged) >= 39 * (turn + 1)
        assert held >= set(acknowledged)


def test_a_profile_that_another_process_is_making_is_waited_for(tmp_path):
    other = sqlite3.connect(tmp_path / "p.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    end = threading.Timer(0.2, other.execute, ["COMMIT"])
    end.start()
    profile = Profile(tmp_path / "p.db")
    profile.record("view", "a", "phone", 1)
    assert len(profile.events()) == 1
    profile.close()
    end.join()
    other.close()


def test_two_processes_write_one_profile_at_once(tmp_path):
    processes = [writer(tmp_path / "p.db", name, 300) for name in ("one", "two")]
    outputs = [process.communicate()[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    profile = Profile(tmp_path / "p.db")
    assert {event.id for event in profile.events()} == set(outputs[0][1:] + outputs[1][1:])
    profile.close()


def test_a_mark_divides_what_was_read_from_what_came_after_it_from_anywhere(profile, tmp_path):
    start, none = profile.read()
    assert none == [] and profile.read(start) == (start, [])
    late = profile.record("view", "b", "phone", 20)
    own, events = profile.read(start)
    assert own != start and [event.id for event in events] == [late]
    output = writer(tmp_path / "p.db", "other", 2).communicate()[0].splitlines()
    both, events = profile.read(own)
    assert [event.id for event in events] == output[1:] and both.erasures == own.erasures
    assert [event.id for event in profile.read(start)[1]] == [*output[1:], late]
    assert profile.read(both) == (both, [])


def test_a_mark_from_before_an_erasure_gives_everything_again(tmp_path):
    profile = Profile(tmp_path / "p.db", max_events=10)
    profile.record("view", "a", "phone", 1)
    before, _ = profile.read()
    other = Profile(tmp_path / "p.db", max_events=10)
    other.forget()
    other.record("view", "b", "phone", 2)  # at the place that "a" had
    after, events = profile.read(before)
    assert after != before and [event.item_id for event in events] == ["b"]
    for number in range(10):  # one too many
        other.record("view", f"c{number}", "phone", 3 + number)
    other.close()
    shed, events = profile.read(after)
    assert shed.erasures != after.erasures
    assert (
        [event.item_id for event in events]
        == [f"c{number}" for number in range(1, 10)]
        == [event.item_id for event in profile.events()]
    )
    profile.close()


def test_threads_share_a_profile(profile):
    def work(number):
        for place in range(20):
            profile.record("view", f"{number}-{place}", "phone", place)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(profile.events()) == 80


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "p.db").write_bytes(b"this is a text, not a database" * 100)
    with pytest.raises(ProfileError) as caught:
        Profile(tmp_path / "p.db")
    assert caught.value.code == "profile.not_a_database"


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path):
    connection = sqlite3.connect(tmp_path / "p.db")
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    with pytest.raises(ProfileError) as caught:
        Profile(tmp_path / "p.db")
    assert caught.value.code == "profile.not_a_profile"


def test_a_profile_of_a_newer_sdk_is_refused(tmp_path):
    Profile(tmp_path / "p.db").close()
    connection = sqlite3.connect(tmp_path / "p.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ProfileError) as caught:
        Profile(tmp_path / "p.db")
    assert caught.value.code == "profile.newer"


def test_a_damaged_file_gives_a_profile_error(tmp_path):
    profile = Profile(tmp_path / "p.db")
    for number in range(500):
        profile.record("view", f"i{number}", "phone", number)
    profile.close()
    whole = (tmp_path / "p.db").read_bytes()
    (tmp_path / "p.db").write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with pytest.raises(ProfileError) as caught:
        Profile(tmp_path / "p.db").events()
    assert caught.value.code == "profile.damaged"


def test_a_full_disk_gives_a_profile_error_and_keeps_what_was_there(profile):
    profile.record("view", "a", "phone", 1)
    connection = profile._connection()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(ProfileError) as caught:
        for number in range(2000):
            profile.record("view", "x" * 400, "phone", number)
    assert caught.value.code == "profile.full"
    connection.execute("PRAGMA max_page_count=1000000")
    assert "a" in [event.item_id for event in profile.events()]
    profile.record("view", "b", "phone", 1)


def test_a_folder_that_is_missing_gives_a_profile_error(tmp_path):
    with pytest.raises(ProfileError) as caught:
        Profile(tmp_path / "missing" / "p.db")
    assert caught.value.code == "profile.unavailable"


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
