"""Write the vectors that every language walks: six tiny signed bundles, more encoders, and what they must answer.

    python tests/vectors/make_vectors.py

The encoders are untrained, their weights drawn from SEED, so that anyone can make them again. What must come out is
what the Python SDK answers; the script refuses a case in which two scores are so near that rounding could swap them.
README.md beside it says how a case reads.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import struct
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from xrec_export import conformance
from xrec_export.build import Release, build_bundle
from xrec_export.encoder_graph import build_encoder
from xrec_export.export_model import ExportModel, ParityCase, excluding
from xrec_export.export_ranker import fold
from xrec_export.from_run import LastPosition
from xrec_export.parity import Tolerance
from xrec_export.ranker_graph import ExportRanker
from xrec_export.staging import records, signed, write
from xrec_sdk.bundle import open_bundle
from xrec_sdk.errors import XrecError
from xrec_sdk.history import ARRAYS, DAY_MS, History, RepeatRule, Vocabulary
from xrec_sdk.manifest import to_bytes as manifest_bytes
from xrec_sdk.query import BUCKETS, reduce_query
from xrec_sdk.recommender import Recommender
from xrec_sdk.runtime import Runtime
from xrec_sdk.taste import Taste, add_events, history_of
from xrec_trainer.config import FitConfig
from xrec_trainer.encoders import ENCODERS
from xrec_trainer.encoders.lowpass import LowPassTransformer
from xrec_trainer.encoders.pool import Pool
from xrec_trainer.ranker import Ranker

sys.path.insert(0, str(Path(__file__).parents[1]))
from vectors import recipes
from vectors.questions import HOUR_MS, SEED, TOLERANCE, TWINS, WITHDRAWN, item_ids, questions

FOLDER = Path(__file__).parent
PHRASE = "the key of xrec's test vectors; it protects nothing"
BRIEF = ("item_id", "score", "rank", "probability")
ITEMS = {"lowpass": 300, "pool": 140, "ranked": 60, "withdrawn": 140, "fp32": 60, "searches": 60}


def private_pem() -> bytes:
    """Return the private key, the same for everyone."""
    private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(PHRASE.encode()).digest())
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_key() -> str:
    """Return the public key as an app pins it."""
    return str(json.loads((FOLDER / "lowpass.xrec" / "manifest.sig").read_text())["key"])


def entries(count: int) -> list[dict[str, object]]:
    made: list[dict[str, object]] = [{"title": f"Thing {row}", "price": row / 4} for row in range(count)]
    made[5] = {"title": "Café crème", "price": 2.5, "tags": ["hot", None, {"sugar": True}]}
    made[6] = {"price": 1}
    return made


def table(count: int, width: int, random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
    rows = random.normal(size=(count, width)).astype(np.float32) / np.float32(width**0.5)
    rows[list(TWINS)] = rows[TWINS[0]]
    return rows


def lowpass_model() -> ExportModel:
    """Return a model with every feature: a prior, a rule for buying again, devices, repeated items."""
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    count = ITEMS["lowpass"]
    vocabulary = Vocabulary(("view", "cart", "purchase"), ("phone", "pc", "mini_program"), max_history=12)
    prior = (random.exponential(size=count) / 20).astype(np.float32)
    prior[list(TWINS)] = 0.05
    return ExportModel(
        encoder=LastPosition(LowPassTransformer(32, 2, 2, 0.0, vocabulary)).eval(),
        item_table=table(count, 32, random) / 4,
        ids=item_ids(count),
        entries=entries(count),
        categories=[None if row % 7 == 6 else f"shelf {row % 6}" for row in range(count)],
        vocabulary=vocabulary,
        seen_events=("purchase",),
        filter_seen=True,
        repeat=RepeatRule(0.5, 24 * HOUR_MS, ("purchase",)),
        prior=prior,
    )


def pool_over(count: int, width: int, vocabulary: Vocabulary, random: np.random.Generator) -> ExportModel:
    """Return a model that takes the mean of a history, over drawn rows on four shelves."""
    return ExportModel(
        encoder=LastPosition(Pool(width, 0.0, vocabulary)).eval(),
        item_table=table(count, width, random),
        ids=item_ids(count),
        entries=entries(count),
        categories=[f"shelf {row % 4}" for row in range(count)],
        vocabulary=vocabulary,
    )


def pool_model() -> ExportModel:
    """Return a model without prior, rule and filter, in whose histories an item stands once."""
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED + 1)
    vocabulary = Vocabulary(("view", "purchase"), (), (60_000, 3_600_000), max_history=8, distinct_items=True)
    return replace(pool_over(ITEMS["pool"], 16, vocabulary, random), filter_seen=False)


def ranked_model() -> ExportModel:
    """Return a model whose ranker says how probable an item is."""
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED + 2)
    count, width = ITEMS["ranked"], 8
    vocabulary = Vocabulary(("view", "purchase"), ("phone", "pc"), (60_000, 3_600_000), max_history=8)
    return replace(
        pool_over(count, width, vocabulary, random),
        seen_events=("purchase",),
        repeat=RepeatRule(0.5, 24 * HOUR_MS, ("purchase",)),
        prior=(random.exponential(size=count) / 20).astype(np.float32),
        ranker=make_ranker(count, width, vocabulary.device_count, random),
    )


def searches_model() -> ExportModel:
    """Return a model that reads searches."""
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED + 3)
    width = 8
    events, devices, edges = ("view", "purchase", "search"), ("phone", "pc"), (60_000, 3_600_000)
    vocabulary = Vocabulary(events, devices, edges, max_history=8, query_buckets=BUCKETS)
    return replace(
        pool_over(ITEMS["searches"], width, vocabulary, random),
        seen_events=("purchase",),
        query_rows=random.normal(size=(BUCKETS, width)).astype(np.float32),
    )


def make_ranker(count: int, width: int, device_count: int, random: np.random.Generator) -> ExportRanker:
    """Return a ranker whose weights, standardization and calibration are all drawn."""
    ranker = Ranker("plain", width + device_count + 5, width + 5, 8).eval()
    for name, buffer in ranker.named_buffers():
        buffer.copy_(torch.rand(buffer.shape) + (0.5 if name.endswith("scale") else 0))
    ranker.calibrate((0.7, -1.0), (1.2, 0.5))
    features = random.uniform(0, 8, size=(count, 2)).astype(np.float32)
    return fold(ranker, features, device_count, ("purchase",), 7 * DAY_MS)


def parity_cases(model: ExportModel) -> list[ParityCase]:
    random = np.random.default_rng(SEED)
    vocabulary = model.vocabulary
    bounds = (len(model.ids), vocabulary.event_count, vocabulary.device_count, vocabulary.gap_count)
    cases = []
    for length in range(1, vocabulary.max_history + 1):
        rows, *codes = (random.integers(0, bound, size=length, dtype=np.int32) for bound in bounds)
        queries = (reduce_query(f"green tea {length}"),) if vocabulary.query_buckets else ()
        rows[: len(queries)] = -1
        history = History(rows, *codes, queries=queries)
        items = rows[rows >= 0]
        cases.append(excluding(history, items[:1], items))
    return cases


def build_bundles(folder: Path) -> None:
    """Write the bundles."""
    models = {"lowpass": lowpass_model(), "pool": pool_model(), "ranked": ranked_model(), "searches": searches_model()}
    for name, model in {**models, "fp32": models["ranked"]}.items():
        table_format = "fp32" if name == "fp32" else "int8"
        release = Release(f"{name} vectors", 3, "2026-01-01T00:00:00Z", private_pem(), table_format)
        target = folder / f"{name}.xrec"
        build_bundle(model, parity_cases(model), target, release=release, tolerance=Tolerance(0.5, 1.0))
    build_withdrawn(folder / "pool.xrec", folder / "withdrawn.xrec")


def build_withdrawn(base: Path, target: Path) -> None:
    """Write a bundle whose items WITHDRAWN are not offered any more."""
    bundle = open_bundle(base, trusted_keys=[public_key()])
    is_offered = np.isin(np.arange(len(bundle.ids)), WITHDRAWN, invert=True)
    files = {name: content for name, content in recipes.read_folder(base).items() if not name.startswith("manifest")}
    items, at = bytearray(files["items.bin"]), bundle.manifest.items.bias.offset
    for row in WITHDRAWN:
        struct.pack_into("<f", items, at + 4 * row, -np.inf)
    vectors = bundle.item_vectors(np.arange(len(bundle.ids), dtype=np.int32))
    files["items.bin"] = bytes(items)
    files["conformance.json"] = conformance.make(
        bundle.manifest.vocabulary, vectors, None, Runtime(bundle), is_offered=is_offered
    )
    manifest = replace(bundle.manifest, name="withdrawn vectors", files=records(files))
    target.mkdir()
    write(target, {**files, **signed(manifest_bytes(manifest), private_pem())})


def build_encoders(folder: Path) -> None:
    """Write encoders/NAME.onnx: every encoder of the trainer, for the items of pool.xrec, its weights shaken."""
    model = pool_model()
    (folder / "encoders").mkdir(exist_ok=True)
    for name in sorted({*ENCODERS} - {"lowpass", "pool"}):
        torch.manual_seed(SEED)
        encoder = ENCODERS[name](FitConfig(targets=("purchase",), encoder=name, width=16), model.vocabulary).eval()
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter += 0.2 * torch.randn_like(parameter)  # gains, biases and norms are constants at first
        graph = build_encoder(LastPosition(encoder).eval(), model.item_table.shape[1])
        (folder / "encoders" / f"{name}.onnx").write_bytes(graph.SerializeToString(deterministic=True))


def encoder_cases(folder: Path) -> dict[str, Any]:
    """Return what the encoders of ``folder`` answer to histories of each length."""
    bundle = open_bundle(FOLDER / "pool.xrec", trusted_keys=[public_key()])
    histories = [case.history for case in parity_cases(pool_model())]
    asked = [{name: getattr(history, name).tolist() for name in ARRAYS} for history in histories]
    users = {}
    for path in sorted((folder / "encoders").iterdir()):
        runtime = Runtime(replace(bundle, encoder=path.read_bytes()))
        users[path.stem] = [runtime.encode(history).tolist() for history in histories]
    return {"bundle": "pool.xrec", "tolerance": TOLERANCE, "histories": asked, "users": users}


def answer(recommender: Recommender, method: str, arguments: Mapping[str, Any]) -> Any:
    """Return what the Python SDK answers, as it stands in a case, or ``{"error": code}``."""
    arguments = dict(arguments)
    if "where_price_below" in arguments:
        most = arguments.pop("where_price_below")
        arguments["where"] = lambda entry: entry["price"] < most
    try:
        if method == "encode":
            return encoded(recommender)
        given = getattr(recommender, method)(**arguments)
    except XrecError as error:
        return {"error": error.code}
    if method in ("record", "feedback"):
        return None
    if method == "score":
        return {"item_ids": list(given), "scores": list(given.values())}
    if method == "export_my_data":
        return [{name: value for name, value in event.items() if name != "id"} for event in given["events"]]
    has_ranker = recommender.bundle.manifest.ranker is not None
    return [listed(item, has_ranker) for item in given] if method in ("recommend", "similar") else given


def encoded(recommender: Recommender) -> dict[str, Any]:
    bundle = recommender.bundle
    history = history_of(add_events(Taste(), recommender.profile.events(), bundle), bundle.manifest)
    codes = {name: getattr(history, name).tolist() for name in ("rows", "events", "devices", "gaps")}
    return {**codes, "user": recommender.runtime.encode(history).tolist()}


def listed(item: Any, has_ranker: bool) -> dict[str, Any]:
    reasons = [vars(reason) for reason in item.reasons]
    said = {"item_id": item.item_id, "score": item.score, "rank": item.rank, "title": item.title}
    if has_ranker:
        said["probability"] = item.probability
    return {**said, "item": dict(item.item), **({"reasons": reasons} if reasons else {})}


def open_recommender(path: Path, asked: Mapping[str, Any]) -> Recommender:
    """Return a Recommender of the case's bundle whose profile holds the case's events."""
    recommender = Recommender(path, trusted_keys=[public_key()], clock_ms=lambda: asked["now_ms"])
    recommender.set_consent("personalise", True)
    for event in asked["events"]:
        recommender.record(**event)
    return recommender


def answered(asked: dict[str, Any], bundles: Path) -> dict[str, Any]:
    """Return the case with what must come out."""
    calls = []
    with open_recommender(bundles / asked["bundle"], asked) as recommender:
        for one in asked["calls"]:
            expected = answer(recommender, one["call"], one["arguments"])
            check_margins(expected, asked)
            calls.append({**one, "expect": brief(expected)})
    return {**asked, "calls": calls}


def check_margins(expected: Any, asked: Mapping[str, Any]) -> None:
    """Raise where rounding could swap two items of the list, or two reasons."""
    if not isinstance(expected, list):
        return
    lists = [[item.get("score") for item in expected]]
    lists += [[reason["loss"] for reason in item.get("reasons", ())] for item in expected]
    for values in lists:
        for before, after in pairwise(values):
            if before is not None and before != after and abs(before - after) < 1e-6:
                raise SystemExit(f"{asked['about']}: {before} and {after} are too near; change the seed")


def brief(expected: Any) -> Any:
    """Long lists name the entries of their first items only."""
    if isinstance(expected, list):
        return [
            {name: value for name, value in item.items() if place < 3 or name in BRIEF}
            for place, item in enumerate(expected)
        ]
    return expected


def dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def dump_case(made: dict[str, Any]) -> str:
    """One line for each call, so that a change shows."""
    calls = ",\n  ".join(dump(one).strip() for one in made["calls"])
    head = dump({**made, "calls": []}).rstrip().removesuffix("[]}")
    return f"{head}[\n  {calls}\n]}}\n"


def write_cases(folder: Path, bundles: Path) -> None:
    """Write index.json and cases/ for the bundles in a folder."""
    (folder / "cases").mkdir(parents=True, exist_ok=True)
    for name, asked in questions().items():
        (folder / "cases" / f"{name}.json").write_text(dump_case(answered(asked, bundles)), encoding="utf-8")
    (folder / "encoders.json").write_text(dump(encoder_cases(FOLDER)), encoding="utf-8")
    index = {
        "format": 1,
        "seed": SEED,
        "key": public_key(),
        "signing_phrase": PHRASE,
        "bundles": [f"{name}.xrec" for name in ITEMS],
        "cases": [f"cases/{name}.json" for name in questions()],
        "bad": "bad/recipes.json",
        "encoders": "encoders.json",
    }
    (folder / "index.json").write_text(json.dumps(index, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep-bundles", action="store_true", help="write the cases only")
    if not parser.parse_args().keep_bundles:
        with tempfile.TemporaryDirectory() as name:
            build_bundles(Path(name))
            build_encoders(FOLDER)
            for bundle in ITEMS:
                shutil.rmtree(FOLDER / f"{bundle}.xrec", ignore_errors=True)
                shutil.copytree(Path(name) / f"{bundle}.xrec", FOLDER / f"{bundle}.xrec")
    for bundle in ITEMS:
        open_bundle(FOLDER / f"{bundle}.xrec", trusted_keys=[public_key()])
    write_cases(FOLDER, FOLDER)


if __name__ == "__main__":
    main()
