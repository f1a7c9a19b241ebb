"""Hash the n-grams of a text, in any script and without a tokenizer.

Words give character n-grams with marks where a word begins and ends (Bojanowski et al., "Enriching Word Vectors with
Subword Information", TACL 2017). Chinese, Japanese and Korean, where spaces don't part the words, give single
characters and pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from unicodedata import category, normalize
from zlib import crc32

LENGTHS = (3, 4, 5)
CJK_BLOCKS = (
    (0x3005, 0x3007),  # 々, 〆, 〇
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han, extension A
    (0x4E00, 0x9FFF),  # Han
    (0xAC00, 0xD7A3),  # Hangul
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x20000, 0x3FFFF),  # Han, further extensions
)
VARIATION_SELECTORS = range(0xFE00, 0xFE10)


def grams(text: str) -> list[str]:
    """Return the n-grams in the order of the text, repeated as they are there.

    The text is read in NFKC without case. A run of letters, digits and their marks gives the 3- to 5-grams of
    ``<word>`` and that whole; a run of CJK gives its characters, then its pairs; all else parts runs and gives nothing.
    """
    folded = normalize("NFKC", normalize("NFKC", text).casefold())
    runs = ((kind, "".join(run)) for kind, run in groupby(folded, _kind))
    return [gram for kind, run in runs if kind for gram in (_cjk_grams(run) if kind == "cjk" else _word_grams(run))]


def hashes(text: str) -> list[int]:
    """Return the CRC-32 (zlib's) of each n-gram's UTF-8 bytes, from 0 to 2^32 - 1."""
    return [_hash(gram) for gram in grams(text)]


@lru_cache(maxsize=1 << 16)
def _kind(char: str) -> str:
    code, kind = ord(char), category(char)
    if any(low <= code <= high for low, high in CJK_BLOCKS):
        return "cjk"
    is_mark = kind in ("Mn", "Mc") and code not in VARIATION_SELECTORS
    return "word" if kind[0] in "LN" or is_mark else ""


@lru_cache(maxsize=1 << 18)
def _hash(gram: str) -> int:
    return crc32(gram.encode())


@lru_cache(maxsize=1 << 16)
def _word_grams(word: str) -> tuple[str, ...]:
    return tuple(_marked_grams(f"<{word}>"))


def _marked_grams(marked: str) -> Iterator[str]:
    for length in LENGTHS:
        if length < len(marked):
            yield from (marked[at : at + length] for at in range(len(marked) - length + 1))
    yield marked


def _cjk_grams(run: str) -> Iterator[str]:
    yield from run
    yield from (run[at : at + 2] for at in range(len(run) - 1))
