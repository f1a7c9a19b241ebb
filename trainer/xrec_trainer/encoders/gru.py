"""A recurrent network with gates: GRU4Rec.

Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016. Item embeddings go in instead
of one-hot items, the loss is the trainer's. A history is read in order, so it needs no positions; the exported graph
holds one GRU operator a layer.
"""

# B histories, L events, D width

from __future__ import annotations

from torch import Tensor, nn
from xrec_sdk.history import Vocabulary

from xrec_trainer.config import FitConfig
from xrec_trainer.encoders.inputs import Inputs


def build(config: FitConfig, vocabulary: Vocabulary) -> nn.Module:
    """Make the encoder that a configuration asks for."""
    return Gru(config.width, config.layers, config.dropout, vocabulary)


class Gru(nn.Module):
    """Item rows and codes of a history -> a user vector at every position, or at the last one only."""

    def __init__(self, width: int, layers: int, dropout: float, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.inputs = Inputs(width, dropout, vocabulary)
        self.gru = nn.GRU(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, rows: Tensor, events: Tensor, devices: Tensor, gaps: Tensor, last_only: bool = False) -> Tensor:
        """(B, L, D) float and three (B, L) int -> (B, L, D), or (B, D) of the last position."""
        states, last = self.gru(self.inputs(rows, events, devices, gaps))  # (B, L, D), (layers, B, D)
        users: Tensor = self.norm(self.out(last[-1] if last_only else states))
        return users
