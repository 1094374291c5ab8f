"""Families from outside the package: from a Python file, an importable module or an installed entry
point. Nothing is searched or imported except the source that the user names.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from morphable.config import suggestion
from morphable.errors import InputError
from morphable.models.families import Family, add_family

ENTRY_POINTS = "morphable.families"
"""The entry point group in which installed packages list their families."""

IMPORTING = (__file__, str(importlib.__file__), "<frozen importlib")
"""Files to skip in a traceback: they belong to the import machinery, not to the imported code."""


def add_family_from(source: str) -> str:
    """Add the family that `source` names to MODELS, for this process, and return its name.

    source: `FILE.py:NAME` or `package.module:NAME`, or the name of an installed entry point. NAME
    is a variable that holds a `Family`, and becomes the family's name.

    This runs the code that defines the family. Loading a model never runs code, because a model
    folder holds only data.

    Raises InputError if there is no such file, module, entry point or variable, if the code fails,
    or if another family has that name.
    """
    place, colon, name = source.rpartition(":")
    if not colon:
        row = _entry_point(source)
    elif place.endswith(".py"):
        row = _variable(source, _file_module(source, Path(place)), name)
    else:
        with _user_code(source):
            module = importlib.import_module(place)
        row = _variable(source, module, name)

    if not isinstance(row, Family):
        raise InputError(f"{source}: expected a morphable.Family, got {type(row).__name__}")
    add_family(name, row, source)
    return name


def _file_module(source: str, path: Path) -> ModuleType:
    """The module in a file. It runs only once per process, so that naming it twice gives the same
    classes.
    """
    if not path.is_file():
        raise InputError(f"{source}: {path}: no such file")
    name = str(path.resolve())
    if name in sys.modules:
        return sys.modules[name]

    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    # Register the module before it runs, as Python's import does: dataclasses look up their module.
    sys.modules[name] = module
    try:
        with _user_code(source):
            spec.loader.exec_module(module)
    except InputError:
        # Otherwise the next attempt would get the half-run module and no error.
        del sys.modules[name]
        raise
    return module


def _entry_point(name: str) -> Any:
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    if name not in points.names:
        known = ", ".join(sorted(points.names)) or "none"
        raise InputError(
            f"{name}: expected FILE.py:NAME, package.module:NAME or an installed family "
            f"({ENTRY_POINTS}: {known})"
        )
    with _user_code(name):
        return points[name].load()


def _variable(source: str, module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        families = [key for key, value in vars(module).items() if isinstance(value, Family)]
        hint = suggestion(name, families) if families else "it defines no Family"
        raise InputError(f"{source}: there is no {name!r} in it; {hint}")
    return getattr(module, name)


@contextlib.contextmanager
def _user_code(source: str) -> Iterator[None]:
    """Turn any exception of the user's code into an InputError that names the file and line."""
    try:
        yield
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if not frame.filename.startswith(IMPORTING)]
        where = f", {theirs[-1].filename} line {theirs[-1].lineno}" if theirs else ""
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{source}: cannot be loaded: {reason}{where}") from error
