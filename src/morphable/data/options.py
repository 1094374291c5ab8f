"""Options of makers and importers: checked against the function that takes them, and recorded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from morphable.errors import InputError


def checked_options(
    name: str, function: Callable[..., Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The keyword arguments for `function`. Options that are None, and flags that are False, count as
    not given.

    Raises InputError for an option that the function does not take, and for one that it needs.
    """
    chosen = {k: value for k, value in given.items() if value is not None and value is not False}
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    foreign = [option for option in chosen if option not in parameters]
    if foreign:
        taken = f"{name}, which takes {_quoted(parameters)}"
        raise InputError(f"{_quoted(foreign)}: not an option of {taken}", *foreign, *parameters)
    for option, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and option not in chosen:
            raise InputError(f"`{option}`: missing, {name} needs it", option)
    return chosen


def recorded_options(function: Callable[..., Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """All options as JSON values, defaults too, so that the same set can be made again.

    Paths are left out except for their last part: they belong to one machine.
    """
    parameters = inspect.signature(function).parameters.values()
    defaults = {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    return {
        name: value.name if isinstance(value, Path) else value
        for name, value in (defaults | dict(chosen)).items()
    }


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
