"""A small shop whose users follow chains of items, and the settings that train it in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAY_MS = 86_400_000
SEED = 7


def write_shop(folder: Path, *, users: int = 120, items: int = 150, events: int = 24, seed: int = SEED) -> Path:
    """Write a prepared folder in which the item after i is usually i + 1, within a group of ten."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        item = int(random.integers(items))
        at_ms = 1_700_000_000_000 + int(random.integers(5 * DAY_MS))
        for _ in range(events):
            step = 1 if random.random() < 0.85 else int(random.integers(items))
            item = item // 10 * 10 + (item + step) % 10 if step == 1 else step
            at_ms += int(random.integers(1, 4 * DAY_MS))
            event = "purchase" if random.random() < 0.8 else "view"
            rows.append((f"user-{user}", f"sku-{item}", event, at_ms, ("phone", "pc")[int(random.integers(2))]))
    columns = dict(zip(("user_id", "item_id", "event", "at_ms", "device"), zip(*rows, strict=True), strict=True))
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "events.parquet")
    names = [f"sku-{item}" for item in range(items)]
    entries = {
        "item_id": names,
        "title": [f"Thing {item}" for item in range(items)],
        "category": [f"group {item // 10}" for item in range(items)],
        "price": [1.0 + item for item in range(items)],
    }
    pq.write_table(pa.table(entries), folder / "items.parquet")
    return folder


def small_config(**changes: object):  # type: ignore[no-untyped-def]
    """Return settings that train the shop in seconds."""
    from xrec_trainer.config import FitConfig

    values: dict[str, object] = {
        "targets": ("purchase",),
        "test_days": 12.0,
        "validation_days": 12.0,
        "min_count": 1,
        "max_history": 12,
        "width": 32,
        "dropout": 0.1,
        "max_epochs": 12,
        "patience": 12,
        "quantized_epochs": 1,
        "batch_tokens": 512,
        "learning_rate": 3e-3,
    }
    return FitConfig(**{**values, **changes})  # type: ignore[arg-type]


class Killed(Exception):
    """What ends a training as a kill would, between two epochs."""


def killed_at(epoch: int) -> Callable[[dict[str, object]], None]:
    """Return a report that raises Killed once it hears of an epoch, whose checkpoint is not yet written."""

    def report(line: dict[str, object]) -> None:
        if line["epoch"] == epoch:
            raise Killed

    return report
