"""Quantize the item table to int8 in blocks of 128 items, and lay it out as items.bin."""

# N items, D width, nb blocks of 128 items, Np = 128 nb rows with padding

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.manifest import BLOCK_ITEMS, SECTION_ALIGNMENT, Section

USER_ZERO_POINT = 64
"""The scan reads the user vector as uint8 1..127 around this: 7 bits, so that no int16 sum of a pair saturates."""


@dataclass(frozen=True)
class QuantizedTable:
    """The items of a bundle: ``table`` int8 (nb, D, 128), ``scale``, ``bias`` and ``prior`` float32 (nb, 128).

    ``bias`` takes away what the user vector's zero point adds to a score of the scan; it is -inf for pad rows and for
    items that are not offered.
    ``prior`` is what an item's score gains for everyone, None where none gains anything; ``features`` float32 (2, Np)
    is what a ranker reads of each item, None without one.
    """

    table: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    prior: NDArray[np.float32] | None = None
    features: NDArray[np.float32] | None = None

    @property
    def blocks(self) -> int:
        """Number of blocks, nb."""
        return int(self.table.shape[0])

    @property
    def width(self) -> int:
        """Width of a row, D."""
        return int(self.table.shape[1])


def quantize_rows(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return (N, D) int8 and the (N,) float32 scale, symmetric per row; the scale of a zero row is 1.

    The arithmetic is that of the fake quantization in training: ``clamp(round(x / scale), -127, 127)``, half to even.
    """
    largest = np.abs(rows).max(axis=1)
    scale = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    scale[scale == 0] = 1  # a row of subnormal numbers, whose scale underflows
    quantized = np.clip(np.rint(rows / scale[:, None]), -127, 127).astype(np.int8)
    return quantized, scale


def quantize_table(
    rows: NDArray[np.float32],
    prior: NDArray[np.float32] | None = None,
    features: NDArray[np.float32] | None = None,
) -> QuantizedTable:
    """Quantize (N, D) rows into blocks of 128, transposed inside the block; pad rows are zero, of scale 1.

    ``prior`` is (N,) float32, ``features`` (N, 2) float32.
    """
    quantized, scale = quantize_rows(np.ascontiguousarray(rows, dtype=np.float32))
    return block_rows(quantized, scale, prior, features)


def block_rows(
    quantized: NDArray[np.int8],
    scale: NDArray[np.float32],
    prior: NDArray[np.float32] | None = None,
    features: NDArray[np.float32] | None = None,
    is_offered: NDArray[np.bool_] | None = None,
) -> QuantizedTable:
    """Lay (N, D) int8 rows and (N,) scales out in blocks; items that are not offered, (N,), have a bias of -inf."""
    count, width = quantized.shape
    blocks = -(-count // BLOCK_ITEMS)
    padded = np.zeros((blocks * BLOCK_ITEMS, width), dtype=np.int8)
    padded[:count] = quantized
    padded_scale = np.ones(blocks * BLOCK_ITEMS, dtype=np.float32)
    padded_scale[:count] = scale
    table = np.ascontiguousarray(
        padded.reshape(blocks, BLOCK_ITEMS, width).transpose(0, 2, 1)
    )  # (nb, 128, D) -> (nb, D, 128)
    # The product that the scan makes of a zero vector, negated: in float32 as there, so that the two add up to zero.
    bias = -(USER_ZERO_POINT * padded.sum(axis=1, dtype=np.int32)).astype(np.float32) * padded_scale
    bias[count:] = -np.inf
    if is_offered is not None:
        bias[:count][~is_offered] = -np.inf
    padded_prior = None
    if prior is not None and prior.any():
        padded_prior = np.zeros(blocks * BLOCK_ITEMS, dtype=np.float32)
        padded_prior[:count] = prior
        padded_prior = padded_prior.reshape(blocks, BLOCK_ITEMS)
    padded_features = None
    if features is not None:
        padded_features = np.zeros((features.shape[1], blocks * BLOCK_ITEMS), dtype=np.float32)
        padded_features[:, :count] = features.T
    return QuantizedTable(
        table,
        padded_scale.reshape(blocks, BLOCK_ITEMS),
        bias.reshape(blocks, BLOCK_ITEMS),
        padded_prior,
        padded_features,
    )


def dequantize(items: QuantizedTable) -> NDArray[np.float32]:
    """Return the (Np, D) float32 rows that the bundle stands for, pad rows included."""
    rows = items.table.transpose(0, 2, 1).reshape(-1, items.width).astype(np.float32)
    return rows * items.scale.reshape(-1, 1)


def pack_items(items: QuantizedTable) -> tuple[bytes, dict[str, Section]]:
    """Return the bytes of items.bin and its sections, each at a multiple of 64 KiB so that a host can map it."""
    packed = bytearray()
    sections = {}
    for name, array, dtype in (
        ("table", items.table, "|i1"),
        ("scale", items.scale, "<f4"),
        ("bias", items.bias, "<f4"),
        ("prior", items.prior, "<f4"),
        ("features", items.features, "<f4"),
    ):
        if array is None:
            continue
        packed.extend(bytes(-len(packed) % SECTION_ALIGNMENT))
        raw = np.ascontiguousarray(array, dtype=np.dtype(dtype)).tobytes()
        sections[name] = Section(len(packed), len(raw))
        packed.extend(raw)
    return bytes(packed), sections
