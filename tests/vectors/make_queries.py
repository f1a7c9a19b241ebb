"""Write queries.json: what each query's n-grams, reduced form, buckets and row must be in every language.

python tests/vectors/make_queries.py
"""

from __future__ import annotations

import json
from pathlib import Path

from xrec_sdk.ngrams import grams
from xrec_sdk.query import buckets_of, query_row, reduce_query

LATIN = ("tea", "Green TEA", "red-shoes 42", "Straße ＣＡＦＥ́")
TEXTS = (*LATIN, "手机壳", "5G手机 case", "हिन्दी किताब", "❤️ 🍵 1️⃣", "🍵", " !?", "")


def main() -> None:
    """Write the file beside this one."""
    vectors = [
        {
            "text": text,
            "grams": sorted(set(grams(text))),
            "reduced": reduce_query(text),
            "buckets": list(buckets_of(reduce_query(text))),
            "row": query_row(reduce_query(text)),
        }
        for text in TEXTS
    ]
    path = Path(__file__).with_name("queries.json")
    text = json.dumps({"format": 1, "queries": vectors}, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
