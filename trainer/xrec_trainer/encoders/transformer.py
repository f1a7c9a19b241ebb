"""A plain causal transformer: SASRec, with the norm before each layer.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018. The feed-forward layer is four times as wide
inside and GELU, as has become usual; the paper's is as wide as the model and ReLU.
"""

# B histories, L events, Q the asking positions (L or the last), D width

from __future__ import annotations

from torch import Tensor, nn
from xrec_sdk.history import Vocabulary

from xrec_trainer.config import FitConfig
from xrec_trainer.encoders.attention import Attention, FeedForward
from xrec_trainer.encoders.inputs import Inputs


def build(config: FitConfig, vocabulary: Vocabulary) -> nn.Module:
    """Make the encoder that a configuration asks for."""
    return Transformer(config.width, config.layers, config.heads, config.dropout, vocabulary)


class Transformer(nn.Module):
    """Item rows and codes of a history -> a user vector at every position, or at the last one only."""

    def __init__(self, width: int, layers: int, heads: int, dropout: float, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.position = nn.Embedding(vocabulary.max_history, width)
        self.inputs = Inputs(width, dropout, vocabulary)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, rows: Tensor, events: Tensor, devices: Tensor, gaps: Tensor, last_only: bool = False) -> Tensor:
        """(B, L, D) float and three (B, L) int -> (B, L, D), or (B, D) of the last position."""
        x = self.inputs(rows + self.position.weight[: rows.shape[1]], events, devices, gaps)
        for block in self.blocks[:-1]:
            x = block(x)
        users: Tensor = self.norm(self.blocks[-1](x, last_only))
        return users.squeeze(1) if last_only else users


class Block(nn.Module):
    """Attention, then a feed-forward layer; each reads a norm of what it adds to."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, last_only: bool = False) -> Tensor:
        """(B, L, D) -> (B, Q, D)."""
        attended = self.attention(self.attention_norm(x), last_only)
        x = (x[:, -1:] if last_only else x) + self.dropout(attended)
        answer: Tensor = x + self.dropout(self.feed_forward(self.norm(x)))
        return answer
