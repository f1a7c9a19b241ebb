"""Time a recommendation through the SDK against the plain way: the same model exported to float32 ONNX.

All answer in one process, in turns, with one thread each, on a made-up catalogue:

    python benchmarks/recommend_vs_naive.py --items 100000 --width 64 --history 50

The plain way is what a first export gives (plain_models.py); it is given its arrays. recommend() reads the profile,
once with an event recorded before each call (recording is not timed), once with nothing new. The script checks that
the graphs give the same list as the plain way but for what quantization moves. side_by_side.py asks other libraries
too.
"""

# N items, D width, L events in a history

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from calls import naive_way, overlap, sdk_ways
from made_shop import K, make_case, make_shop
from numpy.typing import NDArray
from onnx import TensorProto, helper
from plain_models import session
from turns import Times, Way, in_bursts, machine, reading_once, turn_by_turn
from xrec_sdk.bundle import open_bundle


def product_alone(table: NDArray[np.int8]) -> Way:
    """Return the scan's product with a user vector and nothing else."""
    value = helper.make_tensor_value_info
    node = helper.make_node("MatMulInteger", ["user", "table"], ["products"])
    inputs = [
        value("user", TensorProto.UINT8, [1, table.shape[1]]),
        value("table", TensorProto.INT8, table.shape),
    ]
    graph = helper.make_graph([node], "bound", inputs, [value("products", TensorProto.INT32, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    opened = session(model.SerializeToString(), 1)
    feeds = {"user": np.full((1, table.shape[1]), 65, dtype=np.uint8), "table": table}
    return Way("MatMulInteger alone", lambda case: opened.run(None, feeds))


def report(title: str, times: Times) -> None:
    print(title)
    plain = np.median(next(iter(times.values())))
    for way, values in times.items():
        median, tail = np.quantile(values, [0.5, 0.99])
        print(
            f"  {way:32} p50 {median:6.0f} us  p99 {tail:6.0f} us  least {min(values):5.0f} us  "
            f"naive takes {plain / median:.2f} times as long"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--history", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    cases = [make_case(arguments.items, arguments.history, seed) for seed in range(50)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shop = make_shop(arguments.items, arguments.width, arguments.history, folder)
        naive = naive_way(shop, folder, arguments.history, 1)
        ways = [naive, *sdk_ways(shop, folder, arguments.history, 1)]
        agree = overlap(ways[1].answer, [naive.answer(case) for case in cases], cases)
        if agree < 0.9:
            raise SystemExit(f"the answers differ: overlap {agree:.3f}")
        print(f"machine: {machine()}")
        print(f"{arguments.items:,} items x {arguments.width}, history {arguments.history}, k {K}, one thread")
        print(f"overlap with naive {agree:.4f}; with torch float {shop.certificate.parity.overlap:.4f}")
        table = open_bundle(shop.path, trusted_keys=[shop.key]).table
        bursts = [*ways, product_alone(table), reading_once(table)]
        report("in bursts (warm caches)", in_bursts(bursts, cases, arguments.rounds // 8))
        report("turn by turn (each after the naive one's data)", turn_by_turn(ways, cases, arguments.rounds))


if __name__ == "__main__":
    main()
