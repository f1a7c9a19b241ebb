"""Write the cases of the sync protocol that every language walks: joins, digests, a device's rules, from SEED.

python tests/vectors/make_sync.py
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xrec_sdk.sync import (
    LIMITS,
    ChangesRequest,
    EraseRequest,
    Head,
    Hlc,
    Op,
    Page,
    Push,
    PushAnswer,
    Receipt,
    Registered,
    RegisterRequest,
    Row,
)
from xrec_sdk.sync_body import check, criteria, takes
from xrec_sdk.sync_json import Message, write, write_query
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

sys.path.insert(0, str(Path(__file__).parents[1] / "sync"))
from recorded import shortest

FOLDER = Path(__file__).parent / "sync"
SEED = 20260201
DEVICE_FILE = "12-device.json"
DEVICE_SEEDS = range(1, 21)
DEVICE_LETTERS = 4_000
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


def some_messages(rows: list[Row], op: Op) -> dict[str, Message]:
    """Return one message of each type."""
    head = Head(2, 40, 3, "erasure", 48, 12, 7)
    return {
        "push": Push(1, "d-7f3a", 2, 41, 1, (op,)),
        "push_answer": PushAnswer(head, NOW_MS, 12, ((11, 48),), ((12, "sync.erased"),)),
        "page": Page(head, NOW_MS, 12, 0, tuple(rows), 48, False, digest_text(digest_of(rows))),
        "registered": Registered(head, NOW_MS, "d-8c1b", 12, ((11, ""), (12, print_of(op))), True),
        "register_request": RegisterRequest(1, "d-7f3a", 41, 2, 12),
        "erase_request": EraseRequest(1, "erasure"),
        "receipt": Receipt("erasure", NOW_MS, 3, ("d-7f3a",)),
    }


def damaged_messages(messages: dict[str, Message]) -> list[dict[str, str]]:
    """Return each message with each of its fields missing, and with one of another type."""
    cases = []
    for name, message in messages.items():
        whole = json.loads(write(message))
        for field in whole:
            cases += [
                {"type": name, "json": json.dumps({key: value for key, value in whole.items() if key != field})},
                {"type": name, "json": json.dumps({**whole, field: 0 if isinstance(whole[field], bool) else True})},
            ]
    return cases


BODIES = [
    ("event", '{"at_ms":5,"device":"phone","event":"view","id":"i","item_id":"x"}'),
    ("event", '{"at_ms":5,"device":"phone","event":"view","id":"i","item_id":"x","value":1.5,"recommendation_id":"r"}'),
    ("event", '{"at_ms":5,"device":"phone","event":"view","id":"j","item_id":"x"}'),
    ("event", '{"at_ms":5.5,"device":"phone","event":"view","id":"i","item_id":"x"}'),
    ("event", '{"at_ms":true,"device":"phone","event":"view","id":"i","item_id":"x"}'),
    ("event", '{"at_ms":9007199254740992,"device":"phone","event":"view","id":"i","item_id":"x"}'),
    ("event", '{"at_ms":5,"device":"phone","event":"view","id":"i","item_id":"x","value":NaN}'),
    ("event", '{"at_ms":5,"device":"phone","event":"view","id":"i","item_id":""}'),
    ("consent", '{"granted":true,"over":{"d":3},"policy":"1"}'),
    ("consent", '{"granted":false,"policy":"1"}'),
    ("consent", '{"granted":1,"policy":"1"}'),
    ("consent", '{"granted":true,"over":{"d":-1},"policy":"1"}'),
    ("erase", "{}"),
    ("erase", '{"from_ms":1,"to_ms":null}'),
    ("erase", '{"colour":"red"}'),
    ("erase", "[]"),
    ("preference", "7"),
    ("preference", ""),
    ("preference", "[1e999]"),
    ("preference", '"\\ud800"'),
    ("preference", "[" * 32 + "]" * 32),
    ("preference", "[" * 33 + "]" * 33),
    ("mood", '"of a later version"'),
    ("nop", ""),
]


def stands(kind: str, body: str) -> bool:
    """Return whether a profile may hold an operation of this body, its id being "i"."""
    try:
        check(Op(1, kind, "i", 1, Hlc(NOW_MS), 0, "sync", body), LIMITS)
    except ValueError:
        return False
    return True


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
    messages = some_messages(rows[:2], op)
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
        "09-messages.json": [
            *({"type": name, "json": write(message).decode()} for name, message in messages.items()),
            {"type": "changes_request", "query": write_query(ChangesRequest("d-7f3a", 2, 41, 25))},
        ],
        "10-bad-messages.json": damaged_messages(messages),
        "11-bodies.json": [{"kind": kind, "body": body, "stands": stands(kind, body)} for kind, body in BODIES],
    }


def texts() -> dict[str, str]:
    """Return the files' contents by name, the index among them."""
    cases, calls = make(), shortest(DEVICE_SEEDS, DEVICE_LETTERS)
    files = {name: json.dumps(content, ensure_ascii=False, indent=1) + "\n" for name, content in cases.items()}
    files[DEVICE_FILE] = "[\n" + ",\n".join(calls) + "\n]\n"
    counts = {**{name: len(content) for name, content in cases.items()}, DEVICE_FILE: len(calls)}
    index = {"seed": SEED, "files": [{"file": name, "cases": count} for name, count in counts.items()]}
    return {**files, "index.json": json.dumps(index, indent=1) + "\n"}


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
