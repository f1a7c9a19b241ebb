"""Cut users' training events into histories and pack histories of like length into batches."""

# B histories, L events, E events of the log, U asked positions, T targets

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xrec_trainer.dataset import Log, encode_case


@dataclass(frozen=True)
class Batch:
    """Histories padded on the right: four (B, L) inputs, U of their B * L positions, and T targets at those.

    ``asked`` (U,) names the positions and ``places`` (T,), ascending, the one of U that each of ``targets`` (T,)
    belongs to; ``weights`` (T,) float32 says what each counts in the loss.
    """

    rows: Tensor
    events: Tensor
    devices: Tensor
    gaps: Tensor
    asked: Tensor
    places: Tensor
    targets: Tensor
    weights: Tensor


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


def prefixes(
    log: Log,
    train_end: NDArray[np.int64],
    is_target: NDArray[np.bool_],
    begin_ms: int,
    horizon_ms: int,
    per_user: int,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Cut each user's training events at random times from ``begin_ms`` on; return (S, 3) of start, cut and until.

    [start, cut) is a history and the targets in [cut, until), ``horizon_ms`` long, are what came after it; cuts with
    an empty history or without a target are left out.
    """
    base_ms = int(log.at_ms.min())
    end_ms = int(log.at_ms[np.arange(len(log)) < train_end[log.user]].max())
    stride = int(log.at_ms.max()) - base_ms + horizon_ms + 2
    key = log.user.astype(np.int64) * stride + (log.at_ms - base_ms)  # ascending over the whole log
    users = np.repeat(np.arange(len(train_end)), per_user)
    at = users * stride + random.integers(begin_ms - base_ms, end_ms - base_ms + 1, size=len(users))
    ends = train_end[users]
    start = log.user_start[users]
    cut, until = (np.minimum(np.searchsorted(key, edge), ends) for edge in (at, at + horizon_ms))
    before = np.concatenate([[0], np.cumsum(is_target)])  # number of targets before an event
    chosen = (cut > start) & (before[until] > before[cut])
    return np.stack([start[chosen], cut[chosen], until[chosen]], axis=1)


def prefix_batches(
    log: Log, cuts: NDArray[np.int64], worth: NDArray[np.float32], batch_tokens: int, random: np.random.Generator
) -> Iterator[Batch]:
    """Yield batches of what ``prefixes`` returned: each history's last position is asked for all its targets.

    ``worth`` (E,) is what an event counts as a target, 0 for none; of several events of an item the most counts.
    """
    lengths = np.minimum(cuts[:, 1] - cuts[:, 0], log.vocabulary.max_history)
    for group in _groups(lengths, batch_tokens, random):
        histories = [encode_case(log, np.arange(start, cut)) for start, cut, _ in cuts[group]]
        wanted = [_worth_of_items(log.item[cut:until], worth[cut:until]) for _, cut, until in cuts[group]]
        longest = max(map(len, histories))
        inputs = np.zeros((4, len(group), longest), dtype=np.int64)
        for place, history in enumerate(histories):
            inputs[:, place, : len(history)] = history.rows, history.events, history.devices, history.gaps
        last = np.arange(len(group)) * longest + [len(history) - 1 for history in histories]
        places = np.repeat(np.arange(len(group)), [len(items) for items, _ in wanted])
        items, weights = (np.concatenate(parts) for parts in zip(*wanted, strict=True))
        yield Batch(*map(torch.from_numpy, (*inputs, last, places, items.astype(np.int64), weights)))


def _worth_of_items(
    items: NDArray[np.int32], worth: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the items that are a target in these events, ascending, and the most that each is worth."""
    distinct, place = np.unique(items[worth > 0], return_inverse=True)
    most = np.zeros(len(distinct), dtype=np.float32)
    np.maximum.at(most, place, worth[worth > 0])
    return distinct, most


def next_batches(
    log: Log,
    spans: NDArray[np.int64],
    target_of: NDArray[np.int64],
    worth: NDArray[np.float32],
    batch_tokens: int,
    random: np.random.Generator,
) -> Iterator[Batch]:
    """Yield batches of windows (W, 2): each position that ``target_of`` (E,) gives a target for is asked for it."""
    for group in _groups(spans[:, 1] - spans[:, 0], batch_tokens, random):
        yield _collate(log, spans[group], target_of, worth)


def _groups(lengths: NDArray[np.int64], batch_tokens: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield groups of like lengths of about ``batch_tokens`` positions, padding included, in random order."""
    shuffled = random.permutation(len(lengths))
    order = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    groups, begin = [], 0
    while begin < len(order):
        size = max(1, batch_tokens // int(lengths[order[begin]]))
        end = min(begin + size, len(order))
        while end > begin + 1 and (end - begin) * lengths[order[end - 1]] > 1.25 * batch_tokens:
            end -= 1
        groups.append(order[begin:end])
        begin = end
    for group in random.permutation(len(groups)):
        yield groups[group]


def _collate(log: Log, spans: NDArray[np.int64], target_of: NDArray[np.int64], worth: NDArray[np.float32]) -> Batch:
    """Pad the windows on the right with zeros; a causal encoder never looks there."""
    lengths = spans[:, 1] - spans[:, 0]
    places = np.arange(lengths.max())
    is_real = places[None, :] < lengths[:, None]
    index = np.where(is_real, spans[:, :1] + places[None, :], spans[:, :1])
    targets = np.where(is_real, target_of[index], -1).ravel()
    asked = np.flatnonzero(targets >= 0)

    def take(values: NDArray[np.int32]) -> Tensor:
        return torch.from_numpy(np.where(is_real, values[index], 0).astype(np.int64))

    return Batch(
        take(log.item),
        take(log.event),
        take(log.device),
        take(log.gap),
        torch.from_numpy(asked),
        torch.arange(len(asked)),
        torch.from_numpy(log.item[targets[asked]].astype(np.int64)),
        torch.from_numpy(worth[targets[asked]]),
    )
