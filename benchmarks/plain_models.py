"""The made shop's model as one would run it without xrec: torch, float32 ONNX, onnxruntime's quantizer, NumPy.

Each takes a case and returns the rows of its ten best items, the history's own left out.
"""

# N items, D width, L events in a history, H heads

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from made_shop import K
from numpy.typing import NDArray
from scipy.special import erf
from torch import Tensor, nn
from torch.nn import functional
from xrec_export.export_model import ExportModel, ParityCase
from xrec_trainer.encoders.lowpass import FILTER_SHARE

CODES = ("rows", "events", "devices", "gaps")
Answer = Callable[[ParityCase], NDArray[Any]]


class Naive(nn.Module):
    """The whole model in float32: gather, encoder, product, mask of the seen items, top k."""

    def __init__(self, model: ExportModel) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.from_numpy(model.item_table), requires_grad=False)
        self.encoder = model.encoder

    def forward(self, rows: Tensor, events: Tensor, devices: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor]:
        """Four (1, L) -> scores and rows of the best ten."""
        user = self.encoder(functional.embedding(rows, self.table), events, devices, gaps)
        scores = user @ self.table.T
        scores = scores.scatter(1, rows.long(), float("-inf"))
        best = torch.topk(scores, K)
        return best.values, best.indices


def torch_eager(model: ExportModel) -> Answer:
    """Return torch's own answer, on as many threads as torch has."""
    naive = Naive(model).eval()

    def answer(case: ParityCase) -> NDArray[Any]:
        with torch.inference_mode():
            return naive(*(torch.from_numpy(getattr(case.history, name)[None]) for name in CODES))[1][0].numpy()

    return answer


def export_naive(model: ExportModel, path: Path, length: int) -> None:
    """Write what a first export gives: a float32 table, Gather, the encoder, one MatMul over all items, one TopK."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Naive(model),
            tuple(torch.ones(1, length, dtype=torch.int32) for _ in CODES),
            path,
            dynamo=True,
            opset_version=21,
            input_names=list(CODES),
            output_names=["scores", "top"],
            dynamic_shapes=({1: torch.export.Dim.DYNAMIC},) * 4,
            verbose=False,
        )


def export_quantized(naive: Path, path: Path) -> None:
    """Write what onnxruntime's ``quantize_dynamic`` makes of the naive export, with int8 weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(naive, path, weight_type=QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)


def session(graph: str | bytes, threads: int) -> Any:
    """Return a session of onnxruntime as it is by default, but for its threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def onnx_answer(path: Path, threads: int) -> Answer:
    """Return the answer of an exported model."""
    opened = session(str(path), threads)

    def answer(case: ParityCase) -> NDArray[Any]:
        return opened.run(["top"], {name: getattr(case.history, name)[None] for name in CODES})[0][0]  # type: ignore[no-any-return]

    return answer


def numpy_model(model: ExportModel) -> Answer:
    """Return the answer of NumPy alone: the encoder's formulas on its weights, one product, argpartition."""
    weights = {name: value.detach().numpy() for name, value in model.encoder.encoder.named_parameters()}  # type: ignore[union-attr]
    blocks = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    heads, table = model.encoder.encoder.blocks[0].heads, model.item_table  # type: ignore[union-attr,index]

    def answer(case: ParityCase) -> NDArray[Any]:
        history = case.history
        x = table[history.rows] + weights["position.weight"][: len(history)]
        for name in ("event", "device", "gap"):
            x = x + weights[f"{name}.weight"][getattr(history, f"{name}s")]
        x = _norm(x, weights, "norm")
        for place in range(blocks):
            x = _block(x, weights, f"blocks.{place}", heads, last_only=place == blocks - 1)
        scores = table @ x
        scores[case.bias_rows] += case.bias_values
        best = np.argpartition(-scores, K)[:K]
        return best[np.argsort(-scores[best])]

    return answer


def _block(x: NDArray[Any], weights: dict[str, Any], name: str, heads: int, *, last_only: bool) -> NDArray[Any]:
    """Return (L, D), or (D,) of the last position."""
    length, width = x.shape
    asking = x[-1:] if last_only else x
    query, key, value = (
        _linear(one, weights, f"{name}.{part}").reshape(-1, heads, width // heads).transpose(1, 0, 2)
        for one, part in ((asking, "query"), (x, "key"), (x, "value"))
    )
    logits = query @ key.transpose(0, 2, 1) * np.float32((width // heads) ** -0.5)  # (H, asking, L)
    if not last_only:
        logits = logits + np.triu(np.full((length, length), -np.inf, dtype=np.float32), 1)
    attention = np.exp(logits - logits.max(axis=-1, keepdims=True))
    attention /= attention.sum(axis=-1, keepdims=True)
    attended = _linear((attention @ value).transpose(1, 0, 2).reshape(-1, width), weights, f"{name}.out")
    low = x.cumsum(axis=0) / np.arange(1, length + 1, dtype=np.float32)[:, None]
    low = low[-1:] if last_only else low
    share = weights[f"{name}.high_weight"] ** 2
    attended = _norm(asking + attended, weights, f"{name}.attention_norm")
    filtered = _norm(asking + low + share * (asking - low), weights, f"{name}.filter_norm")
    mixed = np.float32(FILTER_SHARE) * filtered + np.float32(1 - FILTER_SHARE) * attended
    inner = _linear(mixed, weights, f"{name}.inner")
    inner = inner * np.float32(0.5) * (1 + erf(inner * np.float32(0.5**0.5)))  # gelu
    answer = _norm(mixed + _linear(inner, weights, f"{name}.outer"), weights, f"{name}.norm")
    return answer[0] if last_only else answer


def _linear(x: NDArray[Any], weights: dict[str, Any], name: str) -> NDArray[Any]:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]  # type: ignore[no-any-return]


def _norm(x: NDArray[Any], weights: dict[str, Any], name: str) -> NDArray[Any]:
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(1e-5))
    return centred / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]  # type: ignore[no-any-return]
