"""Sections on learned maps between levels: what they mix, and how that changed during training.

They follow figures 5 and 6 of Chen and Kim (CVPR 2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

from morphable.draw.blocks import Cell, Picture, Section, Table, Text
from morphable.draw.numbers import percent
from morphable.draw.pictures import ringed
from morphable.errors import InputError
from morphable.files import read_npz
from morphable.mesh.hierarchy import Hierarchy
from morphable.mesh.topology import vertex_normals
from morphable.models.mesh_geometry import MeshGeometry
from morphable.report.context import ReportContext
from morphable.report.scene import Scene
from morphable.rows import evenly_spread

MAX_EMBEDDED = 1000
"""t-SNE arranges at most this many vertices of a level, evenly spread. Each of the others takes the
color of the nearest one.
"""
DIMENSIONS = 30
"""Rows are reduced to this many directions before t-SNE."""
COLORS = "turbo"
GRAY = (0.82, 0.81, 0.79)
FIELD = (0.02, 0.36, 0.42)
"""sRGB 0..1 of vertices outside and inside a receptive field."""
SHOWN = 4
"""Vertices whose receptive fields are shown."""


@dataclass(frozen=True, eq=False)
class LearnedMaps:
    """A model's hierarchy, and its maps by level; None at a level that uses the precomputed map."""

    hierarchy: Hierarchy
    down: Sequence[sp.csr_matrix | None]
    up: Sequence[sp.csr_matrix | None]


def learned_maps(context: ReportContext) -> LearnedMaps | None:
    """Return the learned maps of a model, or None if it has none that are constant."""
    geometry = context.model.geometry
    if not isinstance(geometry, MeshGeometry) or geometry.folded is None:
        return None
    return LearnedMaps(geometry.hierarchy, geometry.folded.down, geometry.folded.up)


def mapped_vertices(context: ReportContext) -> Section | None:
    """Show the vertices of each level, colored by what the learned and the precomputed maps mix."""
    maps = learned_maps(context)
    if maps is None:
        return None
    given = maps.hierarchy
    lines: list[list[Cell]] = []
    for side, learned, precomputed in (("down", maps.down, given.down), ("up", maps.up, given.up)):
        if any(matrix is not None for matrix in learned):
            lines.append(_map_row(context.scene, given, f"{side}, learned", learned))
            lines.append(_map_row(context.scene, given, f"{side}, precomputed", precomputed))
    pairs = zip(given.sizes, given.sizes[1:], strict=False)
    header = ["", *(f"{fine:,} ⇄ {coarse:,}" for fine, coarse in pairs)]
    lead = (
        "Vertices of similar color are treated alike. Down: which coarser vertices a vertex "
        "contributes to (gray: to none). Up: from which coarser vertices a vertex is made. Colors "
        "are the order in a one-dimensional t-SNE of the map's columns or rows, at most "
        f"{MAX_EMBEDDED:,} per level; the hues of different pictures are not related."
    )
    table = Table(header, lines, "pictures")
    return Section("Learned maps", [Text(lead, "lead"), table])


def _map_row(
    scene: Scene, given: Hierarchy, title: str, matrices: Sequence[sp.csr_matrix | None]
) -> list[Cell]:
    """Show the maps between all levels in one direction, one picture per level."""
    cells: list[Cell] = [title]
    for level, matrix in enumerate(matrices):
        assert matrix is not None
        # The vertices of the finer level are the columns of a map down and the rows of a map up.
        features = sp.csr_matrix(matrix.T) if title.startswith("down") else matrix
        colors = _on_template(given, level, _colors(features, given.levels[level].vertices))
        entries = f"{matrix.nnz / matrix.shape[0]:.1f} entries per row"
        described = f"{title}, level {level}: {entries}"
        template = np.asarray(scene.model.template.mesh.vertices)
        cells.append(scene.view.picture(template, described, colors, entries))
    return cells


def receptive_fields(context: ReportContext) -> Section | None:
    """Show which coarser vertices make a fine one, at the epochs whose maps training kept."""
    maps = learned_maps(context)
    files = snapshot_files(context.folder)
    if maps is None or not files:
        return None
    scene, template = context.scene, context.model.template.mesh
    shots = {f"epoch {epoch}": _snapshot(path, len(template.vertices)) for epoch, path in files}
    owner = cKDTree(template.vertices[maps.hierarchy.levels[1].kept]).query(template.vertices)[1]
    lines = []
    for number, vertex in enumerate(facing_vertices(scene, SHOWN).tolist(), start=1):
        precomputed = maps.hierarchy.up[0][vertex]
        fields = {"precomputed": (precomputed.indices, precomputed.data)}
        fields |= {name: (s["index"][vertex], s["weights"][vertex]) for name, s in shots.items()}
        cells: list[Cell] = [f"vertex {vertex:,}"]
        for name, field in fields.items():
            pixels = _field(scene, vertex, owner, *field)
            cells.append(Picture(pixels, f"receptive field of vertex {number}, {name}"))
        lines.append(cells)
    shares = [f"{name}\n{percent(float(s['share']))} learned" for name, s in shots.items()]
    lead = (
        "The vertices of the next coarser level that make the ringed vertex, in the finest map on "
        "the way up. The color follows the square root of the weight relative to the largest. Of "
        "the learned maps only the attention part is shown; the heading gives its share of the "
        "whole map."
    )
    return Section(
        "Receptive fields through training",
        [Text(lead, "lead"), Table(["", "precomputed", *shares], lines, "pictures")],
    )


def _snapshot(path: Path, vertices: int) -> Mapping[str, np.ndarray]:
    """Read the finest learned map at one epoch. Raises InputError if it is not of this model."""
    shot = read_npz(path)
    if {"index", "weights", "share"} - shot.keys() or len(shot["index"]) != vertices:
        raise InputError(f"{path}: not a snapshot of this model")
    return shot


def _field(
    scene: Scene, vertex: int, owner: np.ndarray, index: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Draw the receptive field of a vertex. owner: (V,) the nearest coarse vertex of each."""
    template = np.asarray(scene.model.template.mesh.vertices)
    strength = np.bincount(index, weights, minlength=owner.max() + 1)
    pixels = scene.view.pixels(template, _field_colors(strength[owner]))
    size = (pixels.shape[1], pixels.shape[0])
    place = scene.view.camera.project(template[[vertex]], size)[0, :2]
    return ringed(pixels, place)


def snapshot_files(folder: Path | None) -> list[tuple[int, Path]]:
    """Return the epochs of which training kept the finest learned map, with the files."""
    if folder is None:
        return []
    paths = sorted((folder / "snapshots").glob("epoch-*.npz"))
    return [(int(path.stem.removeprefix("epoch-")), path) for path in paths]


def facing_vertices(scene: Scene, count: int) -> np.ndarray:
    """Choose vertices that face the viewer and lie far apart, starting in the middle."""
    mesh = scene.model.template.mesh
    vertices = np.asarray(mesh.vertices)
    towards = vertex_normals(vertices, mesh.triangles) @ scene.view.camera.rotation[2]
    facing = np.flatnonzero(towards > min(0.75, float(np.quantile(towards, 0.9))))
    distance = np.linalg.norm(vertices[facing] - vertices[facing].mean(0), axis=1)
    chosen = [int(facing[distance.argmin()])]
    distance = np.linalg.norm(vertices[facing] - vertices[chosen[0]], axis=1)
    # Farthest point sampling: each next vertex is the farthest from all chosen ones.
    for _ in range(min(count, len(facing)) - 1):
        chosen.append(int(facing[distance.argmax()]))
        distance = np.minimum(
            distance, np.linalg.norm(vertices[facing] - vertices[chosen[-1]], axis=1)
        )
    return np.array(chosen)


def _colors(features: sp.csr_matrix, vertices: np.ndarray) -> np.ndarray:
    """Return colors (n, 3) sRGB of n vertices by the order of their features (n, m) in one
    dimension. Vertices whose features are all zero are gray.
    """
    used = np.flatnonzero(np.diff(features.indptr))
    colors = np.tile(np.array(GRAY), (features.shape[0], 1))
    if not len(used):
        return colors
    sample = used[evenly_spread(len(used), MAX_EMBEDDED)]
    order = one_dimension(features[sample])
    # t-SNE has no preferred direction. Let the order rise with y, so that pictures look alike.
    if np.corrcoef(order, vertices[sample, 1])[0, 1] < 0:
        order = 1 - order
    nearest = cKDTree(vertices[sample]).query(vertices[used])[1]
    colors[used] = matplotlib.colormaps[COLORS](0.04 + 0.92 * order)[nearest, :3]
    return colors


def one_dimension(features: sp.csr_matrix) -> np.ndarray:
    """Order rows (n, m) by a one-dimensional t-SNE and return their places (n,), evenly spread from
    0 to 1.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count = features.shape[0]
    if count < 2:
        return np.zeros(count)
    reduced = PCA(min(DIMENSIONS, *features.shape), random_state=0).fit_transform(
        features.toarray()
    )
    line = reduced[:, 0]
    if count > 5:
        perplexity = min(30.0, (count - 1) / 3)
        line = TSNE(
            1, perplexity=perplexity, init="pca", random_state=0, max_iter=500
        ).fit_transform(reduced)[:, 0]
    return np.argsort(np.argsort(line, kind="stable")) / max(1, count - 1)


def _on_template(hierarchy: Hierarchy, level: int, colors: np.ndarray) -> np.ndarray:
    """Carry colors (n_level, 3) to the finest level with the precomputed maps."""
    for up in reversed(hierarchy.up[:level]):
        colors = up @ colors
    return np.clip(colors, 0, 1)


def _field_colors(strength: np.ndarray) -> np.ndarray:
    """Return colors (V, 3), from gray to the field's color by the square root of the strength (V,)
    relative to the largest.
    """
    share = np.sqrt(np.clip(strength / max(float(strength.max()), 1e-12), 0, 1))[:, None]
    return np.asarray((1 - share) * np.array(GRAY) + share * np.array(FIELD))
