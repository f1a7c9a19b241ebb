"""The pool encoder: causal, the same at the last position as everywhere, and a decayed mean by hand."""

from __future__ import annotations

import numpy as np
import torch
from xrec_sdk.history import Vocabulary
from xrec_trainer.config import FitConfig
from xrec_trainer.encoders.pool import build

VOCABULARY = Vocabulary(("view", "purchase"), ("phone",), max_history=12)


def encoder_and_inputs(length: int):
    torch.manual_seed(11)
    encoder = build(FitConfig(targets=("purchase",), encoder="pool", width=8), VOCABULARY).eval()
    with torch.no_grad():
        for parameter in (encoder.worth, encoder.out, encoder.shift):
            parameter += 0.1 * torch.randn_like(parameter)
    codes = torch.randint(3, (2, length)), torch.zeros(2, length, dtype=torch.long), torch.zeros(2, length).long()
    return encoder, (torch.randn(2, length, 8), *codes)


def test_each_position_is_the_last_of_its_own_history():
    encoder, (rows, *codes) = encoder_and_inputs(12)
    whole = encoder(rows, *codes)
    for length in range(1, 13):
        part = encoder(rows[:, :length], *(code[:, :length] for code in codes), last_only=True)
        assert torch.allclose(whole[:, length - 1], part, atol=1e-6)


def test_an_event_counts_by_its_type_and_by_how_many_came_since():
    encoder, (rows, *codes) = encoder_and_inputs(5)
    weights = encoder.worth[codes[0]].exp() * torch.exp(-encoder.log_rate.exp() * torch.tensor([4.0, 3, 2, 1, 0]))
    pooled = (weights[:, :, None] * rows).sum(1) / weights.square().sum(1, keepdim=True).sqrt()
    expected = pooled @ encoder.out + encoder.shift
    assert torch.allclose(encoder(rows, *codes, last_only=True), expected, atol=1e-5)
    assert np.isclose(float(torch.exp(-encoder.log_rate.exp() * 9).detach()), 0.5)  # half a life is 0.75 * 12 events


def test_a_history_whose_events_are_all_left_out_has_finite_gradients():
    encoder, (rows, *codes) = encoder_and_inputs(1)
    rows.requires_grad_(True)
    encoder.dropout.p = 0.999
    encoder.train()
    encoder(rows, *codes).sum().backward()
    assert torch.isfinite(rows.grad).all() and torch.isfinite(encoder.worth.grad).all()
