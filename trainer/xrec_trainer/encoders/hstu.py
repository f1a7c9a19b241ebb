"""Gated attention without a softmax, with biases by distance and by time between: the HSTU block.

Zhai et al., "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative
Recommendations", ICML 2024. SiLU instead of the softmax keeps how strongly a history says something. The paper's bias
by time reads time stamps; a device knows the gaps between events as codes, so the time between two events is the sum
of what the codes between them stand for, the middle of each bucket, and has the bucket edges of a gap.
"""

# B histories, L events, Q the asking positions (L or the last), D width, H heads, E bucket edges

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from xrec_sdk.history import Vocabulary

from xrec_trainer.config import FitConfig
from xrec_trainer.encoders.attention import split_heads
from xrec_trainer.encoders.inputs import Inputs


def build(config: FitConfig, vocabulary: Vocabulary) -> nn.Module:
    """Make the encoder that a configuration asks for."""
    return Hstu(config.width, config.layers, config.heads, config.dropout, vocabulary)


class Hstu(nn.Module):
    """Item rows and codes of a history -> a user vector at every position, or at the last one only."""

    def __init__(self, width: int, layers: int, heads: int, dropout: float, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.inputs = Inputs(width, dropout, vocabulary)
        self.blocks = nn.ModuleList(Block(width, heads, dropout, vocabulary) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.gap_ms: Tensor
        self.edges_ms: Tensor
        self.register_buffer("gap_ms", torch.tensor(middles_ms(vocabulary.gap_edges_ms)), persistent=False)
        self.register_buffer("edges_ms", torch.tensor(vocabulary.gap_edges_ms), persistent=False)

    def forward(self, rows: Tensor, events: Tensor, devices: Tensor, gaps: Tensor, last_only: bool = False) -> Tensor:
        """(B, L, D) float and three (B, L) int -> (B, L, D), or (B, D) of the last position."""
        x = self.inputs(rows, events, devices, gaps)
        at_ms = functional.embedding(gaps, self.gap_ms[:, None]).squeeze(-1).cumsum(dim=1)  # whole: no sum is rounded
        is_over = ((at_ms[:, :, None] - at_ms[:, None, :])[..., None] > self.edges_ms).to(x.dtype)  # (B, L, L, E)
        for block in self.blocks[:-1]:
            x = block(x, is_over)
        if last_only:
            is_over = is_over[:, -1:]
        users: Tensor = self.norm(self.blocks[-1](x, is_over))
        return users.squeeze(1) if last_only else users


class Block(nn.Module):
    """Project to gate, value, query and key; mix values by pointwise attention; norm, gate, project and add."""

    def __init__(self, width: int, heads: int, dropout: float, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.heads, self.longest = heads, vocabulary.max_history
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 4 * width)
        self.distance_bias = nn.Parameter(torch.zeros(heads, vocabulary.max_history))
        self.time_bias = nn.Parameter(torch.zeros(len(vocabulary.gap_edges_ms), heads))
        self.mixed_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, is_over: Tensor) -> Tensor:
        """(B, L, D) and (B, Q, L, E), whether the time between two events is over each edge, as 0 or 1 -> (B, Q, D)."""
        asking = is_over.shape[1]
        gate, value, query, key = functional.silu(self.project(self.norm(x))).chunk(4, dim=-1)
        query, key, value = (split_heads(part, self.heads) for part in (query[:, -asking:], key, value))
        scores = query @ key.transpose(-1, -2)  # (B, H, Q, L)
        place = torch.arange(self.longest, device=x.device)[: x.shape[1]]
        distance = place[-asking:, None] - place  # (Q, L)
        bias = self.distance_bias[:, distance.clamp(min=0)] + (is_over @ self.time_bias).permute(0, 3, 1, 2)
        weights = functional.silu(scores + bias) * (distance >= 0) / self.longest
        mixed = (weights @ value).transpose(1, 2).flatten(2)  # (B, Q, D)
        answer: Tensor = x[:, -asking:] + self.dropout(self.out(self.mixed_norm(mixed) * gate[:, -asking:]))
        return answer


def middles_ms(edges_ms: tuple[int, ...]) -> list[int]:
    """Return the gap in ms that each gap code stands for: none for code 0, twice the last edge where it is over."""
    bounds = (0, *edges_ms)
    middles = [(low + high) // 2 for low, high in zip(bounds, edges_ms, strict=False)]
    return [0, *middles, 2 * bounds[-1]]
