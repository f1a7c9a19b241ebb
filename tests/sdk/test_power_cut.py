"""What a power cut takes: nothing at durability="power", else what came after the last barrier, a second at most."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("apsw", reason="the extra encrypted (apsw-sqlite3mc) is not installed")

sys.path.insert(0, str(Path(__file__).parent))
from forgetful_disk import Disk, cut_power


@pytest.mark.parametrize("durability", ["power", "process"])
def test_what_returned_survives_a_power_cut_where_that_was_asked(tmp_path, durability):
    disk = Disk()
    outcomes = [cut_power(disk, tmp_path, seed, durability) for seed in range(16)]
    disk.unregister()
    assert sum(one.lost_before_barrier for one in outcomes) == 0
    assert all(one.seconds_at_risk < 1 for one in outcomes)
    # The disk does forget, where it may.
    assert (sum(one.lost for one in outcomes) > 0) is (durability == "process")
