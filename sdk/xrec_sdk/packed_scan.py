"""Make the scorer scan a packed copy of the item table: for CPUs with AMX, where onnxruntime is slow without one.

There onnxruntime (seen with 1.32) has no product of a single vector with an int8 table: it packs the whole table anew
for every answer, which takes several times as long as the product. It keeps a packed copy itself where the table is
one constant matrix. The products are the same integers either way, so that every score stays what it was.
"""

# D width, nb blocks of 128 items, Np = 128 nb

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from xrec_sdk.graphfile import EXTERNAL, GRAPH, INITIALIZERS, ITEMS_FILE, NODES, OP_TYPE, fields_of

SCAN_TABLE = "scan_table"
"""As long as ``item_table``, so that the change of a node's input changes no size."""
_INT8, _IS_EXTERNAL = 3, 1


def packs_anew() -> bool:
    """Return whether this CPU has AMX, as far as NumPy tells: of the CPUs that it knows, Sapphire Rapids and later.

    NumPy asks the CPU itself, an emulated one too. A NumPy that keeps its answer elsewhere says nothing: the table is
    then scanned as it lies.
    """
    try:
        from numpy._core._multiarray_umath import __cpu_features__  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return False
    return bool(__cpu_features__.get("AVX512_SPR", False))


def packed_scorer(scorer: bytes, table: NDArray[np.int8]) -> tuple[bytes, NDArray[np.int8]] | None:
    """Return a scorer that reads ``scan_table`` where it scans, and that table: (nb, D, 128) as a matrix (D, Np).

    None where the graph has no integer product with the item table. Only the scan is changed: what is gathered from the
    item table still is.
    """
    table_input, scan_input = _field(1, b"item_table"), _field(1, SCAN_TABLE.encode())
    nodes = [bytes(node) for node in _parts(scorer, NODES) if _operator(node) == b"MatMulInteger"]
    if len(nodes) != 1 or nodes[0].count(table_input) != 1 or scorer.count(nodes[0]) != 1:
        return None
    matrix = np.ascontiguousarray(table.transpose(1, 0, 2).reshape(table.shape[1], -1))
    renamed = scorer.replace(nodes[0], nodes[0].replace(table_input, scan_input))
    # A second graph in the file is merged with the first: one more initializer (protobuf's encoding, "Last One Wins").
    return renamed + _field(GRAPH, _field(INITIALIZERS, _declaration(matrix.shape))), matrix


def _parts(model: bytes, kind: int) -> Iterable[memoryview]:
    graphs = (value for number, value in fields_of(memoryview(model)) if number == GRAPH)
    return (value for graph in graphs for number, value in fields_of(graph) if number == kind)


def _operator(node: memoryview) -> bytes:
    return next((bytes(value) for number, value in fields_of(node) if number == OP_TYPE), b"")


def _declaration(shape: tuple[int, ...]) -> bytes:
    """Return a TensorProto without data, which is handed in as the item table is."""
    location = _field(EXTERNAL, _field(1, b"location") + _field(2, ITEMS_FILE))
    dims = b"".join(_number(1, size) for size in shape)
    return dims + _number(2, _INT8) + _field(8, SCAN_TABLE.encode()) + location + _number(14, _IS_EXTERNAL)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
