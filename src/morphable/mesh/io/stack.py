"""Read a stack of registered shapes from one NumPy file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from morphable.errors import InputError
from morphable.files import map_npy, read_npz


def read_stack(path: Path) -> np.ndarray:
    """Read floats (N, V, 3) from an .npy file (memory-mapped, read-only) or from the array
    `vertices` of an .npz file.

    A stack may be larger than memory, so it is not checked for finite positions; the code that
    reads it block by block must do that.

    Raises InputError if the suffix or the shape is another, the file is damaged or the numbers are
    not floats.
    """
    match path.suffix.lower():
        case ".npy":
            stack = map_npy(path)
        case ".npz":
            arrays = read_npz(path)
            if "vertices" not in arrays:
                raise InputError(
                    f"{path}: expected an array 'vertices', it holds "
                    f"{', '.join(arrays) or 'nothing'}"
                )
            stack = arrays["vertices"]
        case suffix:
            raise InputError(
                f"{path}: expected a stack of shapes in .npy or .npz, got {suffix or 'no suffix'}"
            )
    if (
        stack.ndim != 3
        or stack.shape[2] != 3
        or 0 in stack.shape
        or not np.issubdtype(stack.dtype, np.floating)
    ):
        raise InputError(
            f"{path}: expected floats of shape (N, V, 3), got {stack.dtype} {stack.shape}"
        )
    return stack
