"""Select rows: choose a few of many meshes if using all of them would take too long."""

from __future__ import annotations

import numpy as np


def evenly_spread(count: int, at_most: int) -> np.ndarray:
    """Choose at most `at_most` of the row numbers 0..count-1, evenly spread and ascending.

    They include the first and the last row if `at_most` is at least two. All rows are returned if
    there are no more than `at_most`; the result is empty if `count` is 0.

    >>> evenly_spread(10, 4).tolist(), evenly_spread(3, 4).tolist()
    ([0, 3, 6, 9], [0, 1, 2])
    """
    return np.unique(np.linspace(0, count - 1, min(count, at_most)).astype(int))
