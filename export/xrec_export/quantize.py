"""Lay the item table out in blocks of 128 items as items.bin, quantized to int8 or as floats."""

# N items, D width, nb blocks of 128 items, Np = 128 nb rows with padding

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.errors import DataError
from xrec_sdk.manifest import BLOCK_ITEMS, SECTION_ALIGNMENT, TABLE_DTYPES, Section

USER_ZERO_POINT = 64
"""The scan reads the user vector as uint8 1..127 around this: 7 bits, so that no int16 sum of a pair saturates."""
FLOATS = {name: np.dtype(dtype) for name, dtype in TABLE_DTYPES.items() if name != "int8"}
"""The formats of a table that holds floats."""


@dataclass(frozen=True)
class ItemTable:
    """The items of a bundle: ``table`` int8 (nb, D, 128) with ``scale`` float32 (nb, 128), or floats (nb, 128, D).

    ``bias`` (nb, 128) takes away what the user vector's zero point adds to a score of the int8 scan, and is zero beside
    floats; it is -inf for pad rows and for items that are not offered.
    ``prior`` is what an item's score gains for everyone, None where none gains anything; ``features`` float32 (2, Np)
    is what a ranker reads of each item, None without one.
    """

    table: NDArray[Any]
    scale: NDArray[np.float32] | None
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
        return int(self.table.shape[2 if self.scale is None else 1])


@dataclass(frozen=True)
class StoredRows:
    """Rows as a bundle's format stores them, (N, D): int8 with their ``scale`` float32 (N,), or floats without one."""

    values: NDArray[Any]
    scale: NDArray[np.float32] | None

    def vectors(self) -> NDArray[np.float32]:
        """Return the float32 rows that they stand for, (N, D)."""
        vectors: NDArray[np.float32] = self.values.astype(np.float32)
        return vectors if self.scale is None else vectors * self.scale[:, None]

    def __getitem__(self, rows: NDArray[np.int64]) -> StoredRows:
        return StoredRows(self.values[rows], None if self.scale is None else self.scale[rows])

    def joined(self, more: StoredRows) -> StoredRows:
        """Return these rows and then more of the same format."""
        scale = None if self.scale is None or more.scale is None else np.concatenate([self.scale, more.scale])
        return StoredRows(np.concatenate([self.values, more.values]), scale)

    def replaced(self, rows: NDArray[np.int64], others: StoredRows) -> StoredRows:
        """Return these rows with others of the same format in the places ``rows``."""
        values, scale = self.values.copy(), None
        values[rows] = others.values
        if self.scale is not None:
            scale = self.scale.copy()
            scale[rows] = others.scale
        return StoredRows(values, scale)


def quantize_rows(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return (N, D) int8 and the (N,) float32 scale, symmetric per row; the scale of a zero row is 1.

    The arithmetic is that of the fake quantization in training: ``clamp(round(x / scale), -127, 127)``, half to even.
    """
    largest = np.abs(rows).max(axis=1)
    scale = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    scale[scale == 0] = 1  # a row of subnormal numbers, whose scale underflows
    quantized = np.clip(np.rint(rows / scale[:, None]), -127, 127).astype(np.int8)
    return quantized, scale


def store_rows(table_format: str, rows: NDArray[np.float32]) -> StoredRows:
    """Return (N, D) rows in a format: int8 as :func:`quantize_rows` does, fp16 or fp32 as they are.

    Raises DataError ``data.item_table`` where a row is too large for fp16.
    """
    if table_format == "int8":
        return StoredRows(*quantize_rows(np.ascontiguousarray(rows, dtype=np.float32)))
    with np.errstate(over="ignore"):
        values = rows.astype(FLOATS[table_format])
    if not np.isfinite(values).all():
        raise DataError(
            "data.item_table", f"the item table holds values that {table_format} can't; choose fp32 or int8"
        )
    return StoredRows(values, None)


def rows_of_blocks(table: NDArray[Any], scale: NDArray[np.float32] | None, count: int) -> StoredRows:
    """Return the first ``count`` rows of a table and scale that are laid out as in an :class:`ItemTable`."""
    if scale is None:
        return StoredRows(table.reshape(-1, table.shape[2])[:count], None)
    rows = table.transpose(0, 2, 1).reshape(-1, table.shape[1])  # (nb, D, 128) -> (Np, D)
    return StoredRows(rows[:count], scale.reshape(-1)[:count])


def block_rows(
    rows: StoredRows,
    prior: NDArray[np.float32] | None = None,
    features: NDArray[np.float32] | None = None,
    is_offered: NDArray[np.bool_] | None = None,
) -> ItemTable:
    """Lay N rows out in blocks of 128, of int8 transposed inside the block; pad rows are zero, of scale 1.

    ``prior`` is (N,) float32, ``features`` (N, 2) float32; items that are not offered, (N,), have a bias of -inf.
    """
    count, width = rows.values.shape
    padded = np.zeros((_padded(count), width), dtype=rows.values.dtype)
    padded[:count] = rows.values
    table, bias = padded.reshape(-1, BLOCK_ITEMS, width), np.zeros(len(padded), dtype=np.float32)
    scale: NDArray[np.float32] | None = None
    if rows.scale is not None:
        table = np.ascontiguousarray(table.transpose(0, 2, 1))  # (nb, 128, D) -> (nb, D, 128)
        scale = np.ones((len(table), BLOCK_ITEMS), dtype=np.float32)
        scale.reshape(-1)[:count] = rows.scale
        # What the scan makes of a zero vector, negated: in float32 as there, so that the two add up to zero.
        bias = -(USER_ZERO_POINT * padded.sum(axis=1, dtype=np.int32)).astype(np.float32) * scale.reshape(-1)
    bias[count:] = -np.inf
    if is_offered is not None:
        bias[:count][~is_offered] = -np.inf
    return ItemTable(table, scale, bias.reshape(-1, BLOCK_ITEMS), *_beside(count, prior, features))


def _padded(count: int) -> int:
    return -(-count // BLOCK_ITEMS) * BLOCK_ITEMS


def _beside(
    count: int, prior: NDArray[np.float32] | None, features: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """Return the prior (nb, 128), None where it is zero, and the features (2, Np), both with pad rows."""
    padded_prior = padded_features = None
    if prior is not None and prior.any():
        padded_prior = np.zeros((_padded(count) // BLOCK_ITEMS, BLOCK_ITEMS), dtype=np.float32)
        padded_prior.reshape(-1)[:count] = prior
    if features is not None:
        padded_features = np.zeros((features.shape[1], _padded(count)), dtype=np.float32)
        padded_features[:, :count] = features.T
    return padded_prior, padded_features


def pack_items(items: ItemTable) -> tuple[bytes, dict[str, Section]]:
    """Return the bytes of items.bin and its sections, each at a multiple of 64 KiB so that a host can map it."""
    packed = bytearray()
    sections = {}
    for name, array in vars(items).items():
        if array is None:
            continue
        packed.extend(bytes(-len(packed) % SECTION_ALIGNMENT))
        raw = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
        sections[name] = Section(len(packed), len(raw))
        packed.extend(raw)
    return bytes(packed), sections
