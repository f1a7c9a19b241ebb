"""The catalogue of catalog.bin: what the app shows of an item, and the category column, read in place.

Layout (docs/bundle-format.md): magic, N, C, category[N], offsets[N + C + 1], text.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from xrec_sdk.errors import BundleDamaged, DataError
from xrec_sdk.idtable import MAX_ITEMS, Buffer, check_offsets, numbers

MAGIC = b"XRECCAT1"
MAX_CATEGORIES = 1_000_000
_CODE = "bundle.catalog_malformed"
_HEADER = struct.Struct("<8sII")
_decode = json.JSONDecoder().raw_decode  # a third of what json.loads takes for a small object


def pack_catalog(entries: Sequence[Mapping[str, object]], categories: Sequence[str | None]) -> bytes:
    """Return the bytes of catalog.bin; entries and categories in row order, category codes by name, ascending."""
    if len(entries) != len(categories) or not 1 <= len(entries) <= MAX_ITEMS:
        raise DataError(
            "data.catalog", f"{len(entries)} entries and {len(categories)} categories; expected one of each"
        )
    names = sorted({name for name in categories if name is not None})
    code_of = {name: code for code, name in enumerate(names)}
    column = np.asarray([-1 if name is None else code_of[name] for name in categories], dtype="<i4")
    try:
        texts = [
            json.dumps(dict(entry), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
            for entry in entries
        ]
        texts += [name.encode("utf-8") for name in names]
    except (TypeError, ValueError) as cause:
        raise DataError("data.catalog", f"an entry of the catalogue is not JSON: {cause}") from cause
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    if offsets[-1] > 0xFFFFFFFF:
        raise DataError("data.catalog", "the catalogue is longer than 4 GiB")
    header = _HEADER.pack(MAGIC, len(entries), len(names))
    return b"".join([header, column.tobytes(), offsets.astype("<u4").tobytes(), *texts])


class Catalog:
    """The catalogue of a bundle; ``category`` is int32 [N], a position in ``category_names`` or -1 for none."""

    category: NDArray[np.int32]
    category_names: tuple[str, ...]

    def __init__(self, buffer: Buffer) -> None:
        view = memoryview(buffer)
        if len(view) < _HEADER.size:
            raise BundleDamaged(_CODE, f"catalog.bin has {len(view)} bytes, less than its header")
        magic, count, category_count = _HEADER.unpack_from(view)
        if magic != MAGIC:
            raise BundleDamaged(_CODE, "catalog.bin does not begin with XRECCAT1")
        if not 1 <= count <= MAX_ITEMS or category_count > MAX_CATEGORIES:
            raise BundleDamaged(_CODE, f"catalog.bin says {count} items in {category_count} categories")
        offsets_at = _HEADER.size + 4 * count
        text_at = offsets_at + 4 * (count + category_count + 1)
        if len(view) < text_at:
            raise BundleDamaged(_CODE, f"catalog.bin has {len(view)} bytes, expected at least {text_at}")
        self.category = np.frombuffer(view, "<i4", count, _HEADER.size)
        offsets: NDArray[np.uint32] = np.frombuffer(view, "<u4", count + category_count + 1, offsets_at)
        self._text = view[text_at:]
        check_offsets(offsets, np.frombuffer(self._text, np.uint8), _CODE, "catalog.bin")
        if int(self.category.min()) < -1 or int(self.category.max()) >= category_count:
            raise BundleDamaged(_CODE, "catalog.bin holds a category that has no name")
        self._offsets = numbers(offsets)
        self._count = int(count)
        self.category_names = tuple(self._string(count + code) for code in range(category_count))

    def __len__(self) -> int:
        return self._count

    def entry(self, row: int) -> dict[str, object]:
        """Return the entry of a row; raise IndexError outside 0 to N - 1 and BundleDamaged where it isn't an object."""
        if not 0 <= row < self._count:
            raise IndexError(f"row {row} of {self._count}")
        try:
            text = self._string(row)
            entry, end = _decode(text)
            if end != len(text):
                entry = json.loads(text)
        except (ValueError, RecursionError) as cause:
            raise BundleDamaged(_CODE, f"the entry of row {row} is not JSON") from cause
        if not isinstance(entry, dict):
            raise BundleDamaged(_CODE, f"the entry of row {row} is not a JSON object")
        return entry

    def category_name(self, row: int) -> str | None:
        """Return the name of a row's category, or None."""
        code = int(self.category[row])
        return None if code < 0 else self.category_names[code]

    def _string(self, position: int) -> str:
        return str(self._text[self._offsets[position] : self._offsets[position + 1]], "utf-8")
