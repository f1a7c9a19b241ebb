"""Cut users' training events into windows and pack windows of like length into batches."""

# B windows, L events

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xrec_trainer.dataset import Log


@dataclass(frozen=True)
class Batch:
    """Windows padded on the right: four (B, L) inputs, the item to predict at each position, and where there is one."""

    rows: Tensor
    events: Tensor
    devices: Tensor
    gaps: Tensor
    target_rows: Tensor
    is_target: Tensor


def windows(
    starts: NDArray[np.int64], ends: NDArray[np.int64], max_history: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Return (W, 2) begin and end of input windows over [start, end) spans of the log, one or more a user.

    An input needs a next event, so the last event of a span is only a target. A longer span is cut at a random
    offset, anew each epoch, so that a cut never always falls at the same event.
    """
    cut = []
    for start, end in zip(starts, ends, strict=True):
        last = end - 1
        if last - start <= max_history:
            if last > start:
                cut.append((start, last))
            continue
        begin = start + int(random.integers(0, max_history)) - max_history
        for place in range(begin, last, max_history):
            low, high = max(start, place), min(place + max_history, last)
            if high > low:
                cut.append((low, high))
    return np.array(cut, dtype=np.int64).reshape(-1, 2)


def next_targets(log: Log, train_end: NDArray[np.int64], is_target: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each event the index of the event after it where that is a target to learn, else -1; (E,) int64."""
    following = np.arange(1, len(log) + 1)
    is_learned = following < train_end[log.user]
    is_learned[:-1] &= is_target[1:]
    return np.where(is_learned, following, -1)


def future_targets(
    log: Log, train_end: NDArray[np.int64], is_target: NDArray[np.bool_], horizon_ms: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Return for each event the index of one random target within ``horizon_ms`` after it, -1 where none; (E,) int64.

    Events of the same instant (one basket) are not targets of each other: what is asked on the device is what comes
    later, not what lies in the same basket.
    """
    targets = np.flatnonzero(is_target)
    place = log.at_ms - log.at_ms.min()
    stride = int(place.max()) + horizon_ms + 2
    key = log.user.astype(np.int64) * stride + place  # ascending over the whole log
    after = np.searchsorted(key, key, side="right")
    until = np.minimum(np.searchsorted(key, key + horizon_ms, side="right"), train_end[log.user])
    low, high = np.searchsorted(targets, after), np.searchsorted(targets, until)
    drawn = low + (random.random(len(log)) * (high - low)).astype(np.int64)
    return np.where(high > low, targets[np.minimum(drawn, len(targets) - 1)], -1)


def batches(
    log: Log, spans: NDArray[np.int64], target_of: NDArray[np.int64], batch_tokens: int, random: np.random.Generator
) -> Iterator[Batch]:
    """Yield batches of about ``batch_tokens`` positions, padding included, in random order."""
    spans = spans[random.permutation(len(spans))]
    lengths = spans[:, 1] - spans[:, 0]
    order = np.argsort(lengths, kind="stable")
    groups, begin = [], 0
    while begin < len(order):
        size = max(1, batch_tokens // int(lengths[order[begin]]))
        end = min(begin + size, len(order))
        while end > begin + 1 and (end - begin) * lengths[order[end - 1]] > 1.25 * batch_tokens:
            end -= 1
        groups.append(order[begin:end])
        begin = end
    for group in random.permutation(len(groups)):
        yield collate(log, spans[groups[group]], target_of)


def collate(log: Log, spans: NDArray[np.int64], target_of: NDArray[np.int64]) -> Batch:
    """Pad the windows on the right with zeros; a causal encoder never looks there."""
    lengths = spans[:, 1] - spans[:, 0]
    places = np.arange(lengths.max())
    is_real = places[None, :] < lengths[:, None]
    index = np.where(is_real, spans[:, :1] + places[None, :], spans[:, :1])
    targets = np.where(is_real, target_of[index], -1)

    def take(values: NDArray[np.int32]) -> Tensor:
        return torch.from_numpy(np.where(is_real, values[index], 0).astype(np.int64))

    return Batch(
        take(log.item),
        take(log.event),
        take(log.device),
        take(log.gap),
        torch.from_numpy(log.item[targets].astype(np.int64)),
        torch.from_numpy(targets >= 0),
    )
