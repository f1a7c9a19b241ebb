"""Seeded histories of devices keep every promise over a real store, backups and restores of its files included."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from stored_world import Sqlite, StoredWorld, simulator

SEEDS = range(1, 6)


def test_no_promise_is_broken_over_the_sqlite_store(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        worlds: list[StoredWorld] = []

        def make(seed: int, folder: Path = folder, worlds: list[StoredWorld] = worlds) -> StoredWorld:
            worlds.append(StoredWorld(seed, Sqlite(folder)))
            return worlds[0]

        try:
            counts += simulator.history(seed, make)
        finally:
            worlds[0].close()
            worlds[0].loop.close()
    for name in ("erasures done", "servers restored", "retired events", "devices restored", "messages twice"):
        assert counts[name] > 0, name
