"""Configurations: small frozen dataclasses whose fields declare which values they allow.

`with_overrides` applies `key=value` texts and TOML tables by field name and type. It never
guesses: it raises an error that names the setting if that does not exist or its value does not fit.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Self, TypeVar

from morphable.errors import InputError

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a setting allows. Fields of a `Configuration` are annotated with it:
    `epochs: Annotated[int, Range(...)]`.

    expected: the wording for error messages. holds: whether a number is allowed.
    """

    expected: str
    holds: Callable[[Any], bool]


MAX_COUNT = 1_000_000
"""No layer, latent size or number of epochs that is meant is larger."""
Count = Annotated[int, Range("1 to 1,000,000", lambda number: 1 <= number <= MAX_COUNT)]
CountOrZero = Annotated[int, Range("0 to 1,000,000", lambda number: 0 <= number <= MAX_COUNT)]
Positive = Annotated[float, Range("a positive number", lambda number: number > 0)]
PositiveOrZero = Annotated[float, Range("a number of at least 0", lambda number: number >= 0)]
Factor = Annotated[float, Range("a positive number up to 100", lambda number: 0 < number <= 100)]
Share = Annotated[float, Range("a share from 0 to 1", lambda number: 0 <= number <= 1)]


class SettingError(InputError):
    """Raised if a setting has a value that its configuration does not allow."""

    def __init__(self, table: str, key: str, fault: str) -> None:
        self.key, self.fault = key, fault
        super().__init__(f"{table}.{key}: {fault}")


@dataclasses.dataclass(frozen=True)
class Configuration:
    """Base class of the configurations. Its constructor checks the fields annotated with a range.

    Raises SettingError, which names `table`.FIELD, if a value is outside its range.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Example(Configuration):
    ...     epochs: Count = 10
    >>> Example(0)
    Traceback (most recent call last):
    morphable.config.SettingError: model.epochs: expected 1 to 1,000,000, got 0
    """

    table: ClassVar[str] = "model"
    """The table of a recipe that holds these settings, `model` or `train`."""

    def __post_init__(self) -> None:
        for key, allowed in _ranges(type(self)):
            value = getattr(self, key)
            if not allowed.holds(value):
                raise self.error(key, f"expected {allowed.expected}, got {value}")

    def with_sizes(self, sizes: Mapping[str, int]) -> Self:
        """Return the settings of a model whose parts have these sizes, each a field of its own."""
        return dataclasses.replace(self, **sizes)

    def error(self, key: str, fault: str) -> SettingError:
        """Make the error to raise if the value of `key` is wrong."""
        return SettingError(self.table, key, fault)


def _ranges(config: type[Configuration]) -> list[tuple[str, Range]]:
    """The ranges that a class declares, as pairs of field name and range."""
    hints = typing.get_type_hints(config, include_extras=True)
    return [
        (field.name, extra)
        for field in dataclasses.fields(config)
        for extra in getattr(hints[field.name], "__metadata__", ())
        if isinstance(extra, Range)
    ]


def with_overrides(config: Config, values: Mapping[str, Any], where: str) -> Config:
    """Return `config` with some fields replaced.

    values: the new values by field name; a text is parsed as the field's type. where: the source
    of the values for error messages, such as `train` or `recipe.toml: train`.

    Raises InputError, naming `where`.key, if a key is unknown, or a value is not of the field's
    type or out of range.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Example:
    ...     rate: float = 0.1
    >>> with_overrides(Example(), {"rate": "1e-3"}, "train")
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
    except SettingError as error:  # the configuration does not know where the value came from
        raise InputError(f"{where}.{error.key}: {error.fault}") from None


def suggestion(name: str, known: typing.Iterable[str]) -> str:
    """Word a hint for a user who asked for a `name` that does not exist: the nearest known name, or
    else all of them.

    >>> suggestion("epoch", ["epochs", "seed"])
    "did you mean 'epochs'?"
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"


def convert(value: Any, hint: Any, where: str) -> Any:
    """Convert `value`, possibly a text from the command line, to the annotated type `hint`.

    Raises InputError, naming `where`, if the value does not fit.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)

    if origin in (typing.Union, types.UnionType):
        if value is None or value == "none":
            return None
        return convert(value, next(a for a in arguments if a is not type(None)), where)

    if origin is typing.Literal:
        if value not in arguments:
            known = ", ".join(map(str, arguments))
            raise InputError(f"{where}: expected one of {known}, got {value!r}")
        return value

    if origin is tuple:
        items = [item for item in value.split(",") if item] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise InputError(f"{where}: expected a list, got {value!r}")
        return tuple(convert(item, arguments[0], where) for item in items)

    return _convert_scalar(value, hint, where)


def _convert_scalar(value: Any, hint: type, where: str) -> Any:
    """Convert `value` to bool, int, float or str."""
    if hint not in KINDS:
        raise TypeError(f"{where}: a configuration field cannot be of type {hint}")
    try:
        return _truth(value) if hint is bool else _plain(value, hint)
    except (TypeError, ValueError, OverflowError, KeyError):
        raise InputError(f"{where}: expected {KINDS[hint]}, got {value!r}") from None


KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _truth(value: Any) -> bool:
    return {"true": True, "false": False}[str(value).lower()]


def _plain(value: Any, hint: type) -> Any:
    """Convert `value` to int, float or str without loss.

    Raises ValueError for nan, inf, 1.5 as an int, or a number if a text is expected.
    """
    # bool is a subclass of int, so `true` would pass for 1.
    if isinstance(value, bool) or (hint is str and not isinstance(value, str)):
        raise ValueError
    result = hint(value)
    lossy = isinstance(value, float) and result != value
    if lossy or (hint is float and not math.isfinite(result)):
        raise ValueError
    if hint is int and not -(2**63) <= result < 2**63:
        raise ValueError
    return result


def as_table(config: Any) -> dict[str, Any]:
    """Return the fields as a table for TOML and JSON. TOML has no null, so None is left out."""
    table = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in table.items()
        if value is not None
    }
