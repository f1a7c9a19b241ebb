"""What export needs to know of a trained model, as plain values; from_run.py fills it from a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import nn
from xrec_sdk.history import History, RepeatRule, Vocabulary

from xrec_export.ranker_graph import ExportRanker


@dataclass(frozen=True)
class ExportModel:
    """A trained model in row order. N items, D width.

    ``encoder`` maps (B, L, D) float32 rows and three (B, L) int32 codes to (B, D), in eval mode. ``item_table`` is
    (N, D) float32, before or after fake quantization. ``prior`` (N,) float32 is added to everyone's scores, None where
    there is none. ``query_rows`` (4096, D) float32 are of the buckets of searches, None where those are not read.
    ``ranker`` gives the probabilities, None where there is none. ``entries`` are what the app shows of an item.
    ``facts`` go into the manifest's ``model`` and the card.
    """

    encoder: nn.Module
    item_table: NDArray[np.float32]
    ids: Sequence[str]
    entries: Sequence[Mapping[str, object]]
    categories: Sequence[str | None]
    vocabulary: Vocabulary
    seen_events: tuple[str, ...] = ()
    filter_seen: bool = True
    repeat: RepeatRule | None = None
    prior: NDArray[np.float32] | None = None
    ranker: ExportRanker | None = None
    query_rows: NDArray[np.float32] | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ParityCase:
    """A held-out question: a history, the right rows, and biases on top, (E,) distinct rows and their values."""

    history: History
    relevant: NDArray[np.int32]
    bias_rows: NDArray[np.int32]
    bias_values: NDArray[np.float32]


def excluding(history: History, relevant: NDArray[np.int32], exclude_rows: NDArray[np.int32]) -> ParityCase:
    """Return the case that leaves rows out."""
    rows = np.unique(exclude_rows).astype(np.int32)
    return ParityCase(history, relevant, rows, np.full(len(rows), -np.inf, dtype=np.float32))
