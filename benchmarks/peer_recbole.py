"""Train RecBole's SASRec on a leave-one-out file and print its validation NDCG@10 each epoch (a venv of its own).

    python -m venv peer && peer/bin/pip install recbole==1.2.1 'numpy<2' 'scipy<1.15' 'pandas<2.3' 'setuptools<80'
    peer/bin/python benchmarks/peer_recbole.py Beauty.txt --patience 10

A line of the file is `user item item ...` in time order. RecBole splits (its leave-one-out), augments (each prefix is a
sample), trains with its own trainer and cross entropy, and stops by its own rule; width and length of the history are
xrec's, the rest its defaults. It is asked for the last but one item of each user among all items that are not in what
it learned of that user. A line ``trained`` ends the training of an epoch, a line ``epoch`` its evaluation.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config  # type: ignore[import-not-found, unused-ignore]
from recbole.data import create_dataset, data_preparation  # type: ignore[import-not-found, unused-ignore]
from recbole.model.sequential_recommender import SASRec  # type: ignore[import-not-found, unused-ignore]
from recbole.trainer import Trainer  # type: ignore[import-not-found, unused-ignore]
from recbole.utils import init_seed  # type: ignore[import-not-found, unused-ignore]

K = 10


class ToldTrainer(Trainer):  # type: ignore[misc, unused-ignore]
    """RecBole's trainer, which prints its epochs and is asked as xrec is."""

    epoch = 0

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, float]]:
        self.epoch += 1
        print(f"trained {self.epoch}", flush=True)
        ndcg = validation_ndcg(self.model, valid_data)
        print(f"epoch {self.epoch}  validation NDCG@{K} {ndcg:.4f}", flush=True)
        return ndcg, {f"ndcg@{K}": ndcg}


@torch.no_grad()
def validation_ndcg(model: Any, valid_data: Any) -> float:
    """Return NDCG@10 of the one wanted item of each history, among all items that are not in the history."""
    model.eval()
    total, count = 0.0, 0
    for histories, _, _, wanted in valid_data:
        scores = model.full_sort_predict(histories).view(len(wanted), -1)
        right = scores.gather(1, wanted[:, None])
        scores[:, 0] = -math.inf  # RecBole's padding
        scores.scatter_(1, histories[model.ITEM_SEQ], -math.inf)
        rank = (scores > right).sum(dim=1)
        total += float(torch.where(rank < K, 1 / torch.log2(rank + 2.0), 0.0).sum())
        count += len(wanted)
    return total / count


def write_log(file: Path, folder: Path) -> None:
    """Write the file as RecBole's atomic file ``log/log.inter``; event number n is at time n."""
    (folder / "log").mkdir()
    with (folder / "log" / "log.inter").open("w") as log:
        log.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, *items in map(str.split, file.read_text().splitlines()):
            log.writelines(f"{user}\t{item}\t{place}\n" for place, item in enumerate(items))


def main() -> None:
    """Train until the validation has not improved for ``--patience`` epochs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--patience", type=int, default=10)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        write_log(arguments.file, Path(folder))
        os.chdir(folder)  # where RecBole leaves its logs
        settings = {
            "data_path": folder,
            "checkpoint_dir": folder,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "USER_ID_FIELD": "user_id",
            "ITEM_ID_FIELD": "item_id",
            "TIME_FIELD": "timestamp",
            "MAX_ITEM_LIST_LENGTH": arguments.length,
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
            "loss_type": "CE",
            "train_neg_sample_args": None,
            "hidden_size": arguments.width,
            "epochs": arguments.epochs,
            "stopping_step": arguments.patience - 1,  # RecBole stops once it is exceeded
            "seed": arguments.seed,
            "use_gpu": False,
            "show_progress": False,
        }
        config = Config(model="SASRec", dataset="log", config_dict=settings)
        logging.getLogger().setLevel(logging.ERROR)
        init_seed(arguments.seed, reproducibility=True)
        train_data, valid_data, _ = data_preparation(config, create_dataset(config))
        model = SASRec(config, train_data.dataset)
        ToldTrainer(config, model).fit(train_data, valid_data, saved=False, verbose=False, show_progress=False)


if __name__ == "__main__":
    main()
