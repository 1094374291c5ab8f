"""Confidence intervals: what they cover in simulation, and that too few subjects have none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from morphable.evaluate.errors import summary
from morphable.evaluate.intervals import (
    MIN_GROUPS,
    Bounds,
    mean_interval,
    no_interval,
    pair_interval,
    ratio_interval,
)

TRIALS = 300
Draw = Callable[[np.random.Generator, int], np.ndarray]


def normal(random: np.random.Generator, count: int) -> np.ndarray:
    return 1 + random.standard_normal(count)


def skewed(random: np.random.Generator, count: int) -> np.ndarray:
    """Of mean 1, like errors: a few people are far worse than the others."""
    return random.gamma(2.0, 0.5, count)


@pytest.mark.parametrize("draw", [normal, skewed])
@pytest.mark.parametrize("groups", [8, 12, 20])
def test_the_interval_covers_the_truth_as_often_as_it_says(draw: Draw, groups: int) -> None:
    """With 3 to 8 meshes per subject. Percentiles of redrawn means covered 90 % at twelve."""
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(TRIALS):
        subjects = np.repeat(np.arange(groups), random.integers(3, 9, groups))
        values = draw(random, groups)[subjects] + 0.3 * random.standard_normal(len(subjects))
        bounds = mean_interval(values, subjects, trial)
        assert bounds is not None
        hits += bounds.low < 1 < bounds.high
    assert 0.91 <= hits / TRIALS <= 0.985


@pytest.mark.parametrize("groups", [8, 20])
@pytest.mark.parametrize("spread", [(1.0, 1.0, 0.5), (1.0, 0.3, 0.3), (1.0, 0.0, 0.0)])
def test_values_of_two_subjects(groups: int, spread: tuple[float, float, float]) -> None:
    """What a value owes to its first subject, to its second, and to neither."""
    random = np.random.default_rng(1)
    hits = 0
    for trial in range(TRIALS):
        a, b = random.integers(groups, size=(2, 200))
        a, b = a[a != b], b[a != b]
        of_first, of_second = random.standard_normal((2, groups))
        own = random.standard_normal(len(a))
        values = 3 + spread[0] * of_first[a] + spread[1] * of_second[b] + spread[2] * own
        bounds = pair_interval(values, a, b, trial)
        assert bounds is not None
        hits += bounds.low < 3 < bounds.high
    assert 0.91 <= hits / TRIALS <= 0.99


def test_ratios_cover_too() -> None:
    random = np.random.default_rng(2)
    subjects = np.repeat(np.arange(10), 5)
    hits = 0
    for trial in range(TRIALS):
        reference = skewed(random, 10)[subjects] * random.uniform(0.8, 1.2, 50)
        own = 0.8 * reference + 0.1 * random.standard_normal(10)[subjects]
        bounds = ratio_interval(own, reference, subjects, trial)
        assert bounds is not None
        hits += bounds.low < 0.8 < bounds.high
    assert 0.90 <= hits / TRIALS <= 0.985


def test_fewer_than_eight_subjects_have_none() -> None:
    values = np.arange(70.0)
    few = np.arange(70) % (MIN_GROUPS - 1)
    assert mean_interval(values, few) is None
    assert pair_interval(values, few, np.roll(few, 1)) is None
    assert summary(values, few)["ci95"] is None
    assert no_interval(7) == (
        "no confidence interval: at least 8 measured subjects are needed, there are 7"
    )
    assert mean_interval(values, np.arange(70) % MIN_GROUPS) is not None


def test_subjects_are_redrawn_not_meshes() -> None:
    values, subjects = np.repeat(np.arange(10.0), 25), np.repeat(np.arange(10), 25)

    def width(bounds: Bounds | None) -> float:
        assert bounds is not None
        return bounds.high - bounds.low

    by_subject, by_mesh = mean_interval(values, subjects), mean_interval(values, np.arange(250))
    assert width(by_subject) > 3 * width(by_mesh)
    names = np.array(list("jdabcefghi"))[subjects]
    assert width(mean_interval(values, names)) == pytest.approx(width(by_subject), rel=0.2)
    assert mean_interval(values, subjects, 1) == mean_interval(values, subjects, 1)


def test_equal_values_have_an_interval_without_width() -> None:
    assert mean_interval(np.full(40, 2.5), np.arange(40) % 10) == (2.5, 2.5)
    a, b = np.arange(40) % 10, (np.arange(40) + 1) % 10
    assert pair_interval(np.full(40, 2.5), a, b) == (2.5, 2.5)
