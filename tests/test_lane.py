"""The whole lane: a trained run becomes a signed bundle that answers in the SDK as the float model does."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xrec_sdk
from click.testing import CliRunner
from xrec_export.cli import main as export
from xrec_sdk.bundle import open_bundle
from xrec_sdk.runtime import Runtime
from xrec_trainer.evaluate import evaluate
from xrec_trainer.ranking import encode_case
from xrec_trainer.run import Run, load_run


@pytest.fixture(scope="module")
def shop_bundle(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a bundle built by the commands of a release, and the key that signed it."""
    folder = tmp_path_factory.mktemp("release")
    made = CliRunner().invoke(export, ["keygen", str(folder / "key.pem"), "--json"])
    assert made.exit_code == 0, made.output
    key = json.loads(made.output)["public_key"]
    built = CliRunner().invoke(
        export, ["build", str(trained), "--out", str(folder / "shop.xrec"), "--key", str(folder / "key.pem")]
    )
    assert built.exit_code == 0, built.output
    return folder / "shop.xrec", key


def test_the_bundle_ranks_like_the_float_model(trained: Path, shop_bundle: tuple[Path, str]) -> None:
    metrics = evaluate(trained, bundle=shop_bundle[0], keys=[shop_bundle[1]], ks=[10])
    found = metrics["bundle"]["metrics"]["ndcg@10"]
    assert abs(found["difference"]["mean"]) <= 0.005 * found["float"]["mean"]
    assert metrics["bundle"]["overlap@10"] >= 0.98


def test_an_app_gets_what_the_model_ranks_first(trained: Path, shop_bundle: tuple[Path, str]) -> None:
    run = load_run(trained)
    log, catalogue = run.log, run.catalogue
    first, last = log.user_start[0], log.user_start[1]
    with xrec_sdk.Recommender(shop_bundle[0], profile=":memory:", trusted_keys=[shop_bundle[1]]) as recommender:
        recommender.set_consent("personalise", True)
        for index in range(first, last):
            recommender.record(
                run.vocabulary.events[log.event[index] - 1],
                catalogue.ids[log.item[index]],
                device=run.vocabulary.devices[log.device[index] - 1],
                at_ms=int(log.at_ms[index]),
            )
        answered = [item.item_id for item in recommender.recommend(k=10, filter_seen=True)]
    history = np.arange(first, last)
    users = run.model.encoder(*_inputs(run, history), last_only=True)
    scores = (users @ run.model.item_table().T)[0].detach().numpy()
    bought = log.item[history][log.event[history] == 1 + run.vocabulary.events.index("purchase")]
    scores[bought] = -np.inf
    assert answered == [catalogue.ids[row] for row in np.argsort(-scores, kind="stable")[:10]]


def _inputs(run: Run, history: np.ndarray) -> list[torch.Tensor]:
    encoded = encode_case(run.log, history)
    codes = [torch.from_numpy(part[None].astype(np.int64)) for part in (encoded.events, encoded.devices, encoded.gaps)]
    return [run.model.item_table()[torch.from_numpy(encoded.rows[None].astype(np.int64))], *codes]


def test_a_runtime_outlives_the_variable_that_held_its_bundle(shop_bundle: tuple[Path, str]) -> None:
    bundle = open_bundle(shop_bundle[0], trusted_keys=[shop_bundle[1]])
    runtime, user = Runtime(bundle), bundle.item_vectors(np.array([3], dtype=np.int32))[0]
    nothing = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
    before = runtime.top(user, 10, runtime.no_bias(), *nothing)
    del bundle
    gc.collect()
    after = runtime.top(user, 10, runtime.no_bias(), *nothing)
    assert before[0].tolist() == after[0].tolist() and before[1].tolist() == after[1].tolist()


def test_a_cold_user_gets_the_popular_items_in_order(shop_bundle: tuple[Path, str], trained: Path) -> None:
    with xrec_sdk.Recommender(shop_bundle[0], profile=":memory:", trusted_keys=[shop_bundle[1]]) as recommender:
        answered = [item.item_id for item in recommender.recommend(k=10)]
    assert answered == load_run(trained).catalogue.ids[:10]
