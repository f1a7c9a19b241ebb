"""Item features from the catalogue: tokens of attributes and text as a few numbers, for items with and without events.

Text is TF-IDF over hashed n-grams (xrec_sdk.ngrams), brought to ``TEXT_WIDTH`` numbers by latent semantic analysis
(Deerwester et al., JASIS 1990). What was learned is kept in the run, because the signs of singular vectors differ
between machines and because later items must be encoded as these were.
"""

# N items, M tokens of all items, G n-grams, T numbers of a text

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from xrec_sdk.errors import DataError
from xrec_sdk.ngrams import hashes

TEXT_WIDTH = 128
MAX_GRAMS = 50_000
SPARE_WIDTH = 16
POWERS = 4
MIN_ITEMS = 2
"""A token or an n-gram that fewer items have says nothing about any other item."""
LONGEST_TOKEN = 32
"""An attribute whose values have more characters than this on average is read as text."""
Entry = Mapping[str, object]


@dataclass(frozen=True)
class Content:
    """What was learned from the entries of a catalogue, enough to encode any other entry.

    ``text_fields`` are read as text beside the title; ``tokens`` are ``field=value``, a token's code is its place;
    ``grams`` (G,) uint32, ascending, and ``idf`` (G,) and ``projection`` (G, T), float32.
    """

    text_fields: tuple[str, ...]
    tokens: tuple[str, ...]
    grams: NDArray[np.uint32]
    idf: NDArray[np.float32]
    projection: NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """What the item tower reads: of item i the token codes ``offsets[i]`` to ``offsets[i + 1]``, and a row of ``text``.

    ``codes`` (M,) int64 and their ``weights`` (M,) float32, one divided by the number in the field; ``text`` (N, T)
    float32 of length one, or zero where there is none. ``token_count`` bounds the codes.
    """

    codes: NDArray[np.int64]
    weights: NDArray[np.float32]
    offsets: NDArray[np.int64]
    text: NDArray[np.float32]
    token_count: int

    def __len__(self) -> int:
        return len(self.text)


def learn(entries: Sequence[Entry]) -> Content:
    """Learn tokens, n-grams and their projection from the entries (N,) of a catalogue."""
    text_fields = text_fields_of(entries)
    items_with = Counter(token for entry in entries for tokens in _tokens(entry, text_fields) for token in tokens)
    grams, counts = _gram_counts(entries, text_fields)
    items_of = np.bincount(counts.indices, minlength=len(grams))
    kept = np.flatnonzero((items_of >= MIN_ITEMS) & (items_of <= len(entries) / 2))
    kept = np.sort(kept[np.argsort(-items_of[kept], kind="stable")[:MAX_GRAMS]])
    idf = (np.log((1 + len(entries)) / (1 + items_of[kept])) + 1).astype(np.float32)
    weighted = _unit_rows(sparse.csr_matrix(counts[:, kept] @ sparse.diags(idf)))
    return Content(
        text_fields=text_fields,
        tokens=tuple(sorted(token for token, items in items_with.items() if items >= MIN_ITEMS)),
        grams=grams[kept],
        idf=idf,
        projection=_leading_vectors(weighted, TEXT_WIDTH),
    )


def encode(content: Content, entries: Sequence[Entry]) -> Features:
    """Return the features of entries (N,), whether they were learned from or not; what was not learned adds nothing."""
    code_of = {token: code for code, token in enumerate(content.tokens)}
    codes: list[int] = []
    weights: list[float] = []
    offsets = [0]
    for entry in entries:
        for tokens in _tokens(entry, content.text_fields):
            known = [code_of[token] for token in tokens if token in code_of]
            codes += known
            weights += [1 / len(known) for _ in known]
        offsets.append(len(codes))
    found, counts = _gram_counts(entries, content.text_fields)
    _, column, place = np.intersect1d(content.grams, found, assume_unique=True, return_indices=True)
    known_counts = counts[:, place]
    weighted = sparse.csr_matrix(known_counts @ sparse.diags(content.idf[column]))
    text = np.asarray(_unit_rows(weighted) @ content.projection[column], dtype=np.float32)  # (N, G) @ (G, T) -> (N, T)
    length = np.linalg.norm(text, axis=1, keepdims=True)
    return Features(
        codes=np.array(codes, dtype=np.int64),
        weights=np.array(weights, dtype=np.float32),
        offsets=np.array(offsets, dtype=np.int64),
        text=np.asarray(text / np.where(length > 0, length, 1), dtype=np.float32),
        token_count=len(content.tokens),
    )


def save(path: Path, content: Content) -> None:
    """Write a Content whole or not at all."""
    names = json.dumps({"text_fields": content.text_fields, "tokens": content.tokens}).encode()
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez(
            file,
            names=np.frombuffer(names, dtype=np.uint8),
            grams=content.grams,
            idf=content.idf,
            projection=content.projection,
        )
    os.replace(part, path)


def load(path: Path) -> Content:
    """Read what ``save`` wrote; raises DataError ``data.content_malformed``."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = json.loads(arrays["names"].tobytes())
            grams, idf, projection = arrays["grams"], arrays["idf"], arrays["projection"]
        if not len(grams) == len(idf) == len(projection):
            raise ValueError(f"{len(grams)} n-grams, {len(idf)} weights and {len(projection)} rows of the projection")
        return Content(tuple(names["text_fields"]), tuple(names["tokens"]), grams, idf, projection)
    except (OSError, ValueError, KeyError, BadZipFile) as cause:
        raise DataError(
            "data.content_malformed", f"{path} does not hold what was learned of the items ({cause}); fit again"
        ) from cause


def text_fields_of(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return the attributes that are read as text beside the title, sorted."""
    lengths: dict[str, list[int]] = {}
    for entry in entries:
        for field, value in entry.items():
            if field not in ("title", "category", "price"):
                lengths.setdefault(field, []).extend(map(len, _values(value)))
    return tuple(sorted(field for field, found in lengths.items() if found and np.mean(found) > LONGEST_TOKEN))


def _values(value: object) -> list[str]:
    parts = (part.strip() for part in str(value).split("|"))
    return list(dict.fromkeys(part for part in parts if part))


def _tokens(entry: Entry, text_fields: Sequence[str]) -> Iterator[list[str]]:
    """Yield the distinct tokens of each field, in the order of the fields' names."""
    for field in sorted(entry):
        value = entry[field]
        if field == "price":
            yield [f"price={bucket}" for bucket in _price_bucket(value)]
        elif field != "title" and field not in text_fields and value is not None:
            yield [f"{field}={one}" for one in _values(value)]


def _price_bucket(value: object) -> list[int]:
    """Return the half octave of a price, so that a bucket's ends differ by the square root of 2; none for 0."""
    price = float(value) if isinstance(value, int | float) else 0.0
    return [math.floor(2 * math.log2(price))] if price > 0 and math.isfinite(price) else []


def _gram_counts(entries: Sequence[Entry], text_fields: Sequence[str]) -> tuple[NDArray[np.uint32], sparse.csr_matrix]:
    """Return the n-grams that there are, (G,) ascending, and how often each entry has each, (N, G)."""
    fields = ("title", *text_fields)
    found = [
        np.array([gram for field in fields if entry.get(field) for gram in hashes(str(entry[field]))], dtype=np.uint32)
        for entry in entries
    ]
    line = np.repeat(np.arange(len(found)), [len(grams) for grams in found])
    grams, column = np.unique(np.concatenate([*found, np.zeros(0, np.uint32)]), return_inverse=True)
    ones = np.ones(len(line), dtype=np.float32)
    return grams, sparse.csr_matrix((ones, (line, column)), shape=(len(found), len(grams)))


def _leading_vectors(matrix: sparse.csr_matrix, count: int) -> NDArray[np.float32]:
    """Return about the ``count`` leading right singular vectors of (N, G) as columns, fewer where N or G is smaller.

    Randomized subspace iteration (Halko, Martinsson and Tropp, SIAM Review 2011, algorithm 4.4), from a fixed start:
    ARPACK's ``svds`` begins anew by chance where the rank is low, and so does not give the same bits twice.
    """
    width = min(count + SPARE_WIDTH, *matrix.shape)
    basis = np.random.default_rng(0).standard_normal((matrix.shape[1], width)).astype(np.float32)
    for _ in range(POWERS):
        basis, _ = np.linalg.qr(matrix.T @ (matrix @ basis))  # (G, N) @ (N, G) @ (G, width) -> (G, width)
    _, _, turn = np.linalg.svd(matrix @ basis, full_matrices=False)
    return np.asarray((basis @ turn.T)[:, : min(count, width)], dtype=np.float32)


def _unit_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags(1 / np.where(length > 0, length, 1)) @ matrix, dtype=np.float32)
