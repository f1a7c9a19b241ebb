"""One server for the tests that ask it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from served import Client, served, settings, token


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the shared server's files and keys."""
    return tmp_path_factory.mktemp("house")


@pytest.fixture(scope="session")
def port(house: Path) -> Iterator[int]:
    """Serve for the whole session."""
    (house / "bundles").mkdir()
    (house / "bundles" / "shop.xrec").write_bytes(b"bundle")
    (house / "secret.txt").write_bytes(b"not to be served")
    given = settings(house, bundles=house / "bundles", origins=("https://shop.example",))
    with served(given) as port:
        yield port


@pytest.fixture
def client(port: int, house: Path, request: pytest.FixtureRequest) -> Client:
    """Return a client of a user of the test's own."""
    return Client(port, token(house, request.node.name))
