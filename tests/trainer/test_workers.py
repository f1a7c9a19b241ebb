"""Two processes train as one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from small_shop import small_config
from xrec_trainer.averaging import Average
from xrec_trainer.fit import fit
from xrec_trainer.metrics import per_case
from xrec_trainer.ranking import model_ranker
from xrec_trainer.run import Run, load_run

WORKER = """
import json, sys
from pathlib import Path
from xrec_trainer.config import from_json
from xrec_trainer.fit import fit
fit(Path(sys.argv[1]), Path(sys.argv[2]), from_json(json.loads(sys.argv[3])), lambda line: print(line["epoch"]))
"""


def test_two_workers_reach_the_figures_of_one(shop: Path, tmp_path: Path) -> None:
    # Each worker takes batches of half the size, so that a step learns from as many events as with one.
    alone = fit(shop, tmp_path / "alone", small_config(batch_tokens=1024))
    printed = _in_two_processes(shop, tmp_path / "together", asdict(small_config(batch_tokens=512)))
    together = load_run(tmp_path / "together")
    assert printed.split() == [str(epoch + 1) for epoch in range(together.facts["epochs"])]  # one of them reports
    assert abs(_recall(together) - _recall(alone)) < 0.05 and _recall(alone) > 0.25
    assert not (tmp_path / "together" / "checkpoint.pt").exists()


def _in_two_processes(shop: Path, out: Path, config: dict[str, object]) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WORKER, str(shop), str(out), json.dumps(config)]
    workers = [
        subprocess.Popen(command, env={**shared, "RANK": rank}, stdout=subprocess.PIPE, text=True) for rank in "01"
    ]
    printed = "".join(worker.communicate(timeout=120)[0] for worker in workers)
    assert [worker.returncode for worker in workers] == [0, 0]
    return printed


def _recall(run: Run) -> float:
    cases = run.study.test["all"]
    return float(np.mean(per_case(model_ranker(run.model, run.log)(cases, 10), cases, [10])["recall@10"]))


def test_the_average_follows_the_weights_and_is_put_back() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = Average(model, 0.5)
    for value in (1.0, 2.0):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update(model)
    # Decays 2/11 and 3/12 while they are below 0.5: 9/11, then 9/11 + (2 - 9/11) * 9/12.
    with average.applied(model):
        assert torch.allclose(model.weight, torch.tensor([[9 / 11 + (2 - 9 / 11) * 0.75]]))
    assert model.weight.item() == 2.0


def test_a_decay_of_zero_keeps_the_last_weights() -> None:
    model = torch.nn.Linear(2, 2)
    average = Average(model, 0.0)
    with torch.no_grad():
        model.weight.add_(1.0)
    average.update(model)
    assert torch.equal(average.weights["weight"], model.weight)
