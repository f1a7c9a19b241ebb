"""A stack of blocks over the inputs with positions: what the transformer and the filter bank share."""

# B histories, L events, D width

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from xrec_sdk.history import Vocabulary

from xrec_trainer.encoders.inputs import Inputs


class Stack(nn.Module):
    """Item rows and codes of a history -> a user vector at every position, or at the last one only.

    A block maps (B, L, D) to the same, or with ``last_only`` to (B, 1, D) of the last position.
    """

    def __init__(self, width: int, dropout: float, vocabulary: Vocabulary, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.position = nn.Embedding(vocabulary.max_history, width)
        self.inputs = Inputs(width, dropout, vocabulary)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)

    def forward(self, rows: Tensor, events: Tensor, devices: Tensor, gaps: Tensor, last_only: bool = False) -> Tensor:
        """(B, L, D) float and three (B, L) int -> (B, L, D), or (B, D) of the last position."""
        x = self.inputs(rows + self.position.weight[: rows.shape[1]], events, devices, gaps)
        for block in self.blocks[:-1]:
            x = block(x)
        users: Tensor = self.norm(self.blocks[-1](x, last_only))
        return users.squeeze(1) if last_only else users
