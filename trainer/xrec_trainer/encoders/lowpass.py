"""A causal transformer with a causal low-pass branch in each block (the default encoder).

The low-pass branch is the frequency filter of BSARec (Shin et al., "An Attentive Inductive Bias for Sequential
Recommendation beyond the Self-Attention", AAAI 2024) made causal: the low part of a signal is its running mean, the
high part is what remains, weighted by a learned b^2. Every position trains at once, and a device needs no Fourier
transform.
"""

# B histories, L events, D width, H heads

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from xrec_sdk.history import Vocabulary

from xrec_trainer.config import FitConfig

FILTER_SHARE = 0.7


def build(config: FitConfig, vocabulary: Vocabulary) -> nn.Module:
    """Make the encoder that a configuration asks for."""
    return LowPassTransformer(config.width, config.layers, config.heads, config.dropout, vocabulary)


class LowPassTransformer(nn.Module):
    """Item rows and codes of a history -> a user vector at every position, or at the last one only."""

    def __init__(self, width: int, layers: int, heads: int, dropout: float, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.position = nn.Embedding(vocabulary.max_history, width)
        self.event = nn.Embedding(vocabulary.event_count, width)
        self.device = nn.Embedding(vocabulary.device_count, width)
        self.gap = nn.Embedding(vocabulary.gap_count, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))

    def forward(self, rows: Tensor, events: Tensor, devices: Tensor, gaps: Tensor, last_only: bool = False) -> Tensor:
        """(B, L, D) float and three (B, L) int -> (B, L, D), or (B, D) of the last position, without dropout in it."""
        position = self.position.weight[: rows.shape[1]]
        x = rows + position + self.event(events) + self.device(devices) + self.gap(gaps)
        x = self.dropout(self.norm(x))
        counts = torch.arange(1, self.position.num_embeddings + 1, device=x.device, dtype=x.dtype)[: x.shape[1], None]
        for block in self.blocks[:-1]:
            x = block(x, counts)
        answer: Tensor = self.blocks[-1](x, None if last_only else counts)
        return answer


class Block(nn.Module):
    """Attention and low-pass filter side by side, then a feed-forward layer, each with a residual and a norm."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.high_weight = nn.Parameter(torch.randn(width) * 0.1)
        self.filter_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, counts: Tensor | None) -> Tensor:
        """(B, L, D) and 1 to L as (L, 1) -> (B, L, D); without the counts (B, D), the last position only."""
        if counts is None:
            return self._mix(x[:, -1], self._attend_last(x), x.mean(dim=1))
        # A product of matrices adds its bias at once in the exported graph; one of (B, L, D) adds it in a second pass.
        flat = x.reshape(-1, x.shape[2])
        low = x.cumsum(dim=1) / counts
        return self._mix(flat, self._attend(flat, x.shape[1]), low.reshape(flat.shape)).reshape(x.shape)

    def _mix(self, x: Tensor, attended: Tensor, low: Tensor) -> Tensor:
        attended = _norm(x + self.dropout(attended), self.attention_norm, 1 - FILTER_SHARE)
        share = self.high_weight.square()
        filtered = _norm(x + self.dropout(low * (1 - share) + x * share), self.filter_norm, FILTER_SHARE)
        mixed = filtered + attended
        answer: Tensor = self.norm(mixed + self.dropout(self.outer(functional.gelu(self.inner(mixed)))))
        return answer

    def _attend(self, x: Tensor, length: int) -> Tensor:
        width = x.shape[1]
        scale = (width // self.heads) ** -0.5
        weight = torch.cat([self.query.weight * scale, self.key.weight, self.value.weight])
        bias = torch.cat([self.query.bias * scale, self.key.bias, self.value.bias])
        parts = functional.linear(x, weight, bias).reshape(-1, length, 3 * self.heads, width // self.heads)
        query, key, value = parts.transpose(1, 2).chunk(3, dim=1)  # (B, H, L, D/H) each
        future = torch.full((length, length), float("-inf"), device=x.device).triu(1)
        weights = self.dropout(functional.softmax(query @ key.transpose(-1, -2) + future, dim=-1))  # (B, H, L, L)
        answer: Tensor = self.out((weights @ value).transpose(1, 2).reshape(x.shape))
        return answer

    def _attend_last(self, x: Tensor) -> Tensor:
        """Attend by the last position, (B, L, D) -> (B, D): keys and values of the others are never made.

        Each head's question goes through the keys' weights to the rows instead (their bias is the same for all rows,
        which the softmax does not see), and the mixed row through the values' weights.
        """
        own = torch.eye(self.heads, device=x.device).repeat_interleave(x.shape[2] // self.heads, dim=1)  # (H, D)
        scale = (x.shape[2] // self.heads) ** -0.5
        question = self.query(x[:, -1])[:, None] * (own * scale) @ self.key.weight  # (B, H, D)
        weights = functional.softmax(question @ x.transpose(1, 2), dim=-1)  # (B, H, L)
        mixed = functional.linear(weights @ x, self.value.weight) * own
        answer: Tensor = self.out(mixed.sum(dim=1) + self.value.bias)
        return answer


def _norm(x: Tensor, norm: nn.LayerNorm, share: float) -> Tensor:
    """Return ``share * norm(x)`` with the share in the norm's own weights."""
    return functional.layer_norm(x, norm.normalized_shape, share * norm.weight, share * norm.bias, norm.eps)
