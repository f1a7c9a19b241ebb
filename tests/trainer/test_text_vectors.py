"""Texts as vectors from elsewhere: read from the prepared folder, made by a sentence model on the disk, or refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from small_shop import small_config
from xrec_sdk.errors import DataError, UsageError
from xrec_trainer import text_vectors
from xrec_trainer.cli import main
from xrec_trainer.fit import fit
from xrec_trainer.metrics import per_case
from xrec_trainer.ranking import model_ranker
from xrec_trainer.run import load_run

SEED = 5


def write_vectors(data: Path, ids: list[str], vectors: list[object], kind: pa.DataType | None = None) -> None:
    table = {"item_id": ids, "vector": pa.array(vectors, kind or pa.list_(pa.float32()))}
    pq.write_table(pa.table(table), data / text_vectors.FILE)


@pytest.fixture
def data(shop: Path, tmp_path: Path) -> Path:
    """Return the shop, in which no item has an entry, so that the vectors are all that is known of it."""
    shutil.copytree(shop, tmp_path / "data")
    ids = pq.read_table(shop / "items.parquet")["item_id"]
    pq.write_table(pa.table({"item_id": ids}), tmp_path / "data" / "items.parquet")
    return tmp_path / "data"


def group_vectors() -> tuple[list[str], list[object]]:
    """Return a vector for each item of the shop by which those of its group are alike."""
    random = np.random.default_rng(SEED)
    groups = random.normal(size=(15, 8))
    return [f"sku-{item}" for item in range(150)], [
        (groups[item // 10] + random.normal(size=8) / 4).astype(np.float32).tolist() for item in range(150)
    ]


def test_vectors_are_found_by_id_and_have_length_one(tmp_path: Path) -> None:
    write_vectors(tmp_path, ["b", "a", "zero"], [[3, 4], [0, 2], [0, 0]])
    found = text_vectors.read(tmp_path, ["a", "b", "unknown", "zero"])
    assert found.dtype == np.float32
    assert np.allclose(found, [[0, 1], [0.6, 0.8], [0, 0], [0, 0]])


def test_items_that_are_alike_by_their_vectors_are_learned_to_be_alike(data: Path, tmp_path: Path) -> None:
    write_vectors(data, *group_vectors())
    run = fit(data, tmp_path / "run", small_config(text_vectors=True, max_epochs=8))
    assert run.model.text_map.shape == (8, 32)
    rows = load_run(run.folder).model.content_rows().detach().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    group = np.array([int(item_id.removeprefix("sku-")) // 10 for item_id in run.catalogue.ids])
    alike, is_same = rows @ rows.T, group[:, None] == group[None, :]
    assert alike[is_same].mean() > alike[~is_same].mean() + 0.3
    cases = run.study.test["all"]
    assert per_case(model_ranker(run.model, run.log)(cases, 10), cases, [10])["recall@10"].mean() > 3 * 10 / 150


MALFORMED: list[tuple[str, list[object], pa.DataType | None]] = [
    ("of two lengths", [[1, 2], [3]], None),
    ("missing", [[1, 2], None], None),
    ("not finite", [[1, 2], [float("nan"), 1]], None),
    ("empty", [[], []], None),
    ("texts", ["1", "2"], pa.string()),
]


@pytest.mark.parametrize(("vectors", "kind"), [each[1:] for each in MALFORMED], ids=[each[0] for each in MALFORMED])
def test_vectors_that_are_not_as_described_are_refused(
    tmp_path: Path, vectors: list[object], kind: pa.DataType | None
) -> None:
    write_vectors(tmp_path, ["a", "b"], vectors, kind)
    with pytest.raises(DataError) as caught:
        text_vectors.read(tmp_path, ["a"])
    assert caught.value.code == "data.text_vectors"


def test_a_folder_without_vectors_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        fit(data, tmp_path / "run", small_config(text_vectors=True))
    assert caught.value.code == "data.text_vectors"


def save_sentence_model(folder: Path) -> None:
    """Save a sentence model of 30 words and 6 numbers, drawn by the seed."""
    sentences = pytest.importorskip("sentence_transformers")
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: code for code, word in enumerate(["[UNK]", "Thing", *map(str, range(28))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(SEED)
    module = StaticEmbedding(tokenizer, embedding_weights=torch.randn(len(words), 6).numpy())
    sentences.SentenceTransformer(modules=[module], device="cpu").save(str(folder))


@pytest.mark.filterwarnings("ignore")
def test_a_sentence_model_on_the_disk_makes_the_vectors(shop: Path, tmp_path: Path) -> None:
    save_sentence_model(tmp_path / "model")
    shutil.copytree(shop, tmp_path / "data")
    made = CliRunner().invoke(main, ["text-vectors", str(tmp_path / "data"), "--model", str(tmp_path / "model")])
    assert made.exit_code == 0 and "150 items, 6 numbers" in made.output, made.output
    found = text_vectors.read(tmp_path / "data", ["sku-3", "sku-3", "sku-4"])
    assert np.array_equal(found[0], found[1]) and not np.allclose(found[0], found[2])
    run = fit(tmp_path / "data", tmp_path / "run", small_config(text_vectors=True, max_epochs=1, quantized_epochs=0))
    assert run.model.text_map.shape == (6, 32)


@pytest.mark.filterwarnings("ignore")
def test_a_folder_without_a_sentence_model_is_refused(shop: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UsageError) as caught:
            text_vectors.make(shop, folder)
        assert caught.value.code == "usage.model"
