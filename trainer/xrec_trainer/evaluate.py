"""Evaluate a run: full ranking of every test case by the model, the baselines and, where given, the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xrec_sdk.errors import DataError, UsageError

from xrec_trainer.baselines import BASELINES, SHOWN, baseline
from xrec_trainer.bootstrap import mean_interval, paired_difference
from xrec_trainer.bundle_ranking import bundle_ranker, open_for
from xrec_trainer.cases import Cases, Ranker
from xrec_trainer.cold import measure_cold
from xrec_trainer.metrics import by_group, device_groups, history_groups, list_traits, per_case
from xrec_trainer.rank import load_ranker
from xrec_trainer.ranking import model_ranker
from xrec_trainer.report import write_page
from xrec_trainer.run import Run, load_run, save_json

MODEL = "xrec"
BUNDLE = "xrec int8 bundle"
MAIN_K = 10
COLD_BASELINES = ("content", "random")
Measured = dict[str, NDArray[np.float64]]


def evaluate(
    folder: Path,
    *,
    data: Path | None = None,
    bundle: Path | None = None,
    keys: Sequence[str] = (),
    baselines: Sequence[str] = SHOWN,
    ks: Sequence[int],
) -> dict[str, Any]:
    """Return the metrics and write them into the run as metrics.json and report.html (structure: report.py)."""
    if not ks or min(ks) < 1:
        raise UsageError("usage.k", f"--ks is {list(ks)}; expected whole numbers of 1 or more, such as 5,10,20")
    run = load_run(folder, data)
    if run.config.learns_until == "end":
        raise DataError(
            "data.nothing_held_out",
            f"{folder} learned from its test period too, so that no figure of it would be true; evaluate the run that "
            "it was made of, or make one with: xrec-train refit RUN --until test",
        )
    rankers: dict[str, Ranker] = {MODEL: model_ranker(run.model, run.log, run.repeat)}
    if bundle is not None:
        rankers[BUNDLE] = bundle_ranker(open_for(run.catalogue, bundle, keys), run.log)
    rankers |= {name: baseline(name, run.study, run.config) for name in baselines}
    ks = sorted({*ks, MAIN_K})
    tasks, tops, measured = {}, {}, {}
    for name, cases in run.study.test.items():
        if len(cases):
            tops[name] = {model: rank(cases, ks[-1]) for model, rank in rankers.items()}
            measured[name] = {model: per_case(top, cases, ks) for model, top in tops[name].items()}
            tasks[name] = _task(run, cases, tops[name], measured[name], ks)
    metrics: dict[str, Any] = {"model": MODEL, "main_metric": f"ndcg@{MAIN_K}", "dataset": _facts(run), "tasks": tasks}
    metrics |= {"curve": run.facts["curve"], "best_epoch": run.facts["best_epoch"]}
    main = run.study.main_task if run.study.main_task in tasks else next(iter(tasks))
    metrics["examples"] = _examples(run, run.study.test[main], tops[main][MODEL])
    if bundle is not None:
        metrics["bundle"] = _against_bundle(bundle, run.study.test[main], measured[main], tops[main])
    if run.catalogue.warm < len(run.catalogue):
        has_text = any(isinstance(value, str) for entry in run.catalogue.entries for value in entry.values())
        names = COLD_BASELINES if has_text else ("random",)
        plain = {name: baseline(name, run.study, run.config) for name in names}
        metrics["cold"] = measure_cold(run.study, {MODEL: rankers[MODEL], **plain})
    if ranker := load_ranker(run):
        metrics["ranker"] = ranker[1]
    save_json(folder / "metrics.json", metrics)
    write_page(folder / "report.html", metrics)
    return metrics


def _task(
    run: Run, cases: Cases, tops: dict[str, NDArray[np.int32]], measured: dict[str, Measured], ks: Sequence[int]
) -> dict[str, Any]:
    main = f"ndcg@{MAIN_K}"
    popularity = np.bincount(run.log.item[run.study.train_mask], minlength=run.log.item_count).astype(np.float64)
    devices, histories = device_groups(cases, run.log), history_groups(cases)
    categories = _category_codes(run.catalogue.categories)
    return {
        "cases": len(cases),
        "users": len(np.unique(cases.user)),
        "models": {
            model: {
                name: asdict(mean_interval(values, cases.user)) if name == main else float(values.mean())
                for name, values in found.items()
            }
            for model, found in measured.items()
        },
        "differences": {
            model: {main: asdict(paired_difference(measured[MODEL][main], measured[model][main], cases.user))}
            for model in measured
            if model in BASELINES
        },
        "traits": {model: list_traits(top, popularity, [MAIN_K], categories) for model, top in tops.items()},
        "per_device": {model: by_group({main: found[main]}, *devices) for model, found in measured.items()},
        "per_history": {model: by_group({main: found[main]}, *histories) for model, found in measured.items()},
    }


def _category_codes(names: Sequence[str | None]) -> NDArray[np.int64] | None:
    """Return each item's category as a code, -1 for none; None where no item has one."""
    code_of = {name: code for code, name in enumerate(dict.fromkeys(name for name in names if name is not None))}
    return np.array([-1 if name is None else code_of[name] for name in names]) if code_of else None


def _facts(run: Run) -> dict[str, Any]:
    return {
        "users": len(run.log.users),
        "items": len(run.catalogue),
        "events": len(run.log),
        "events learned from": int(run.study.train_mask.sum()),
        "devices": ", ".join(run.vocabulary.devices),
        "split": run.config.split,
        "targets": ", ".join(run.config.targets),
    }


def _against_bundle(
    path: Path, cases: Cases, measured: dict[str, Measured], tops: dict[str, NDArray[np.int32]]
) -> dict[str, Any]:
    main = f"ndcg@{MAIN_K}"
    model, bundle = measured[MODEL][main], measured[BUNDLE][main]
    same = [
        len(np.intersect1d(one[:MAIN_K][one[:MAIN_K] >= 0], other[:MAIN_K])) / max(1, (one[:MAIN_K] >= 0).sum())
        for one, other in zip(tops[MODEL], tops[BUNDLE], strict=True)
    ]
    return {
        "size_bytes": sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size,
        "cases": len(cases),
        f"overlap@{MAIN_K}": float(np.mean(same)),
        "metrics": {
            main: {
                "float": asdict(mean_interval(model, cases.user)),
                "bundle": asdict(mean_interval(bundle, cases.user)),
                "difference": asdict(paired_difference(bundle, model, cases.user)),
            }
        },
    }


def _examples(run: Run, cases: Cases, top: NDArray[np.int32], count: int = 4) -> list[dict[str, Any]]:
    def title(row: int) -> str:
        return str(run.catalogue.entries[row].get("title") or run.catalogue.ids[row]) if row >= 0 else "a search"

    devices = ("unknown", *run.vocabulary.devices)
    examples = []
    for case in np.linspace(0, len(cases) - 1, min(count, len(cases))).astype(int):
        right = {int(row) for row in cases.answers(case)}
        listed = [int(row) for row in top[case, :MAIN_K] if row >= 0]
        examples.append(
            {
                "device": devices[int(cases.device[case])],
                "history": [title(int(row)) for row in run.log.item[cases.history(case)[-5:]]],
                "recommended": [{"title": title(row), "is_hit": row in right} for row in listed],
                "chosen": [title(row) for row in sorted(right)[:8]],
            }
        )
    return examples
