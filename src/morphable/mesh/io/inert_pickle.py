"""Read the numbers in a pickle without executing anything in it.

A pickle is a program that names callables and calls them. Here every name becomes an inert record of
what was asked for, so no code of the file or of any library runs. Records of numpy arrays are then
turned into arrays by our own code, those of chumpy and scipy into the arrays that they hold.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from morphable.errors import InputError
from morphable.files import reading

_KINDS = "biuf"
_DEPTH = 200


class Inert:
    """What a pickle asked to be made: the name of a callable, its arguments, and a state."""

    path = ""

    def __new__(cls, *args: Any, **named: Any) -> Inert:
        made = object.__new__(cls)
        made.args, made.state, made.entries = args, None, []
        return made

    args: tuple[Any, ...]
    state: Any
    entries: list[Any]

    def __init__(self, *args: Any, **named: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, value: Any) -> None:
        self.entries.append(value)

    def extend(self, values: Any) -> None:
        self.entries.extend(values)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries.append((key, value))


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[Inert]:
        return type("Record", (Inert,), {"path": f"{module}.{name}"})

    def persistent_load(self, key: Any) -> None:
        return None


def read_pickle(path: Path) -> dict[str, Any]:
    """Read the dictionary in a pickle: numpy arrays as arrays, nested dictionaries and lists as such;
    whatever else it holds becomes None. Files of Python 2 can be read.

    Raises InputError if the file is missing, damaged or holds no dictionary.
    """
    with reading(path, "not a readable pickle, it may be truncated"):
        data = path.read_bytes()
        value = _plain(_Reader(io.BytesIO(data), encoding="latin1").load(), _DEPTH)
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a pickle of a dictionary")
    return {str(key): entry for key, entry in value.items() if isinstance(key, str | bytes)}


def _plain(value: Any, depth: int) -> Any:
    if depth == 0:
        raise ValueError("it is nested too deeply")
    if isinstance(value, Inert):
        return _of_record(value, depth - 1)
    if isinstance(value, dict):
        return {key: _plain(entry, depth - 1) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, depth - 1) for entry in value]
    return value if isinstance(value, str | bytes | int | float | bool) else None


def _of_record(record: Inert, depth: int) -> Any:
    name = record.path.rpartition(".")[2]
    if record.path.startswith("numpy") and name == "_reconstruct":
        return _array(record.state, depth)
    if record.path.startswith("numpy") and name == "_frombuffer":
        data, kind, shape, order = record.args
        return np.frombuffer(_bytes(data), _dtype(kind)).reshape(shape, order=order)
    if record.path.startswith("numpy") and name == "scalar":
        return np.frombuffer(_bytes(record.args[1]), _dtype(record.args[0]))[0]
    if record.path == "_codecs.encode":
        return _bytes(record)
    if name in ("OrderedDict", "dict", "defaultdict"):
        return {key: _plain(entry, depth) for key, entry in record.entries}
    state = _plain(record.state, depth)
    if record.path.startswith("chumpy") or (name == "_reconstructor" and isinstance(state, dict)):
        return _chumpy(state)
    return state


def _array(state: Any, depth: int) -> np.ndarray | list[Any]:
    """An array from the state that numpy pickles: version, shape, dtype, order, bytes."""
    shape, kind, fortran, data = state[-4:]
    if isinstance(data, list):  # an array of objects
        return [_plain(entry, depth) for entry in data]
    values = np.frombuffer(_bytes(data), _dtype(kind))
    return values.reshape(shape, order="F" if fortran else "C")


def _dtype(record: Any) -> np.dtype[Any]:
    """A plain number type; ValueError for any other."""
    text = str(record.args[0])
    kind = np.dtype(text)
    if record.state and record.state[1] == ">":
        kind = kind.newbyteorder(">")
    if kind.kind not in _KINDS:
        raise ValueError(f"it holds numbers of type {text!r}")
    return kind


def _bytes(value: Any) -> bytes:
    if isinstance(value, Inert):  # _codecs.encode(text, "latin1")
        value = value.args[0]
    return value.encode("latin1") if isinstance(value, str) else bytes(value)


def _chumpy(state: Any) -> Any:
    """The array that a chumpy object holds: itself, or entries of another."""
    if not isinstance(state, dict):
        return state
    if "x" in state:
        return state["x"]
    if "a" in state and "idxs" in state:
        source, places = np.asarray(state["a"]).ravel(), np.asarray(state["idxs"])
        shape = state.get("preferred_shape")
        picked = source[places.astype(np.int64).ravel()]
        return picked.reshape(shape) if shape else picked
    return state
