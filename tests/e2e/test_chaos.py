"""A short run of what `make chaos` does for longer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from chaos import Setting, run


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize(("devices", "seed"), [(3, 20_261_124)])
def test_devices_end_alike_over_a_bad_network_and_an_erasure_reaches_all(
    devices: int, seed: int, tmp_path: Path
) -> None:
    counts = run(tmp_path, seed, Setting(150, devices))
    assert counts["events"] == 150 and counts["servers killed"] == counts["devices killed"] > 0
    assert sum(count for name, count in counts.items() if name.startswith("connections")) > 20
