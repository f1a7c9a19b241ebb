"""Time one training step with the full softmax and with the sampled one, over catalogues of growing size.

    python benchmarks/loss_cost.py

It says from which size on the sampled loss pays (`FitConfig.sampled_above`). A step is the default encoder on 4,096
positions (82 histories of 50), the loss, and the gradients of both; the two losses take turns in one process.
"""

# B histories, L events, N items, D width

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch.nn import functional
from xrec_sdk.history import Vocabulary
from xrec_trainer.config import FitConfig
from xrec_trainer.encoders import ENCODERS
from xrec_trainer.loss import full_cross_entropy, sampled_cross_entropy

SIZES = (5_000, 10_000, 15_000, 25_000, 50_000, 100_000)
HISTORIES, LENGTH = 82, 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = FitConfig(targets=("purchase",))
    encoder = ENCODERS[config.encoder](config, Vocabulary(("purchase",), ("phone",)))
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), {HISTORIES * LENGTH} positions, milliseconds")
    print("   items   encoder     full  sampled   step full / sampled")
    for size in SIZES:
        table = (0.1 * torch.randn(size, config.width)).requires_grad_(True)
        rows, targets = torch.randint(size, (HISTORIES, LENGTH)), torch.randint(size, (HISTORIES * LENGTH,))
        codes, places = torch.ones_like(rows), torch.arange(HISTORIES * LENGTH)
        weights = torch.ones(HISTORIES * LENGTH)
        log_q = torch.full((size,), float(np.log(config.samples / size)))
        times: dict[str, list[float]] = {"encoder": [], "full": [], "sampled": []}
        for _ in range(arguments.rounds):
            for name in ("full", "sampled"):
                begin = time.perf_counter()
                users = encoder(functional.embedding(rows, table), codes, codes, codes).flatten(0, 1)
                encoded = time.perf_counter()
                if name == "full":
                    loss = full_cross_entropy(users, table, places, targets, weights)
                else:
                    drawn = torch.randint(size, (config.samples,))
                    loss = sampled_cross_entropy(users, table, places, targets, weights, drawn, log_q)
                gradient, _ = torch.autograd.grad(loss, (users, table), retain_graph=True)
                lost = time.perf_counter()
                users.backward(gradient)
                end = time.perf_counter()
                times["encoder"].append((encoded - begin + end - lost) * 1e3)
                times[name].append((lost - encoded) * 1e3)
        encoder_ms, full, sampled = (float(np.median(times[name])) for name in ("encoder", "full", "sampled"))
        ratio = (encoder_ms + full) / (encoder_ms + sampled)
        print(f"{size:8,d}  {encoder_ms:8.0f} {full:8.0f} {sampled:8.0f}   {ratio:.2f}")


if __name__ == "__main__":
    main()
