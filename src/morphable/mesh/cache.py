"""A content-addressed store of computed arrays: the key says what went in, so an entry is never out
of date.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from morphable.errors import InputError
from morphable.files import content_hash, read_npz, write_npz

VERSION = 1
"""Raise this when the layout of the entries changes: older entries are then never read again."""


def cached(
    name: str, key: str, build: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays that `build` makes, from the cache where they are there already.

    name: what they are, "hierarchy". key: anything that identifies the inputs and the algorithm's
    version. A damaged entry is built and written again; where nothing can be written the arrays are
    just built.
    """
    folder = cache_folder()
    if folder is None:
        return build()
    path = folder / f"{name}-{content_hash(key, str(VERSION))[:32]}.npz"
    with contextlib.suppress(InputError, OSError):
        return read_npz(path)
    arrays = build()
    with contextlib.suppress(InputError, OSError):
        write_npz(path, arrays)
    return arrays


def cache_folder() -> Path | None:
    """$MORPHABLE_CACHE, or `morphable` in the user's cache folder on this platform; None where
    there is no home.
    """
    if chosen := os.environ.get("MORPHABLE_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME") or (
        os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else None
    ):
        return Path(base) / "morphable"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "morphable"
