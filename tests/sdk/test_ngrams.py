"""N-grams of a text: the stated vectors, in every script, without case, width or punctuation."""

from __future__ import annotations

import pytest
from xrec_sdk.ngrams import grams, hashes

VECTORS: list[tuple[str, list[str], list[int]]] = [
    (
        "tea",
        ["<te", "tea", "ea>", "<tea", "tea>", "<tea>"],
        [0xA4BBECC3, 0x8E86D7B2, 0x0CDA9794, 0xEA7E96A5, 0x3682A651, 0xB535DBD7],
    ),
    ("A", ["<a>"], [0x6FB782AB]),
    ("手机壳", ["手", "机", "壳", "手机", "机壳"], [0xC2050CAA, 0xA46EEA84, 0x872AC645, 0xAC5E8973, 0x6F8D2284]),
    (
        "5G手机",
        ["<5g", "5g>", "<5g>", "手", "机", "手机"],
        [0xA3D7F3AB, 0x363C1EA2, 0x52C45FB5, 0xC2050CAA, 0xA46EEA84, 0xAC5E8973],
    ),
    ("❤️ 🍵 1️⃣", ["<1>"], [0xD50CDFFF]),
    ("", [], []),
]


@pytest.mark.parametrize(("text", "expected", "expected_hashes"), VECTORS)
def test_a_text_gives_the_stated_grams_and_their_crc32(
    text: str, expected: list[str], expected_hashes: list[int]
) -> None:
    assert grams(text) == expected
    assert hashes(text) == expected_hashes


def test_case_width_and_compatibility_forms_do_not_matter() -> None:
    assert grams("ＴＥＡ") == grams("Tea") == grams("tea")
    assert grams("Straße") == grams("STRASSE")
    assert grams("ﾃｽﾄ") == grams("テスト")
    assert grams("Caf\u0065\u0301") == grams("Café")


def test_punctuation_parts_words_and_marks_stay_in_them() -> None:
    assert grams("a_b-c") == grams("a b c") == ["<a>", "<b>", "<c>"]
    assert "<हिन्दी>" in grams("हिन्दी")
    assert grams("\ud800!") == []


def test_a_gram_that_comes_twice_is_given_twice() -> None:
    assert grams("茶茶") == ["茶", "茶", "茶茶"] and grams("tea tea") == 2 * grams("tea")
