"""Where a CPU has AMX the scorer scans a packed copy of the table; nothing else differs."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import pytest
import xrec_sdk.runtime
from xrec_export.build import Release, build_bundle
from xrec_export.parity import Tolerance
from xrec_sdk.bundle import Bundle, open_bundle
from xrec_sdk.graphfile import check_graph
from xrec_sdk.packed_scan import packed_scorer, packs_anew
from xrec_sdk.runtime import Runtime
from xrec_sdk.signature import generate_key

sys.path.insert(0, str(Path(__file__).parent))
from small_models import make_cases, make_model

SEED = 63
PEM, PUBLIC = generate_key()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    target = tmp_path_factory.mktemp("built") / "small.xrec"
    release = Release("small", 1, "2026-01-02T03:04:05Z", PEM)
    build_bundle(make_model(), make_cases(20), target, release=release, tolerance=Tolerance(0.9, 0.2))
    return open_bundle(target, trusted_keys=[PUBLIC])


def test_a_packed_table_gives_the_same_rows_and_the_same_bits_of_every_score(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtimes = []
    for packs in (False, True):
        monkeypatch.setattr(xrec_sdk.runtime, "packs_anew", lambda packs=packs: packs)
        runtimes.append(Runtime(bundle))
    gc.collect()  # what the sessions read must be theirs
    random = np.random.default_rng(SEED)
    for k in (1, 10, 300):
        for _ in range(20):
            user = random.normal(size=bundle.manifest.width).astype(np.float32)
            forbidden = random.choice(300, size=7, replace=False).astype(np.int32)
            bias = np.full(7, -np.inf, dtype=np.float32)
            (rows, scores), packed = (one.top(user, k, one.no_bias(), forbidden, bias) for one in runtimes)
            np.testing.assert_array_equal(packed[0], rows)
            np.testing.assert_array_equal(packed[1], scores)


def test_only_the_scan_reads_the_packed_table(bundle: Bundle) -> None:
    made = packed_scorer(bundle.scorer, bundle.table)
    assert made is not None
    graph, matrix = made
    check_graph(graph, "scorer.onnx", bundle.manifest.operators)
    assert matrix.shape == (bundle.manifest.width, 384)
    np.testing.assert_array_equal(matrix[:, 200], bundle.table[1, :, 72])
    assert graph.count(b"item_table") == bundle.scorer.count(b"item_table") - 1


def test_a_graph_without_an_integer_product_is_left_as_it_is(bundle: Bundle) -> None:
    assert packed_scorer(bundle.encoder, bundle.table) is None


def test_the_cpu_is_asked_and_answers() -> None:
    assert packs_anew() in (True, False)
