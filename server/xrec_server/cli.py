"""The command line of the server: serve, doctor, restored, move, training-events, feedback-metrics, keygen-dev."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
from xrec_sdk.errors import XrecError
from xrec_sdk.version import __version__

from xrec_server.errors import ServerError

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


def data_options(command: Callable[P, R]) -> Callable[P, R]:
    """Add where the profiles and the ledger are."""
    for option in (
        click.option("--ledger", required=True, help="The ledger's SQLite file (or PostgreSQL URL); on another disk."),
        click.option("--database", required=True, help="SQLite file, or PostgreSQL URL."),
    ):
        command = option(command)
    return command


def key_options(command: Callable[P, R]) -> Callable[P, R]:
    """Add what tokens are checked with."""
    path = click.Path(path_type=Path)
    for option in (
        click.option("--issuer", help="What tokens must name in iss.  [default: any]"),
        click.option("--audience", default="xrec", show_default=True, help="What tokens must name in aud."),
        click.option("--secret", type=path, required=True, help="File of the tenant's secret (32 bytes or more)."),
        click.option("--keys", type=path, required=True, help="JWKS or PEM file of the public keys of tokens."),
    ):
        command = option(command)
    return command


@click.group(context_settings={"auto_envvar_prefix": "XREC_SERVER"})
@click.version_option(__version__)
def main() -> None:
    """Serve the profiles that follow users across their devices. Options can be set as XREC_SERVER_SERVE_DATABASE etc.

    Example: xrec-server keygen-dev dev && xrec-server serve --database profiles.db --ledger ledger.db
    --keys dev/jwks.json --secret dev/secret
    """


@main.command()
@data_options
@key_options
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8080, show_default=True, help="0 takes a free one and prints it.")
@click.option("--bundles", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of bundles.")
@click.option("--synchronous", type=click.Choice(["FULL", "NORMAL"]), default="FULL", show_default=True)
@click.option("--origin", "origins", multiple=True, help="Origin of a browser client (repeatable).")
@click.option("--events-per-minute", default=6000, show_default=True, help="Quota of one profile.")
@reports_errors
def serve(host: str, port: int, **options: Any) -> None:
    """Serve until SIGTERM or Ctrl-C; then every request is answered and the files are closed.

    Example: xrec-server serve --database profiles.db --ledger ledger.db --keys jwks.json --secret secret
    """
    from xrec_server.run import serve as run_server
    from xrec_server.settings import Settings

    run_server(Settings(**options), host, port)


@main.command()
@data_options
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@reports_errors
def restored(database: str, ledger: str, as_json: bool) -> None:
    """Apply the ledger to a database that was restored from a backup, before it is served again.

    What was erased since the backup is erased again, and every device is told to compare. Run it once, with no server
    running.

    Example: xrec-server restored --database profiles.db --ledger ledger.db
    """
    import asyncio

    from xrec_server.run import restore

    count = asyncio.run(restore(database, ledger))
    click.echo(json.dumps({"profiles": count}) if as_json else f"applied the ledger to {count} profiles")


@main.command()
@data_options
@click.option("--to", required=True, help="URL of an empty PostgreSQL database.")
@click.option("--to-ledger", required=True, help="URL of an empty PostgreSQL database for the ledger; another server.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@reports_errors
def move(database: str, ledger: str, to: str, to_ledger: str, as_json: bool) -> None:
    """Copy profiles and ledger from SQLite files to PostgreSQL; stop the server first.

    Devices notice nothing: names, numbers and digests stay. The files stay as they are.

    Example: xrec-server move --database profiles.db --ledger ledger.db --to postgresql://xrec@db/profiles --to-ledger
    postgresql://xrec@ledger/ledger
    """
    import asyncio

    from xrec_server.move import move as copy

    count = asyncio.run(copy(database, ledger, to, to_ledger))
    click.echo(json.dumps({"profiles": count}) if as_json else f"moved {count} profiles")


@main.command()
@data_options
@click.option("--keys", type=click.Path(path_type=Path), help="JWKS or PEM file of the public keys of tokens.")
@click.option("--secret", type=click.Path(path_type=Path), help="File of the tenant's secret.")
@click.option("--json", "as_json", is_flag=True, help="Print name, found and is_wrong of each as JSON.")
@reports_errors
def doctor(database: str, ledger: str, keys: Path | None, secret: Path | None, as_json: bool) -> None:
    """Check libraries, SQLite, keys, the database, its ledger, the clock and free space; writes nothing.

    Example: xrec-server doctor --database profiles.db --ledger ledger.db --keys jwks.json --secret secret
    """
    from xrec_server.doctor import examine

    found = examine(database, ledger, keys, secret)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
    else:
        for one in found:
            click.echo(f"{'WRONG ' if one.is_wrong else ''}{one.name}: {one.found}")
    if wrong := [one.name for one in found if one.is_wrong]:
        raise ServerError("server.doctor", f"to be put right: {', '.join(wrong)}")


@main.command("training-events")
@click.option("--database", required=True, help="SQLite file, or PostgreSQL URL; a server may be at work on it.")
@click.option("--secret", type=click.Path(path_type=Path), required=True, help="File of the tenant's secret.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@reports_errors
def training_events(database: str, secret: Path, out: Path, as_json: bool) -> None:
    """Write the events of users who agreed to training, under pseudonyms, for xrec-train prepare.

    Delete the folder once the model is trained: an erasure does not reach a copy.

    Example: xrec-server training-events --database profiles.db --secret secret --out logs && xrec-train prepare
    logs/sources.toml --out data
    """
    import asyncio

    from xrec_server.identity import load_secret
    from xrec_server.training import export_training

    done = asyncio.run(export_training(database, load_secret(secret), out))
    text = f"wrote {out}: {done.events} events of {done.users} users; {done.left_out} users did not agree to training"
    click.echo(json.dumps(asdict(done)) if as_json else text)


@main.command("feedback-metrics")
@click.option("--database", required=True, help="SQLite file, or PostgreSQL URL; a server may be at work on it.")
@click.option("--click", "clicks", multiple=True, help="Event that counts as a click (repeatable).")
@click.option("--conversion", "conversions", multiple=True, help="Event that counts as a conversion (repeatable).")
@click.option("--min-users", default=20, show_default=True, help="Say nothing of groups of fewer users.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@reports_errors
def feedback_metrics(
    database: str, clicks: tuple[str, ...], conversions: tuple[str, ...], min_users: int, as_json: bool
) -> None:
    """Say what users who agreed to analytics did with their lists: click-through and conversion by release and arm.

    Without options a click is a view, cart or favorite, a conversion a purchase.

    Example: xrec-server feedback-metrics --database profiles.db
    """
    import asyncio

    from xrec_server.feedback import CLICKS, CONVERSIONS, as_text, report_feedback

    given = {"clicks": clicks or CLICKS, "conversions": conversions or CONVERSIONS}
    report = asyncio.run(report_feedback(database, min_users=min_users, **given))
    click.echo(json.dumps(asdict(report)) if as_json else as_text(report))


@main.command("keygen-dev")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--subject", default="user-1", show_default=True, help="Whose token to print.")
@click.option("--device", default="", help="The token's device claim.")
@click.option("--audience", default="xrec", show_default=True)
@click.option("--hours", default=24.0, show_default=True, help="Until the token expires.")
@click.option("--json", "as_json", is_flag=True, help="Print the paths and the token as JSON.")
@reports_errors
def keygen_dev(folder: Path, subject: str, device: str, audience: str, hours: float, as_json: bool) -> None:
    """FOR DEVELOPMENT ONLY: make a key pair and a secret in FOLDER, once, and print a token that the server takes.

    Example: xrec-server keygen-dev dev --subject anna
    """
    from xrec_server.development import make_keys, make_token

    paths = make_keys(folder)
    token = make_token(folder, subject, device=device, audience=audience, hours=hours)
    if as_json:
        click.echo(json.dumps({**{name: str(path) for name, path in paths.items()}, "token": token}))
        return
    click.echo("For development only: whoever has this folder can be any user of the server.", err=True)
    click.echo(token)
