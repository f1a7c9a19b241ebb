"""Train RecTools' SASRec on a leave-one-out file, epoch by epoch, and print its validation NDCG@10 (a venv of its own).

    python -m venv peer && peer/bin/pip install 'rectools[torch]'
    peer/bin/python benchmarks/peer_rectools.py Beauty.txt --epochs 200 --patience 10

A line of the file is `user item item ...` in time order. The model learns from all but the last two items of a user and
is asked for the last but one among all items that are not in what it learned from. RecTools trains with its own data
loader, trainer and cross entropy (its ``softmax``); width, length of the history and number of blocks are xrec's, the
rest its defaults. A line ``trained`` ends the training of an epoch, a line ``epoch`` its evaluation.
"""

from __future__ import annotations

import argparse
import logging
import math
import warnings
from pathlib import Path

import pandas as pd  # type: ignore[import-not-found, import-untyped, unused-ignore]
import torch
from rectools import Columns  # type: ignore[import-not-found, unused-ignore]
from rectools.dataset import Dataset  # type: ignore[import-not-found, unused-ignore]
from rectools.models import SASRecModel  # type: ignore[import-not-found, unused-ignore]

K = 10


def main() -> None:
    """Train until the validation has not improved for ``--patience`` epochs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--patience", type=int, default=10)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.manual_seed(arguments.seed)
    users = [list(map(int, line.split())) for line in arguments.file.read_text().splitlines()]
    learned = [(user, item, place) for user, *items in users for place, item in enumerate(items[:-2])]
    wanted = {user: items[-2] for user, *items in users}
    frame = pd.DataFrame(learned, columns=[Columns.User, Columns.Item, Columns.Datetime])
    frame[Columns.Datetime] = pd.Timestamp("2000-01-01") + pd.to_timedelta(frame[Columns.Datetime], unit="D")
    frame[Columns.Weight] = 1.0
    dataset = Dataset.construct(frame)
    model = SASRecModel(
        n_blocks=2,
        n_heads=arguments.heads,
        n_factors=arguments.width,
        session_max_len=arguments.length,
        loss="softmax",
        train_min_user_interactions=2,
    )
    best, best_epoch = 0.0, 0
    for epoch in range(1, arguments.epochs + 1):
        model.fit_partial(dataset, min_epochs=1, max_epochs=1)
        print(f"trained {epoch}", flush=True)
        lists = model.recommend(list(wanted), dataset, K, filter_viewed=True)
        found = lists[lists[Columns.Item] == lists[Columns.User].map(wanted)]
        ndcg = sum(1 / math.log2(1 + rank) for rank in found[Columns.Rank]) / len(wanted)
        print(f"epoch {epoch}  validation NDCG@10 {ndcg:.4f}", flush=True)
        if ndcg > best:
            best, best_epoch = ndcg, epoch
        if epoch - best_epoch >= arguments.patience:
            break


if __name__ == "__main__":
    main()
