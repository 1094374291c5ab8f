"""Take arrays out of a file, checked: whatever the file holds, they have the expected kind and
shape, and an index never points outside of what it indexes.

Sparse kernels read and write wherever their indices point, so an unchecked file could corrupt
memory. Template, hierarchy, spirals, samplings and trained maps all come in through here.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from morphable.errors import InputError

Arrays = Mapping[str, np.ndarray]
Shape = tuple[int | None, ...]
"""The size along each axis; None: any."""


def stored_indices(
    arrays: Arrays, name: str, shape: Shape, below: int, at_least: int = 0
) -> np.ndarray:
    """The array `name` as int64 indices from `at_least` to `below` - 1.

    Raises InputError if there is no such array, or its kind, its shape or an index is wrong.
    """
    array = _stored(arrays, name, "iu", shape)
    # Compared before the conversion, which would wrap a large unsigned number to a negative one.
    if array.size and (array.min() < at_least or array.max() >= below):
        raise InputError(
            f"{name}: expected indices from {at_least} to {below - 1}, "
            f"got {array.min()} to {array.max()}"
        )
    return array.astype(np.int64)


def stored_numbers(arrays: Arrays, name: str, shape: Shape) -> np.ndarray:
    """The array `name` of finite floats.

    Raises InputError if there is no such array, or its kind, its shape or a number is wrong.
    """
    array = _stored(arrays, name, "f", shape)
    if not np.isfinite(array).all():
        raise InputError(f"{name}: holds a number that is not finite")
    return array


def stored_mask(arrays: Arrays, name: str, shape: Shape) -> np.ndarray:
    """The array `name` of truth values. Raises InputError if there is none or it is another one."""
    return _stored(arrays, name, "b", shape)


def stored_texts(arrays: Arrays, name: str) -> tuple[str, ...]:
    """The array `name` of texts. Raises InputError if there is none or it is another one."""
    return tuple(str(text) for text in _stored(arrays, name, "U", (None,)))


def stored_text(arrays: Arrays, name: str) -> str:
    """The single text `name`. Raises InputError if there is none or it is another array."""
    return str(_stored(arrays, name, "U", ()))


def stored_sparse(
    arrays: Arrays,
    shape: tuple[int, int],
    *,
    data: str = "data",
    columns: str = "indices",
    rows: str = "indptr",
) -> sp.csr_matrix:
    """A sparse matrix (n_out, n_in) from its compressed rows. data, columns, rows: names of the
    numbers, the column of each, and where each row starts.

    Raises InputError if an array is missing or wrong, or the rows do not cover the entries one
    after the other.
    """
    n_out, n_in = shape
    numbers = stored_numbers(arrays, data, (None,))
    column = stored_indices(arrays, columns, numbers.shape, n_in)
    start = stored_indices(arrays, rows, (n_out + 1,), len(numbers) + 1)
    if start[0] != 0 or start[-1] != len(numbers) or (np.diff(start) < 0).any():
        raise InputError(f"{rows}: expected rows that cover {len(numbers)} entries in order")
    return sp.csr_matrix((numbers, column, start), shape=shape)


def _stored(arrays: Arrays, name: str, kinds: str, shape: Shape) -> np.ndarray:
    if name not in arrays:
        raise InputError(f"there is no array {name}")
    array = arrays[name]
    fits = array.ndim == len(shape) and all(
        size in (None, own) for size, own in zip(shape, array.shape, strict=True)
    )
    if array.dtype.kind not in kinds or not fits:
        sizes = " x ".join("any" if size is None else str(size) for size in shape) or "a single one"
        raise InputError(
            f"{name}: expected {KINDS[kinds]}, {sizes}, got {array.dtype} {array.shape}"
        )
    return array


KINDS = {"iu": "whole numbers", "f": "floats", "b": "truth values", "U": "text"}
