"""95 % confidence intervals of means over meshes that are not independent: meshes of one subject
are alike, so whole subjects are redrawn.

The intervals are bootstrap-t (Efron and Tibshirani 1993, chapter 12): each redraw is measured in
its own standard error. Percentiles of the redrawn means themselves cover too little with few
subjects: 90 % with twelve. Below eight subjects no bootstrap covers what it says, so there is no
interval.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MIN_GROUPS = 8
"""Fewest groups (subjects, or meshes without a subject) that an interval is computed from."""
DRAWS = 1000
"""How often groups are redrawn."""


class Bounds(NamedTuple):
    """The ends of a 95 % confidence interval."""

    low: float
    high: float


def no_interval(groups: int) -> str:
    """Say why there is no confidence interval of so many groups.

    >>> no_interval(2)
    'no confidence interval: at least 8 measured subjects are needed, there are 2'
    """
    return (
        f"no confidence interval: at least {MIN_GROUPS} measured subjects are needed, "
        f"there {'is' if groups == 1 else 'are'} {groups}"
    )


def described(groups: int) -> str:
    """Say how confidence intervals over so many groups are made, or why there are none.

    >>> described(20)
    '95 % confidence intervals: bootstrap-t over 20 subjects'
    """
    if groups < MIN_GROUPS:
        return no_interval(groups)
    return f"95 % confidence intervals: bootstrap-t over {groups} subjects"


def mean_interval(values: np.ndarray, groups: np.ndarray, seed: int = 0) -> Bounds | None:
    """Interval of the mean of `values` (N,), with groups (N,) redrawn; None if they are too few."""
    return ratio_interval(values, np.ones(len(values)), groups, seed)


def ratio_interval(
    values: np.ndarray, references: np.ndarray, groups: np.ndarray, seed: int = 0
) -> Bounds | None:
    """Interval of mean(values) / mean(references), both (N,) and paired; None if the groups (N,)
    are too few.
    """
    number, count = _numbered(groups)
    if count < MIN_GROUPS:
        return None
    ratio = values.sum() / references.sum()
    # Centered, so that nothing is lost if the groups hardly differ.
    residual = np.bincount(number, values - ratio * references, count)
    weight = np.bincount(number, references, count)
    times = _redraws(count, seed)
    total = times @ weight
    shifts = times @ residual / total
    # The sum of squares of the redrawn residuals, residual - shift * weight, multiplied out.
    squares = (
        times @ np.square(residual)
        - 2 * shifts * (times @ (residual * weight))
        + np.square(shifts) * (times @ np.square(weight))
    )
    errors = _standard_error(squares, total, count)
    error = _standard_error(np.square(residual).sum(), weight.sum(), count)
    return _studentized(ratio, error, shifts, errors)


def pair_interval(
    values: np.ndarray, first: np.ndarray, second: np.ndarray, seed: int = 0
) -> Bounds | None:
    """Interval of the mean of `values` (N,), each of which belongs to two groups: (N,) `first` and
    (N,) `second`. None if the groups are too few.

    A redrawn group brings its values in both roles, so a value counts as often as its two groups
    were drawn, multiplied.
    """
    number, groups = _numbered(np.concatenate([first, second]))
    if groups < MIN_GROUPS:
        return None
    mean = values.mean()
    residual, count = np.zeros((2, groups, groups))
    pairs = (number[: len(values)], number[len(values) :])
    np.add.at(residual, pairs, values - mean)
    np.add.at(count, pairs, 1.0)
    # A group's part of the sums: its pairs in either role.
    residual, count = residual + residual.T, count + count.T
    times = _redraws(groups, seed)
    total = (times @ count * times).sum(1) / 2
    times, total = times[total > 0], total[total > 0]
    shifts = (times @ residual * times).sum(1) / 2 / total
    own = times @ residual - shifts[:, None] * (times @ count)
    errors = _standard_error((times * np.square(own)).sum(1), total, groups)
    error = _standard_error(np.square(residual.sum(1)).sum(), count.sum() / 2, groups)
    return _studentized(mean, error, shifts, errors)


def _numbered(groups: np.ndarray) -> tuple[np.ndarray, int]:
    """(N,) numbers of the groups from 0 on, and how many groups there are."""
    names, number = np.unique(groups, return_inverse=True)
    return number, len(names)


def _redraws(count: int, seed: int) -> np.ndarray:
    """(DRAWS, G) how often each group is drawn, in as many draws with replacement as there are."""
    random = np.random.default_rng(seed)
    drawn = [random.integers(count, size=count) for _ in range(DRAWS)]
    return np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float64)


def _standard_error(squares: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Standard error of a ratio, from the sum of its groups' squared residuals."""
    return np.sqrt(np.maximum(squares, 0) * count / (count - 1)) / weights


def _studentized(
    estimate: float, error: np.ndarray, shifts: np.ndarray, errors: np.ndarray
) -> Bounds:
    """The interval from the redraws' shifts (D,) of the estimate and their standard errors (D,)."""
    known = errors > 0
    if not known.any():
        return Bounds(float(estimate), float(estimate))
    low, high = np.percentile(shifts[known] / errors[known], [2.5, 97.5])
    return Bounds(float(estimate - high * error), float(estimate - low * error))
