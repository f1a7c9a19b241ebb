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
        """(B, L, D) float and three (B, L) int -> (B, L, D), or (B, D) of the last position."""
        places = torch.arange(rows.shape[1], device=rows.device)
        x = rows + self.position(places) + self.event(events) + self.device(devices) + self.gap(gaps)
        x = self.dropout(self.norm(x))
        for block in self.blocks[:-1]:
            x = block(x, last_only=False)
        x = self.blocks[-1](x, last_only=last_only)
        answer: Tensor = x.squeeze(1) if last_only else x
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

    def forward(self, x: Tensor, last_only: bool) -> Tensor:
        """(B, L, D) -> (B, L, D), or (B, 1, D) with ``last_only``."""
        asked = x[:, -1:] if last_only else x
        attended = self.attention_norm(asked + self.dropout(self._attend(asked, x, last_only)))
        low = x.mean(dim=1, keepdim=True) if last_only else _running_mean(x)
        filtered = self.filter_norm(asked + self.dropout(low + self.high_weight.square() * (asked - low)))
        mixed = FILTER_SHARE * filtered + (1 - FILTER_SHARE) * attended
        answer: Tensor = self.norm(mixed + self.dropout(self.outer(functional.gelu(self.inner(mixed)))))
        return answer

    def _attend(self, asked: Tensor, x: Tensor, last_only: bool) -> Tensor:
        query, key, value = self._split(self.query(asked)), self._split(self.key(x)), self._split(self.value(x))
        scores = (
            query @ key.transpose(-1, -2) * (key.shape[-1] ** -0.5)
        )  # (B, H, Q, D/H) @ (B, H, D/H, L) -> (B, H, Q, L)
        if not last_only:
            scores = scores + _future_mask(x.shape[1], x.device)
        weights = self.dropout(functional.softmax(scores, dim=-1))
        mixed = (weights @ value).transpose(1, 2)  # (B, Q, H, D/H)
        answer: Tensor = self.out(mixed.reshape(asked.shape[0], asked.shape[1], -1))
        return answer

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)  # (B, L, D) -> (B, H, L, D/H)


def _running_mean(x: Tensor) -> Tensor:
    counts = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)
    return x.cumsum(dim=1) / counts[:, None]


def _future_mask(length: int, device: torch.device) -> Tensor:
    places = torch.arange(length, device=device)
    return torch.where(places[None, :] > places[:, None], float("-inf"), 0.0)
