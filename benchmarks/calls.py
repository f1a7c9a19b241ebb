"""The ways to answer a whole call: the SDK's, over a profile, and the same model without it."""

# L events in a history

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from made_shop import K, MadeShop, fill_profile
from numpy.typing import NDArray
from plain_models import Answer, export_naive, export_quantized, numpy_model, onnx_answer, torch_eager
from turns import Way
from xrec_export.export_model import ParityCase
from xrec_sdk.bundle import open_bundle
from xrec_sdk.profile import Profile
from xrec_sdk.recommender import Recommender
from xrec_sdk.runtime import Runtime
from xrec_sdk.taste import history_of

NAIVE = "naive float32, new history"
GRAPHS = "the two graphs, new history"


class Asked:
    """The public face over a profile that holds ``length`` purchases at first."""

    def __init__(self, shop: MadeShop, profile: Path, length: int, threads: int) -> None:
        kept = Profile(profile)
        fill_profile(kept, len(shop.model.ids), length)
        self.recommender = Recommender(shop.path, kept, trusted_keys=[shop.key], num_threads=threads)

    def view(self, case: ParityCase) -> None:
        """Record a view of an item of the case."""
        self.recommender.record("view", f"sku-{case.history.rows[0]}", device="phone")

    def recommend(self, _: ParityCase) -> NDArray[Any]:
        """Return the rows of the list."""
        return np.array([int(item.item_id.removeprefix("sku-")) for item in self.recommender.recommend(K)])

    def explain(self, _: ParityCase) -> None:
        """Ask for the list with its reasons."""
        self.recommender.recommend(K, explain=True)


class TimedSession:
    """A session that adds up the microseconds of its runs."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.spent_us = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: Any) -> None:
        """Run as the session does."""
        start = time.perf_counter()
        self._session.run_with_iobinding(binding)
        self.spent_us += (time.perf_counter() - start) * 1e6


def python_around_the_graphs(
    shop: MadeShop, folder: Path, length: int, threads: int, cases: list[ParityCase], calls: int = 400
) -> dict[str, float]:
    """Return the median microseconds of a call outside of its runs of the graphs, asked again and after an event."""
    asked = Asked(shop, folder / f"timed-{threads}.db", length, threads)
    runtime = asked.recommender.runtime
    sessions = TimedSession(runtime._encoder), TimedSession(runtime._scorer)
    runtime._encoder, runtime._scorer = sessions
    runtime._calls = type(runtime._calls)()  # what a thread has bound holds the sessions from before
    found: dict[str, float] = {}
    ways = [Way("asked again", asked.recommend), Way("after an event", asked.recommend, asked.view)]
    for way in ways:
        outside = []
        for turn in range(calls + 20):
            way.prepare(cases[turn % len(cases)])
            before = sum(one.spent_us for one in sessions)
            taken = Way(way.name, way.answer).time(None)
            outside.append(taken - sum(one.spent_us for one in sessions) + before)
        found[way.name] = float(np.median(outside[20:]))
    return found


def sdk_ways(shop: MadeShop, folder: Path, length: int, threads: int, *, explain: bool = False) -> list[Way]:
    """Return the graphs on their own, recommend() after an event, asked again, and with reasons."""
    runtime = Runtime(open_bundle(shop.path, trusted_keys=[shop.key]), num_threads=threads)
    bias = runtime.no_bias()

    def graphs(case: ParityCase) -> NDArray[Any]:
        return runtime.top(runtime.encode(case.history), K, bias, case.bias_rows, case.bias_values)[0]

    names = ("new", "same", "explained") if explain else ("new", "same")
    asked = [Asked(shop, folder / f"{name}-{threads}.db", length, threads) for name in names]
    check_the_face(asked[1], runtime)
    return [
        Way(GRAPHS, graphs),
        Way("recommend(), an event recorded", asked[0].recommend, asked[0].view),
        Way("recommend(), asked again", asked[1].recommend),
        *[Way("recommend(explain=True), an event recorded", one.explain, one.view) for one in asked[2:]],
    ]


def check_the_face(asked: Asked, runtime: Runtime) -> None:
    """Raise where recommend() gives another list than the graphs give to the profile's history."""
    listed = asked.recommend(None)  # type: ignore[arg-type]
    known = asked.recommender._reader.read()
    user = runtime.encode(history_of(known.taste, asked.recommender.bundle.manifest))
    expected, _ = runtime.top(user, K, runtime.no_bias(), *known.taste.seen)
    if listed.tolist() != expected.tolist():
        raise SystemExit(f"recommend() gives {listed}, its graphs {expected}")


def naive_way(shop: MadeShop, folder: Path, length: int, threads: int) -> Way:
    """Return the model's first export to ONNX; naive.onnx is written into ``folder``."""
    if not (folder / "naive.onnx").exists():
        export_naive(shop.model, folder / "naive.onnx", length)
    return Way(NAIVE, onnx_answer(folder / "naive.onnx", threads))


def other_ways(shop: MadeShop, folder: Path, threads: int) -> list[Way]:
    """Return the other ways without xrec, once :func:`naive_way` has written its file."""
    if not (folder / "quantized.onnx").exists():
        export_quantized(folder / "naive.onnx", folder / "quantized.onnx")
    return [
        Way("onnxruntime quantize_dynamic", onnx_answer(folder / "quantized.onnx", threads)),
        Way("torch eager", torch_eager(shop.model)),
        Way("NumPy", numpy_model(shop.model)),
    ]


def overlap(answer: Answer, exact: list[NDArray[Any]], cases: list[Any]) -> float:
    """Return the mean share of the exact lists that a way's lists hold."""
    return float(
        np.mean([len(np.intersect1d(answer(case), rows)) / K for case, rows in zip(cases, exact, strict=True)])
    )
