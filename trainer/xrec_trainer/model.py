"""The model: an item tower that gives the item table, and a history encoder that gives user vectors."""

# N items, C categories, D width

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from xrec_sdk.errors import UsageError
from xrec_sdk.history import Vocabulary

from xrec_trainer.config import FitConfig
from xrec_trainer.encoders import ENCODERS


class Items(NamedTuple):
    """What scores need of the items: rows (N, D) and the prior (N,), both float32."""

    table: Tensor
    prior: Tensor


class Model(nn.Module):
    """Item rows are an id embedding plus the embedding of the category; a score is ``user @ table.T + prior``.

    The prior is zero while the model learns; trend.py sets it.
    """

    def __init__(self, config: FitConfig, vocabulary: Vocabulary, categories: Sequence[str | None]) -> None:
        super().__init__()
        if config.encoder not in ENCODERS:
            raise UsageError("usage.setting", f"encoder is {config.encoder!r}; expected {' or '.join(ENCODERS)}")
        names = {name: code for code, name in enumerate(sorted({name for name in categories if name}), start=1)}
        codes = torch.tensor([names[name] if name else 0 for name in categories])
        self.register_buffer("category_codes", codes, persistent=False)
        self.register_buffer("prior", torch.zeros(len(categories)))
        self.ids = nn.Embedding(len(categories), config.width)
        self.categories = nn.Embedding(len(names) + 1, config.width, padding_idx=0)
        self.encoder = ENCODERS[config.encoder](config, vocabulary)
        self.is_quantized = False
        for module in self.modules():
            if isinstance(module, (nn.Embedding, nn.Linear)):
                nn.init.normal_(module.weight, std=0.02)
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.categories.weight[0] = 0

    def start_from(self, rows: Tensor) -> None:
        """Take (N, D) as the first item rows, to which categories add nothing yet."""
        with torch.no_grad():
            self.ids.weight.copy_(rows)
            self.categories.weight.zero_()

    def item_table(self) -> Tensor:
        """Return the item table (N, D), as the int8 bundle will hold it once ``is_quantized`` is set."""
        codes = self.get_buffer("category_codes")
        table: Tensor = self.ids.weight + self.categories(codes)
        return fake_quantize(table) if self.is_quantized else table

    def items(self) -> Items:
        """Return the item table and the prior."""
        return Items(self.item_table(), self.get_buffer("prior"))


def fake_quantize(table: Tensor) -> Tensor:
    """Round each row to int8 with one scale a row; the gradient passes unchanged (straight-through estimator)."""
    with torch.no_grad():
        largest = table.abs().amax(dim=1, keepdim=True)
        scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
        rounded = (table / scale).round().clamp(-127, 127) * scale
    return table + (rounded - table).detach()
