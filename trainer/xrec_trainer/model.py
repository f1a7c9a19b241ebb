"""The model: an item tower that gives the item table, and a history encoder that gives user vectors."""

# N items, W of them warm, M tokens of all items, V kinds of token, T numbers of a text, D width
# B histories, L events, S searches among them, Q queries

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from xrec_sdk.errors import UsageError
from xrec_sdk.history import Vocabulary
from xrec_sdk.query import buckets_of

from xrec_trainer.config import FitConfig
from xrec_trainer.content import Features
from xrec_trainer.encoders import ENCODERS
from xrec_trainer.neighbours import SharedRows


class Items(NamedTuple):
    """What scores need of the items: rows (N, D) and the prior (N,), both float32."""

    table: Tensor
    prior: Tensor


class Model(nn.Module):
    """An item's row is its content row, and if it is warm its id embedding too; a score is ``user @ table.T + prior``.

    A content row is the weighted sum of the rows of the item's tokens and a linear map of its text. The prior is zero
    while the model learns; trend.py sets it.
    """

    def __init__(
        self, config: FitConfig, vocabulary: Vocabulary, features: Features, warm: int, queries: Sequence[str] = ()
    ) -> None:
        super().__init__()
        if config.encoder not in ENCODERS:
            raise UsageError("usage.setting", f"encoder is {config.encoder!r}; expected {' or '.join(ENCODERS)}")
        for name in ("codes", "weights", "offsets", "text"):
            self.register_buffer(name, torch.from_numpy(getattr(features, name)), persistent=False)
        self.register_buffer("prior", torch.zeros(len(features)))
        self.ids = nn.Embedding(warm, config.width)
        self.encoder = ENCODERS[config.encoder](config, vocabulary)
        self.id_dropout = config.id_dropout
        self.log_length = nn.Parameter(torch.zeros(())) if config.unit_rows else None
        self.shared: SharedRows | None = None
        self.is_quantized = False
        for module in self.modules():
            if isinstance(module, (nn.Embedding, nn.Linear)):
                nn.init.normal_(module.weight, std=0.02)
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)
        self.token_rows = nn.Parameter(torch.randn(features.token_count, config.width) * 0.02)
        self.text_map = nn.Parameter(torch.randn(features.text.shape[1], config.width) * 0.02)
        self.query_buckets = [torch.tensor(buckets_of(query), dtype=torch.int64) for query in queries]
        if vocabulary.query_buckets:
            self.query_rows = nn.Parameter(torch.randn(vocabulary.query_buckets, config.width) * 0.02)

    def start_from(self, rows: Tensor) -> None:
        """Take (N, D) as the first item rows, to which content adds nothing yet."""
        with torch.no_grad():
            self.ids.weight.copy_(rows[: len(self.ids.weight)])
            self.token_rows.zero_()
            self.text_map.zero_()

    def fold_shared(self) -> None:
        """Add to the embeddings what the items share with their neighbours; the table stays as it is."""
        if self.shared is not None:
            with torch.no_grad():
                self.ids.weight += self.shared()
            self.shared = None

    def item_table(self) -> Tensor:
        """Return the item table (N, D), as the int8 bundle will hold it once ``is_quantized`` is set.

        While the model trains, each warm item is left to its content alone with probability ``id_dropout``
        (DropoutNet: Volkovs, Yu and Poutanen, NeurIPS 2017). With ``unit_rows`` each row is brought to one learned
        length, which says how sharp the softmax is (CORE: Hou et al., SIGIR 2022, section 3.3).
        """
        ids, content = self.ids.weight, self.content_rows()
        if self.shared is not None:
            ids = ids + self.shared()
        if self.training and self.id_dropout:
            ids = ids * (torch.rand(len(ids), 1) >= self.id_dropout)
        table = functional.pad(ids, (0, 0, 0, len(content) - len(ids))) + content  # (W, D) -> (N, D)
        if self.log_length is not None:
            table = functional.normalize(table, dim=1) * self.log_length.exp()
        return fake_quantize(table) if self.is_quantized else table

    def content_rows(self) -> Tensor:
        """Return what is known of the items from their content alone, (N, D)."""
        tokens = functional.embedding_bag(
            self.get_buffer("codes"),
            self.token_rows,
            self.get_buffer("offsets"),
            mode="sum",
            per_sample_weights=self.get_buffer("weights"),
            include_last_offset=True,
        )  # (M,) -> (N, D)
        rows: Tensor = tokens + self.get_buffer("text") @ self.text_map  # (N, T) @ (T, D) -> (N, D)
        return rows

    def history_rows(self, rows: Tensor, table: Tensor) -> Tensor:
        """Return what the encoder reads of the rows of histories, (B, L) -> (B, L, D).

        They are rows of ``table`` (N, D), and of a search, whose row is below 0, its query's vector.
        """
        vectors = functional.embedding(rows.clamp(min=0), table)
        is_search = rows < 0
        if not is_search.any():
            return vectors
        return vectors.masked_scatter(is_search[..., None], self.query_vectors(-1 - rows[is_search]))

    def query_vectors(self, places: Tensor) -> Tensor:
        """Return the mean of the bucket rows of the queries at ``places``, (S,) -> (S, D); zero for no buckets."""
        buckets = [self.query_buckets[place] for place in places.tolist()]
        sizes = torch.tensor([0, *map(len, buckets)])
        return functional.embedding_bag(torch.cat(buckets), self.bucket_rows(), sizes.cumsum(0)[:-1], mode="mean")

    def bucket_rows(self) -> Tensor:
        """Return the rows of the query buckets, as the int8 bundle will hold them once ``is_quantized`` is set."""
        return fake_quantize(self.query_rows) if self.is_quantized else self.query_rows

    def items(self) -> Items:
        """Return the item table and the prior."""
        return Items(self.item_table(), self.get_buffer("prior"))


def fake_quantize(table: Tensor) -> Tensor:
    """Round each row to int8 with one scale a row; the gradient passes unchanged (straight-through estimator)."""
    with torch.no_grad():
        largest = table.abs().amax(dim=1, keepdim=True)
        scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
        rounded = (table / scale).round().clamp(-127, 127) * scale
    return table + (rounded - table).detach()
