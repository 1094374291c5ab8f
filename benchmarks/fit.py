"""How fast and how exact fits are: registered meshes, 20 landmarks, and a scan of 100,000 points that
is shuffled, noisy, cropped by a tenth, turned and scaled, all of samples of the model or, with
--data, of held-out meshes.

    python benchmarks/fit.py runs/pca runs/spiralnet++ [--number 100] [--data faces] [--scans 1]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

import morphable
from morphable.evaluate.protocol import trained_split
from morphable.fitting.result import Fit
from morphable.models.base import MorphableModel

POINTS, NOISE, CROPPED = 100_000, 0.2, 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--scans", type=int, default=1)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    for run in options.runs:
        model = morphable.load(run)
        shapes = held_out(model, options.data, options.number)
        with torch.no_grad():
            own = model(torch.from_numpy(shapes[:16])).numpy()
        print(
            f"{model.family}, {model.latent} latent dimensions, {model.template.n_vertices:,} "
            f"vertices; its own error {distance(own, shapes[:16]):.3f} mm"
        )
        registered(model, shapes)
        landmarks(model, shapes[:1])
        scans(model, shapes[: options.scans])


def held_out(model: MorphableModel, data: Path | None, number: int) -> np.ndarray:
    """(number, V, 3) mm test meshes, repeated if there are fewer, or samples."""
    if data is None:
        with torch.no_grad():
            return model.sample(number, torch.Generator().manual_seed(1)).numpy()
    test = morphable.load_dataset(data).split(trained_split(model)).test
    return np.asarray(test.vertices[np.arange(number) % len(test)])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b, axis=-1).mean())


def show(what: str, seconds: float, found: Fit, error: float) -> None:
    print(
        f"  {what}: {seconds:.1f} s of processor time, {found.steps.mean():.0f} steps, vertex error "
        f"{error:.3f} mm",
        flush=True,
    )


def registered(model: MorphableModel, shapes: np.ndarray) -> None:
    start = time.process_time()
    found = morphable.fit(model, shapes)
    seconds = time.process_time() - start
    show(f"{len(shapes)} registered meshes", seconds, found, distance(found.vertices, shapes))


def landmarks(model: MorphableModel, shapes: np.ndarray) -> None:
    rows = np.random.default_rng(0).choice(shapes.shape[1], 20, replace=False)
    start = time.process_time()
    found = morphable.fit(model, morphable.Landmarks(rows, shapes[:, rows]))
    show("20 landmarks", time.process_time() - start, found, distance(found.placed, shapes))
    start = time.process_time()
    within = np.linalg.norm(found.placed - shapes, axis=-1) <= found.uncertainty
    print(
        f"    uncertainty: {time.process_time() - start:.1f} s, {within.mean():.0%} of the vertices "
        "lie within the distance of 90 %"
    )


def scans(model: MorphableModel, shapes: np.ndarray) -> None:
    triangles = model.template.mesh.triangles
    for number, shape in enumerate(shapes.astype(np.float64)):
        random = np.random.default_rng(number)
        a, b, c = (shape[triangles[:, corner]] for corner in range(3))
        normals = np.cross(b - a, c - a)
        area = np.linalg.norm(normals, axis=1)
        face = random.choice(len(area), POINTS, p=area / area.sum())
        shares = random.dirichlet([1, 1, 1], POINTS)
        points = np.einsum("pc,pcx->px", shares, np.stack([a, b, c], 1)[face])
        points += random.normal(0, NOISE, points.shape)
        kept = points[:, 1] > np.quantile(points[:, 1], CROPPED)
        turn, size = Rotation.random(rng=random).as_matrix(), random.uniform(0.7, 1.4)
        scan = morphable.Scan(
            size * points[kept] @ turn.T, (normals / area[:, None])[face][kept] @ turn.T
        )
        start = time.process_time()
        found = morphable.fit(model, scan)
        seconds = time.process_time() - start
        error = distance(found.placed, size * shape @ turn.T) / size
        show(f"scan of {len(scan.points):,} points", seconds, found, error)


if __name__ == "__main__":
    main()
