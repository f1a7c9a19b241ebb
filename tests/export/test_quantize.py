"""The int8 table is what training's fake quantization saw, in blocks of 128."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from xrec_export.quantize import ItemTable, block_rows, pack_items, rows_of_blocks, store_rows
from xrec_sdk.manifest import BLOCK_ITEMS, SECTION_ALIGNMENT


def blocks_of(rows: np.ndarray) -> ItemTable:
    return block_rows(store_rows("int8", rows))


def test_the_table_is_what_training_saw() -> None:
    from xrec_trainer.model import fake_quantize

    rows = np.random.default_rng(0).normal(size=(300, 24)).astype(np.float32)
    rows[5] = 0
    trained = fake_quantize(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(store_rows("int8", rows).vectors(), trained, rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 127, 128, 129, 300])
def test_a_row_lies_in_a_lane_of_its_block(count: int) -> None:
    rows = np.random.default_rng(count).normal(size=(count, 8)).astype(np.float32)
    items = blocks_of(rows)
    assert items.table.shape == (-(-count // BLOCK_ITEMS), 8, BLOCK_ITEMS)
    row = count - 1
    values = (
        items.table[row // BLOCK_ITEMS, :, row % BLOCK_ITEMS].astype(np.float32)
        * items.scale[row // BLOCK_ITEMS, row % BLOCK_ITEMS]
    )
    np.testing.assert_allclose(values, rows[row], atol=np.abs(rows[row]).max() / 254 * 1.001)


@pytest.mark.parametrize("table_format", ["int8", "fp16", "fp32"])
def test_rows_come_out_of_their_blocks_as_they_were_stored(table_format: str) -> None:
    random = np.random.default_rng(2)
    stored, others = (
        store_rows(table_format, random.normal(size=(count, 24)).astype(np.float32)) for count in (300, 2)
    )
    items = block_rows(stored)
    read = rows_of_blocks(items.table, items.scale, 300)
    np.testing.assert_array_equal(read.vectors(), stored.vectors())
    replaced = read.replaced(np.array([7, 299]), others).vectors()
    np.testing.assert_array_equal(replaced[[7, 299]], others.vectors())
    np.testing.assert_array_equal(np.delete(replaced, [7, 299], axis=0), np.delete(stored.vectors(), [7, 299], axis=0))


def test_pad_and_zero_rows_are_zero() -> None:
    items = blocks_of(np.zeros((130, 8), dtype=np.float32))
    assert not items.table.any()
    np.testing.assert_array_equal(items.bias.reshape(-1), [0.0] * 130 + [-np.inf] * 126)
    assert (items.scale == 1).all()


def test_sections_are_aligned_and_hold_the_arrays() -> None:
    items = blocks_of(np.random.default_rng(1).normal(size=(300, 24)).astype(np.float32))
    packed, sections = pack_items(items)
    for name, array in (("table", items.table), ("scale", items.scale), ("bias", items.bias)):
        section = sections[name]
        assert section.offset % SECTION_ALIGNMENT == 0
        assert packed[section.offset : section.offset + section.bytes] == array.tobytes()
    sums = items.table.astype(np.int32).sum(axis=1)
    np.testing.assert_array_equal(
        items.bias.reshape(-1)[:300], (-64 * sums * items.scale).reshape(-1)[:300].astype(np.float32)
    )
