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
from xrec_trainer.encoders.stack import Stack


def build(config: FitConfig, vocabulary: Vocabulary) -> nn.Module:
    """Make the encoder that a configuration asks for."""
    blocks = (Block(config.width, config.heads, config.dropout) for _ in range(config.layers))
    return Stack(config.width, config.dropout, vocabulary, blocks)


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
