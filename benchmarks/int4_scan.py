"""What items of 4 bits would bring: the time of a scan by standard operators, and what is left of a run's lists.

    python benchmarks/int4_scan.py --items 100000          # microseconds of the product over all items, one thread
    python benchmarks/int4_scan.py --run run               # top-10 overlap and NDCG@10 against the float model

Two items share a byte, 16 a + b: one product gives 16 u.a + u.b, and to tell the two apart b must be cut out of each
byte first. docs/decisions/0010-no-int4.md says what follows.
"""

# N items, D width, nb blocks of 128 items

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from made_shop import K
from numpy.typing import NDArray
from onnx import TensorProto, helper
from plain_models import session
from turns import Way, in_bursts, machine
from xrec_export import reference
from xrec_export.from_run import load
from xrec_export.parity import ndcg

BLOCK = 128
RESCORED = 40


def product(name: str, table: NDArray[np.int8], *, unpacks: bool) -> Way:
    """Return the product of a user vector in 7 bits with a table (nb, D, lanes), and with its low halves cut out."""
    value, node = helper.make_tensor_value_info, helper.make_node
    nodes = [node("MatMulInteger", ["user", "table"], ["sums"])]
    feeds = {"user": np.full((1, table.shape[1]), 65, dtype=np.uint8), "table": table}
    inputs = [value("user", TensorProto.UINT8, [1, table.shape[1]]), value("table", TensorProto.INT8, table.shape)]
    if unpacks:
        nodes.append(node("BitwiseAnd", ["table", "mask"], ["low"]))
        nodes.append(node("MatMulInteger", ["user", "low"], ["low_sums"]))
        inputs.append(value("mask", TensorProto.INT8, []))
        feeds["mask"] = np.array(15, dtype=np.int8)
    outputs = [value(found.output[0], TensorProto.INT32, None) for found in nodes if found.op_type == "MatMulInteger"]
    graph = helper.make_graph(nodes, "product", inputs, outputs)
    opened = session(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString(), 1
    )
    return Way(name, lambda case: opened.run(None, feeds))


def unpack_dequantized(table: NDArray[np.int8]) -> Way:
    """Return the product with a table that ONNX's own int4 type holds, made float by DequantizeLinear."""
    value, node = helper.make_tensor_value_info, helper.make_node
    blocks, width, lanes = table.shape
    packed = helper.make_tensor("table", TensorProto.INT4, [blocks, width, 2 * lanes], table.tobytes(), raw=True)
    nodes = [node("DequantizeLinear", ["table", "scale"], ["rows"]), node("MatMul", ["user", "rows"], ["scores"])]
    inputs = [value("user", TensorProto.FLOAT, [1, width]), value("scale", TensorProto.FLOAT, [])]
    graph = helper.make_graph(nodes, "product", inputs, [value("scores", TensorProto.FLOAT, None)], [packed])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    opened = session(model.SerializeToString(), 1)
    feeds = {"user": np.ones((1, width), dtype=np.float32), "scale": np.array(0.1, dtype=np.float32)}
    return Way("int4 by DequantizeLinear", lambda case: opened.run(None, feeds))


def time_products(items: int, width: int, rounds: int) -> None:
    blocks, random = -(-items // BLOCK), np.random.default_rng(0)
    bytes_of = (
        random.integers(-127, 128, size=(blocks, width, lanes)).astype(np.int8) for lanes in (BLOCK, BLOCK // 2)
    )
    int8, packed = bytes_of
    ways = [
        product("int8, one product", int8, unpacks=False),
        product("two items a byte, one product: not the answer", packed, unpacks=False),
        product("two items a byte, told apart", packed, unpacks=True),
        unpack_dequantized(packed),
    ]
    print(f"machine: {machine()}\n{items:,} items x {width}, one thread, the product alone")
    for name, times in in_bursts(ways, [None], rounds).items():
        print(f"  {name:48} p50 {np.median(times):6.0f} us  least {min(times):6.0f} us")


def rounded(rows: NDArray[np.float32], levels: int, group: int) -> NDArray[np.float32]:
    """Return rows (N, D) rounded to -levels ... levels by the scale of least error for each ``group`` numbers."""
    parts = rows.reshape(len(rows), -1, group)
    largest = np.maximum(np.abs(parts).max(axis=-1, keepdims=True), np.float32(1e-20))
    best, least = parts, np.full(largest.shape, np.inf, dtype=np.float32)
    for share in np.linspace(0.5, 1, 26, dtype=np.float32):
        scale = largest * share / levels
        tried = np.clip(np.rint(parts / scale), -levels, levels) * scale
        error = np.square(tried - parts).sum(axis=-1, keepdims=True)
        best, least = np.where(error < least, tried, best), np.minimum(error, least)
    return best.reshape(rows.shape)


def compare_lists(run: Path, count: int) -> None:
    """Print what each way to store the items keeps of the float model's lists."""
    model, cases = load(run, count)
    table, width = model.item_table, model.item_table.shape[1]

    def lists(scanned: NDArray[np.float32], history: NDArray[np.float32], rescored: NDArray[np.float32] | None = None):  # type: ignore[no-untyped-def]
        for case in cases:
            user = reference.encode(model.encoder, history, case.history)
            scores = reference.add_biases(reference.score(user, scanned, model.prior), case.bias_rows, case.bias_values)
            best = reference.top(scores, K if rescored is None else RESCORED)
            if rescored is not None:
                exact = reference.score(user, rescored[best], None if model.prior is None else model.prior[best])
                best = best[reference.top(np.where(np.isfinite(scores[best]), exact, -np.inf), K)]
            yield best

    floats = list(lists(table, table))
    int8, int4 = rounded(table, 127, width), rounded(table, 7, width)
    ways = {
        ("int8", width + 8): lists(int8, int8),
        ("int4, one scale an item", width / 2 + 8): lists(int4, int4),
        ("int4, a scale (float16) for each 32", width / 2 + 4 + width / 16): (lists(*[rounded(table, 7, 32)] * 2)),
        ("int4, a scale (float16) for each 16", width / 2 + 4 + width / 8): lists(*[rounded(table, 7, 16)] * 2),
        (f"int4, {RESCORED} re-scored by int8 rows, histories too", 1.5 * width + 8): lists(int4, int8, int8),
        (f"int4, {RESCORED} re-scored by int8 rows, histories not", 1.5 * width + 8): lists(int4, int4, int8),
    }
    gain = np.mean([ndcg(rows, case.relevant) for rows, case in zip(floats, cases, strict=True)])
    print(f"{len(model.ids):,} items x {width}, {len(cases)} held-out users, NDCG@10 of the float model {gain:.4f}")
    for (name, size), found in ways.items():
        rows = list(found)
        kept = np.mean([len(np.intersect1d(one, other)) / K for one, other in zip(rows, floats, strict=True)])
        less = np.mean([ndcg(one, case.relevant) for one, case in zip(rows, cases, strict=True)]) / gain - 1
        print(f"  {name:48} {size:5.0f} bytes an item  overlap {kept:.4f}  NDCG@10 {less:+.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--cases", type=int, default=1000)
    given = parser.parse_args()
    if given.items is not None:
        time_products(given.items, given.width, given.rounds)
    if given.run is not None:
        compare_lists(given.run, given.cases)


if __name__ == "__main__":
    main()
