"""What an encoder reads: item rows plus embeddings of event type, device and time gap, normed."""

# B histories, L events, D width

from __future__ import annotations

from torch import Tensor, nn
from xrec_sdk.history import Vocabulary


class Inputs(nn.Module):
    """Item rows and codes of a history -> one vector an event; who wants positions adds them to the rows."""

    def __init__(self, width: int, dropout: float, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.event = nn.Embedding(vocabulary.event_count, width)
        self.device = nn.Embedding(vocabulary.device_count, width)
        self.gap = nn.Embedding(vocabulary.gap_count, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Tensor, events: Tensor, devices: Tensor, gaps: Tensor) -> Tensor:
        """(B, L, D) float and three (B, L) int -> (B, L, D)."""
        x: Tensor = self.dropout(self.norm(rows + self.event(events) + self.device(devices) + self.gap(gaps)))
        return x
