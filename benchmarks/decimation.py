"""How long the mesh hierarchy takes, and how that grows with the mesh.

Head-like surfaces with an open neck, vertices and faces in random order. A line is a whole
four-level hierarchy with its up maps and an empty cache, then both kinds of spirals on it, in wall
and processor seconds (medians), and what came out: per level the mean distance of the template to
it in mm, and how many of its faces look the wrong way.

    python benchmarks/decimation.py [5000 12000 72000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable

import igl
import numpy as np

from morphable.mesh.hierarchy import Hierarchy, build_hierarchy
from morphable.mesh.mesh import Mesh
from morphable.mesh.spirals import reference_spirals, ring_spirals

SIZES = (5_000, 12_000, 72_000)


def head(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """About `count` vertices (V, 3) mm and triangles (F, 3): a bumpy ellipsoid with a nose, open
    below, shuffled.
    """
    rings = round((count / 2) ** 0.5)
    around = 2 * rings
    polar, turn = (
        np.linspace(0, 0.85 * np.pi, rings + 1)[1:, None],
        np.arange(around) * 2 * np.pi / around,
    )
    sides = [np.sin(polar) * np.cos(turn), np.cos(polar) + 0 * turn, np.sin(polar) * np.sin(turn)]
    unit = np.concatenate([[[0, 1, 0]], np.stack(sides, axis=-1).reshape(-1, 3)])
    x, y, z = unit.T
    nose = 0.25 * np.exp(-((unit - [0, 0, 1]) ** 2).sum(axis=1) / 0.05)
    radius = 1 + 0.12 * np.sin(3 * x + 1) * np.cos(4 * y) + 0.05 * np.sin(9 * z) + nose
    vertices = unit * radius[:, None] * [80, 120, 95]
    index = 1 + np.arange(rings * around).reshape(rings, around)
    a, b, c, d = (
        part.ravel()
        for part in (index[:-1], np.roll(index[:-1], -1, 1), np.roll(index[1:], -1, 1), index[1:])
    )
    cap = np.stack([np.zeros(around, int), np.roll(index[0], -1), index[0]], axis=1)
    faces = np.concatenate([np.stack([a, b, d], 1), np.stack([b, c, d], 1), cap])
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(vertices))
    return vertices[order], np.argsort(order)[faces][rng.permutation(len(faces))]


def build(mesh: Mesh) -> Hierarchy:
    """A hierarchy that no cache knows yet."""
    with tempfile.TemporaryDirectory() as empty:
        os.environ["MORPHABLE_CACHE"] = empty
        return build_hierarchy(mesh)


def both_spirals(hierarchy: Hierarchy) -> None:
    reference_spirals(hierarchy)
    ring_spirals(hierarchy)


def timed(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median wall and processor seconds of `work`."""
    wall, processor = [], []
    for _ in range(repeats):
        starts = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - starts[0])
        processor.append(time.process_time() - starts[1])
    return statistics.median(wall), statistics.median(processor)


def quality(mesh: Mesh, coarse: np.ndarray, triangles: np.ndarray) -> str:
    """Mean distance of the template's vertices to a level, and the faces of the level that look the
    wrong way.
    """
    distance = igl.point_mesh_squared_distance(mesh.vertices, coarse, triangles)[0] ** 0.5
    corners, fine = coarse[triangles], mesh.vertices[mesh.faces]
    nearest = igl.point_mesh_squared_distance(corners.mean(axis=1), mesh.vertices, mesh.faces)[1]
    normal, true = (np.cross(f[:, 1] - f[:, 0], f[:, 2] - f[:, 0]) for f in (corners, fine))
    return f"{distance.mean():.3g} mm {((normal * true[nearest]).sum(axis=1) < 0).sum()}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sizes", nargs="*", type=int, default=SIZES, help="vertex counts (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs per size (default: %(default)s)"
    )
    arguments = parser.parse_args()
    os.environ["IGL_NUM_THREADS"] = "1"  # the rest is Python, and so on one thread anyway
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, 1 thread of {os.cpu_count()} processors"
    )
    print(
        "  vertices |  hierarchy wall  cpu s | spirals wall  cpu s | level: vertices, mean distance, turned faces"
    )
    counts, seconds = [], []
    for size in arguments.sizes:
        mesh = Mesh(*head(size))
        wall, cpu = timed(lambda mesh=mesh: build(mesh), arguments.repeats)
        hierarchy = build(mesh)
        spiral_wall, spiral_cpu = timed(
            lambda hierarchy=hierarchy: both_spirals(hierarchy), arguments.repeats
        )
        levels = [
            f"{len(lv.vertices)}, {quality(mesh, lv.vertices, lv.triangles)}"
            for lv in hierarchy.levels[1:]
        ]
        times = f"{wall:15.2f} {cpu:6.2f} | {spiral_wall:12.2f} {spiral_cpu:6.2f}"
        print(f"{hierarchy.sizes[0]:10} | {times} | {'; '.join(levels)}", flush=True)
        counts.append(hierarchy.sizes[0])
        seconds.append(cpu)
    if len(counts) > 1:
        exponent = np.polyfit(np.log(counts), np.log(seconds), 1)[0]
        print(f"processor time of the hierarchy grows as n^{exponent:.2f}")


if __name__ == "__main__":
    main()
