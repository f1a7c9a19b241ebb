"""Every encoder keeps the one contract: causal, blind to the padding, the last position as in the whole, learnable."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from xrec_sdk.history import DAY_MS, Vocabulary
from xrec_trainer.config import FitConfig
from xrec_trainer.encoders import ENCODERS
from xrec_trainer.encoders.caser import HEIGHTS, WINDOW, Caser
from xrec_trainer.encoders.filterbank import FilterBank
from xrec_trainer.encoders.hstu import Hstu, middles_ms

VOCABULARY = Vocabulary(("view", "purchase"), ("phone",), max_history=16)
WIDTH, LENGTH = 8, 16


def made(name: str) -> nn.Module:
    """Return an encoder whose weights all take part; the seed is 5."""
    torch.manual_seed(5)
    config = FitConfig(targets=("purchase",), encoder=name, width=WIDTH, dropout=0.5)
    encoder = ENCODERS[name](config, VOCABULARY).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.2 * torch.randn_like(parameter)  # gains, biases and norms are constants at first
    return encoder


def inputs(length: int = LENGTH) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    codes = [torch.randint(0, count, (3, length)) for count in (3, 2, VOCABULARY.gap_count)]
    return torch.randn(3, length, WIDTH), codes[0], codes[1], codes[2]


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("place", [1, 9, LENGTH - 1])
def test_a_later_event_changes_no_earlier_output(name: str, place: int) -> None:
    encoder, (rows, events, devices, gaps) = made(name), inputs()
    before = encoder(rows, events, devices, gaps)
    changed = [rows.clone(), events.clone(), devices.clone(), gaps.clone()]
    changed[0][:, place:] += 3
    for codes, count in zip(changed[1:], (3, 2, VOCABULARY.gap_count), strict=True):
        codes[:, place:] = (codes[:, place:] + 1) % count
    after = encoder(*changed)
    torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=1e-6)
    assert ((after[:, place] - before[:, place]).abs().amax(dim=1) > 1e-3).all()


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("length", [1, 2, 9, 10, 11])
def test_the_last_position_alone_is_that_of_the_whole_and_of_one_padded_on_the_right(name: str, length: int) -> None:
    encoder, history = made(name), inputs(length)
    padded = [functional.pad(history[0], (0, 0, 0, 3)), *(functional.pad(codes, (0, 3)) for codes in history[1:])]
    last = encoder(*history, last_only=True)
    assert last.shape == (3, WIDTH) and encoder(*padded).shape == (3, length + 3, WIDTH)
    torch.testing.assert_close(last, encoder(*history)[:, -1], rtol=0, atol=1e-5)
    torch.testing.assert_close(last, encoder(*padded)[:, length - 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_weight_learns(name: str) -> None:
    encoder, (rows, *codes) = made(name).train(), inputs()
    loss = (encoder(rows.requires_grad_(True), *codes) * torch.randn(WIDTH)).sum()
    loss.backward()
    assert rows.grad is not None and rows.grad.abs().sum() > 0
    for weight, parameter in encoder.named_parameters():
        if not weight.endswith("key.bias"):  # it moves all of a position's scores alike, which a softmax doesn't see
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), weight
            assert parameter.grad.abs().sum() > 0, weight


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "pool"])
@pytest.mark.parametrize("place", [1, 2, 3])
def test_event_device_and_gap_are_heard(name: str, place: int) -> None:
    encoder, history = made(name), list(inputs())
    before = encoder(*history, last_only=True)
    history[place] = history[place].clone()
    history[place][:, -2] = (history[place][:, -2] + 1) % 2
    assert (encoder(*history, last_only=True) - before).abs().max() > 1e-3


def test_caser_reads_the_window_as_the_paper_does() -> None:
    encoder, (rows, *codes) = made("caser"), inputs(4)
    assert isinstance(encoder, Caser)
    image = torch.zeros(3, WINDOW, WIDTH)  # the four events, and zeros before them
    image[:, -4:] = encoder.inputs(rows, *codes)
    answers = []
    for height, filters in zip(HEIGHTS, encoder.horizontal, strict=True):
        spans = torch.stack([image[:, at : at + height] for at in range(WINDOW - height + 1)], dim=1)
        heard = torch.einsum("bshd,fdh->bsf", spans, filters.weight) + filters.bias  # type: ignore[arg-type]
        answers.append(heard.relu().amax(dim=1))
    sums = torch.einsum("bwd,fw->bdf", image, encoder.vertical.weight[:, 0]) + encoder.vertical.bias
    expected = encoder.norm(encoder.out(torch.cat([*answers, sums.flatten(1)], dim=1)))
    torch.testing.assert_close(encoder(rows, *codes, last_only=True), expected, rtol=0, atol=1e-5)


def test_the_bands_of_the_filter_bank_are_differences_of_running_averages_and_add_up() -> None:
    torch.manual_seed(5)
    bank, x = FilterBank(WIDTH, LENGTH), torch.randn(2, LENGTH, WIDTH)
    averages = []
    for rate in bank.log_rate.exp().tolist():
        decay = torch.exp(-torch.tensor(rate))
        total, weight, average = torch.zeros(2, WIDTH), torch.tensor(0.0), []
        for event in x.unbind(1):
            total, weight = total * decay + event, weight * decay + 1
            average.append(total / weight)
        averages.append(torch.stack(average, dim=1))
    bank.gain.data.fill_(1)
    torch.testing.assert_close(bank(x), x, rtol=0, atol=1e-5)
    bank.gain.data.fill_(0)
    torch.testing.assert_close(bank(x), averages[-1], rtol=0, atol=1e-5)
    bank.gain.data = torch.tensor([[0.0], [3**0.5], [0.0]]).expand(-1, WIDTH)
    torch.testing.assert_close(bank(x), averages[-1] + 3 * (averages[0] - averages[1]), rtol=0, atol=1e-5)


def test_hstu_adds_a_bias_by_distance_and_one_for_each_bucket_edge_passed() -> None:
    encoder, (_, _, _, gaps) = made("hstu"), inputs(6)
    assert isinstance(encoder, Hstu)
    block, x = encoder.blocks[-1], torch.randn(3, 6, WIDTH)
    middles = middles_ms(VOCABULARY.gap_edges_ms)
    at_ms = torch.tensor(middles)[gaps].cumsum(dim=1)
    between = at_ms[:, :, None] - at_ms[:, None]
    is_over = torch.stack([between > edge for edge in VOCABULARY.gap_edges_ms], dim=-1).float()
    gate, value, query, key = functional.silu(block.project(block.norm(x))).chunk(4, dim=-1)
    half = WIDTH // 2
    mixed = torch.zeros(3, 6, WIDTH)
    for head, part in enumerate((slice(0, half), slice(half, WIDTH))):
        for at in range(6):
            for before in range(at + 1):
                score = (query[:, at, part] * key[:, before, part]).sum(dim=1) + block.distance_bias[head, at - before]
                score = score + is_over[:, at, before] @ block.time_bias[:, head]
                mixed[:, at, part] += functional.silu(score)[:, None] * value[:, before, part] / LENGTH
    expected = x + block.out(block.mixed_norm(mixed) * gate)
    torch.testing.assert_close(block(x, is_over), expected, rtol=0, atol=1e-5)


def test_a_gap_code_stands_for_the_middle_of_its_bucket() -> None:
    middles = middles_ms((10, 30, DAY_MS))
    assert middles == [0, 5, 20, (30 + DAY_MS) // 2, 2 * DAY_MS]
    assert all(low < high for low, high in pairwise(middles))
