"""A small signed bundle made by hand: its encoder is a weighted mean of item rows, its scorer one plain product."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper
from xrec_sdk.catalog import pack_catalog
from xrec_sdk.history import RepeatRule, Vocabulary
from xrec_sdk.idtable import pack_ids
from xrec_sdk.manifest import FileRecord, ItemSections, Manifest, Section, section_sizes, to_bytes
from xrec_sdk.recommender import Recommender
from xrec_sdk.signature import generate_key, sign

ITEMS, WIDTH, SEED = 300, 8, 11
VOCABULARY = Vocabulary(("view", "purchase"), ("phone", "pc"), (60_000, 3_600_000), max_history=6)
NOW_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Handmade:
    """A bundle's folder and what it was made of."""

    folder: Path
    key: str
    private_pem: bytes
    vectors: NDArray[np.float32]
    """The first ITEMS rows, dequantized, (ITEMS, D)."""

    def resign(self, **changes: Any) -> None:
        """Write the manifest again with the hashes of the files as they are now."""
        write_manifest(self.folder, self.private_pem, **changes)


def write_manifest(folder: Path, private_pem: bytes, **changes: Any) -> None:
    item_count, width = changes.get("item_count", ITEMS), changes.get("width", WIDTH)
    sizes, offset, sections = section_sizes(item_count, width), 0, {}
    for name, size in sizes.items():
        sections[name] = Section(offset, size)
        offset += -(-size // 65_536) * 65_536
    files = {
        path.name: FileRecord(hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        for path in folder.iterdir()
        if not path.name.startswith("manifest.")
    }
    manifest = Manifest(
        name="handmade",
        release=3,
        created_at="2026-01-01T00:00:00Z",
        item_count=ITEMS,
        width=WIDTH,
        opset=21,
        ir_version=10,
        operators=operators_of(folder),
        vocabulary=VOCABULARY,
        seen_events=("purchase",),
        filter_seen=True,
        repeat=RepeatRule(2.0, 86_400_000, ("purchase",)),
        items=ItemSections(**sections),
        files=files,
    )
    written = to_bytes(replace(manifest, **changes))
    (folder / "manifest.json").write_bytes(written)
    (folder / "manifest.sig").write_bytes(sign(written, private_pem))


def operators_of(folder: Path) -> tuple[str, ...]:
    """Return the operators of the graphs that can be read."""
    names = set()
    for name in ("encoder.onnx", "scorer.onnx"):
        with suppress(DecodeError):
            names |= {node.op_type for node in onnx.load_model_from_string((folder / name).read_bytes()).graph.node}
    return tuple(sorted(names))


def external(name: str, array: NDArray[Any], offset: int) -> TensorProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "items.bin", "offset": str(offset), "length": str(array.nbytes)}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def constant(name: str, values: Any, dtype: Any = np.int64) -> TensorProto:
    return onnx.numpy_helper.from_array(np.asarray(values, dtype=dtype), name)


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], tensors: list[TensorProto]) -> bytes:
    graph = helper.make_graph(nodes, "handmade", inputs, outputs, tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return made.SerializeToString()


def encoder_bytes(width: int = WIDTH) -> bytes:
    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Cast", ["events"], ["weight"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["weight", "last"], ["weights"]),
        node("Mul", ["vectors", "weights"], ["weighted"]),
        node("ReduceMean", ["weighted", "one"], ["user"], keepdims=0),
    ]
    inputs = [value("vectors", TensorProto.FLOAT, ["B", "L", width])]
    inputs += [value(name, TensorProto.INT32, ["B", "L"]) for name in ("events", "devices", "gaps")]
    numbers = [constant("last", [-1]), constant("one", [1])]
    return model(nodes, inputs, [value("user", TensorProto.FLOAT, ["B", width])], numbers)


def scorer_bytes(tensors: list[TensorProto], width: int = WIDTH) -> bytes:
    node, value = helper.make_node, helper.make_tensor_value_info
    # The blocks are gathered by a range that is only known at run time, so that no constant folds.
    nodes = [
        node("Shape", ["item_bias"], ["padded"]),
        node("Squeeze", ["padded"], ["rows"]),
        node("Div", ["rows", "lanes"], ["count"]),
        node("Range", ["zero", "count", "step"], ["places"]),
        node("Gather", ["item_table", "places"], ["blocks"]),
        node("Cast", ["blocks"], ["wide"], to=TensorProto.FLOAT),
        node("MatMul", ["user", "wide"], ["raw"]),
        node("Squeeze", ["raw", "one"], ["products"]),
        node("Mul", ["products", "item_scale"], ["scaled"]),
        node("Reshape", ["scaled", "all"], ["scores"]),
        node("ScatterElements", ["item_bias", "bias_rows", "bias_values"], ["bias"], axis=0, reduction="add"),
        node("Add", ["scores", "item_prior"], ["with_prior"]),
        node("Add", ["with_prior", "bias"], ["total"]),
        node("Cast", ["k"], ["k64"], to=TensorProto.INT64),
        node("TopK", ["total", "k64"], ["top_scores", "indices"]),
        node("Cast", ["indices"], ["top_rows"], to=TensorProto.INT32),
    ]
    inputs = [
        value("user", TensorProto.FLOAT, [1, width]),
        value("item_bias", TensorProto.FLOAT, ["P"]),
        value("item_prior", TensorProto.FLOAT, ["P"]),
        value("bias_rows", TensorProto.INT32, ["E"]),
        value("bias_values", TensorProto.FLOAT, ["E"]),
        value("k", TensorProto.INT32, [1]),
    ]
    outputs = [value("top_rows", TensorProto.INT32, ["k"]), value("top_scores", TensorProto.FLOAT, ["k"])]
    numbers = [constant("lanes", 128), constant("zero", 0), constant("step", 1), constant("all", [-1])]
    return model(nodes, inputs, outputs, [*tensors, *numbers, constant("one", [1])])


def golden_cases(vectors: NDArray[np.float32]) -> dict[str, Any]:
    rows, events = [3, 7, 250], [1, 2, 1]
    user = (vectors[rows] * np.asarray(events, np.float32)[:, None]).mean(axis=0)
    scores = vectors @ user
    top = np.lexsort((np.arange(ITEMS), -scores))[:5]
    case = {"rows": rows, "events": events, "devices": [1, 2, 0], "gaps": [0, 1, 3], "k": 5}
    return {
        "tolerance": 1e-4,
        "cases": [
            {**case, "bias_rows": [], "bias_values": [], "top_rows": top.tolist(), "top_scores": scores[top].tolist()},
            {**{name: [] for name in case}, "k": 2, "top_rows": [0, 1], "top_scores": [0.0, 0.0]},
        ],
    }


def padded(section: bytes) -> bytes:
    return section.ljust(-(-len(section) // 65_536) * 65_536, b"\0")


def make_bundle(folder: Path, item_count: int = ITEMS, width: int = WIDTH) -> Handmade:
    random, blocks = np.random.default_rng(SEED), -(-item_count // 128)
    table = random.integers(-127, 128, (blocks, width, 128), dtype=np.int8)
    scale = random.uniform(0.005, 0.01, (blocks, 128)).astype(np.float32)
    bias = np.zeros((blocks, 128), dtype=np.float32)  # the handmade scorer has no zero point to take away
    bias.reshape(-1)[item_count:] = -np.inf
    prior = np.zeros((blocks, 128), dtype=np.float32)
    sections = [padded(table.tobytes()), padded(scale.tobytes()), padded(bias.tobytes()), prior.tobytes()]
    tensors = [external("item_table", table, 0), external("item_scale", scale, len(sections[0]))]
    vectors = (table[:3] * scale[:3, None, :]).transpose(0, 2, 1).reshape(-1, width)[:ITEMS]
    folder.mkdir(parents=True)
    (folder / "items.bin").write_bytes(b"".join(sections))
    (folder / "encoder.onnx").write_bytes(encoder_bytes(width))
    (folder / "scorer.onnx").write_bytes(scorer_bytes(tensors, width))
    (folder / "ids.bin").write_bytes(pack_ids([f"sku-{row}" for row in range(item_count)]))
    entries = [{"title": f"Thing {row}", "price": row} for row in range(item_count)]
    categories = [None if row % 10 == 9 else f"group {row % 10}" for row in range(item_count)]
    (folder / "catalog.bin").write_bytes(pack_catalog(entries, categories))
    (folder / "conformance.json").write_text(json.dumps(golden_cases(vectors)))
    (folder / "card.md").write_text("# Handmade\n")
    private_pem, key = generate_key()
    write_manifest(folder, private_pem, item_count=item_count, width=width)
    return Handmade(folder, key, private_pem, vectors)


@pytest.fixture(scope="session")
def shared_bundle(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    """Return a bundle that no test may change."""
    return make_bundle(tmp_path_factory.mktemp("shared") / "handmade.xrec")


@pytest.fixture
def wide_bundle(tmp_path: Path) -> Handmade:
    """Return a bundle of few items whose table is large, 52 MB."""
    return make_bundle(tmp_path / "wide.xrec", item_count=12_800, width=4096)


@pytest.fixture
def own_bundle(tmp_path: Path) -> Handmade:
    """Return a bundle that the test may change."""
    return make_bundle(tmp_path / "handmade.xrec")


@pytest.fixture
def recommender(shared_bundle: Handmade) -> Iterator[Recommender]:
    """Return a Recommender with an empty profile in memory and a clock that stands at NOW_MS."""
    with Recommender(shared_bundle.folder, trusted_keys=[shared_bundle.key], clock_ms=lambda: NOW_MS) as made:
        made.set_consent("personalise", True)
        yield made


@pytest.fixture
def code_of() -> Callable[[pytest.ExceptionInfo[Any]], str]:
    """Return the reader of an error's code."""
    return lambda caught: caught.value.code
