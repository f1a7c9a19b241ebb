"""The table of ids.bin: row to external id and back, read in place without parsing.

Layout (docs/bundle-format.md): magic, N, S, offsets[N + 1], slots[S], text; S slots of an open-addressing hash.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from xrec_sdk.errors import BundleDamaged, DataError

Buffer: TypeAlias = "bytes | bytearray | memoryview"

MAGIC = b"XRECIDS1"
MAX_ITEMS = 10_000_000
MAX_ID_BYTES = 512
_HEADER = struct.Struct("<8sII")


def pack_ids(ids: Sequence[str]) -> bytes:
    """Return the bytes of ids.bin for ``ids`` in row order; raise DataError for an empty, long or repeated id."""
    texts = [item_id.encode("utf-8") for item_id in ids]
    if not 1 <= len(texts) <= MAX_ITEMS:
        raise DataError("data.item_count", f"{len(texts)} items; a bundle holds 1 to {MAX_ITEMS}")
    for row, text in enumerate(texts):
        if not 1 <= len(text) <= MAX_ID_BYTES:
            raise DataError(
                "data.item_id", f"the id of row {row} has {len(text)} bytes; 1 to {MAX_ID_BYTES} are allowed"
            )
    if len(set(texts)) != len(texts):
        raise DataError("data.item_id", "an item id occurs twice; ids must be distinct")
    slot_count = 1 << (2 * len(texts) - 1).bit_length()
    slots = [0] * slot_count
    for row, text in enumerate(texts):
        slot = zlib.crc32(text) & (slot_count - 1)
        while slots[slot]:
            slot = (slot + 1) & (slot_count - 1)
        slots[slot] = row + 1
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    if offsets[-1] > 0xFFFFFFFF:
        raise DataError("data.item_id", "the ids together are longer than 4 GiB")
    header = _HEADER.pack(MAGIC, len(texts), slot_count)
    return b"".join([header, offsets.astype("<u4").tobytes(), np.asarray(slots, "<u4").tobytes(), *texts])


def check_offsets(offsets: NDArray[np.uint32], text: NDArray[np.uint8], code: str, name: str) -> None:
    """Raise BundleDamaged unless the offsets begin at 0, never fall, end with the text and cut between characters."""
    if int(offsets[0]) != 0 or int(offsets[-1]) != len(text) or bool((offsets[1:] < offsets[:-1]).any()):
        raise BundleDamaged(code, f"the text offsets of {name} do not fit its {len(text)} bytes of text")
    inner = offsets[offsets < len(text)]
    if bool(((text[inner] & 0xC0) == 0x80).any()):
        raise BundleDamaged(code, f"a text offset of {name} falls inside a character")
    try:
        str(text.data, "utf-8")
    except UnicodeDecodeError as cause:
        raise BundleDamaged(code, f"the text of {name} is not UTF-8") from cause


def numbers(array: NDArray[np.uint32]) -> memoryview:
    """Return the array as plain numbers of Python, one at a time: they take a third of what NumPy's take to read."""
    return array.astype(np.uint32, copy=False).data  # of the machine's byte order, which alone a memoryview reads


def _named(slots: NDArray[np.uint32], count: int) -> NDArray[np.bool_]:
    """Return for each of the ``count`` rows whether a slot names it."""
    is_named = np.zeros(count + 1, dtype=np.bool_)
    is_named[slots] = True
    return is_named[1:]


class IdTable:
    """The ids of a bundle, read in place from ids.bin; opening checks every offset and slot."""

    def __init__(self, buffer: Buffer) -> None:
        code = "bundle.ids_malformed"
        view = memoryview(buffer)
        if len(view) < _HEADER.size:
            raise BundleDamaged(code, f"ids.bin has {len(view)} bytes, less than its header")
        magic, count, slot_count = _HEADER.unpack_from(view)
        if magic != MAGIC:
            raise BundleDamaged(code, "ids.bin does not begin with XRECIDS1")
        if not 1 <= count <= MAX_ITEMS:
            raise BundleDamaged(code, f"ids.bin says {count} items; 1 to {MAX_ITEMS} are allowed")
        if slot_count & (slot_count - 1) or not 2 * count <= slot_count <= 8 * MAX_ITEMS:
            raise BundleDamaged(code, f"ids.bin says {slot_count} slots for {count} items")
        text_at = _HEADER.size + 4 * (count + 1) + 4 * slot_count
        if len(view) < text_at:
            raise BundleDamaged(code, f"ids.bin has {len(view)} bytes, expected at least {text_at}")
        offsets: NDArray[np.uint32] = np.frombuffer(view, "<u4", count + 1, _HEADER.size)
        slots: NDArray[np.uint32] = np.frombuffer(view, "<u4", slot_count, _HEADER.size + 4 * (count + 1))
        self._text = view[text_at:]
        check_offsets(offsets, np.frombuffer(self._text, np.uint8), code, "ids.bin")
        lengths = np.diff(offsets)
        if int(lengths.min()) < 1 or int(lengths.max()) > MAX_ID_BYTES:
            raise BundleDamaged(code, f"ids.bin holds an id that is not 1 to {MAX_ID_BYTES} bytes long")
        # As many as there are rows and every row among them: each once.
        if np.count_nonzero(slots) != count or int(slots.max()) > count or not _named(slots, count).all():
            raise BundleDamaged(code, "the slots of ids.bin do not name each row once")
        self._offsets = numbers(offsets)
        self._slots = numbers(slots)
        self._count = int(count)
        self._mask = int(slot_count) - 1

    def __len__(self) -> int:
        return self._count

    def row(self, item_id: str) -> int | None:
        """Return the row of an id, or None where the bundle does not know it."""
        try:
            wanted = item_id.encode("utf-8")
        except UnicodeEncodeError:
            return None
        slot = zlib.crc32(wanted) & self._mask
        # Opening proved that at least half the slots are empty, so that the walk ends.
        while entry := self._slots[slot]:
            if self._bytes(entry - 1) == wanted:
                return entry - 1
            slot = (slot + 1) & self._mask
        return None

    def rows(self, item_ids: Iterable[str]) -> NDArray[np.int32]:
        """Return the row of each id, -1 where the bundle does not know it."""
        found = (self.row(item_id) for item_id in item_ids)
        return np.fromiter((-1 if row is None else row for row in found), dtype=np.int32)

    def item_id(self, row: int) -> str:
        """Return the id of a row; raise IndexError outside 0 to N - 1."""
        if not 0 <= row < self._count:
            raise IndexError(f"row {row} of {self._count}")
        return str(self._bytes(row), "utf-8")

    def _bytes(self, row: int) -> memoryview:
        return self._text[self._offsets[row] : self._offsets[row + 1]]
