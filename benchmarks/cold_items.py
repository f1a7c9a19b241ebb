"""Items without events: how the content rows rank them on the demo's data, and what content does to all other items.

`python benchmarks/cold_items.py --out build/cold` writes the demo's logs, prepares them, trains with the demo's
settings with and without content, and prints the tables of results/cold_items.txt. A training that was stopped goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from xrec_trainer import content, dataset
from xrec_trainer.baselines import baseline
from xrec_trainer.bootstrap import Interval, mean_interval, paired_difference
from xrec_trainer.cases import Cases
from xrec_trainer.cold import cold_cases, measure_cold
from xrec_trainer.config import parse
from xrec_trainer.fit import fit
from xrec_trainer.metrics import per_case
from xrec_trainer.model import Model
from xrec_trainer.prepare import prepare
from xrec_trainer.ranking import model_ranker
from xrec_trainer.run import Run, load_run
from xrec_trainer.splits import make_study

sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))
from make_logs import write_logs

from demo import SETTINGS

COLD_SHARE = 0.1
VARIANTS = {
    "id and category": (),
    "content": ("content=true",),
    "content, id_dropout .1": ("content=true", "id_dropout=0.1"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, action="append", help="seed of the warm comparison (repeatable; default 1)")
    arguments = parser.parse_args()
    out: Path = arguments.out
    if not (out / "data").exists():
        write_logs(out / "logs")
        prepare(out / "logs" / "sources.toml", out / "data")
    held_out(out)
    runs = compare_warm(out, arguments.seed or [1])
    new_items(runs["content"], out / "data")


def trained(out: Path, *settings: str) -> Run:
    """Train with the demo's settings and some more, or read what was trained."""
    folder = out / "_".join(["run", *settings])
    if (folder / "run.json").exists():
        return load_run(folder)
    started = time.monotonic()
    run = fit(out / "data", folder, parse({"targets": ("purchase",)}, [*SETTINGS, *settings]))
    print(
        f"trained {', '.join(settings)}: {time.monotonic() - started:.0f} s, {run.facts['epochs']} epochs", flush=True
    )
    return run


def held_out(out: Path) -> None:
    """Print how held-out items rank."""
    for name, settings in VARIANTS.items():
        run = trained(out, f"cold_share={COLD_SHARE}", *settings)
        others = ("content", "random") if name == "content" else ()
        rankers = {name: model_ranker(run.model, run.log, run.repeat)}
        rankers |= {f"baseline {other}": baseline(other, run.study, run.config) for other in others}
        show_cold(measure_cold(run.study, rankers), f"{run.config.cold_share:.0%} of the items held out")
        if name == "content":
            lift(run)


def lift(run: Run) -> None:
    """Print what share of the first ten places held-out items take, with a prior of 0 and with a best seller's."""
    cases, prior, warm = cold_cases(run.study), run.model.get_buffer("prior"), run.catalogue.warm
    for value in (0.0, float(prior[:warm].quantile(0.99))):
        prior[warm:] = value
        top = model_ranker(run.model, run.log, run.repeat)(cases, 10)
        print(f"  with a prior of {value:.2f} held-out items take {(top >= warm).mean():.5f} of the first ten places")
    prior[warm:] = 0.0


def show_cold(cold: Mapping[str, object], title: str) -> None:
    print(f"\n{title}: {cold['items']:,} items, {cold['cases']:,} households bought one")
    for which, found in cold["among"].items():
        lines = list(found["models"].items())
        lines += [(f"- {model}", values) for model, values in found["differences"].items()]
        for name, values in lines:
            figures = "  ".join(shown(values[metric], metric) for metric in ("hr@10", "ndcg@10"))
            print(f"  among {which:10s}  {name:24s} {figures}", flush=True)


def shown(found: Mapping[str, float] | Interval, name: str) -> str:
    mean, low, high = found.values() if isinstance(found, Mapping) else (found.mean, found.low, found.high)
    return f"{name} {mean:.4f} [{low:.4f}, {high:.4f}]"


def compare_warm(out: Path, seeds: Sequence[int]) -> dict[str, Run]:
    """Print NDCG@10 of items new to the household with and without content; return the runs of the first seed."""
    print(f"\nAll items have events; new to the household, mean of seeds {seeds} for each household")
    first: dict[str, Run] = {}
    plain = None
    for name, settings in VARIANTS.items():
        runs = [trained(out, *settings, f"seed={seed}") for seed in seeds]
        first[name], cases = runs[0], runs[0].study.test["new"]
        each = [ndcg(run, cases) for run in runs]
        found = np.mean(each, axis=0)
        validated = [run.validation_ndcg for run in runs]
        print(f"  {name:24s} {shown(mean_interval(found, cases.user), 'ndcg@10')}", end="")
        print(
            f"  by seed {np.round([one.mean() for one in each], 4)}, on validation {np.round(validated, 4)}", flush=True
        )
        plain = found if plain is None else plain
        if found is not plain:
            print(f"  - id and category        {shown(paired_difference(found, plain, cases.user), 'ndcg@10')}")
    return first


def ndcg(run: Run, cases: Cases) -> NDArray[np.float64]:
    return per_case(model_ranker(run.model, run.log, run.repeat)(cases, 10), cases, [10])["ndcg@10"]


def new_items(run: Run, data: Path) -> None:
    """Print what happens when every item of the items file is put into a trained run's catalogue."""
    study = make_study(dataset.read(data), replace(run.config, new_items=True))
    features = content.encode(content.load(run.folder / "content.npz"), study.catalogue.entries)
    model = Model(run.config, study.log.vocabulary, features, study.catalogue.warm)
    state = run.model.state_dict()
    prior = torch.zeros(len(study.catalogue))
    prior[: study.catalogue.warm] = state["prior"]
    model.load_state_dict({**state, "prior": prior})
    model.is_quantized = True
    grown = Run(run.folder, run.config, study, model, run.repeat, run.facts)
    rank, cases = model_ranker(model, study.log, run.repeat), study.test["new"]
    top = rank(cases, 10)
    print(f"\nnew_items=true: {len(study.catalogue):,} items, {study.catalogue.warm:,} with a row of their own")
    print(f"  share of the first ten places that new items hold: {(top >= study.catalogue.warm).mean():.5f}")
    found = shown(mean_interval(ndcg(grown, cases), cases.user), "ndcg@10")
    print(f"  new to the household, {len(cases):,} households: {found}")
    cold = measure_cold(study, {"content": rank, "baseline random": baseline("random", study, run.config)})
    show_cold(cold, "Bought in the test month, with fewer events than min_count before it")


if __name__ == "__main__":
    main()
