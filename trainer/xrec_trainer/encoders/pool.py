"""A decayed mean of the history's rows and one linear map: the linear autoencoder of collaborative filtering.

It has no notion of order besides recency. Where a user's taste shows in hundreds of events and changes slowly, as in
groceries, and where users are too few to learn sequences from, that is enough (Steck, "Embarrassingly Shallow
Autoencoders", WWW 2019; the low rank comes from the width).

Mean pooling is a case of it: with worths and rate of 0 the pool is the mean times the root of the number of events.
"""

# B histories, L events, D width

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from xrec_sdk.history import Vocabulary

from xrec_trainer.config import FitConfig

HALF_LIFE_SHARE = 0.75
"""Where the decay starts: an event is worth half as much after this share of the longest history."""


def build(config: FitConfig, vocabulary: Vocabulary) -> nn.Module:
    """Make the encoder that a configuration asks for."""
    return Pool(config.width, config.dropout, vocabulary)


class Pool(nn.Module):
    """Item rows and event codes of a history -> a user vector at every position, or at the last one only.

    The weight of an event is ``exp(worth[event type] - rate * events since)``. The weighted sum is divided by the
    weights' Euclidean norm, so that a longer history speaks louder, but not in proportion. Dropout leaves out whole
    events; devices and gaps are not used.
    """

    def __init__(self, width: int, dropout: float, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.longest = vocabulary.max_history
        self.dropout = nn.Dropout(dropout)
        self.worth = nn.Parameter(torch.zeros(vocabulary.event_count))
        self.log_rate = nn.Parameter(torch.tensor(math.log(math.log(2) / (HALF_LIFE_SHARE * self.longest))))
        self.out = nn.Parameter(torch.eye(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, rows: Tensor, events: Tensor, devices: Tensor, gaps: Tensor, last_only: bool = False) -> Tensor:
        """(B, L, D) float and three (B, L) int -> (B, L, D), or (B, D) of the last position."""
        length = rows.shape[1]
        worth = self.dropout(functional.embedding(events, self.worth[:, None]).squeeze(-1).exp())  # (B, L)
        since = torch.arange(self.longest, device=rows.device, dtype=rows.dtype)[:length].flip(0)
        decay = (-self.log_rate.exp() * since).exp()  # (L,), oldest first
        if last_only:
            weights = (worth * decay)[:, None, :]  # (B, 1, L)
        else:
            # decay[L - 1 - (t - i)] is what event i is worth at position t
            place = torch.arange(length, device=rows.device)
            before = (place[:, None] - place[None, :]).clamp(min=0)
            weights = worth[:, None, :] * torch.tril(decay.flip(0)[before])  # (B, L, L)
        norm = (weights.square().sum(dim=-1, keepdim=True) + 1e-12).sqrt()  # all events may be left out
        users: Tensor = (weights @ rows / norm) @ self.out + self.shift
        return users.squeeze(1) if last_only else users
