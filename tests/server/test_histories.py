"""Seeded histories of devices keep every promise over a real store, backups and restores of its files included."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from places import SqlitePlace
from stored_world import history

SEEDS = range(1, 13)


def test_no_promise_is_broken_over_the_sqlite_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        with monkeypatch.context() as patch:
            counts += history(seed, SqlitePlace(folder), patch)
    for name in ("erasures done", "servers restored", "retired events", "devices restored", "messages twice"):
        assert counts[name] > 0, name
