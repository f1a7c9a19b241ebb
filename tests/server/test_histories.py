"""Seeded histories of devices keep every promise over a real store, backups and restores of its files included."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from places import PostgresPlace, SqlitePlace, places
from stored_world import history

SEEDS = {SqlitePlace: (5, 9, 13, 15, 28), PostgresPlace: (15,)}


@pytest.mark.parametrize("kind", places())
def test_no_promise_is_broken_over_a_store(
    kind: type[SqlitePlace | PostgresPlace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: Counter[str] = Counter()
    for seed in SEEDS[kind]:
        folder = tmp_path / str(seed)
        folder.mkdir()
        with monkeypatch.context() as patch:
            counts += history(seed, kind(folder), patch)
    for name in ("events", "erasures done", "messages twice", "pages of several"):
        assert counts[name] > 0, name
