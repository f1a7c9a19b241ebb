"""Content: items whose text is like that of the history's items."""

# N items, F hashed features

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from xrec_sdk.errors import DataError
from xrec_sdk.ngrams import hashes

from xrec_trainer.baselines.scoring import ranker, votes
from xrec_trainer.cases import Ranker
from xrec_trainer.dataset import Log

FEATURES = 2**18


def content(
    log: Log,
    train_mask: NDArray[np.bool_],
    *,
    entries: Sequence[Mapping[str, object]],
    history_half_life_days: float | None = 30.0,
    half_life_days: float = 30.0,
) -> Ranker:
    """Rank by the cosine between an item's text and the decayed mean of the texts of the history.

    ``entries`` (N,) are the catalogue's; all that is text in them counts: title, category, further attributes. What
    users did decides nothing but the order of items without a score, so an item that nobody had yet can be ranked.
    Raises DataError ``data.no_text`` where no item has a text.
    """
    vectors = text_vectors([_text(entry) for entry in entries])
    if vectors.nnz == 0:
        raise DataError(
            "data.no_text",
            f"none of the {len(entries)} items has a title, a category or another text; "
            "give them with [items] in sources.toml, or leave out the baseline content",
        )
    by_feature = vectors.T.tocsr()

    def score(histories: sparse.csr_matrix, users: NDArray[np.int32]) -> NDArray[np.float32]:
        # the sum ranks as the mean does
        return votes(histories @ vectors @ by_feature)  # (c, N) @ (N, F) @ (F, N) -> (c, N)

    return ranker(log, train_mask, score, history_half_life_days=history_half_life_days, half_life_days=half_life_days)


def text_vectors(texts: Sequence[str]) -> sparse.csr_matrix:
    """Return (N, F) float32 of length one, or zero for an empty text.

    Term frequency times inverse document frequency (Salton and Buckley 1988) of the words and their character
    n-grams (xrec_sdk.ngrams), hashed into F features (Weinberger et al., ICML 2009).
    """
    columns = [[code % FEATURES for code in hashes(text)] for text in texts]
    line = np.repeat(np.arange(len(texts)), [len(found) for found in columns])
    column = np.fromiter((feature for found in columns for feature in found), dtype=np.int64, count=len(line))
    counts = sparse.csr_matrix((np.ones(len(line), dtype=np.float32), (line, column)), shape=(len(texts), FEATURES))
    documents = np.bincount(counts.indices, minlength=FEATURES)
    weighted = counts.multiply(np.log((1 + len(texts)) / (1 + documents)) + 1.0).tocsr()
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags(1.0 / np.maximum(length, 1e-12)) @ weighted, dtype=np.float32)


def _text(entry: Mapping[str, object]) -> str:
    return " ".join(value for value in entry.values() if isinstance(value, str))
