"""Write the cases of the sync protocol that every language walks: joins, clocks, order and digests, from SEED.

python tests/vectors/make_sync.py
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xrec_sdk.sync import Hlc, Op, Row
from xrec_sdk.sync_body import criteria, takes
from xrec_sdk.sync_merge import (
    Consent,
    clamp,
    digest_of,
    digest_text,
    join_consent,
    later,
    order_ms,
    print_of,
    row_bytes,
    tick,
)

FOLDER = Path(__file__).parent / "sync"
SEED = 20260201
NOW_MS = 1_750_000_000_000


def some_rows(source: random.Random, count: int) -> list[Row]:
    """Return rows of several kinds; bodies with letters beyond ASCII among them."""
    rows = []
    for seq in range(1, count + 1):
        kind = source.choice(("event", "preference", "mood"))
        body = json.dumps({"item_id": source.choice(("café", "苹果", "x")), "n": seq}, ensure_ascii=False)
        hlc = Hlc(NOW_MS + source.randrange(9), source.randrange(3))
        rows.append(Row(seq, kind, f"id-{seq}", 1, hlc, source.choice("ab"), seq, NOW_MS, NOW_MS, body))
    return rows


def some_consent(source: random.Random) -> Consent:
    """Return a register that three devices have written."""
    refused, over = ({device: source.randint(1, 4) for device in "abc" if source.random() < 0.5} for _ in range(2))
    return Consent(
        source.random() < 0.8, refused, over, source.choice("12"), Hlc(source.randrange(3)), source.choice("abc")
    )


def consent_fields(consent: Consent) -> dict[str, Any]:
    """Return a register as JSON, with what it comes to."""
    return {
        **asdict(consent),
        "refused": dict(consent.refused),
        "over": dict(consent.over),
        "granted": consent.is_granted,
    }


def make() -> dict[str, list[dict[str, Any]]]:
    """Return the cases by the name of their file."""
    source = random.Random(SEED)
    rows = some_rows(source, 8)
    pairs = [(some_consent(source), some_consent(source)) for _ in range(20)]
    clocks = [(Hlc(NOW_MS + source.randint(-9, 9), source.randrange(4)), NOW_MS) for _ in range(12)]
    clocks.append((Hlc(NOW_MS + 400_000, 7), NOW_MS))
    event = json.dumps({"at_ms": NOW_MS, "device": "phone", "event": "view", "id": "e", "item_id": "x"})
    erasures = [
        {"item_id": "x"},
        {"item_id": "y"},
        {"event": "view", "item_id": "x"},
        {"from_ms": NOW_MS},
        {"to_ms": NOW_MS},
    ]
    op = Op(1, "event", "e", 1, Hlc(NOW_MS, 2), 0, "personalise", event)
    writers = [source.sample(rows, 2) for _ in range(10)]
    return {
        "01-hlc.json": [
            {"hlc": hlc, "now_ms": now, "tick": tick(hlc, now), "clamp": clamp(hlc, now, 300_000)}
            for hlc, now in clocks
        ],
        "02-consent.json": [
            {"one": consent_fields(a), "other": consent_fields(b), "join": consent_fields(join_consent(a, b))}
            for a, b in pairs
        ],
        "03-last-writer.json": [
            {"one": asdict(a), "other": asdict(b), "later": asdict(later(a, b))} for a, b in writers
        ],
        "04-order.json": [
            {"at_ms": at, "contact_ms": NOW_MS - 50, "now_ms": NOW_MS, "order_ms": order_ms(at, NOW_MS - 50, NOW_MS)}
            for at in (0, NOW_MS - 50, NOW_MS - 9, NOW_MS, NOW_MS + 1)
        ],
        "05-digest.json": [
            {"rows": [asdict(row) for row in part], "digest": digest_text(digest_of(part))}
            for part in ([], rows[:1], rows, rows[::-1])
        ],
        "06-row-bytes.json": [{"row": asdict(row), "bytes": row_bytes(row).decode()} for row in rows],
        "07-erasure.json": [
            {"erase": erase, "body": event, "takes": takes(criteria(json.dumps(erase)), event)} for erase in erasures
        ],
        "08-print.json": [{"op": asdict(op), "print": print_of(op)}],
    }


def texts() -> dict[str, str]:
    """Return the files' contents by name, the index among them."""
    cases = make()
    files = {name: json.dumps(content, ensure_ascii=False, indent=1) + "\n" for name, content in cases.items()}
    index = {"seed": SEED, "files": [{"file": name, "cases": len(content)} for name, content in cases.items()]}
    return {**files, "index.json": json.dumps(index, indent=1) + "\n"}


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
