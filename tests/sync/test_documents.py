"""What the page and the vectors of the sync protocol say is what the rules do."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "vectors"))
import make_sync
from xrec_sdk import sync, sync_merge

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sync-protocol.md").read_text(encoding="utf-8")


def test_the_vectors_are_current() -> None:
    texts = make_sync.texts()
    assert {path.name for path in make_sync.FOLDER.iterdir()} == texts.keys()
    for name, text in texts.items():
        assert (make_sync.FOLDER / name).read_text(encoding="utf-8") == text, name


def test_the_worked_example_of_the_digest_is_right() -> None:
    first, second = re.findall(r"^8:xrec-row,.*$", PAGE, re.MULTILINE)
    digests = re.findall(r"^[0-9a-f]{64}$", PAGE, re.MULTILINE)
    each = [int.from_bytes(hashlib.sha256(line.encode()).digest(), "big") for line in (first, second)]
    assert digests == [f"{number % 2**256:064x}" for number in (*each, sum(each))]
    rows = make_sync.some_rows(make_sync.random.Random(make_sync.SEED), 2)
    assert [sync_merge.row_bytes(row).decode() for row in rows] == [first, second]
    assert sync_merge.digest_text(sync_merge.digest_of(rows)) == digests[2]


def test_every_code_and_every_limit_is_on_the_page() -> None:
    codes = {value for value in vars(sync).values() if isinstance(value, str) and value.startswith("sync.")}
    assert len(codes) == 15
    errors = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert {code for code in codes if f"`{code}`" not in PAGE or code not in errors} == set()
    for name, value in vars(sync.LIMITS).items():
        assert f"| {name} | {value:,} |" in PAGE
