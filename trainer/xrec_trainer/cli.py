"""The command line of the trainer: prepare, text-vectors, fit, refit, rank, evaluate, compare, tune."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import click
from xrec_sdk.errors import UsageError, XrecError
from xrec_sdk.version import __version__

LEARNED = {"end": "the end of the log", "test": "the test period"}
P = ParamSpec("P")
R = TypeVar("R")


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Print an XrecError as one line with its code and exit with 2."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except XrecError as error:
            click.echo(f"error [{error.code}] {error}", err=True)
            sys.exit(2)

    return wrapped


def study_options(command: Callable[P, R]) -> Callable[P, R]:
    """Add what every command that trains asks: the target events, the split and the settings."""
    for option in (
        click.option(
            "--setting", "settings", multiple=True, metavar="NAME=VALUE", help="Any field of FitConfig (repeatable)."
        ),
        click.option("--split", type=click.Choice(["time", "leave-one-out"]), default="time", show_default=True),
        click.option("--target", "targets", multiple=True, help="Event to predict (repeatable).  [default: purchase]"),
        click.option(
            "--preset", metavar="NAME", help="Targets and time scales of ecommerce, education, finance or social."
        ),
    ):
        command = option(command)
    return command


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Learn a recommender from the logs of several platforms.

    Example: xrec-train prepare sources.toml --out data && xrec-train fit data --out run && xrec-train evaluate run
    """


@main.command()
@click.argument("sources", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--json", "as_json", is_flag=True, help="Print the quality report as JSON.")
@reports_errors
def prepare(sources: Path, out: Path, as_json: bool) -> None:
    """Read the logs that SOURCES declares into one clean table, and report what was dropped and why.

    Example: xrec-train prepare sources.toml --out data
    """
    from xrec_trainer.prepare import prepare as run_prepare

    run_prepare(sources, out)
    text = (out / ("quality.json" if as_json else "quality.md")).read_text(encoding="utf-8")
    click.echo(text)


@main.command("text-vectors")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), required=True, help="Folder of a saved sentence model.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@reports_errors
def text_vectors(data: Path, model: Path, as_json: bool) -> None:
    """Write text_vectors.parquet into the prepared folder DATA, with a sentence model on this disk.

    Example: xrec-train text-vectors data --model sentence-model

    They count with: xrec-train fit data --out run --setting text_vectors=true
    """
    from xrec_trainer.text_vectors import make

    items, width = make(data, model)
    found = {"items": items, "width": width}
    click.echo(json.dumps(found) if as_json else f"wrote text_vectors.parquet: {items} items, {width} numbers each")


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Run folder; an unfinished run is resumed.")
@study_options
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each epoch and the outcome.")
@reports_errors
def fit(
    data: Path,
    out: Path,
    preset: str | None,
    targets: tuple[str, ...],
    split: str,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train on the prepared folder DATA.

    Example: xrec-train fit data --out run --target purchase --setting max_epochs=20 --setting seed=7
    """
    from xrec_trainer.fit import fit as run_fit
    from xrec_trainer.progress import EpochPrinter
    from xrec_trainer.workers import worker_place

    config = _config(targets, split, settings, preset)
    run = run_fit(data, out, config, EpochPrinter(config, as_json=as_json))
    facts = {"run": str(out), "items": len(run.catalogue), "best_epoch": run.facts["best_epoch"]}
    if worker_place() == 0:
        text = f"wrote {out}: {len(run.catalogue)} items, best epoch {facts['best_epoch']}"
        click.echo(json.dumps(facts) if as_json else text)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Run folder; an unfinished run is resumed.")
@click.option(
    "--until",
    type=click.Choice(["end", "test"]),
    default="end",
    show_default=True,
    help="Learn from the whole log, to ship the model, or up to the test period, to measure it.",
)
@click.option("--data", type=click.Path(path_type=Path), help="Prepared folder, where it has moved or grown.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each epoch and the outcome.")
@reports_errors
def refit(run: Path, out: Path, until: Literal["end", "test"], data: Path | None, as_json: bool) -> None:
    """Train the model of RUN again, also on the events that it held back to choose and to measure on.

    Example: xrec-train refit run --out shipped && xrec-export build shipped --out shop.xrec --key release.pem

    Epochs, trend and repeat rule are those that RUN chose on its validation period. With --until test the test period
    is kept out, so that xrec-train evaluate can tell what the newer events bring.
    """
    from xrec_trainer.progress import EpochPrinter
    from xrec_trainer.refit import refit as run_refit

    refitted = run_refit(
        run,
        out,
        until,
        data=data,
        reporter=lambda config, epochs: EpochPrinter(config, as_json=as_json, epochs=epochs),
    )
    facts = {"run": str(out), "items": len(refitted.catalogue), "epochs": refitted.facts["epochs"]}
    text = f"wrote {out}: {facts['items']} items, {facts['epochs']} epochs, learned until {LEARNED[until]}"
    click.echo(json.dumps(facts) if as_json else text)


def _config(targets: tuple[str, ...], split: str, settings: tuple[str, ...], preset: str | None) -> Any:
    from xrec_trainer.config import parse
    from xrec_trainer.presets import load_preset

    values = load_preset(preset).values() if preset else {"targets": ("purchase",)}
    return parse({**values, **({"targets": targets} if targets else {}), "split": split}, settings)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Prepared folder, where it has moved.")
@click.option("--bundle", type=click.Path(path_type=Path), help="Also evaluate this bundle through the SDK.")
@click.option("--trusted-key", "keys", multiple=True, help="Key that signed the bundle.")
@click.option("--baseline", "baselines", multiple=True, metavar="NAME", help="Baseline to show instead (repeatable).")
@click.option("--ks", default="5,10,20", show_default=True, help="Cut-offs.")
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json.")
@reports_errors
def evaluate(
    run: Path,
    data: Path | None,
    bundle: Path | None,
    keys: tuple[str, ...],
    baselines: tuple[str, ...],
    ks: str,
    as_json: bool,
) -> None:
    """Rank the catalogue for every test user with the model and the baselines; write metrics.json and report.html.

    Example: xrec-train evaluate run --bundle shop.xrec --trusted-key ed25519:...

    Baselines: popularity, item_knn, ease, buy_again unless named; there are user_knn, content, als, bpr, random too.
    """
    from xrec_trainer.baselines import SHOWN
    from xrec_trainer.evaluate import evaluate as run_evaluate
    from xrec_trainer.report_text import table

    cut_offs = [int(k) for k in ks.split(",")]
    metrics = run_evaluate(run, data=data, bundle=bundle, keys=keys, baselines=baselines or SHOWN, ks=cut_offs)
    click.echo(json.dumps(metrics, indent=1) if as_json else table(metrics))
    if not as_json:
        click.echo(f"wrote {run / 'metrics.json'} and {run / 'report.html'}")


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Prepared folder, where it has moved.")
@click.option("--setting", "settings", multiple=True, metavar="NAME=VALUE", help="Any field of RankerConfig.")
@click.option("--json", "as_json", is_flag=True, help="Print ranker.json.")
@reports_errors
def rank(run: Path, data: Path | None, settings: tuple[str, ...], as_json: bool) -> None:
    """Learn the probability that a user takes a recommended item, calibrate it on a later time, and measure it.

    Example: xrec-train rank run --setting horizon_days=7
    """
    from xrec_trainer.rank import rank as run_rank
    from xrec_trainer.rank import table
    from xrec_trainer.ranker import parse_ranker

    found = run_rank(run, parse_ranker(settings), data)
    click.echo(json.dumps(found, indent=1) if as_json else table(found))
    if not as_json:
        click.echo(f"wrote {run / 'ranker.pt'} and {run / 'ranker.json'}")


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder; what is finished there is kept.")
@click.option(
    "--model", "models", multiple=True, required=True, metavar="NAME", help="Encoder or baseline (repeatable)."
)
@click.option("--seeds", metavar="LIST", help="Train with each of these seeds, such as 1,2,3.")
@study_options
@click.option("--json", "as_json", is_flag=True, help="Print compare.json.")
@reports_errors
def compare(
    data: Path,
    out: Path,
    models: tuple[str, ...],
    seeds: str | None,
    preset: str | None,
    targets: tuple[str, ...],
    split: str,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train encoders and baselines on the prepared folder DATA, choose on validation, and write compare.json.

    Called again with the same DIR it goes on where it was cut, and adds further models and seeds.

    Example: xrec-train compare data --out compared --model lowpass --model pool --model ease --seeds 1,2,3
    """
    from xrec_trainer.compare import compare as run_compare
    from xrec_trainer.compare import table
    from xrec_trainer.progress import EpochPrinter

    if any(setting.startswith("encoder=") for setting in settings):
        raise UsageError("usage.setting", "the encoders of a comparison are named with --model, not --setting encoder")
    compared = run_compare(
        data,
        out,
        _config(targets, split, settings, preset),
        models,
        seeds=_seeds(seeds),
        say=lambda text: click.echo(text, err=True),
        epochs=lambda config: EpochPrinter(config, as_json=False),
    )
    click.echo(json.dumps(compared, indent=1) if as_json else table(compared))
    if not as_json:
        click.echo(f"wrote {out / 'compare.json'}")


def _seeds(text: str | None) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")] if text else []
    except ValueError as cause:
        raise UsageError("usage.seeds", f"--seeds is {text!r}; expected whole numbers such as 1,2,3") from cause


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the study; an old one goes on.")
@click.option("--minutes", type=float, required=True, help="How long to search.")
@study_options
@click.option("--json", "as_json", is_flag=True, help="Print tune.json.")
@reports_errors
def tune(
    data: Path,
    out: Path,
    minutes: float,
    preset: str | None,
    targets: tuple[str, ...],
    split: str,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Search learning_rate, dropout, width, layers, heads and batch_tokens, but for what --setting gives, on DATA.

    The best on validation is written to best.txt, as xrec-train fit takes it beside the same --preset and --target:
    xrec-train fit data --out run $(cat tuned/best.txt). Called again with the same DIR it
    goes on, also where it was cut.

    Example: xrec-train tune data --out tuned --minutes 30 --setting encoder=pool
    """
    from xrec_trainer.tune import table
    from xrec_trainer.tune import tune as run_tune

    def say(text: str) -> None:
        click.echo(text, err=True)

    found = run_tune(data, out, _config(targets, split, settings, preset), settings, minutes=minutes, say=say)
    click.echo(json.dumps(found, indent=1) if as_json else table(found))
    if not as_json:
        click.echo(f"wrote {out / 'tune.json'} and {out / 'best.txt'}")
