"""Ask a bundle for the lists of many questions; as a command, in a process of its own, such as on an emulated CPU.

python -m xrec_export.lists BUNDLE QUESTIONS.npz LISTS.npz K
"""

# C questions, k answers

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.bundle import Bundle, open_bundle
from xrec_sdk.history import ARRAYS, History
from xrec_sdk.runtime import Runtime

Bias = tuple[NDArray[np.int32], NDArray[np.float32]]
Answer = Callable[[History, Bias, int], tuple[NDArray[np.int32], NDArray[np.float32]]]
"""Gives the best rows for a history and biases and their scores, (k,) each, fewer where fewer are allowed."""


@dataclass(frozen=True)
class Questions:
    """C histories and the biases on top of each."""

    histories: Sequence[History]
    biases: Sequence[Bias]


@dataclass(frozen=True)
class Lists:
    """The answers to C questions: ``rows`` (C, k) int32, -1 where a list ends before, ``scores`` (C, k), -inf there."""

    rows: NDArray[np.int32]
    scores: NDArray[np.float32]


def ask(answer: Answer, questions: Questions, k: int) -> Lists:
    """Return the lists of ``k`` that a runtime answers."""
    rows = np.full((len(questions.histories), k), -1, dtype=np.int32)
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    for case, (history, bias) in enumerate(zip(questions.histories, questions.biases, strict=True)):
        found = answer(history, bias, k)
        rows[case, : len(found[0])], scores[case, : len(found[1])] = found
    return Lists(rows, scores)


def onnxruntime_answer(bundle: Bundle) -> Answer:
    """Return what answers as an app does."""
    runtime = Runtime(bundle)
    return lambda history, bias, k: runtime.top(runtime.encode(history), k, runtime.no_bias(), *bias)


def save_questions(path: Path, questions: Questions) -> None:
    """Write questions as an npz file."""
    codes = {name: np.concatenate([getattr(one, name) for one in questions.histories]) for name in ARRAYS}
    rows, values = zip(*questions.biases, strict=True)
    lengths = {
        "lengths": np.array([len(one) for one in questions.histories]),
        "bias_lengths": np.array([len(one) for one in rows]),
    }
    kept: dict[str, Any] = {
        **codes,
        **lengths,
        "queries": np.array(json.dumps([one.queries for one in questions.histories])),
        "bias_rows": np.concatenate(rows),
        "bias_values": np.concatenate(values),
    }
    np.savez(path, **kept)


def load_questions(path: Path) -> Questions:
    """Read what save_questions wrote."""
    with np.load(path, allow_pickle=False) as kept:
        ends = np.cumsum(kept["lengths"])[:-1]
        codes = zip(*(np.split(kept[name], ends) for name in ARRAYS), strict=True)
        bias_ends = np.cumsum(kept["bias_lengths"])[:-1]
        biases = zip(*(np.split(kept[name], bias_ends) for name in ("bias_rows", "bias_values")), strict=True)
        queries = json.loads(str(kept["queries"]))
        histories = [History(*one, queries=tuple(of_it)) for one, of_it in zip(codes, queries, strict=True)]
        return Questions(histories, list(biases))


def main(bundle: str, questions: str, lists: str, k: str) -> None:
    """Answer the questions of a file with the bundle, whose signature is not checked, into another file."""
    answer = onnxruntime_answer(open_bundle(bundle, allow_unsigned=True))
    found = ask(answer, load_questions(Path(questions)), int(k))
    np.savez(lists, rows=found.rows, scores=found.scores)


if __name__ == "__main__":
    main(*sys.argv[1:])
