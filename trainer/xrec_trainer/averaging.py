"""Average a model's weights over its last training steps: the average ranks better than the last step's weights.

An exponential moving average (Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992); its
decay grows over the first steps, so that the start is soon forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """The moving average of a model's weights; a decay of 0 follows the model itself."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.weights: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's weights after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in model.named_parameters():
            self.weights[name].lerp_(value, 1 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Put the average into the model for a while."""
        own = {name: value.detach().clone() for name, value in model.named_parameters()}
        self._copy(model, self.weights)
        try:
            yield
        finally:
            self._copy(model, own)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"steps": self.steps, "weights": self.weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` gave."""
        self.steps, self.weights = state["steps"], state["weights"]

    @torch.no_grad()
    def _copy(self, model: nn.Module, weights: dict[str, Tensor]) -> None:
        for name, value in model.named_parameters():
            value.copy_(weights[name])
