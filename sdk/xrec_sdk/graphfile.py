"""Look into an ONNX file before onnxruntime does: standard operators that the manifest names, no file but items.bin.

An ONNX file may name libraries' own operators and read any file as a tensor; onnxruntime refuses some of that in some
versions. This reads just enough of the protobuf (https://onnx.ai/onnx/repo-docs/IR.html) to refuse it in all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from xrec_sdk.errors import BundleDamaged

ITEMS_FILE = b"items.bin"
DOMAINS = (b"", b"ai.onnx")
MAX_DEPTH = 8
# Numbers of the fields that are looked into, by message, as onnx.proto has them.
GRAPH, _OPSETS, _TRAINING, _FUNCTIONS = 7, 8, 20, 25
NODES, INITIALIZERS, _SPARSE_INITIALIZERS = 1, 5, 15
_ATTRIBUTES, OP_TYPE, _DOMAIN = 5, 4, 7
_TENSOR, _SUBGRAPH, _TENSORS, _SUBGRAPHS, _SPARSE, _SPARSES = 5, 6, 10, 11, 22, 23
EXTERNAL = 13


def check_graph(content: bytes, name: str, operators: Collection[str]) -> None:
    """Raise BundleDamaged ``bundle.graph_malformed`` where a graph asks for more than the manifest's operators."""
    try:
        _check_model(memoryview(content), {operator.encode() for operator in operators})
    except (ValueError, IndexError) as cause:
        raise BundleDamaged("bundle.graph_malformed", f"{name}: {cause}") from cause


def _check_model(model: memoryview, operators: Collection[bytes]) -> None:
    for number, value in fields_of(model):
        if number == GRAPH:
            _check_graph(value, operators, 0)
        elif number == _OPSETS:
            for inner, domain in fields_of(value):
                if inner == 1 and bytes(domain) not in DOMAINS:
                    raise ValueError(f"it imports operators of {bytes(domain)[:40]!r}")
        elif number in (_TRAINING, _FUNCTIONS):
            raise ValueError("it holds functions or training steps of its own")


def _check_graph(graph: memoryview, operators: Collection[bytes], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("its graphs lie too deep in each other")
    for number, value in fields_of(graph):
        if number == NODES:
            _check_node(value, operators, depth)
        elif number == INITIALIZERS:
            _check_tensor(value)
        elif number == _SPARSE_INITIALIZERS:
            raise ValueError("it holds sparse tensors")


def _check_node(node: memoryview, operators: Collection[bytes], depth: int) -> None:
    for number, value in fields_of(node):
        if number == OP_TYPE and bytes(value) not in operators:
            raise ValueError(f"it has the operator {bytes(value)[:40]!r}, which the manifest does not name")
        if number == _DOMAIN and bytes(value) not in DOMAINS:
            raise ValueError(f"it has an operator of {bytes(value)[:40]!r}")
        if number == _ATTRIBUTES:
            for inner, part in fields_of(value):
                if inner in (_SUBGRAPH, _SUBGRAPHS):
                    _check_graph(part, operators, depth + 1)
                elif inner in (_TENSOR, _TENSORS):
                    _check_tensor(part)
                elif inner in (_SPARSE, _SPARSES):
                    raise ValueError("it holds sparse tensors")


def _check_tensor(tensor: memoryview) -> None:
    for number, entry in fields_of(tensor):
        if number == EXTERNAL:
            said = {inner: bytes(text) for inner, text in fields_of(entry)}
            if said.get(1) == b"location" and said.get(2) != ITEMS_FILE:
                raise ValueError(f"it reads the file {said.get(2, b'')[:80]!r}, expected items.bin")


def fields_of(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and bytes of each field of a message; one that has no bytes of its own is passed over."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 2:
            size, at = _varint(message, at)
            if at + size > end:
                raise ValueError("it is cut")
            yield key >> 3, message[at : at + size]
            at += size
        elif kind == 0:
            _, at = _varint(message, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("it is no ONNX file")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("it is no ONNX file")
