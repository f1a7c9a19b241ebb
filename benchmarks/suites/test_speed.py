"""What a bundle of 10,000, 100,000 and a million items costs, one thread: the scan, the encoder, whole calls, a start.

    python -m pytest benchmarks/suites -k "not 1M"

Each checks what it timed. What is measured in processes of their own (start, memory) stands in ``extra_info`` of
``--benchmark-json``; side_by_side.py sets the same beside other libraries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made_shop import K, MadeShop, make_case
from xrec_export.speed import measure_speed
from xrec_sdk.bundle import open_bundle
from xrec_sdk.recommender import Recommender
from xrec_sdk.runtime import Runtime

FILTERS: dict[str, dict[str, Any]] = {
    "exclude": {"exclude": [f"sku-{row}" for row in range(0, 10_000, 200)]},
    "candidates": {"candidates": [f"sku-{row}" for row in range(1_000)]},
    "category": {"where": {"category": "shelf 7"}},
    "function": {"where": lambda entry: entry["title"].endswith("3")},
    "cap": {"max_per_category": 1},
    "diversity": {"diversity": 0.3},
}


def test_scan(benchmark: Any, recommender: Recommender, shop: MadeShop) -> None:
    runtime, random = recommender.runtime, np.random.default_rng(1)
    user = random.normal(size=recommender.bundle.manifest.width).astype(np.float32)
    nothing = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
    rows, _ = benchmark(runtime.top, user, K, runtime.no_bias(), *nothing)
    exact = np.argpartition(-(shop.model.item_table @ user), K)[:K]
    assert len(np.intersect1d(rows, exact)) >= K - 1


def test_encode(benchmark: Any, recommender: Recommender, shop: MadeShop) -> None:
    history = make_case(len(shop.model.ids), 50, 1).history
    user = benchmark(recommender.runtime.encode, history)
    assert user.any()


def test_asked_again(benchmark: Any, recommender: Recommender) -> None:
    assert len(benchmark(recommender.recommend, K)) == K


def test_asked_after_an_event(benchmark: Any, recommender: Recommender) -> None:
    def view() -> None:
        recommender.record("view", "sku-7", device="phone")

    listed = benchmark.pedantic(recommender.recommend, (K,), setup=view, rounds=200, warmup_rounds=5)
    assert len(listed) == K


def test_explained(benchmark: Any, recommender: Recommender) -> None:
    def view() -> None:
        recommender.record("view", "sku-7", device="phone")

    ask = {"explain": True}
    listed = benchmark.pedantic(recommender.recommend, (K,), ask, setup=view, rounds=100, warmup_rounds=5)  # type: ignore[arg-type]
    assert len(listed) == K and any(item.reasons for item in listed)


@pytest.mark.parametrize("name", FILTERS)
def test_filtered(benchmark: Any, recommender: Recommender, name: str) -> None:
    assert len(benchmark(lambda: recommender.recommend(K, **FILTERS[name]))) == K


def test_sessions(benchmark: Any, shop: MadeShop) -> None:
    bundle = open_bundle(shop.path, trusted_keys=[shop.key])
    assert benchmark.pedantic(Runtime, (bundle,), rounds=10, warmup_rounds=1).providers == ("CPUExecutionProvider",)


def test_opened_with_its_signature_checked(benchmark: Any, shop: MadeShop) -> None:
    opened = benchmark.pedantic(open_bundle, (shop.path,), {"trusted_keys": [shop.key]}, rounds=10, warmup_rounds=1)
    assert len(opened.ids) == len(shop.model.ids)


def test_cold_start_and_memory(benchmark: Any, shop: MadeShop) -> None:
    speed = benchmark.pedantic(measure_speed, (shop.path, shop.key), {"calls": 20}, rounds=1)
    benchmark.extra_info.update(
        cold_start_ms=speed.cold_start_ms,
        import_ms=speed.import_ms,
        anonymous_added_bytes=speed.anonymous_added_bytes,
        anonymous_bytes=speed.anonymous_bytes,
    )
    assert speed.cold_start_ms > speed.import_ms > 0
