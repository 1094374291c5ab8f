"""Registration with known truth: faces or hands are remeshed, noised, cropped, turned and scaled, and
registered back without landmarks.

    python benchmarks/registration.py hands [--count 20] [--alone 20] [--jobs 1] [--seed 0]

Every second scan has 60 % of the vertices, by quadric simplification; the others are subdivided at
the midpoints of their edges and simplified to 130 %. Then 0.2 mm of noise per coordinate, a plane
cuts off a twelfth of the points, any rotation, and a size between 0.8 and 1.25. The prior is PCA of
other people. The distance is that of each vertex from where it was before, in the original's size;
all vertices count, also those that were cut off. A PCA of the registered meshes is compared with
one of the originals, on held-out meshes, all in one size.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from morphable.data.dataset import load_dataset, write_dataset
from morphable.data.makers import make_source
from morphable.mesh.align import Similarity, generalized_procrustes, procrustes
from morphable.mesh.decimate import decimate
from morphable.mesh.distance import point_to_surface
from morphable.mesh.io import write_mesh
from morphable.mesh.mesh import Mesh
from morphable.mesh.topology import edges
from morphable.register.folder import ScanTask, Settings, register_file
from morphable.spread import spread
from morphable.train.from_python import train_model

NOISE = 0.2
CROPPED = 1 / 12
COMPONENTS = 60
KINDS = {
    "faces": ("face-population", {"count": 600, "size": "5k", "part": "face"}),
    "hands": ("hands", {"count": 1200}),
}


def subdivided(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each triangle as four, with new vertices at the midpoints of the edges."""
    pairs = edges(triangles)
    number = {pair: len(vertices) + row for row, pair in enumerate(map(tuple, pairs.tolist()))}
    split = []
    for a, b, c in triangles.tolist():
        ab, bc, ca = (number[min(p), max(p)] for p in ((a, b), (b, c), (c, a)))
        split += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
    return np.concatenate([vertices, vertices[pairs].mean(1)]), np.array(split)


def scan_of(
    shape: np.ndarray, triangles: np.ndarray, coarse: bool, random: np.random.Generator
) -> tuple[Mesh, Similarity]:
    """A scan of a shape (V, 3) mm, and where it was moved."""
    points, faces = np.asarray(shape, np.float64), triangles
    if not coarse:
        points, faces = subdivided(points, faces)
    found = decimate(points, faces, int((0.6 if coarse else 1.3) * len(shape)))
    points, faces = points[found.kept], found.triangles
    points = points + random.normal(0, NOISE, points.shape)
    height = points @ Rotation.random(rng=random).as_matrix()[0]
    whole = (height > np.quantile(height, CROPPED))[faces].all(1)
    kept, faces = np.unique(faces[whole], return_inverse=True)
    size = np.array(random.uniform(0.8, 1.25))
    move = Similarity(Rotation.random(rng=random).as_matrix(), random.normal(0, 200, 3), size)
    return Mesh(move.apply(points[kept]), faces.reshape(-1, 3)), move


def held_out_errors(
    train: np.ndarray, test: np.ndarray, triangles: np.ndarray
) -> tuple[float, float]:
    """mm per vertex of a PCA of aligned shapes (N, V, 3) on other shapes, and mm from its vertices to
    their surfaces. Sizes are aligned too: the scans do not tell them.
    """
    mean = generalized_procrustes(train, scale=True).mean
    own, new = (
        procrustes(one, mean, scale=True).apply(one)
        for one in (train.astype(np.float64), test.astype(np.float64))
    )
    flat, center = own.reshape(len(own), -1), own.mean(0).ravel()
    basis = np.linalg.svd(flat - center, full_matrices=False)[2][: len(own) - 1]
    offsets = new.reshape(len(new), -1) - center
    shown = (center + offsets @ basis.T @ basis).reshape(new.shape)
    surface = [point_to_surface(*pair, triangles).mean() for pair in zip(shown, new, strict=True)]
    return float(np.linalg.norm(shown - new, axis=-1).mean()), float(np.mean(surface))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--alone", type=int, default=20, help="scans without the prior")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        maker, arguments = KINDS[options.kind]
        write_dataset(make_source(maker, seed=options.seed, **arguments), folder / "data")
        data = load_dataset(folder / "data")
        split = data.split()
        shapes, triangles = data.vertices[:], data.template.mesh.triangles
        order = random.permutation(split.test.rows)
        chosen, held_out = order[: options.count], order[options.count :]
        train_model("pca", data=split, folder=folder / "prior", latent=COMPONENTS)
        (folder / "scans").mkdir()
        moves = []
        for number, row in enumerate(chosen):
            scan, move = scan_of(shapes[row], triangles, number % 2 == 0, random)
            write_mesh(folder / "scans" / f"{number:02d}.ply", scan)
            moves.append(move)
        template = folder / "data" / "template.npz"
        for name, known, count in (
            ("prior", folder / "prior", options.count),
            ("template alone", None, options.alone),
        ):
            files = sorted((folder / "scans").iterdir())[:count]
            if not files:
                continue
            start = time.perf_counter()
            settings = Settings(template, known)
            tasks = [ScanTask(path, settings, None) for path in files]
            errors, kept, registered = [], [], []
            for number, one in spread(register_file, tasks, jobs=options.jobs):
                found = one.registration
                if found is None:
                    print(f"{name} {number:02d} rejected: {one.card.reason}", flush=True)
                    continue
                truth = moves[number].apply(shapes[chosen[number]].astype(np.float64))
                apart = np.linalg.norm(found.placed - truth, axis=1) / moves[number].scale
                verdict = "accepted" if one.card.accepted else f"rejected: {one.card.reason}"
                print(
                    f"{name} {number:02d}: mean {apart.mean():6.2f}, median {np.median(apart):6.2f}, "
                    f"95 % {np.quantile(apart, 0.95):6.2f} mm, {verdict}",
                    flush=True,
                )
                if one.card.accepted:
                    errors.append(apart.mean())
                    kept.append(number)
                    registered.append(found.vertices)
            seconds = (time.perf_counter() - start) / len(files)
            if len(kept) < 2:
                print(f"{name}: {len(kept)} of {count} accepted")
                continue
            own = held_out_errors(np.stack(registered), shapes[held_out], triangles)
            originals = held_out_errors(shapes[chosen[kept]], shapes[held_out], triangles)
            print(
                f"{name}: {len(kept)} of {count} accepted, median over the meshes of the mean vertex "
                f"distance {np.median(errors):.2f} mm, {seconds:.0f} s per scan"
            )
            for what, mine, best in zip(("vertices", "surfaces"), own, originals, strict=True):
                print(
                    f"  PCA of the registered on {len(held_out)} held-out meshes, {what}: "
                    f"{mine:.3f} mm, of the originals {best:.3f} mm ({100 * (mine / best - 1):+.1f} %)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
