"""``pooling wisdom``: what was measured, to be shown, handed on and forgotten."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

import pooling
from pooling.cli.app import Json, OneLineErrors, app, table
from pooling.tuning import exchange
from pooling.tuning.store import here, location
from pooling.tuning.wisdom import Record, to_text

EXAMPLES = """Examples:

  pooling wisdom show

  pooling wisdom export tuned.json

  pooling wisdom import tuned.json

  pooling wisdom merge node1.json node2.json --into all.json

  pooling wisdom forget inference float16"""

wisdom = typer.Typer(cls=OneLineErrors, rich_markup_mode=None, epilog=EXAMPLES)
app.add_typer(wisdom, name="wisdom")

Everything = Annotated[bool, typer.Option("--all", help="Of all machines and versions in the file.")]


@wisdom.callback(invoke_without_command=True)
def wisdom_command(context: typer.Context) -> None:
    """What was measured on this machine."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@wisdom.command()
def show(everything: Everything = False, as_json: Json = False) -> None:
    """Print the records: the choice, its time, how much faster than the next, when, and the key."""
    found, unsound = exchange.contents()
    if as_json:
        typer.echo(to_text(found) if everything else exchange.exported(), nl=False)
        return
    typer.echo(f"{location() or 'memory alone'}: {found.count} records")
    for name, records in found.records.items():
        if name != here() and not everything:
            typer.echo(f"\n{len(records)} records of another machine or other versions ({name}); --all shows them")
            continue
        typer.echo(
            f"\n{', '.join(f'{what} {value}' for what, value in found.machines[name].items() if what != 'features')}"
        )
        rows = [_row(key, record) for key, record in sorted(records.items())]
        for line in table([("choice", "us", "then", "measured", "key"), *rows]):
            typer.echo(f"  {line}")
    for key, reason in unsound.items():
        typer.echo(f"not sound: {key}: {reason}", err=True)


def _row(key: str, record: Record) -> tuple[str, str, str, str, str]:
    choice = record.candidates[record.choice]
    others = sorted(
        (one.seconds / choice.seconds, n) for n, one in record.candidates.items() if one is not choice and one.median_us
    )
    then = f"{others[0][1]} {others[0][0]:.2f}x" if others else "-"
    return record.choice, f"{choice.median_us:,.1f}", then, choice.measured, key


@wisdom.command()
def export(
    path: Annotated[Path | None, typer.Argument(help="File to write; by default stdout.", show_default=False)] = None,
    everything: Everything = False,
) -> None:
    """Write the records of this machine and these versions to a file."""
    text = exchange.exported(everything)
    if path is None:
        typer.echo(text, nl=False)
        return
    own = location()
    if own is not None and os.path.exists(own) and path.exists() and os.path.samefile(own, path):
        raise pooling.PoolingError(f"{path} is where the records are kept: name another file to write them to")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise pooling.PoolingError(f"{path} can't be written: {error.strerror or error}; name another file") from None
    typer.echo(f"{len(json.loads(text)['records'].get(here(), {}))} records of this machine written to {path}")


@wisdom.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="Files that were exported.")], as_json: Json = False
) -> None:
    """Take what is of use on this machine, and tell what was taken and what was refused. Exit code 1 if nothing was of use."""
    output = {}
    useful = 0
    for path in files:
        imported = exchange.import_file(path)
        useful += len(imported.took) + len(imported.known)
        output[str(path)] = {"took": imported.took, "known": imported.known, "refused": imported.refused}
        if not as_json:
            counts = f"{len(imported.took)} taken, {len(imported.known)} known already, {len(imported.refused)} refused"
            typer.echo(f"{path}: {counts}")
            for key in imported.took:
                typer.echo(f"  took     {key}")
            for key, reason in imported.refused.items():
                typer.echo(f"  refused  {key}: {reason}")
    if as_json:
        typer.echo(json.dumps(output, indent=2))
    if not useful:
        raise typer.Exit(1)


@wisdom.command()
def merge(
    files: Annotated[list[Path], typer.Argument(help="Files of any machines.")],
    into: Annotated[Path | None, typer.Option(help="File to write.", show_default="the store")] = None,
) -> None:
    """Join files into one. Of what several have measured, the latest stays."""
    count = exchange.merge(files, into)
    typer.echo(f"{into or location()}: {count} records")


@wisdom.command()
def forget(
    words: Annotated[
        list[str] | None, typer.Argument(help="Records with all these in their key.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All records.")] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Those of other machines, other versions, changed sources.")
    ] = False,
) -> None:
    """Remove records from the store."""
    if bool(words) + everything + stale != 1:
        raise pooling.PoolingError("say what to forget: words of its key, or --stale, or --all")
    if stale:
        count = exchange.forget(exchange.stale)
    else:
        count = exchange.forget(exchange.matching(words or ()))
    typer.echo(f"{count} records forgotten")
