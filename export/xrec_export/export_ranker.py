"""Read the trained ranker of a run as the plain values that its graph is written from."""

# D width, F features of the user, G of an item, k rows

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from xrec_sdk.history import DAY_MS
from xrec_trainer.rank import load_ranker
from xrec_trainer.ranker import Ranker, TwoBranch
from xrec_trainer.run import Run
from xrec_trainer.served import BIAS_LIMIT, LOGIT_LIMIT, context_features, item_features

from xrec_export.ranker_graph import Array, ExportRanker


def ranker_of(run: Run) -> ExportRanker | None:
    """Return the run's ranker, None where there is none."""
    loaded = load_ranker(run)
    if loaded is None:
        return None
    ranker, found = loaded
    features, devices = item_features(run).numpy(), run.vocabulary.device_count
    return fold(ranker, features, devices, run.config.targets, round(found["horizon_days"] * DAY_MS))


def fold(ranker: Ranker, features: Array, device_count: int, events: tuple[str, ...], horizon_ms: int) -> ExportRanker:
    """Fold standardization and calibration into the weights, in float64; ``features`` are (N, 2)."""
    network = ranker.network
    user_weight, user_bias = _standardized(ranker, "user")
    item_weight, item_bias = _standardized(ranker, "item")
    is_two_branch = isinstance(network, TwoBranch)
    if not is_two_branch:
        user_bias, item_bias = user_bias + item_bias, np.zeros_like(item_bias)
    slope, offset = ranker.get_buffer("calibration").double().numpy().T  # (2, 2) -> two of (2,)
    out = network.out.weight.detach().double().numpy()  # (1, H) or (1, 2H)
    bias = float(network.out.bias.detach().double())
    return ExportRanker(
        is_two_branch=is_two_branch,
        user_weight=user_weight.T.astype(np.float32),
        user_bias=user_bias.astype(np.float32),
        item_weight=item_weight.astype(np.float32),
        item_bias=item_bias.astype(np.float32),
        out_weight=(slope[:, None] * out).astype(np.float32),
        out_bias=(slope * bias + offset).astype(np.float32),
        item_features=features,
        reference=_Asked(ranker, torch.from_numpy(features), device_count),
        events=events,
        horizon_ms=horizon_ms,
    )


def _standardized(ranker: Ranker, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weight (H, F) or (H, G) and the bias (H,) that take features as they are."""
    layer = getattr(ranker.network, name)
    mean, scale = (ranker.get_buffer(f"{name}_{of}").double().numpy() for of in ("mean", "scale"))
    weight = layer.weight.detach().double().numpy() / scale
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().numpy()
    return weight, bias - weight @ mean


class _Asked:
    """Torch's answer to what the graph is asked."""

    def __init__(self, ranker: Ranker, features: torch.Tensor, device_count: int) -> None:
        self.ranker, self.features, self.device_count = ranker, features, device_count

    @torch.no_grad()
    def __call__(self, user: Array, context: Array, rows: NDArray[np.int32], vectors: Array, pairs: Array) -> Array:
        known = context_features(torch.from_numpy(context)[None], self.device_count)
        users = torch.cat([torch.from_numpy(user)[None], known], dim=1).expand(len(rows), -1)
        items = torch.cat(
            [
                torch.from_numpy(vectors),
                self.features[torch.from_numpy(rows.astype(np.int64))],
                torch.from_numpy(pairs).clamp(-BIAS_LIMIT, BIAS_LIMIT),
            ],
            dim=1,
        )
        found: Array = torch.sigmoid(self.ranker(users, items).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)).numpy()
        return found
