"""The rules keep their promises over simulated histories, and the simulator catches rules that do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from faults import FAULTS, planted
from simulator import Broken, chunk


def test_no_promise_is_broken_in_40_histories_and_everything_happened() -> None:
    counts = chunk(range(65, 105))
    for name in (
        "erasures done",
        "clones",
        "devices restored",
        "servers restored",
        "forgotten erasures",
        "retired events",
        "account erasures",
        "devices removed",
        "leases ended",
        "refused by the transport",
        "rejected sync.erased",
        "rejected sync.no_consent",
    ):
        assert counts[name] > 0, name


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught_within_40_histories(name: str) -> None:
    with planted(FAULTS[name]), pytest.raises(Broken):
        chunk(range(1, 41))
