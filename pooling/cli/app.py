"""What all commands have in common: the group they belong to, one-line errors, tables."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

import pooling


def _one_line(message: Warning | str, *where: Any, **options: Any) -> None:
    typer.echo(f"pooling: {message}", err=True)


class OneLineErrors(TyperGroup):
    """A group of commands whose errors are one line, the user's as well as the library's."""

    def main(self, *args: Any, **options: Any) -> Any:
        standalone = options.get("standalone_mode", True)
        try:
            with warnings.catch_warnings():
                if standalone:
                    warnings.showwarning = _one_line
                code = super().main(*args, **options | {"standalone_mode": False})
        except (TyperException, pooling.PoolingError) as error:
            if not standalone:
                raise
            message = error.format_message() if isinstance(error, TyperException) else str(error)
            typer.echo(f"pooling: {' '.join(message.split())}", err=True)
            code = 2
        except OSError as error:  # the message names what is wrong with the disk that the output goes to
            if not standalone:
                raise
            typer.echo(f"pooling: {error}", err=True)
            code = 2
        if standalone:
            sys.exit(code or 0)
        return code


app = typer.Typer(cls=OneLineErrors, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def pooling_command(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Max and mean pooling with their backpropagation, on the CPU."""
    if version:
        typer.echo(pooling.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table, its columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
