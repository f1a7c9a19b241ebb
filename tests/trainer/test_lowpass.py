"""The default encoder computes its blocks as written down, and the last position alone as in the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from xrec_sdk.history import Vocabulary
from xrec_trainer.encoders.lowpass import FILTER_SHARE, Block, LowPassTransformer

VOCABULARY = Vocabulary(("view", "purchase"), ("phone",), max_history=12)
WIDTH = 16


def made(heads: int, dropout: float = 0.0) -> LowPassTransformer:
    torch.manual_seed(heads)
    encoder = LowPassTransformer(WIDTH, 2, heads, dropout, VOCABULARY)
    for parameter in encoder.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)  # biases and norms are zeros and ones at first
    return encoder


def inputs(length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    codes = [torch.randint(0, count, (3, length)) for count in (3, 2, VOCABULARY.gap_count)]
    return torch.randn(3, length, WIDTH), codes[0], codes[1], codes[2]


def block_as_written(block: Block, x: Tensor) -> Tensor:
    """Return a = LN(x + attention), f = LN(x + low + b^2 (x - low)), y = .7 f + .3 a, LN(y + FFN(y))."""
    length = x.shape[1]
    heads = [
        layer(x).unflatten(2, (block.heads, -1)).transpose(1, 2) for layer in (block.query, block.key, block.value)
    ]
    mixed = functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
    attended = block.attention_norm(x + block.out(mixed))
    low = torch.stack([x[:, : place + 1].mean(dim=1) for place in range(length)], dim=1)
    filtered = block.filter_norm(x + low + block.high_weight**2 * (x - low))
    y = FILTER_SHARE * filtered + (1 - FILTER_SHARE) * attended
    answer: Tensor = block.norm(y + block.outer(functional.gelu(block.inner(y))))
    return answer


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 12])
def test_blocks_compute_what_is_written_down(heads: int, length: int) -> None:
    encoder, (rows, events, devices, gaps) = made(heads), inputs(length)
    x = rows + encoder.position(torch.arange(length)) + encoder.event(events)
    x = encoder.norm(x + encoder.device(devices) + encoder.gap(gaps))
    for block in encoder.blocks:
        assert isinstance(block, Block)
        x = block_as_written(block, x)
    torch.testing.assert_close(encoder(rows, events, devices, gaps), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 12])
def test_the_last_position_alone_is_that_of_the_whole(heads: int, length: int) -> None:
    encoder, history = made(heads, dropout=0.5).eval(), inputs(length)
    torch.testing.assert_close(encoder(*history, last_only=True), encoder(*history)[:, -1], rtol=0, atol=1e-5)


def test_the_names_of_the_weights_stay() -> None:
    block = ("query", "key", "value", "out", "attention_norm", "filter_norm", "inner", "outer", "norm")
    tables = [f"{name}.weight" for name in ("position", "event", "device", "gap")] + ["norm.weight", "norm.bias"]
    names = {f"blocks.{place}.{name}.{part}" for place in (0, 1) for name in block for part in ("weight", "bias")}
    assert set(made(2).state_dict()) == {*tables, *names, "blocks.0.high_weight", "blocks.1.high_weight"}
