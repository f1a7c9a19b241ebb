"""CPU time of the profile's store: record, read, the history of a first recommend(), on both engines, synced or not.

    python benchmarks/profile_store.py

Microseconds of CPU time of this process (`time.process_time_ns`), which waiting for the disk is not part of; each
answer is checked. The plainest way beside it is one bare INSERT into one table of the standard library's SQLite.
"""

from __future__ import annotations

import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from xrec_sdk import Recommender, taste_kept, vault
from xrec_sdk.bundle import open_bundle
from xrec_sdk.end_to_end import seal_profile
from xrec_sdk.keyring import renew
from xrec_sdk.profile import Profile
from xrec_sdk.store import Connection
from xrec_sdk.store_encrypted import EncryptedEngine
from xrec_sdk.sync import LIMITS
from xrec_sdk.sync_view import say_key
from xrec_sdk.taste import Taste, add_events

WARM_UP, TURNS, EVENTS = 300, 2_000, 10_000
NOW_MS = time.time_ns() // 1_000_000
KEY = bytes(range(32))
BUNDLE = Path(__file__).parents[1] / "tests" / "vectors" / "lowpass.xrec"


def cpu_us(work: Callable[[], object], turns: int) -> tuple[float, float]:
    """Return the median and the 99th percentile of the CPU time of ``work``, in microseconds."""
    taken = []
    for _ in range(turns):
        begun = time.process_time_ns()
        work()
        taken.append((time.process_time_ns() - begun) / 1000)
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98]


def measure(folder: Path, name: str, **options: object) -> None:
    """Print one line for each call on a profile with these options."""
    is_synced = bool(options.pop("sync", False))
    path = folder / f"{name.replace(' ', '-')}.db"
    profile = Profile(path, 2 * EVENTS, **options)  # type: ignore[arg-type]
    profile.set_consent("personalise", True)
    profile.set_consent("sync", is_synced)
    count = 0

    def record() -> None:
        nonlocal count
        count += 1
        profile.record("view", f"sku-{count % 3_000}", "phone", NOW_MS + count)

    cpu_us(record, WARM_UP)
    say(name, "record", *cpu_us(record, TURNS))
    mark, events = profile.read()
    assert len(events) == WARM_UP + TURNS
    say(name, "read, nothing new", *cpu_us(lambda: profile.read(mark), TURNS))
    if is_synced:
        while count < LIMITS.queue_ops + 10:
            record()
        say(name, f"record, {LIMITS.queue_ops:,} ops unsent", *cpu_us(record, 200))
    if not is_synced and options.get("durability") != "power":
        while count < EVENTS:
            record()
        say(name, f"read, all of {EVENTS:,}", *cpu_us(profile.read, 20))
        profile.close()

        def open_and_read() -> None:
            again = Profile(path, 2 * EVENTS, **options)  # type: ignore[arg-type]
            assert len(again.read()[1]) == EVENTS
            again.close()

        say(name, f"open, read all of {EVENTS:,}, close", *cpu_us(open_and_read, 10))
    profile.close()


def sealed(folder: Path) -> None:
    """Print what a profile that is sealed end to end pays: at record nothing, before a push for each queued event."""
    profile = Profile(folder / "sealed.db", 2 * EVENTS)
    for purpose in ("personalise", "sync"):
        profile.set_consent(purpose, True)
    seal_profile(profile)

    def make_key(connection: Connection) -> None:
        known = vault.load(connection)
        assert known is not None
        say_key(connection, renew(known, add=[known.own.member()]), NOW_MS)

    profile.store.write(make_key)
    number = iter(range(EVENTS))
    cpu_us(lambda: profile.record("view", f"sku-{next(number) % 3_000}", "phone", NOW_MS), WARM_UP)
    record = cpu_us(lambda: profile.record("view", f"sku-{next(number) % 3_000}", "phone", NOW_MS), TURNS)
    say("plain, sealed", "record", *record)
    begun = time.process_time_ns()
    profile.store.write(vault.seal_queue)
    taken_us = (time.process_time_ns() - begun) / 1000 / (WARM_UP + TURNS)
    unsealed = "SELECT count(*) FROM queue WHERE kind = 'event' AND instr(body, '\"sealed\"') = 0"
    assert profile.store.read(lambda connection: connection.execute(unsealed).fetchone()[0]) == 0
    say("plain, sealed", "seal, for each queued event", taken_us, taken_us)
    profile.close()


def history(folder: Path, name: str, **options: object) -> None:
    """Print what the history for the first `recommend()` after a start costs: from what was kept, and from all events.

    Every event is a purchase, which the bundle counts again; 100 came after the taste was kept.
    """
    path = folder / f"history-{name}.db"
    bundle = open_bundle(BUNDLE, allow_unsigned=True)
    ids = [bundle.ids.item_id(row) for row in range(bundle.manifest.item_count)]

    def opened() -> Profile:
        return Profile(path, 2 * EVENTS, **options)  # type: ignore[arg-type]

    def record(profile: Profile, first: int, count: int) -> None:
        for number in range(first, first + count):
            profile.record("purchase", ids[number % len(ids)], "phone", NOW_MS + number)

    with Recommender(bundle, opened()) as recommender:
        recommender.set_consent("personalise", True)
        record(recommender.profile, 0, EVENTS - 100)
        recommender.recommend()
    with Recommender(bundle, opened()) as recommender:
        record(recommender.profile, EVENTS - 100, 100)
    key = taste_kept.key_of(bundle.manifest)

    def from_kept(profile: Profile) -> Taste:
        found = taste_kept.read(profile, key)
        assert found
        return add_events(found[1], profile.read(found[0])[1], bundle)

    def from_events(profile: Profile) -> Taste:
        return add_events(Taste(), profile.read()[1], bundle)

    for what, read, turns in (("kept and the last 100", from_kept, 200), (f"all of {EVENTS:,}", from_events, 10)):
        taken = []
        for _ in range(turns):
            profile = opened()
            begun = time.process_time_ns()
            taste = read(profile)
            taken.append((time.process_time_ns() - begun) / 1000)
            assert taste.bought.shape == (2, EVENTS)
            profile.close()
        say(name, f"history, {what}", statistics.median(taken), statistics.quantiles(taken, n=100)[98])


def plainest(folder: Path) -> None:
    """Print what one bare INSERT costs."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("CREATE TABLE events (id TEXT, at_ms INTEGER, event TEXT, item_id TEXT, device TEXT)")
    statement, values = "INSERT INTO events VALUES (?,?,?,?,?)", ("id", NOW_MS, "view", "sku-1", "phone")
    cpu_us(lambda: connection.execute(statement, values), WARM_UP)
    say("bare INSERT", "record", *cpu_us(lambda: connection.execute(statement, values), TURNS))
    connection.close()


def say(name: str, what: str, median: float, high: float) -> None:
    """Print one line."""
    print(f"{name:18s} {what:32s} p50 {median:9.1f} us   p99 {high:9.1f} us", flush=True)


def main() -> None:
    """Measure every way."""
    engines = f"sqlite3 {sqlite3.sqlite_version}, apsw-sqlite3mc {EncryptedEngine(KEY).version}"
    print(f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}, {engines}; CPU time")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        plainest(folder)
        measure(folder, "plain")
        measure(folder, "plain, sync", sync=True)
        measure(folder, "plain, power", durability="power")
        measure(folder, "encrypted", key_provider=lambda: KEY)
        measure(folder, "encrypted, sync", key_provider=lambda: KEY, sync=True)
        measure(folder, "encrypted, power", key_provider=lambda: KEY, durability="power")
        sealed(folder)
        history(folder, "plain")
        history(folder, "encrypted", key_provider=lambda: KEY)


if __name__ == "__main__":
    main()
