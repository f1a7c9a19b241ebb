"""Seeded histories of devices keep every promise over a real store, backups and restores of its files included."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from xrec_server.sqlite_ledger import SqliteLedger
from xrec_server.store import LedgerLines

sys.path.insert(0, str(Path(__file__).parent))
from stored_world import Sqlite, StoredWorld, simulator

# Of seeds 1 to 29 those in which a server is restored, events retire, or a device comes back from a copy.
SEEDS = (7, 10, 14, 15, 16, 19, 28, 29)


def run(seed: int, folder: Path) -> Counter[str]:
    """Run a history with its server in ``folder``."""
    worlds: list[StoredWorld] = []

    def make(seed: int) -> StoredWorld:
        worlds.append(StoredWorld(seed, Sqlite(folder)))
        return worlds[0]

    try:
        return simulator.history(seed, make)
    finally:
        worlds[0].close()
        worlds[0].loop.close()


def test_no_promise_is_broken_over_the_sqlite_store(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        counts += run(seed, folder)
    for name in ("erasures done", "servers restored", "retired events", "devices restored", "messages twice"):
        assert counts[name] > 0, name


def test_a_ledger_that_forgets_erasures_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = SqliteLedger.put

    def forgetful(self: SqliteLedger, profile: str, lines: LedgerLines) -> None:
        kept = tuple(row for row in lines.rows if row.kind != "erase")
        put(self, profile, replace(lines, rows=kept, epoch=1, erased_by=""))

    monkeypatch.setattr(SqliteLedger, "put", forgetful)
    with pytest.raises(simulator.Broken, match="resurrection"):
        run(19, tmp_path)
