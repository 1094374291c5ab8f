"""Rewrite the library's errors for the command line: arguments become flags."""

from __future__ import annotations

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
