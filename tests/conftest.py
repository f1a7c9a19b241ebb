"""What many tests share: the small shop, prepared and trained once."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_shop import small_config, write_shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a prepared folder of 120 users and 150 items."""
    return write_shop(tmp_path_factory.mktemp("shop") / "data")


@pytest.fixture(scope="session")
def trained(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder trained on the shop."""
    from xrec_trainer.fit import fit

    out = tmp_path_factory.mktemp("run") / "run"
    fit(shop, out, small_config())
    return out
