"""Configurations: small frozen dataclasses, changed by `key=value` texts or TOML tables, never by
guessing.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from morphable.errors import InputError

Config = TypeVar("Config")


def changed(config: Config, values: Mapping[str, Any], where: str) -> Config:
    """`config` with fields replaced; texts are read as the field's type.

    Raises InputError, naming `where`.key, for an unknown key or a value that the field's type does
    not take.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Example:
    ...     rate: float = 0.1
    >>> changed(Example(), {"rate": "1e-3"}, "train")
    Example(rate=0.001)
    """
    hints = typing.get_type_hints(type(config))
    known = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    replaced = {}
    for key, value in values.items():
        if key not in known:
            raise InputError(f"{where}.{key}: there is no such setting; {suggestion(key, known)}")
        replaced[key] = convert(value, hints[key], f"{where}.{key}")
    try:
        return dataclasses.replace(config, **replaced)  # type: ignore[type-var]
    except (
        InputError
    ) as error:  # from the class's own check, which does not know where the value came from
        raise InputError(
            f"{where}.{str(error).removeprefix('train.').removeprefix('model.')}"
        ) from None


def suggestion(name: str, known: typing.Iterable[str]) -> str:
    """What to say to someone who asked for a `name` that does not exist: the nearest known one, or
    all of them.

    >>> suggestion("epoch", ["epochs", "seed"])
    "did you mean 'epochs'?"
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"


def convert(value: Any, hint: Any, where: str) -> Any:
    """`value`, possibly a text from the command line, as the annotated type; InputError where it
    does not fit.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None or value == "none":
            return None
        return convert(value, next(a for a in arguments if a is not type(None)), where)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(
                f"{where}: expected one of {', '.join(map(str, arguments))}, got {value!r}"
            )
        return value
    if origin is tuple:
        items = [item for item in value.split(",") if item] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise InputError(f"{where}: expected a list, got {value!r}")
        return tuple(convert(item, arguments[0], where) for item in items)
    if hint is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        raise InputError(f"{where}: expected true or false, got {value!r}")
    if hint in (int, float, str):
        try:
            return _plain(value, hint)
        except (TypeError, ValueError, OverflowError):
            kind = {int: "a whole number", float: "a number", str: "a text"}[hint]
            raise InputError(f"{where}: expected {kind}, got {value!r}") from None
    raise TypeError(f"{where}: a configuration field cannot be of type {hint}")


def _plain(value: Any, hint: type) -> Any:
    """`value` as int, float or str without loss; ValueError for nan, inf, 1.5 as int, or a number
    as text.
    """
    if isinstance(value, bool) or (hint is str and not isinstance(value, str)):
        raise ValueError
    result = hint(value)
    if (isinstance(value, float) and result != value) or (
        hint is float and not math.isfinite(result)
    ):
        raise ValueError
    return result


def as_table(config: Any) -> dict[str, Any]:
    """The fields as a TOML- and JSON-ready table; fields that are None are left out."""
    table = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in table.items()
        if value is not None
    }
