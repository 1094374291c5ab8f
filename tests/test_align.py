import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from morphable.errors import InputError
from morphable.mesh.align import Similarity, generalized_procrustes, procrustes


def cloud(seed: int = 11, count: int = 40) -> np.ndarray:
    """Points (V, 3) about the size of a head, far from the origin as scans are."""
    return np.random.default_rng(seed).normal(size=(count, 3)) * [60, 90, 70] + [10, 1500, -40]


def random_similarity(seed: int, scale: float = 1.0) -> Similarity:
    generator = np.random.default_rng(seed)
    return Similarity(
        Rotation.random(rng=generator).as_matrix(), generator.normal(size=3) * 100, np.array(scale)
    )


def test_quarter_turn_by_hand() -> None:
    source = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    target = np.array([[0.0, 2, 0], [-2, 0, 0], [0, 0, 2], [0, 0, 0]]) + np.array([5, 6, 7])
    found = procrustes(source, target, scale=True)
    np.testing.assert_allclose(found.rotation, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(found.translation, [5, 6, 7], atol=1e-12)
    assert found.scale == pytest.approx(2)


@pytest.mark.parametrize("scale", [1.0, 0.37])
def test_recovers_a_known_map(scale: float) -> None:
    known = random_similarity(1, scale)
    found = procrustes(cloud(), known.apply(cloud()), scale=scale != 1)
    np.testing.assert_allclose(found.rotation, known.rotation, atol=1e-12)
    np.testing.assert_allclose(found.translation, known.translation, atol=1e-9)
    np.testing.assert_allclose(found.scale, scale)


def test_agrees_with_a_numerical_optimum() -> None:
    source, target = cloud(2), cloud(3)
    weights = np.random.default_rng(4).uniform(0.1, 3, len(source))

    def residual(x: np.ndarray) -> np.ndarray:
        moved = (
            np.exp(x[6]) * Rotation.from_rotvec(x[:3]).apply(source - source.mean(0))
            + x[3:6]
            + target.mean(0)
        )
        return (np.sqrt(weights)[:, None] * (moved - target)).ravel()

    found = procrustes(source, target, weights=weights, scale=True)
    ours = (weights[:, None] * (found.apply(source) - target) ** 2).sum()
    starts = np.random.default_rng(5).normal(size=(8, 3)) * 2
    best = min(2 * least_squares(residual, [*start, 0, 0, 0, 0]).cost for start in starts)
    assert ours == pytest.approx(best, rel=1e-6)


def test_never_a_reflection() -> None:
    mirrored = cloud() * [-1, 1, 1]
    found = procrustes(cloud(), mirrored)
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    flat = cloud() * [1, 1, 0]  # a plane fits its mirror image by a rotation
    np.testing.assert_allclose(
        procrustes(flat, flat * [-1, 1, 1]).apply(flat), flat * [-1, 1, 1], atol=1e-9
    )


def test_rows_alone_decide() -> None:
    known = random_similarity(6)
    target = known.apply(cloud())
    rows = np.array([3, 8, 20, 31, 39])
    target[np.setdiff1d(np.arange(40), rows)] += 50
    mask = np.isin(np.arange(40), rows)
    for chosen in (procrustes(cloud(), target, rows=rows), procrustes(cloud(), target, rows=mask)):
        np.testing.assert_allclose(chosen.rotation, known.rotation, atol=1e-12)
    np.testing.assert_allclose(
        procrustes(cloud(), target, weights=mask * 1.0).rotation, known.rotation, atol=1e-12
    )


def test_a_batch_equals_one_by_one_and_keeps_precision() -> None:
    shapes = np.stack([cloud(seed) for seed in range(4)]).astype(np.float32)
    batch = procrustes(shapes, cloud(9), scale=True).apply(shapes)
    single = [procrustes(shape, cloud(9), scale=True).apply(shape) for shape in shapes]
    np.testing.assert_array_equal(batch, single)
    assert batch.dtype == np.float32


@pytest.mark.parametrize("scale", [False, True])
def test_generalized_undoes_random_poses(scale: bool) -> None:
    sizes = np.linspace(0.5, 2, 6) if scale else np.ones(6)
    posed = np.stack([random_similarity(seed, sizes[seed]).apply(cloud()) for seed in range(6)])
    aligned, mean = generalized_procrustes(posed, scale=scale)
    np.testing.assert_allclose(aligned, np.broadcast_to(posed[0], posed.shape), atol=1e-8)
    np.testing.assert_allclose(mean, posed[0], atol=1e-8)


@pytest.mark.parametrize("scale", [False, True])
def test_generalized_is_a_fixed_point_and_ignores_the_order_of_shapes(scale: bool) -> None:
    noise = np.random.default_rng(7).normal(size=(6, 40, 3)) * 8
    posed = np.stack([random_similarity(seed).apply(cloud() + noise[seed]) for seed in range(6)])
    aligned, mean = generalized_procrustes(posed, scale=scale, reference=cloud())
    np.testing.assert_allclose(procrustes(aligned, mean).apply(aligned), aligned, atol=1e-3)
    turned, _ = generalized_procrustes(posed[::-1], scale=scale, reference=cloud())
    np.testing.assert_allclose(turned[::-1], aligned, atol=1e-3)
    before = np.square(posed - posed.mean(0)).sum()
    assert np.square(aligned - mean).sum() < 0.1 * before
    if scale:
        sizes = [np.linalg.norm(shape - shape.mean(0)) for shape in aligned]
        np.testing.assert_allclose(sizes, np.linalg.norm(cloud() - cloud().mean(0)))


def test_generalized_with_rows_moves_whole_shapes_rigidly() -> None:
    rows = np.arange(10)
    posed = np.stack([random_similarity(seed).apply(cloud()) for seed in range(3)])
    posed[:, 30] += 25  # outside the rows, moves along and disturbs nothing
    aligned, _ = generalized_procrustes(posed, rows=rows)
    np.testing.assert_allclose(
        aligned[:, rows], np.broadcast_to(posed[0, rows], (3, 10, 3)), atol=1e-8
    )
    for before, after in zip(posed, aligned, strict=True):
        np.testing.assert_allclose(
            np.linalg.norm(after[30] - after[0]), np.linalg.norm(before[30] - before[0])
        )


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match=r"equal V, got \(40, 3\) and \(39, 3\)"):
        procrustes(cloud(), cloud()[1:])
    with pytest.raises(InputError, match="lie on one line"):
        procrustes(cloud(), cloud(), rows=np.array([0, 1]))
    with pytest.raises(InputError, match="of shape 1 that count lie on one line"):
        procrustes(np.stack([cloud(), cloud() * 0]), cloud())
    with pytest.raises(InputError, match="expected 40 numbers >= 0"):
        procrustes(cloud(), cloud(), weights=np.ones(3))
    with pytest.raises(InputError, match="at least one shape"):
        generalized_procrustes(np.zeros((0, 5, 3)))
    with pytest.raises(InputError, match="not finite"):
        procrustes(cloud() * np.nan, cloud())
