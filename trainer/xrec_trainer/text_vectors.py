"""Vectors of items' texts from elsewhere, in the place of hashed n-grams: read them, or make them by a sentence model.

They are the file ``text_vectors.parquet`` of a prepared folder, with the columns item_id and vector (a list of numbers
of one length). Whoever has vectors writes that file; ``xrec-train text-vectors`` makes it (extra ``sentences``).
"""

# N items, T numbers of a text

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from xrec_sdk.errors import DataError, UsageError

from xrec_trainer import extras
from xrec_trainer.content import text_fields_of
from xrec_trainer.dataset import read_items

FILE = "text_vectors.parquet"


def read(data: Path, ids: Sequence[str]) -> NDArray[np.float32]:
    """Return the vector of each item, (N, T) float32 of length one, zero where the file has none.

    Raises DataError ``data.text_vectors`` where the file is not there or not as described.
    """
    path = data / FILE
    try:
        table = pq.read_table(path, columns=["item_id", "vector"])
        listed = table["vector"].combine_chunks()
        flat = listed.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        vectors = flat.reshape(len(table), -1) if len(table) else flat.reshape(0, 1)
        lengths = set(np.diff(listed.offsets.to_numpy()).tolist()) if pa.types.is_list(listed.type) else {0}
        if listed.null_count or len(lengths) > 1 or vectors.shape[1] == 0 or not np.isfinite(vectors).all():
            raise ValueError("a vector is missing, not finite or of another length")
    except (OSError, KeyError, ValueError, AttributeError, pa.ArrowException) as cause:
        raise DataError(
            "data.text_vectors",
            f"{path} does not hold item_id and vector, numbers of one length ({cause}); write it, or make it with: "
            f"xrec-train text-vectors {data} --model FOLDER",
        ) from cause
    place_of = {item_id: place for place, item_id in enumerate(table["item_id"].to_pylist())}
    places = np.array([place_of.get(item_id, -1) for item_id in ids], dtype=np.int64)
    found = np.where(places[:, None] >= 0, vectors[places] if len(vectors) else 0, 0).astype(np.float32)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.where(length > 0, length, 1), dtype=np.float32)


def make(data: Path, model: Path) -> tuple[int, int]:
    """Write the vectors of a prepared folder by the sentence model in the folder ``model``; return N and T.

    Nothing is downloaded. Raises UsageError ``usage.model`` where ``model`` is no folder that can be loaded.
    """
    library = extras.load("sentence_transformers", "sentences")
    if not model.is_dir():
        raise UsageError("usage.model", f"{model} is not a folder; name one that sentence-transformers has saved")
    try:
        encoder = library.SentenceTransformer(str(model), device="cpu", local_files_only=True)
    except (OSError, ValueError, KeyError, AttributeError) as cause:
        raise UsageError("usage.model", f"{model} can't be loaded as a sentence model: {cause}") from cause
    texts = _texts(read_items(data))
    if not texts:
        raise DataError("data.no_text", f"no item of {data} has a title or another text; give them with [items]")
    vectors = np.asarray(encoder.encode(list(texts.values()), show_progress_bar=False), dtype=np.float32)
    part = data / f"{FILE}.part"
    pq.write_table(pa.table({"item_id": list(texts), "vector": list(vectors)}), part)
    os.replace(part, data / FILE)
    return vectors.shape


def _texts(items: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """Return the text of each item that has one: its title, then what content.py reads as text."""
    fields = ("title", *text_fields_of(list(items.values())))
    texts = {item_id: [str(entry[name]) for name in fields if entry.get(name)] for item_id, entry in items.items()}
    return {item_id: ". ".join(parts) for item_id, parts in texts.items() if parts}
