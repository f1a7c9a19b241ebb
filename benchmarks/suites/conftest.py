"""The shops that the suites ask, of 10,000, 100,000 and a million items, each made once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from xrec_sdk.profile import Profile
from xrec_sdk.recommender import Recommender

sys.path.insert(0, str(Path(__file__).parents[1]))
from made_shop import MadeShop, fill_profile, make_shop

SIZES = {"10k": 10_000, "100k": 100_000, "1M": 1_000_000}
WIDTH, HISTORY = 64, 50


@pytest.fixture(scope="session", params=SIZES.values(), ids=SIZES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MadeShop:
    return make_shop(request.param, WIDTH, HISTORY, tmp_path_factory.mktemp("shop"))


@pytest.fixture
def profile(shop: MadeShop, tmp_path: Path) -> Path:
    """The path of a profile that holds 50 purchases."""
    path = tmp_path / "profile.db"
    kept = Profile(path)
    fill_profile(kept, len(shop.model.ids), HISTORY)
    kept.close()
    return path


@pytest.fixture
def recommender(shop: MadeShop, profile: Path) -> Iterator[Recommender]:
    with Recommender(shop.path, profile, trusted_keys=[shop.key]) as opened:
        yield opened
