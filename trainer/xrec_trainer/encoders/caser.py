"""Convolutions over the last events: Caser, made causal so that every position trains at once.

Tang and Wang, "Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding", WSDM 2018. At each
position the last ``WINDOW`` events are the paper's image, with zeros before the first. Horizontal filters, of several
heights, read some events in a row and keep their largest answer in the window; vertical ones are weighted sums of the
window's events. Users have no embedding: a device serves whoever comes.
"""

# B histories, L events, D width, W the window, F filters of a kind

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from xrec_sdk.history import Vocabulary

from xrec_trainer.config import FitConfig
from xrec_trainer.encoders.inputs import Inputs

WINDOW = 10
HEIGHTS = (1, 2, 3, 5)
HORIZONTAL = 16
"""Horizontal filters of each height."""
VERTICAL = 4


def build(config: FitConfig, vocabulary: Vocabulary) -> nn.Module:
    """Make the encoder that a configuration asks for."""
    return Caser(config.width, config.dropout, vocabulary)


class Caser(nn.Module):
    """Item rows and codes of a history -> a user vector at every position, or at the last one only."""

    def __init__(self, width: int, dropout: float, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.inputs = Inputs(width, dropout, vocabulary)
        self.horizontal = nn.ModuleList(nn.Conv1d(width, HORIZONTAL, height) for height in HEIGHTS)
        self.vertical = nn.Conv1d(1, VERTICAL, WINDOW)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(HORIZONTAL * len(HEIGHTS) + VERTICAL * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, rows: Tensor, events: Tensor, devices: Tensor, gaps: Tensor, last_only: bool = False) -> Tensor:
        """(B, L, D) float and three (B, L) int -> (B, L, D), or (B, D) of the last position."""
        x = functional.pad(self.inputs(rows, events, devices, gaps).transpose(1, 2), (WINDOW - 1, 0))
        if last_only:
            x = x[:, :, -WINDOW:]
        # Each makes one column of (B, D, L + W - 1) out of W: a filter's answers lie inside the window.
        parts = [
            functional.max_pool1d(functional.relu(filters(x)), WINDOW - height + 1, stride=1)  # (B, F, L)
            for height, filters in zip(HEIGHTS, self.horizontal, strict=True)
        ]
        sums = self.vertical(x.reshape(-1, 1, x.shape[2]))  # (B D, 1, L + W - 1) -> (B D, F, L)
        parts.append(sums.reshape(x.shape[0], -1, sums.shape[2]))
        users: Tensor = self.norm(self.out(self.dropout(torch.cat(parts, dim=1).transpose(1, 2))))
        return users.squeeze(1) if last_only else users
