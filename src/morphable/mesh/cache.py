"""Cache computed arrays on disk, addressed by content: the key is a hash of the inputs, so an entry
is never out of date.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from morphable.errors import InputError
from morphable.files import content_hash, read_npz, write_npz

Value = TypeVar("Value")

VERSION = 1
"""Increase this when the layout of the entries changes, so that older ones are not read again."""


def cached(
    name: str,
    key: str,
    build: Callable[[], dict[str, np.ndarray]],
    read: Callable[[Mapping[str, np.ndarray]], Value],
) -> Value:
    """Return `read` of the arrays that `build` makes, from the cache if it has them.

    name: what the arrays are, such as "hierarchy". key: text that identifies the inputs and the
    version of the algorithm. read: makes the value of the arrays, and raises InputError if they are
    not what `build` makes: a file in a cache is not trusted. Such an entry and a damaged one are
    built and written again. If the cache cannot be written, the arrays are built every time.
    """
    folder = cache_folder()
    if folder is None:
        return read(build())
    path = folder / f"{name}-{content_hash(key, str(VERSION))[:32]}.npz"
    with contextlib.suppress(InputError, OSError):
        return read(read_npz(path))
    arrays = build()
    with contextlib.suppress(InputError, OSError):
        write_npz(path, arrays)
    return read(arrays)


def cache_folder() -> Path | None:
    """Return $MORPHABLE_CACHE, or else `morphable` in this platform's cache folder of the user;
    None if the user has no home folder.
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
