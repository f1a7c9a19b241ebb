"""Small untrained models that the export tests share."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from xrec_export.encoder_graph import LEAST_INT8_WEIGHTS
from xrec_export.export_model import ExportModel, ParityCase, excluding
from xrec_export.quantize import quantize_rows
from xrec_sdk.history import History, RepeatRule, Vocabulary

VOCABULARY = Vocabulary(("view", "purchase"), ("phone", "pc"), max_history=20)
WIDTH = 64
JOINED = ("blocks.0.query.weight", "blocks.0.key.weight", "blocks.0.value.weight")


class SmallEncoder(nn.Module):
    """Embeddings, one layer of attention by the last event, and a feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Embedding(VOCABULARY.max_history, WIDTH)
        self.event = nn.Embedding(VOCABULARY.event_count, WIDTH)
        self.device = nn.Embedding(VOCABULARY.device_count, WIDTH)
        self.gap = nn.Embedding(VOCABULARY.gap_count, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.inner = nn.Linear(WIDTH, 2 * WIDTH)
        self.outer = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, rows: Tensor, events: Tensor, devices: Tensor, gaps: Tensor) -> Tensor:
        x = rows + self.event(events) + self.device(devices) + self.gap(gaps)
        x = self.norm(x + self.position(torch.arange(rows.shape[1])))
        weights = torch.softmax(self.query(x[:, -1:]) @ x.transpose(1, 2), dim=-1)  # (B, 1, L)
        mixed = (weights @ x).squeeze(1)
        out: Tensor = mixed + self.outer(torch.relu(self.inner(mixed)))
        return out


def make_encoder(seed: int = 0) -> SmallEncoder:
    torch.manual_seed(seed)
    return SmallEncoder().eval()


def with_int8_weights(encoder: nn.Module) -> nn.Module:
    """Return a copy whose big weights are rounded as the bundle stores them; joined ones are one matrix there."""
    rounded = copy.deepcopy(encoder)
    for name, parameter in rounded.named_parameters():
        if parameter.ndim == 2 and (parameter.numel() >= LEAST_INT8_WEIGHTS or name.endswith(JOINED)):
            quantized, scale = quantize_rows(parameter.detach().numpy())
            parameter.data = torch.from_numpy(quantized.astype(np.float32) * scale[:, None])
    return rounded


def make_model(count: int = 300, seed: int = 0) -> ExportModel:
    random = np.random.default_rng(seed)
    return ExportModel(
        encoder=make_encoder(seed),
        item_table=random.normal(size=(count, WIDTH)).astype(np.float32),
        ids=[f"sku-{row}" for row in range(count)],
        entries=[{"title": f"Item {row}", "price": row / 4} for row in range(count)],
        categories=[None if row % 5 == 0 else f"shelf {row % 3}" for row in range(count)],
        vocabulary=VOCABULARY,
        seen_events=("purchase",),
        filter_seen=True,
        repeat=RepeatRule(0.5, 86_400_000, ("purchase",)),
        facts={"metrics": {"NDCG@10": 0.1}},
    )


def make_history(length: int, count: int, random: np.random.Generator) -> History:
    codes = [random.integers(0, high, size=length, dtype=np.int32) for high in (count, 3, 3, VOCABULARY.gap_count)]
    return History(*codes)


def make_cases(number: int, count: int = 300, seed: int = 1) -> list[ParityCase]:
    random = np.random.default_rng(seed)
    cases = []
    for _ in range(number):
        history = make_history(int(random.integers(1, 20)), count, random)
        relevant = random.choice(count, size=3, replace=False).astype(np.int32)
        cases.append(excluding(history, relevant, history.rows))
    return cases
