"""Read an item table in scorer.onnx: score every row, and fetch the vectors of a few; for each way that it is stored.

An int8 table is scanned with the user vector in 7 bits, one of floats as it is.
"""

# D width, nb blocks of 128 items, Np = 128 nb, M candidates

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from onnx import TensorProto
from xrec_sdk.manifest import BLOCK_ITEMS, Section

from xrec_export.graph_parts import Graph, flatten, gather_elements
from xrec_export.quantize import USER_ZERO_POINT, ItemTable

USER_LEVELS = 63
SMALLEST_USER = 1e-25


class StoredItems(Protocol):
    """The item table as a graph reads it."""

    def scan(self, *, has_prior: bool) -> str:
        """Score every row, (nb, 128), with the prior and the biases of the call, in whatever units order them."""

    def vectors(self, rows: str, block: str, lane: str) -> str:
        """Return the float32 vectors, (D, M), of rows that are at these blocks and lanes, (M,) each."""


def stored_items(graph: Graph, items: ItemTable, sections: dict[str, Section], positive: str) -> StoredItems:
    """Declare the table in items.bin and return how to read it; ``positive`` is as for :func:`flatten`."""
    table = graph.external("item_table", items.table, sections["table"])
    if items.scale is None:
        return _Floats(graph, table, is_half=items.table.dtype == np.float16)
    scale = flatten(graph, graph.external("item_scale", items.scale, sections["scale"]), positive)  # (Np,)
    return _Int8(graph, table, scale, items.width, positive)


class _Int8:
    def __init__(self, graph: Graph, table: str, scale: str, width: int, positive: str) -> None:
        self._graph = graph
        self._table = table
        self._scale = scale
        self._width = width
        self._positive = positive

    def scan(self, *, has_prior: bool) -> str:
        """Score with the user vector in 7 bits, in units of its scale.

        Few passes over Np numbers, two more for a prior: ``item_bias`` takes the zero point away and forbids at once,
        and the few biases of the call are divided by that scale instead of multiplying every score by it.
        """
        graph, user_scale = self._graph, self._user_scale()
        quantized = graph.add("QuantizeLinear", "user", user_scale, graph.constant(USER_ZERO_POINT, np.uint8))
        products = graph.add("MatMulInteger", quantized, self._table)  # (1, D) x (nb, D, 128) -> (nb, 1, 128)
        products = graph.add("Reshape", products, graph.constant([-1], np.int64))
        scores = graph.add("Mul", graph.add("Cast", products, to=TensorProto.FLOAT), self._scale)
        return _biased(graph, scores, lambda name: graph.add("Div", name, user_scale), has_prior=has_prior)

    def _user_scale(self) -> str:
        """Return what one of the 63 levels of the user vector stands for, a scalar."""
        graph = self._graph
        size = graph.add("ReduceMax", graph.add("Abs", "user"), keepdims=0)
        size = graph.add("Max", size, graph.constant(SMALLEST_USER, np.float32))  # no zero vector divides by zero
        return graph.add("Div", size, graph.constant(USER_LEVELS, np.float32))

    def vectors(self, rows: str, block: str, lane: str) -> str:
        """Return the vectors, gathered from the flat table: one element is found faster by one index than by three.

        A row is gathered whole before the next, near each other in memory, and the rows are then transposed for the
        sum.
        """
        graph, width = self._graph, self._width
        scale = graph.add("Gather", self._scale, rows, axis=0)
        table = flatten(graph, self._table, self._positive)
        first = graph.add("Add", graph.add("Mul", block, graph.constant(width * BLOCK_ITEMS, np.int64)), lane)
        first = graph.add("Unsqueeze", first, graph.constant([1], np.int64))
        index = graph.add("Add", first, graph.constant(np.arange(width) * BLOCK_ITEMS, np.int64))  # (M, D)
        elements = graph.add("Reshape", gather_elements(graph, table, index), graph.constant([-1, width], np.int64))
        quantized = graph.add("Transpose", elements, perm=[1, 0])  # (D, M)
        return graph.add("Mul", graph.add("Cast", quantized, to=TensorProto.FLOAT), scale)


class _Floats:
    def __init__(self, graph: Graph, table: str, *, is_half: bool) -> None:
        self._graph = graph
        self._table = graph.add("Cast", table, to=TensorProto.FLOAT) if is_half else table

    def scan(self, *, has_prior: bool) -> str:
        """Score in float32."""
        graph = self._graph
        user = graph.add("Transpose", "user", perm=[1, 0])
        products = graph.add("MatMul", self._table, user)  # (nb, 128, D) x (D, 1) -> (nb, 128, 1)
        scores = graph.add("Reshape", products, graph.constant([-1], np.int64))
        return _biased(graph, scores, lambda name: name, has_prior=has_prior)

    def vectors(self, rows: str, block: str, lane: str) -> str:
        """Return the vectors, each gathered as it lies."""
        graph, last = self._graph, self._graph.constant([1], np.int64)
        places = graph.add("Concat", graph.add("Unsqueeze", block, last), graph.add("Unsqueeze", lane, last), axis=1)
        return graph.add("Transpose", graph.add("GatherND", self._table, places), perm=[1, 0])  # (M, D) -> (D, M)


def _biased(graph: Graph, scores: str, in_units: Callable[[str], str], *, has_prior: bool) -> str:
    """Return scores (Np,) with item bias, prior and biases, (nb, 128); ``in_units`` turns the latter into theirs."""
    scores = graph.add("Add", scores, "item_bias")
    if has_prior:
        scores = graph.add("Add", scores, in_units("item_prior"))
    values = in_units("bias_values")
    scores = graph.add("ScatterElements", scores, "bias_rows", values, axis=0, reduction="add")
    return graph.add("Reshape", scores, graph.constant([-1, BLOCK_ITEMS], np.int64))
