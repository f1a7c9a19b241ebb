"""Rank the catalogue for cases with a finished bundle, through the SDK's own runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.bundle import Bundle, open_bundle
from xrec_sdk.errors import DataError
from xrec_sdk.runtime import Runtime

from xrec_trainer.cases import Cases, Ranker, case_bias
from xrec_trainer.dataset import Catalogue, Log, encode_case


def open_for(catalogue: Catalogue, path: Path, trusted_keys: Sequence[str]) -> Bundle:
    """Open a bundle and check that it was built from this catalogue; raises DataError ``data.other_bundle``."""
    bundle = open_bundle(path, trusted_keys=trusted_keys)
    rows = bundle.ids.rows(catalogue.ids)
    if len(bundle.ids) != len(catalogue) or not np.array_equal(rows, np.arange(len(catalogue))):
        raise DataError("data.other_bundle", f"{path} holds other items than this run; build it again from the run")
    return bundle


def bundle_ranker(bundle: Bundle, log: Log) -> Ranker:
    """Return the ranker of a bundle: its encoder, its scorer and its repeat rule, as on the device."""
    runtime = Runtime(bundle)
    everything = runtime.no_bias()
    rule = bundle.manifest.repeat

    def rank(cases: Cases, k: int) -> NDArray[np.int32]:
        top = np.full((len(cases), k), -1, dtype=np.int32)
        for case in range(len(cases)):
            user = runtime.encode(encode_case(log, cases.history(case)))
            bias = case_bias(log, cases, case, rule)
            best, scores = runtime.top(user, min(k, log.item_count), everything, *bias)
            best = best[np.isfinite(scores)]
            top[case, : len(best)] = best
        return top

    return rank
