"""Causal attention of several heads, and the feed-forward layer that follows it."""

# B histories, L events, Q the asking positions (L or the last), D width, H heads

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Each position asks all up to itself (Vaswani et al., "Attention Is All You Need", NeurIPS 2017)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, last_only: bool = False) -> Tensor:
        """(B, L, D) -> (B, Q, D)."""
        asking = x[:, -1:] if last_only else x
        query, key, value = (split_heads(part, self.heads) for part in (self.query(asking), self.key(x), self.value(x)))
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # (B, H, Q, L)
        if not last_only:
            scores = scores + torch.full((x.shape[1], x.shape[1]), float("-inf"), device=x.device).triu(1)
        mixed = self.dropout(functional.softmax(scores, dim=-1)) @ value
        answer: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return answer


class FeedForward(nn.Module):
    """Two linear maps at each position, four times as wide between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        answer: Tensor = self.outer(functional.gelu(self.inner(x)))
        return answer


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, Q, D) -> (B, H, Q, D/H)."""
    return x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)
