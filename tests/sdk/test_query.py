"""A reduced query: the stated vectors, what is refused, and that a malformed one is a query without buckets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from xrec_sdk.errors import UsageError
from xrec_sdk.ngrams import grams
from xrec_sdk.query import MAX_BUCKETS, buckets_of, is_query, item_or_query, query_buckets, query_row, reduce_query

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "queries.json").read_text(encoding="utf-8"))["queries"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: repr(vector["text"]))
def test_a_query_gives_the_stated_grams_reduced_form_buckets_and_row(vector: dict[str, object]) -> None:
    text, reduced = str(vector["text"]), str(vector["reduced"])
    assert sorted(set(grams(text))) == sorted(map(str, vector["grams"]))
    assert reduce_query(text) == reduced
    assert list(buckets_of(reduced)) == vector["buckets"]
    assert query_row(reduced) == vector["row"]


def test_the_longest_query_fits_where_an_item_id_does() -> None:
    reduced = reduce_query(" ".join(f"word{number}x" for number in range(200)))
    assert len(buckets_of(reduced)) == MAX_BUCKETS and len(reduced) <= 512


MALFORMED = ("query~A", "query~!!", "query~ABAA", "query~AAAA", "query~" + "AB" * 300, "tea", "é")


@pytest.mark.parametrize("reduced", MALFORMED)
def test_what_reduce_query_does_not_write_has_no_buckets(reduced: str) -> None:
    assert buckets_of(reduced) == ()


def test_either_an_item_or_a_query_is_given() -> None:
    assert item_or_query("sku-1", None) == "sku-1"
    assert is_query(item_or_query(None, "tea"))
    for item_id, query in (
        (None, None),
        ("sku-1", "tea"),
        (None, ""),
        (None, "x" * 513),
        (None, "a\0b"),
        (None, "\ud83c"),
        (None, 5),
    ):
        with pytest.raises(UsageError) as caught:
            item_or_query(item_id, query)  # type: ignore[arg-type]
        assert caught.value.code == "usage.query"


def test_buckets_stand_at_the_searches_and_end_with_minus_one() -> None:
    rows = np.array([4, -9, 2, -9], dtype=np.int32)
    found = query_buckets(rows, ("query~AAAB", "query~"))
    assert found.tolist() == [[-1, -1], [0, 1], [-1, -1], [-1, -1]]
    assert query_buckets(rows[:1], ()).tolist() == [[-1]]
