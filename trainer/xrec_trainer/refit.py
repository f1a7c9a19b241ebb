"""Train a run's model again, with all that validation chose, on the log up to its test period or up to its end.

What is shipped should know the newest events, and a run holds back its last two periods to choose and to measure on.
A second training needs neither: it takes the number of epochs, the trend and the repeat rule from the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from xrec_sdk.errors import UsageError

from xrec_trainer.choice import Chosen
from xrec_trainer.config import FitConfig, LearnsUntil
from xrec_trainer.fit import Report, fit
from xrec_trainer.run import Outcome, Run, read_outcome
from xrec_trainer.trend import Trend


def refit(
    folder: Path,
    out: Path,
    until: LearnsUntil = "end",
    *,
    data: Path | None = None,
    reporter: Callable[[FitConfig, int], Report] = lambda config, epochs: lambda line: None,
) -> Run:
    """Write to ``out`` what the run in ``folder`` would be, had it learned ``until`` the "test" period or the "end".

    An unfinished run in ``out`` is resumed. ``data`` takes the place of the prepared folder that the run remembers and
    may hold newer events. ``reporter`` gets the settings and the number of epochs, what it gives each epoch's line.

    Raises DataError ``data.not_a_run`` where the folder has no finished run, and UsageError ``usage.refit`` where that
    is a refitted one itself or holds back items (``cold_share``), which is for measuring alone.
    """
    found = read_outcome(folder)
    if found.config.learns_until != "validation":
        raise UsageError("usage.refit", f"{folder} is refitted itself; name the run that it was made of")
    if found.config.cold_share:
        raise UsageError(
            "usage.refit",
            f"{folder} keeps {found.config.cold_share:g} of its items out of training (cold_share) to measure how new "
            "items rank; fit without it what is to be shipped",
        )
    chosen = _chosen_by(found)
    config = replace(found.config, learns_until=until)
    report = reporter(config, chosen.epochs + chosen.quantized_epochs)
    return fit(data or found.data, out, config, report, chosen=chosen)


def _chosen_by(found: Outcome) -> Chosen:
    """Return what validation chose, as many epochs with float rows and with int8 rows as led to its best score."""
    curve, trend, best_epoch = found.facts["curve"], found.facts["trend"], found.facts["best_epoch"]
    float_epochs = [line for line in curve if not line["is_quantized"]]
    best = max(float_epochs, key=lambda line: line["validation_ndcg@10"])
    return Chosen(
        epochs=best["epoch"],
        quantized_epochs=max(0, best_epoch - len(float_epochs)),
        trend=Trend(**trend) if trend else None,
        repeat=found.repeat,
        facts={"best_epoch": best_epoch, "curve": curve},
    )
