"""Rewrite the library's errors for the command line: arguments become flags."""

from __future__ import annotations

from cyclopts import CycloptsError, MissingArgumentError

from morphable.errors import InputError


def flag(argument: str) -> str:
    """Return the flag of an argument of the library.

    >>> flag("skip_bad")
    '--skip-bad'
    """
    return f"--{argument.replace('_', '-')}"


def message(error: InputError) -> str:
    """Return the text of an error, with flags in place of the arguments that it names.

    >>> message(InputError("`unit` inch: expected mm, cm or m", "unit"))
    '--unit inch: expected mm, cm or m'
    """
    text = str(error)
    for argument in error.arguments:
        text = text.replace(f"`{argument}`", flag(argument))
    return text


def usage_message(error: CycloptsError) -> str:
    """Return what is wrong with the words of a command line.

    A missing argument is named with its meaning. An argument's own check (`cli/arguments.py`) has
    written the whole sentence.
    """
    if isinstance(error.__cause__, InputError):
        return message(error.__cause__)
    if not isinstance(error, MissingArgumentError) or error.argument is None or error.keyword:
        return str(error).strip()
    command, name = " ".join(error.command_chain or ()), error.argument.name
    meaning = f": {error.argument.parameter.help}" if error.argument.parameter.help else ""
    return f"{command}: {name} is missing{meaning}"
