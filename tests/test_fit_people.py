"""Fits of unseen subjects: hands of the package, and faces if the ICT model is there. The numbers of
docs/fitting.md are larger studies of the same.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import morphable
from morphable.data.dataset import MeshDataset
from morphable.mesh.template import Template
from morphable.models.base import MorphableModel
from morphable.models.pca import Pca, PcaConfig


@pytest.fixture(scope="module")
def pca(hands: MeshDataset) -> Pca:
    train = hands.split("subject").train
    return Pca.estimate(train.template, train.vertices, {}, PcaConfig(16)).eval()


@pytest.fixture(scope="module")
def unseen(hands: MeshDataset) -> np.ndarray:
    test = hands.split("subject").test
    return np.asarray(test.vertices[np.arange(0, len(test), max(1, len(test) // 12))])


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(a - b, axis=-1))


def own_errors(model: MorphableModel, shapes: np.ndarray) -> np.ndarray:
    """(B, V) mm of the model's reconstructions."""
    with torch.no_grad():
        return distances(model(torch.from_numpy(shapes)).numpy(), shapes)


def scan_of(shape: np.ndarray, template: Template, seed: int) -> tuple[morphable.Scan, np.ndarray]:
    """A scan of a shape that is shuffled, noisy (0.2 mm), cropped by a tenth, turned and scaled;
    and where the shape's vertices lie in it, divided by the size.
    """
    random = np.random.default_rng(seed)
    triangles = template.mesh.triangles
    a, b, c = (shape[triangles[:, corner]].astype(np.float64) for corner in range(3))
    normals = np.cross(b - a, c - a)
    area = np.linalg.norm(normals, axis=1)
    face = random.choice(len(area), 5000, p=area / area.sum())
    shares = random.dirichlet([1, 1, 1], len(face))
    points = np.einsum("pc,pcx->px", shares, np.stack([a, b, c], 1)[face])
    points += random.normal(0, 0.2, points.shape)
    direction = random.normal(size=3)
    kept = points @ direction < np.quantile(points @ direction, 0.9)
    turn, size = Rotation.random(rng=random).as_matrix(), random.uniform(0.7, 1.4)
    unit = (normals / area[:, None])[face][kept]
    return morphable.Scan(size * points[kept] @ turn.T, unit @ turn.T), size * shape @ turn.T


def test_registered_hands(pca: Pca, unseen: np.ndarray) -> None:
    found = morphable.fit(pca, unseen)
    assert (found.error <= 1.001 * own_errors(pca, unseen).mean(1)).all()


def test_twenty_landmarks(pca: Pca, unseen: np.ndarray) -> None:
    rows = np.random.default_rng(2).choice(unseen.shape[1], 20, replace=False)
    found = morphable.fit(pca, morphable.Landmarks(rows, unseen[:, rows]), pose="none")
    assert distances(found.vertices, unseen).mean() < 1.6 * own_errors(pca, unseen).mean()


def test_half_a_hand(pca: Pca, unseen: np.ndarray) -> None:
    """The palm says little of how the fingers are bent, but how far off they may be is known."""
    known = unseen.mean(0)[:, 1] < np.median(unseen.mean(0)[:, 1])
    found = morphable.fit(pca, unseen, mask=known)
    error = distances(found.vertices, unseen)
    mean_shape = distances(pca.basis.mean.numpy().reshape(-1, 3), unseen)
    assert error[:, known].mean() < 1.3 * own_errors(pca, unseen)[:, known].mean()
    assert error[:, ~known].mean() < 0.5 * mean_shape[:, ~known].mean()
    assert found.uncertainty[:, ~known].mean() > 1.2 * found.uncertainty[:, known].mean()


def test_the_uncertainty_covers_the_vertices_that_were_not_seen(
    pca: Pca, unseen: np.ndarray
) -> None:
    known = np.random.default_rng(0).random(unseen.shape[1]) < 0.3
    found = morphable.fit(pca, unseen, mask=known)
    within = distances(found.vertices, unseen) <= found.uncertainty
    assert 0.85 < within[:, ~known].mean() < 0.95


def test_scans_of_hands(pca: Pca, unseen: np.ndarray, hands: MeshDataset) -> None:
    ratios = []
    for number in (0, 3, 7):
        scan, truth = scan_of(unseen[number], hands.template, number)
        found = morphable.fit(pca, scan)
        error = distances(found.placed[0], truth).mean() * float(found.map.scale[0])
        ratios.append(error / own_errors(pca, unseen[number : number + 1]).mean())
    assert np.median(ratios) < 1.3, ratios


@pytest.mark.skipif("MORPHABLE_ICT" not in os.environ, reason="not run: no ICT data")
def test_a_scan_and_half_of_a_face() -> None:
    from morphable.data.makers import make_source

    source = make_source("face-population", count=60, seed=1, size="5k", neutral_only=True)
    shapes = np.concatenate(list(source.blocks()))
    train, face = shapes[:-1], shapes[-1:]
    model = Pca.estimate(source.template, train, {}, PcaConfig(20)).eval()
    own = own_errors(model, face).mean()
    scan, truth = scan_of(face[0], source.template, 1)
    found = morphable.fit(model, scan)
    error = distances(found.placed[0], truth).mean() * float(found.map.scale[0])
    assert error < 1.3 * own, (error, own)
    left = np.asarray(source.template.mesh.vertices)[:, 0] > 0
    half = morphable.fit(model, face, mask=left)
    assert distances(half.vertices, face).mean() < 1.3 * own
