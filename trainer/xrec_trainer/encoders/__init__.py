"""The history encoders by name; each maps item rows and codes to vectors and lives in a file of its own."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from xrec_sdk.history import Vocabulary

from xrec_trainer.config import FitConfig
from xrec_trainer.encoders import caser, filterbank, gru, hstu, lowpass, pool, transformer

ENCODERS: dict[str, Callable[[FitConfig, Vocabulary], nn.Module]] = {
    "lowpass": lowpass.build,
    "pool": pool.build,
    "transformer": transformer.build,
    "filterbank": filterbank.build,
    "hstu": hstu.build,
    "gru": gru.build,
    "caser": caser.build,
}
