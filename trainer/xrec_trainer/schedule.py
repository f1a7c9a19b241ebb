"""The learning rate of a training step: a linear warm-up, then constant or a half cosine down to 0.

The cosine is the one of Loshchilov and Hutter ("SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017),
without restarts.
"""

from __future__ import annotations

import math

from xrec_trainer.config import FitConfig


def learning_rate(config: FitConfig, epoch: int, step: int) -> float:
    """Return the rate of step ``step`` of the whole training, in epoch ``epoch``, both from 0."""
    rate = config.learning_rate
    if config.schedule == "cosine":
        rate *= (1 + math.cos(math.pi * min(1.0, epoch / config.max_epochs))) / 2
    return rate * min(1.0, (step + 1) / (config.warmup_steps + 1))
