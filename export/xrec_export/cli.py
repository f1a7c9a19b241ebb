"""The command line of the release engineer."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
from xrec_sdk.errors import GateError, UsageError, XrecError
from xrec_sdk.manifest import TABLE_DTYPES

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


class Commands(click.Group):
    """Prints an error of xrec as ``error [code] message`` and exits with 1."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(context)
        except XrecError as error:
            click.echo(f"error [{error.code}] {error}", err=True)
            context.exit(1)


@click.group(cls=Commands)
@click.version_option(package_name="xrec")
def main() -> None:
    """Turn a trained run into a signed bundle.

    \b
    Example:
      xrec-export keygen release.pem
      xrec-export build runs/shop --out shop.xrec --key release.pem --release 1
      xrec-export verify shop.xrec --key ed25519:...
    """


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@_JSON
def keygen(path: Path, as_json: bool) -> None:
    """Write a new release key to PATH and print the public key that apps pin.

    \b
    Example:
      xrec-export keygen release.pem
    """
    from xrec_export.keys import write_key

    public = write_key(path)
    _print({"private_key": str(path), "public_key": public}, as_json)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The bundle folder, NAME.xrec.")
@click.option("--key", required=True, type=click.Path(path_type=Path), help="The private key that keygen wrote.")
@click.option(
    "--release", "number", default=1, show_default=True, type=click.IntRange(1), help="Grows with each release."
)
@click.option("--name", help="Name of the bundle; by default that of the folder.")
@click.option("--min-overlap", default=0.98, show_default=True, type=click.FloatRange(0, 1), help="Top-10 overlap.")
@click.option("--max-ndcg-loss", default=0.005, show_default=True, type=click.FloatRange(0, 1), help="Relative loss.")
@click.option("--cases", default=1000, show_default=True, type=click.IntRange(1), help="Held-out users to measure on.")
@click.option(
    "--format",
    "table_format",
    default="int8",
    show_default=True,
    type=click.Choice(list(TABLE_DTYPES)),
    help="How items are stored: floats for engines without int8 operators (docs/bundle-format.md).",
)
@click.option("--budget", type=click.Path(path_type=Path), help="What it may cost: budget.toml (docs/release-gate.md).")
@click.option(
    "--emulate", multiple=True, metavar="CPU", help="Ask an emulated CPU too, such as Haswell; all for three."
)
@_JSON
def build(
    run: Path,
    out: Path,
    key: Path,
    number: int,
    name: str | None,
    min_overlap: float,
    max_ndcg_loss: float,
    cases: int,
    table_format: str,
    budget: Path | None,
    emulate: tuple[str, ...],
    as_json: bool,
) -> None:
    """Build, measure and sign the bundle of the trained RUN; one that loses or costs too much is not written.

    \b
    Example:
      xrec-export build runs/shop --out shop.xrec --key release.pem --release 7 --budget budget.toml
    """
    from xrec_export import build as bundle_build
    from xrec_export import from_run, parity
    from xrec_export.budget import BudgetMissed, read_budget, table
    from xrec_export.keys import read_key
    from xrec_export.runtimes import named_cpus

    asked = None if budget is None else read_budget(budget)

    tolerance = parity.Tolerance(min_overlap, max_ndcg_loss)
    release = bundle_build.Release(name or out.name.removesuffix(".xrec"), number, _now(), read_key(key), table_format)
    model, held_out = from_run.load(run, cases)
    try:
        certificate = bundle_build.build_bundle(
            model, held_out, out, release=release, tolerance=tolerance, budget=asked, cpus=named_cpus(emulate)
        )
    except BudgetMissed as missed:
        if as_json:
            lines = [asdict(line) for line in missed.lines]
            _print({"error": missed.code, "message": str(missed), "budget": lines}, as_json)
        else:
            click.echo(table(missed.lines), err=True)
        raise
    said = {"bundle": str(out), "release": number, "cases": certificate.parity.cases}
    if as_json:
        _print({**said, **certificate.to_manifest()}, as_json)
        return
    click.echo(parity.table(certificate.parity))
    if certificate.lines:
        click.echo(table(certificate.lines))
    _print(said, as_json)


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", required=True, help="The public key, ed25519:...")
@_JSON
def verify(bundle: Path, key: str, as_json: bool) -> None:
    """Check BUNDLE as an app does: signature, sizes, hashes, then its golden cases.

    \b
    Example:
      xrec-export verify shop.xrec --key ed25519:...
    """
    from xrec_export.inspect import verify_bundle

    _print(verify_bundle(bundle, key), as_json)


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--required-operators", type=click.Path(path_type=Path), help="Write the configuration of a reduced build."
)
@_JSON
def inspect(bundle: Path, required_operators: Path | None, as_json: bool) -> None:
    """Show what BUNDLE says of itself; its signature is not checked.

    \b
    Example:
      xrec-export inspect shop.xrec --json
    """
    from xrec_export.inspect import describe_bundle

    said = describe_bundle(bundle)
    if required_operators is not None:
        from xrec_export.required_operators import write_required_operators

        write_required_operators(bundle, required_operators)
    _print(said, as_json)


@main.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--key", multiple=True, help="A public key, ed25519:..., that must have signed both; else only hashes count."
)
@_JSON
def diff(old: Path, new: Path, key: tuple[str, ...], as_json: bool) -> None:
    """Show what changed from OLD to NEW: items, categories, sizes, model, vocabulary, what golden users get.

    \b
    Example:
      xrec-export diff shop-6.xrec shop-7.xrec
    """
    from xrec_export.compare import compare

    _print(compare(old, new, key), as_json)


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", required=True, help="The public key, ed25519:...")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 256), help="Threads of onnxruntime.")
@click.option("--starts", default=5, show_default=True, type=click.IntRange(1), help="Fresh processes.")
@click.option("--calls", default=500, show_default=True, type=click.IntRange(1), help="Calls of recommend(k=10).")
@_JSON
def bench(bundle: Path, key: str, threads: int, starts: int, calls: int, as_json: bool) -> None:
    """Measure BUNDLE on this machine: cold start, recommend(k=10) again and after an event, memory.

    \b
    Example:
      xrec-export bench shop.xrec --key ed25519:...
    """
    from xrec_export.speed import measure_speed

    _print(asdict(measure_speed(bundle, key, threads=threads, starts=starts, calls=calls)), as_json)


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", required=True, type=click.Path(path_type=Path), help="The private key that keygen wrote.")
@click.option("--trusted-key", multiple=True, help="A public key whose bundles may be signed anew besides one's own.")
@_JSON
def sign(bundle: Path, key: Path, trusted_key: tuple[str, ...], as_json: bool) -> None:
    """Sign the folder BUNDLE, which is not signed yet or is one's own; one that does not verify is refused.

    \b
    Example:
      xrec-export sign shop.xrec --key new.pem --trusted-key ed25519:...
    """
    from xrec_export.keys import read_key
    from xrec_export.resign import sign_bundle

    _print(sign_bundle(bundle, read_key(key), trusted_key), as_json)


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--items", required=True, type=click.Path(path_type=Path), help="Parquet: item_id, entry, available.")
@click.option("--run", required=True, type=click.Path(path_type=Path), help="The run that BUNDLE was built of.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new bundle's folder, or the delta.")
@click.option("--key", required=True, type=click.Path(path_type=Path), help="The private key that keygen wrote.")
@click.option("--trusted-key", multiple=True, help="A public key that BUNDLE may be signed by besides one's own.")
@click.option("--release", "number", type=click.IntRange(1), help="By default the one after BUNDLE's.")
@click.option(
    "--delta", is_flag=True, help="Write only what leads from BUNDLE to the new one (apply_delta in the SDK)."
)
@_JSON
def catalogue(
    bundle: Path,
    items: Path,
    run: Path,
    out: Path,
    key: Path,
    trusted_key: tuple[str, ...],
    number: int | None,
    delta: bool,
    as_json: bool,
) -> None:
    """Bring the catalogue of BUNDLE up to date without training: new items, entries and prices, what is offered.

    \b
    Example:
      xrec-export catalogue shop-7.xrec --items new.parquet --run runs/shop --out shop-8.xrec --key release.pem
    """
    from xrec_export.catalogue import Next, update_bundle, update_delta
    from xrec_export.item_changes import read_changes
    from xrec_export.keys import read_key

    changes, release = read_changes(items), Next(number, _now(), read_key(key), trusted_key)
    if delta:
        update, whole = update_delta(bundle, changes, run, out, release)
        sizes = {"delta": str(out), "bytes": out.stat().st_size, "bytes_of_the_whole": whole}
        _print({**sizes, **asdict(update)}, as_json)
    else:
        _print({"bundle": str(out), **asdict(update_bundle(bundle, changes, run, out, release))}, as_json)


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("repository", type=click.Path(path_type=Path))
@click.option("--key", required=True, type=click.Path(path_type=Path), help="The private key that signed BUNDLE.")
@click.option("--online-key", required=True, type=click.Path(path_type=Path), help="That of the server, which renews.")
@click.option("--channel", default="stable", show_default=True, help="Devices follow one channel.")
@click.option("--fresh-days", default=7.0, show_default=True, type=click.FloatRange(0.01, 365), help="Until renewed.")
@_JSON
def publish(
    bundle: Path, repository: Path, key: Path, online_key: Path, channel: str, fresh_days: float, as_json: bool
) -> None:
    """Put BUNDLE into the TUF REPOSITORY that devices fetch from, with deltas from the releases before it.

    The folder REPOSITORY is made where it is not there, and served by any web server. Publishing the newest bundle
    again renews what expires. Apps ship metadata/1.root.json.

    \b
    Example:
      xrec-export publish shop-8.xrec repository --key release.pem --online-key online.pem
    """
    from xrec_export.keys import read_key

    try:
        from xrec_export.publish import Publication, now
        from xrec_export.publish import publish as add
    except ImportError as cause:
        raise UsageError("usage.extra_missing", "publish needs python-tuf: pip install 'xrec[publish]'") from cause
    how = Publication(channel, read_key(key), read_key(online_key), now(), fresh_days)
    _print(add(bundle, repository, how), as_json)


@main.command()
@click.option("--key", type=click.Path(path_type=Path), help="The private key that will sign.")
@click.option("--out", default=".", type=click.Path(path_type=Path), help="Where bundles will be written.")
@_JSON
def doctor(key: Path | None, out: Path, as_json: bool) -> None:
    """Check that this machine can make a release: libraries, CPU, emulator, key, disk.

    \b
    Example:
      xrec-export doctor --key release.pem
    """
    from xrec_export.doctor import examine

    found = examine(key, out)
    _print({one.name: asdict(one) if as_json else one.found for one in found}, as_json)
    if wrong := [one.name for one in found if one.is_wrong]:
        raise GateError("gate.doctor", f"no release can be made here before this is right: {', '.join(wrong)}")


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print(values: dict[str, object], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(values, ensure_ascii=False))
        return
    for name, value in values.items():
        click.echo(f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


if __name__ == "__main__":
    sys.exit(main())
