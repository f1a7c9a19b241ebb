"""A causal transformer with a bank of running low-passes, at time scales that it learns, in each block.

Frequency filters beside attention: BSARec (Shin et al., "An Attentive Inductive Bias for Sequential Recommendation
beyond the Self-Attention", AAAI 2024) splits a history in a low and a high part by a Fourier transform, WEARec (Xu et
al., "Wavelet Enhanced Adaptive Frequency Filter for Sequential Recommendation", AAAI 2026) in more by wavelets. Both
look at the whole history; here the split is causal. Exponential moving averages of growing length make the bands, as
in a wavelet transform without decimation: what each average takes away is a band, the slowest average is what remains,
and their sum is the signal. Each channel weights each band.
"""

# B histories, L events, Q the asking positions (L or the last), D width, K time scales

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from xrec_sdk.history import Vocabulary

from xrec_trainer.config import FitConfig
from xrec_trainer.encoders.attention import Attention, FeedForward
from xrec_trainer.encoders.stack import Stack

HALF_LIVES = (1.0, 4.0, 16.0)
"""Where the averages start: how many events ago one counts half as much, quickest first."""
FIRST_GAIN = 0.5


def build(config: FitConfig, vocabulary: Vocabulary) -> nn.Module:
    """Make the encoder that a configuration asks for."""
    blocks = (Block(config.width, config.heads, config.dropout, vocabulary.max_history) for _ in range(config.layers))
    return Stack(config.width, config.dropout, vocabulary, blocks)


class Block(nn.Module):
    """Attention and filter bank side by side, then a feed-forward layer; each reads a norm of what it adds to."""

    def __init__(self, width: int, heads: int, dropout: float, longest: int) -> None:
        super().__init__()
        self.mix_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.bank = FilterBank(width, longest)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, last_only: bool = False) -> Tensor:
        """(B, L, D) -> (B, Q, D)."""
        normed = self.mix_norm(x)
        mixed = self.attention(normed, last_only) + self.bank(normed, last_only)
        x = (x[:, -1:] if last_only else x) + self.dropout(mixed)
        answer: Tensor = x + self.dropout(self.feed_forward(self.norm(x)))
        return answer


class FilterBank(nn.Module):
    """Split a signal in K bands and what remains, and add them up again with weights."""

    def __init__(self, width: int, longest: int) -> None:
        super().__init__()
        self.longest = longest
        self.log_rate = nn.Parameter(torch.tensor([math.log(math.log(2) / half_life) for half_life in HALF_LIVES]))
        self.gain = nn.Parameter(torch.full((len(HALF_LIVES), width), FIRST_GAIN))

    def forward(self, x: Tensor, last_only: bool = False) -> Tensor:
        """(B, L, D) -> (B, Q, D)."""
        place = torch.arange(self.longest, device=x.device, dtype=x.dtype)[: x.shape[1]]
        since = place[-1:, None] - place if last_only else place[:, None] - place  # (Q, L)
        decay = (-self.log_rate.exp()[:, None, None] * since.clamp(min=0)).exp() * (since >= 0)  # (K, Q, L)
        averages = (decay / decay.sum(dim=-1, keepdim=True))[:, None] @ x  # (K, B, Q, D)
        signal = x[:, -1:] if last_only else x
        bands = torch.cat([signal[None], averages[:-1]]) - averages
        answer: Tensor = averages[-1] + (bands * self.gain.square()[:, None, None]).sum(dim=0)
        return answer
