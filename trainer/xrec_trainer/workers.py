"""Train with several processes: each takes its share of the batches, and all step by the mean gradient.

``torchrun --nproc-per-node 2 --no-python xrec-train fit DATA --out RUN`` sets the environment that is read here.
Without it there is one worker and nothing is sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import zip_longest
from typing import TypeVar

import torch
from torch import distributed, nn

T = TypeVar("T")


def worker_place() -> int:
    """Return which of the workers this process is, from 0."""
    return int(os.environ.get("RANK", "0"))


class Workers:
    """The processes of one training; each one makes the same random choices and takes every ``count``-th batch."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.place = worker_place()
        if self.count > 1 and not distributed.is_initialized():
            distributed.init_process_group("gloo")

    @property
    def is_first(self) -> bool:
        """Whether this process validates, reports and writes."""
        return self.place == 0

    def share(self, batches: Iterator[T]) -> Iterator[T | None]:
        """Yield this worker's batches, None where the last round has none for it: all take as many steps."""
        rounds = zip_longest(*[batches] * self.count)
        return (batches_of_round[self.place] for batches_of_round in rounds)

    def average_gradients(self, model: nn.Module, loss: float, weight: float) -> float:
        """Make each gradient the mean over the workers, and return the mean loss; ``weight`` is what this one counts.

        A worker without a batch counts for nothing and has no gradients.
        """
        if self.count == 1:
            return loss
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        grads = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        flat = torch.cat([*(grad.reshape(-1) for grad in grads), torch.tensor([loss])]) * weight
        flat = torch.cat([flat, torch.tensor([weight])])
        distributed.all_reduce(flat)
        mean = flat / flat[-1]
        parts = torch.split(mean[:-2], [grad.numel() for grad in grads])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return float(mean[-2])

    def wait(self) -> None:
        """Wait until all workers are here."""
        if self.count > 1:
            distributed.barrier()

    def agree(self, value: float) -> float:
        """Return the first worker's value to all."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        distributed.broadcast(shared, 0)
        return float(shared)
