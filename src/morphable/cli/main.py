"""`morphable`: the entry point of the command line, its commands and its exit codes."""

from __future__ import annotations

import os
import re
import sys
import typing
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter, Token, convert

import morphable
from morphable.cli import (
    bench,
    compare,
    data,
    edit,
    evaluate,
    export,
    factor,
    fit,
    import_model,
    referee,
    report,
    shapes,
    studio,
    train,
)
from morphable.cli.messages import message, usage_message
from morphable.errors import InputError

HELP = """Deep 3D morphable models: from registered meshes to a model to measure, edit and ship.

A first tour: `morphable data make hands --out data/hands`, then
`morphable train spiralnet++ --data data/hands --out runs/a`,
`morphable evaluate runs/a`, `morphable report runs/a`.
"""


MAX_NAME, MAX_PATH = 255, 4095
"""Bytes of a file name and of a path that file systems allow."""


def _exactly(kind: Any, tokens: Sequence[Token]) -> Any:
    """Convert words to a parameter's type. Refuses "1.5" for a whole number, which Cyclopts would
    round to 2, and paths that no file can have.
    """
    kinds = _kinds(kind)
    for token in tokens:
        if int in kinds and not re.fullmatch("[+-]?[0-9]{1,18}", token.value):
            raise ValueError(f"expected a whole number, got {_short(token.value)!r}")
        if Path in kinds:
            _check_path(token.value)
    return convert(kind, tokens)


def _kinds(kind: Any) -> set[Any]:
    """A type and those that it is made of, as in `list[Path] | None`."""
    return {kind}.union(*map(_kinds, typing.get_args(kind)))


def _check_path(text: str) -> None:
    """Raise ValueError if `text` is no path, or one that cannot be recorded in a text file."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"expected a path in UTF-8, got {text!r}; rename it first") from None
    if b"\0" in encoded:
        raise ValueError(f"expected a path, got {text!r}")
    if len(encoded) > MAX_PATH or max(map(len, encoded.split(b"/"))) > MAX_NAME:
        raise ValueError(
            f"expected a path of at most {MAX_PATH} bytes, with names of at most {MAX_NAME}, got "
            f"{_short(text)!r}"
        )


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text)} characters)"


app = App(
    name="morphable",
    help=HELP,
    version=morphable.__version__,
    help_format="markdown",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(converter=_exactly),
)
app.command(data.app)
app.command(train.train)
app.command(evaluate.evaluate)
app.command(referee.referee)
app.command(report.report)
app.command(shapes.reconstruct)
app.command(shapes.sample)
app.command(edit.app)
app.command(fit.fit)
app.command(export.export)
app.command(import_model.import_model)
app.command(factor.factor)
app.command(studio.studio)
app.command(bench.bench)
app.command(compare.compare)
# `app.meta` does not inherit this from `app`. Without it Cyclopts would end on Ctrl-C, and our
# message on how to resume would be lost.
app.meta.suppress_keyboard_interrupt = False


@app.meta.default
def _with_families(
    *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    family_from: Annotated[
        list[str] | None,
        Parameter(
            help="a model family that is not part of morphable: FILE.py:NAME, package.module:NAME, "
            "or an installed one by name; this runs its code",
            group="Families of your own",
            negative="",
        ),
    ] = None,
) -> Any:
    """Add the families of --family-from, then run the command in `words`.

    The option may come anywhere on the line, since it is taken out before the command is parsed.
    """
    if family_from:
        from morphable.models.outside import add_family_from

        for source in family_from:
            add_family_from(source)
    return app(words, exit_on_error=False, print_error=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. Exit codes: 0 done, 2 bad input (one sentence says what), 130 Ctrl-C, 1 a bug.

    A closed output (`| head`) is not an error.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    warnings.showwarning = lambda message, *_: console.print(f"note: {message}", markup=False)
    try:
        try:
            app.meta(arguments, exit_on_error=False, print_error=False, console=Console())
        finally:
            # What is still buffered would only fail at exit, where no error can be caught.
            sys.stdout.flush()
    except CycloptsError as error:
        console.print(f"morphable: {usage_message(error)}", markup=False)
        sys.exit(2)
    except InputError as error:
        console.print(f"morphable: {message(error)}", markup=False)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        console.print(f"morphable: {str(stop) or 'stopped'}", markup=False)
        sys.exit(130)
    except BrokenPipeError:
        # Python flushes standard output at exit, which would fail again on the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
