"""Measures of populations of shapes, on cases that are known by hand or by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from morphable.evaluate.population import (
    class_pairs,
    nearest,
    nearest_neighbor_accuracy,
    pair_distances,
    random_pairs,
    reduced,
)


def cloud(count: int, seed: int, spread: float = 1.0, vertices: int = 90) -> np.ndarray:
    """Shapes that vary in three ways."""
    random = np.random.default_rng(seed)
    ways = np.random.default_rng(0).normal(size=(3, vertices, 3))
    amounts = random.normal(size=(count, 3)) * spread
    return np.tensordot(amounts, ways, 1).astype(np.float32)


def test_nearest_equals_brute_force() -> None:
    a, b = cloud(12, 1), cloud(200, 2)
    distances = np.linalg.norm(a[:, None] - b[None], axis=-1).mean(-1)
    found = nearest(a, b)
    assert np.array_equal(found[:, 0], distances.argmin(1))
    np.testing.assert_allclose(found[:, 1], distances.min(1), rtol=1e-5)


def test_no_shape_is_its_own_neighbor() -> None:
    a = cloud(30, 1)
    distances = np.linalg.norm(a[:, None] - a[None], axis=-1).mean(-1)
    np.fill_diagonal(distances, np.inf)
    assert np.array_equal(nearest(a, a, same=True)[:, 0], distances.argmin(1))
    assert np.allclose(nearest(a, a)[:, 1], 0)


@pytest.mark.parametrize("move", [0.0, 5.0])
def test_a_shift_is_measured_in_millimeters(move: float) -> None:
    a = cloud(5, 1)
    moved = a + np.float32([move, 0, 0])
    np.testing.assert_allclose(pair_distances(np.concatenate([a, moved]), np.arange(5),
                                              np.arange(5, 10)), move, atol=1e-5)  # fmt: skip


def test_the_same_distribution_cannot_be_told_apart() -> None:
    found = nearest_neighbor_accuracy(cloud(600, 1), cloud(200, 2))
    assert 0.4 < found["mean"] < 0.6 and found["std"] < 0.1 and len(found["values"]) == 3


def test_other_shapes_and_one_shape_are_told_apart() -> None:
    real = cloud(100, 2)
    assert nearest_neighbor_accuracy(cloud(300, 1) + 20, real)["mean"] == 1.0
    assert nearest_neighbor_accuracy(np.repeat(cloud(1, 1), 300, 0), real)["mean"] > 0.9


def test_copies_of_real_shapes_are_caught() -> None:
    """A generator that copies has no specificity to complain about; this measure falls to zero."""
    real = cloud(50, 2)
    assert nearest_neighbor_accuracy(np.concatenate([real] * 6), real)["mean"] < 0.3


def test_pairs_differ() -> None:
    first, second = random_pairs(5, 200)
    assert (first != second).all() and set(second) == set(range(5))


def test_pairs_of_a_class_are_of_it_and_differ_in_the_other_factor() -> None:
    classes, others = np.array([0, 0, 0, 1, -1, 2, 2]), np.array([0, 1, 1, 0, 0, -1, -1])
    pairs = class_pairs(classes, others, 300)
    assert pairs is not None
    assert {(min(a, b), max(a, b)) for a, b in zip(*pairs, strict=True)} == {(0, 1), (0, 2), (5, 6)}
    assert class_pairs(np.array([0, 1, -1, -1]), others[:4], 10) is None


def test_reduced_takes_rows_and_vertices() -> None:
    a = cloud(6, 1)
    rows, vertices = np.array([4, 1]), np.array([0, 7, 80])
    assert np.array_equal(reduced(a, rows, vertices), a[rows][:, vertices])
