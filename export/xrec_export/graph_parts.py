"""Write a small ONNX graph line by line: constants, nodes, and tensors that lie in items.bin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from xrec_sdk.manifest import Section

OPSET = 21
IR_VERSION = 10
ITEMS_FILE = "items.bin"


class Graph:
    """Collects nodes and constants; ``add`` returns the name of the node's first output."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], str] = {}

    def add(self, operator: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """Append a node with one output."""
        name = out or f"{self.prefix}{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def top(self, values: str, count: str, *, largest: bool, axis: int = -1) -> tuple[str, str]:
        """Append a TopK, sorted, and return the names of its values and indices; equal values come by lower index."""
        name = f"{self.prefix}topk_{len(self.nodes)}"
        outputs = [f"{name}_values", f"{name}_indices"]
        node = helper.make_node("TopK", [values, count], outputs, name=name, axis=axis, largest=int(largest), sorted=1)
        self.nodes.append(node)
        return outputs[0], outputs[1]

    def split(self, values: str, sizes: str, count: int) -> list[str]:
        """Append a Split along the first axis into ``count`` parts and return their names."""
        name = f"{self.prefix}split_{len(self.nodes)}"
        parts = [f"{name}_{place}" for place in range(count)]
        self.nodes.append(helper.make_node("Split", [values, sizes], parts, name=name, axis=0))
        return parts

    def constant(self, value: Any, dtype: Any) -> str:
        """Return the name of a constant; equal constants are stored once."""
        array = np.asarray(value, dtype=dtype)
        key = (array.dtype.str, array.tobytes(), array.shape)
        if key not in self._constants:
            name = f"{self.prefix}constant_{len(self._constants)}"
            self._constants[key] = name
            self.initializers.append(numpy_helper.from_array(array, name))
        return self._constants[key]

    def external(self, name: str, array: NDArray[Any], section: Section) -> str:
        """Declare an initializer whose bytes lie in items.bin."""
        tensor = TensorProto()
        tensor.name = name
        tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor.dims.extend(array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", ITEMS_FILE), ("offset", section.offset), ("length", section.bytes)):
            tensor.external_data.add(key=key, value=str(value))
        self.initializers.append(tensor)
        return name


def flatten(graph: Graph, tensor: str, positive: str) -> str:
    """Return a flat view of a big constant tensor; ``positive`` names any int64 (1,) of at least 1 known at run time.

    The shape is min(positive, -1), always -1, so that no runtime folds the Reshape into a second copy of the tensor.
    """
    return graph.add("Reshape", tensor, graph.add("Min", positive, graph.constant([-1], np.int64)))


def gather_elements(graph: Graph, table: str, index: str) -> str:
    """Return the elements of a flat table at an index of any shape, flat.

    GatherElements copies numbers; Gather, made for whole rows, takes three times as long for single ones.
    """
    return graph.add("GatherElements", table, graph.add("Reshape", index, graph.constant([-1], np.int64)), axis=0)


def make_model(graph: Graph, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> onnx.ModelProto:
    """Return the model of a finished graph, in the opset and IR version of bundle format 1."""
    proto = helper.make_graph(graph.nodes, name, list(inputs), list(outputs), graph.initializers)
    model = helper.make_model(
        proto,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="xrec",
    )
    return model


def operators(*models: onnx.ModelProto) -> list[str]:
    """Return the sorted names of all operators; a node outside the standard domain is an error of the exporter."""
    names = set()
    for model in models:
        if model.functions or {entry.domain for entry in model.opset_import} != {""}:
            raise ValueError(f"{model.graph.name} needs more than the standard operators: {model.opset_import}")
        for node in model.graph.node:
            if node.domain:
                raise ValueError(f"{model.graph.name} has the operator {node.domain}.{node.op_type}")
            names.add(node.op_type)
    return sorted(names)
