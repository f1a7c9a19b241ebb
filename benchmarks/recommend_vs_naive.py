"""Time a recommendation through the SDK against the plain way: the same model exported to float32 ONNX.

All answer in one process, in turns, with one thread each, on a made-up catalogue:

    python benchmarks/recommend_vs_naive.py --items 100000 --width 64 --history 50

The plain way is what a first export gives: a float32 table, Gather, the encoder, one MatMul over all items, a mask for
the seen ones, one TopK. It is given its arrays; recommend() reads the profile, once with an event recorded before each
call (recording is not timed), once with nothing new. The script checks that the graphs give the same list as the plain
way but for what quantization moves.
"""

# N items, D width, L events in the history

from __future__ import annotations

import argparse
import logging
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional
from xrec_export.build import Release, build_bundle
from xrec_export.export_model import ExportModel, ParityCase, excluding
from xrec_export.from_run import LastPosition
from xrec_export.parity import Tolerance
from xrec_sdk.bundle import open_bundle
from xrec_sdk.history import History, Vocabulary
from xrec_sdk.recommender import Recommender
from xrec_sdk.runtime import Runtime
from xrec_sdk.signature import generate_key
from xrec_trainer.encoders.lowpass import LowPassTransformer

VOCABULARY = Vocabulary(("view", "cart", "purchase"), ("phone", "pc", "mini_program"))
K = 10


class Naive(nn.Module):
    """The whole model in float32: gather, encoder, product, mask of the seen items, top k."""

    def __init__(self, model: ExportModel) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.from_numpy(model.item_table), requires_grad=False)
        self.encoder = model.encoder

    def forward(self, rows: Tensor, events: Tensor, devices: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor]:
        """Four (1, L) -> scores and rows of the best ten."""
        user = self.encoder(functional.embedding(rows, self.table), events, devices, gaps)
        scores = user @ self.table.T
        scores = scores.scatter(1, rows.long(), float("-inf"))
        best = torch.topk(scores, K)
        return best.values, best.indices


def make_model(items: int, width: int) -> ExportModel:
    torch.manual_seed(0)
    encoder = LowPassTransformer(width, 2, 2, 0.0, VOCABULARY).eval()
    table = np.random.default_rng(0).normal(size=(items, width)).astype(np.float32) / np.float32(width**0.5)
    ids = [f"sku-{row}" for row in range(items)]
    return ExportModel(
        encoder=LastPosition(encoder).eval(),
        item_table=table,
        ids=ids,
        entries=[{"title": item_id} for item_id in ids],
        categories=[f"shelf {row % 100}" for row in range(items)],
        vocabulary=VOCABULARY,
        seen_events=("purchase",),
    )


def make_case(items: int, length: int, seed: int) -> ParityCase:
    random = np.random.default_rng(seed)
    bounds = (VOCABULARY.event_count, VOCABULARY.device_count, VOCABULARY.gap_count)
    rows = random.choice(items, size=length, replace=False).astype(np.int32)
    history = History(rows, *(random.integers(0, bound, size=length, dtype=np.int32) for bound in bounds))
    return excluding(history, rows[:1], rows)


def export_naive(model: ExportModel, path: Path, length: int) -> Any:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    inputs = tuple(torch.ones(1, length, dtype=torch.int32) for _ in range(4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Naive(model),
            inputs,
            path,
            dynamo=True,
            opset_version=21,
            input_names=["rows", "events", "devices", "gaps"],
            output_names=["scores", "top"],
            dynamic_shapes=({1: torch.export.Dim.DYNAMIC},) * 4,
            verbose=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def sdk_call(runtime: Runtime) -> Callable[[ParityCase], list[int]]:
    bias = runtime.no_bias()

    def answer(case: ParityCase) -> list[int]:
        rows, _ = runtime.top(runtime.encode(case.history), K, bias, case.bias_rows, case.bias_values)
        return rows.tolist()  # type: ignore[no-any-return]

    return answer


def naive_call(session: Any) -> Callable[[ParityCase], list[int]]:
    def answer(case: ParityCase) -> list[int]:
        feeds = {name: getattr(case.history, name)[None] for name in ("rows", "events", "devices", "gaps")}
        return session.run(["top"], feeds)[0][0].tolist()  # type: ignore[no-any-return]

    return answer


class Asked:
    """The public face over a profile that holds ``length`` purchases at first."""

    def __init__(self, path: Path, key: str, profile: Path, length: int) -> None:
        self.recommender = Recommender(path, profile, trusted_keys=[key])
        self.recommender.set_consent("personalise", True)
        for row in make_case(self.recommender.bundle.manifest.item_count, length, 0).history.rows:
            self.recommender.record("purchase", f"sku-{row}", device="phone")

    def view(self, case: ParityCase) -> None:
        """Record a view of an item of the case."""
        self.recommender.record("view", f"sku-{case.history.rows[0]}", device="phone")

    def recommend(self, _: ParityCase) -> list[int]:
        """Return the rows of the list."""
        return [int(item.item_id.removeprefix("sku-")) for item in self.recommender.recommend(K)]


@dataclass(frozen=True)
class Way:
    """A way to answer a case; what ``prepare`` does before each answer is not timed."""

    name: str
    answer: Callable[[ParityCase], object]
    prepare: Callable[[ParityCase], None] = lambda case: None

    def time(self, case: ParityCase) -> float:
        """Return the microseconds of one answer."""
        self.prepare(case)
        start = time.perf_counter()
        self.answer(case)
        return (time.perf_counter() - start) * 1e6


def bounds(table: NDArray[np.int8]) -> list[Way]:
    """Return what no scan of the table does without: its product with a user vector alone, and reading it once."""
    value = helper.make_tensor_value_info
    node = helper.make_node("MatMulInteger", ["user", "table"], ["products"])
    inputs = [
        value("user", TensorProto.UINT8, [1, table.shape[1]]),
        value("table", TensorProto.INT8, table.shape),
    ]
    graph = helper.make_graph([node], "bound", inputs, [value("products", TensorProto.INT32, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {"user": np.full((1, table.shape[1]), 65, dtype=np.uint8), "table": table}
    words = table.reshape(-1).view(np.int64)
    return [
        Way("MatMulInteger alone", lambda case: session.run(None, feeds)),
        Way("the table read once", lambda case: words.max()),
    ]


def in_bursts(ways: list[Way], cases: list[ParityCase], rounds: int, burst: int = 9) -> dict[str, list[float]]:
    """Time ``burst`` answers of each way a round, way after way; the first only warms the caches and does not count."""
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    for turn in range(-2, rounds):
        for way in ways:
            taken = [way.time(cases[(turn * burst + place) % len(cases)]) for place in range(burst)]
            times[way.name] += taken[1:] if turn >= 0 else []
    return times


def turn_by_turn(ways: list[Way], cases: list[ParityCase], rounds: int) -> dict[str, list[float]]:
    """Time one answer of each way a round; between them the first way answers, and its data fill the caches."""
    first, *others = ways
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    for turn in range(-5, rounds):
        case = cases[turn % len(cases)]
        for way in others:
            taken = {first.name: first.time(case), way.name: way.time(case)}
            for name in taken if turn >= 0 else ():
                times[name].append(taken[name])
    return times


def report(title: str, times: dict[str, list[float]]) -> None:
    print(title)
    plain = np.median(next(iter(times.values())))
    for way, values in times.items():
        median, tail = np.quantile(values, [0.5, 0.99])
        print(
            f"  {way:32} p50 {median:6.0f} us  p99 {tail:6.0f} us  least {min(values):5.0f} us  "
            f"naive takes {plain / median:.2f} times as long"
        )


def machine() -> str:
    model = platform.processor() or platform.machine()
    flags = ""
    if Path("/proc/cpuinfo").exists():
        lines = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        named = {name.strip(): value.strip() for name, value in lines.items()}
        model = named.get("model name", model)
        flags = " ".join(
            f for f in named.get("flags", "").split() if f in ("avx2", "avx512f", "avx512_vnni", "avx_vnni")
        )
    return f"{model} ({flags}), Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--history", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    model = make_model(arguments.items, arguments.width)
    cases = [make_case(arguments.items, arguments.history, seed) for seed in range(50)]
    pem, public = generate_key()
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "shop.xrec"
        release = Release("shop", 1, "2026-01-01T00:00:00Z", pem)
        measured = build_bundle(model, cases, path, release=release, tolerance=Tolerance(0, 1))
        bundle = open_bundle(path, trusted_keys=[public])
        runtime = Runtime(bundle)
        asked = [Asked(path, public, folder / f"{name}.db", arguments.history) for name in ("new", "same")]
        naive, graphs = naive_call(export_naive(model, folder / "naive.onnx", arguments.history)), sdk_call(runtime)
        ways = [
            Way("naive float32, new history", naive),
            Way("the two graphs, new history", graphs),
            Way("recommend(), an event recorded", asked[0].recommend, asked[0].view),
            Way("recommend(), asked again", asked[1].recommend),
        ]
        agree = [len({*naive(case)} & {*graphs(case)}) / K for case in cases]
        if np.mean(agree) < 0.9:
            raise SystemExit(f"the answers differ: overlap {np.mean(agree):.3f}")
        print(f"machine: {machine()}")
        print(f"{arguments.items:,} items x {arguments.width}, history {arguments.history}, k {K}, one thread")
        print(f"overlap with naive {np.mean(agree):.4f}; with torch float {measured.parity.overlap:.4f}")
        bursts = [*ways, *bounds(bundle.table)]
        report("in bursts (warm caches)", in_bursts(bursts, cases, arguments.rounds // 8))
        report("turn by turn (each after the naive one's data)", turn_by_turn(ways, cases, arguments.rounds))


if __name__ == "__main__":
    main()
