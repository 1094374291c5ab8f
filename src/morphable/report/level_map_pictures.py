"""Sections on learned maps between levels (Chen and Kim 2021, figures 5 and 6): what they mix, how
they came to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

from morphable.draw.numbers import percent
from morphable.errors import InputError
from morphable.files import read_npz
from morphable.mesh.hierarchy import Hierarchy
from morphable.mesh.topology import vertex_normals
from morphable.models.mesh_geometry import MeshGeometry
from morphable.report.context import ReportContext
from morphable.report.section import Section, image, paragraph, table
from morphable.rows import evenly_spread

HEIGHT = 300
MAX_EMBEDDED = 1000
"""Vertices of a level, evenly spread, that t-SNE arranges; each of the others takes the color of
the nearest.
"""
DIMENSIONS = 30
"""Rows are reduced to this many directions before t-SNE."""
COLORS = "turbo"
NARROW = '<div style="max-width: 52rem">{}</div>'
"""A table of few pictures in a row, which would else be large."""
GRAY = (0.82, 0.81, 0.79)
FIELD, MARK = (0.02, 0.36, 0.42), (0.86, 0.30, 0.05)
RING, RING_WIDTH = 13.0, 4.0
"""Radius and line width in pixels of what marks a vertex."""
SHOWN = 4
"""Vertices whose receptive fields are shown."""


@dataclass(frozen=True, eq=False)
class LearnedMaps:
    """A model's hierarchy, and its learned maps by level; None if the precomputed map is used."""

    hierarchy: Hierarchy
    down: Sequence[sp.csr_matrix | None]
    up: Sequence[sp.csr_matrix | None]


def learned_maps(context: ReportContext) -> LearnedMaps | None:
    """None for a model without constant learned maps."""
    geometry = context.model.geometry
    if not isinstance(geometry, MeshGeometry) or geometry.folded is None:
        return None
    return LearnedMaps(geometry.hierarchy, geometry.folded.down, geometry.folded.up)


def mapped_vertices(context: ReportContext) -> Section | None:
    """Each level's vertices colored by what the maps make of them, beside the precomputed maps."""
    maps = learned_maps(context)
    if maps is None:
        return None
    given = maps.hierarchy
    rows: list[tuple[str, Sequence[sp.csr_matrix | None]]] = []
    for name, learned, precomputed in (("down", maps.down, given.down), ("up", maps.up, given.up)):
        if any(matrix is not None for matrix in learned):
            rows += [(f"{name}, learned", learned), (f"{name}, precomputed", precomputed)]
    lines = []
    for title, matrices in rows:
        cells = [escape(title)]
        for level, matrix in enumerate(matrices):
            assert matrix is not None
            features = sp.csr_matrix(matrix.T) if title.startswith("down") else matrix
            colors = _on_template(given, level, _colors(features, given.levels[level].vertices))
            picture = context.picture(
                np.asarray(context.model.template.mesh.vertices), HEIGHT, colors
            )
            entries = f"{matrix.nnz / matrix.shape[0]:.1f} entries a row"
            cells.append(
                image(picture, f"{title}, level {level}: {entries}")
                + f'<span class="number">{entries}</span>'
            )
        lines.append(cells)
    header = [
        "",
        *(
            f"{fine:,} ⇄ {coarse:,}"
            for fine, coarse in zip(given.sizes, given.sizes[1:], strict=False)
        ),
    ]
    lead = (
        "Vertices of like color are treated alike. Down: which coarser vertices read a vertex (gray: none does). Up: "
        "from which coarser vertices a vertex is made. Colors are the order in a one-dimensional t-SNE of the map's "
        f"columns or rows, at most {MAX_EMBEDDED:,} of a level; hues of different pictures are not related."
    )
    return Section(
        "Learned maps", paragraph(lead, "lead") + NARROW.format(table(header, lines, "pictures"))
    )


def receptive_fields(context: ReportContext) -> Section | None:
    """From where the finest level's vertices are made, at the epochs that training kept."""
    maps = learned_maps(context)
    files = snapshot_files(context.folder)
    if maps is None or not files:
        return None
    template, coarse = context.model.template.mesh, maps.hierarchy.levels[1].kept
    owner = cKDTree(template.vertices[coarse]).query(template.vertices)[1]
    chosen = facing_vertices(context, SHOWN)
    shots = [(f"epoch {epoch}", read_npz(path)) for epoch, path in files]
    for (name, shot), (_, path) in zip(shots, files, strict=True):
        if {"index", "weights", "share"} - shot.keys() or len(shot["index"]) != len(
            template.vertices
        ):
            raise InputError(f"{path}: not a snapshot of this model at {name}")
    lines = []
    for number, vertex in enumerate(chosen.tolist(), 1):
        precomputed = maps.hierarchy.up[0][vertex]
        fields = [("precomputed", precomputed.indices, precomputed.data)]
        fields += [(name, shot["index"][vertex], shot["weights"][vertex]) for name, shot in shots]
        cells = [f"vertex {vertex:,}"]
        for name, index, weights in fields:
            strength = np.zeros(len(coarse))
            np.add.at(strength, index, weights)
            picture = context.picture(
                np.asarray(template.vertices), HEIGHT, _field_colors(strength[owner])
            )
            size = (picture.shape[1], picture.shape[0])
            place = context.camera.project(np.asarray(template.vertices)[[vertex]], size)[0, :2]
            cells.append(
                image(ringed(picture, place), f"receptive field of vertex {number}, {name}")
            )
        lines.append(cells)
    shares = [f"<br>{percent(float(shot['share']))} learned" for _, shot in shots]
    header = [
        "",
        "precomputed",
        *(name + share for (name, _), share in zip(shots, shares, strict=True)),
    ]
    lead = (
        "Which vertices of the next coarser level make the vertex in the ring, in the finest map on the way up. Color "
        "goes by the square root of the weight, relative to the largest. Of the learned maps the attention part alone; "
        "the heading says how much of the whole map it is."
    )
    return Section(
        "Receptive fields through training",
        paragraph(lead, "lead") + table(header, lines, "pictures"),
    )


def snapshot_files(folder: Path | None) -> list[tuple[int, Path]]:
    """The epochs of which training kept the finest learned map, and the files."""
    if folder is None:
        return []
    found = sorted((folder / "snapshots").glob("epoch-*.npz"))
    return [(int(path.stem.removeprefix("epoch-")), path) for path in found]


def facing_vertices(context: ReportContext, count: int) -> np.ndarray:
    """Vertices that look at the viewer, as far apart as can be, from the middle outwards."""
    mesh = context.model.template.mesh
    vertices = np.asarray(mesh.vertices)
    towards = vertex_normals(vertices, mesh.triangles) @ context.camera.rotation[2]
    facing = np.flatnonzero(towards > min(0.75, float(np.quantile(towards, 0.9))))
    distance = np.linalg.norm(vertices[facing] - vertices[facing].mean(0), axis=1)
    chosen = [int(facing[distance.argmin()])]
    distance = np.linalg.norm(vertices[facing] - vertices[chosen[0]], axis=1)
    for _ in range(min(count, len(facing)) - 1):
        chosen.append(int(facing[distance.argmax()]))
        distance = np.minimum(
            distance, np.linalg.norm(vertices[facing] - vertices[chosen[-1]], axis=1)
        )
    return np.array(chosen)


def _colors(features: sp.csr_matrix, vertices: np.ndarray) -> np.ndarray:
    """(n, 3) colors of n vertices by the order of their features (n, m) in one dimension; gray
    where all are zero.
    """
    used = np.flatnonzero(np.diff(features.indptr))
    colors = np.tile(np.array(GRAY), (features.shape[0], 1))
    if not len(used):
        return colors
    sample = used[evenly_spread(len(used), MAX_EMBEDDED)]
    order = one_dimension(features[sample])
    if np.corrcoef(order, vertices[sample, 1])[0, 1] < 0:
        order = 1 - order
    nearest = cKDTree(vertices[sample]).query(vertices[used])[1]
    colors[used] = matplotlib.colormaps[COLORS](0.04 + 0.92 * order)[nearest, :3]
    return colors


def one_dimension(features: sp.csr_matrix) -> np.ndarray:
    """(n,) places between 0 and 1, evenly spread, in the order of a one-dimensional t-SNE of the
    rows (n, m).
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
    """Colors (n_level, 3) carried to the finest level by the precomputed maps."""
    for up in reversed(hierarchy.up[:level]):
        colors = up @ colors
    return np.clip(colors, 0, 1)


def _field_colors(strength: np.ndarray) -> np.ndarray:
    """(V, 3) from gray to the field's color by the root of the strength (V,) relative to the
    largest.
    """
    share = np.sqrt(np.clip(strength / max(float(strength.max()), 1e-12), 0, 1))[:, None]
    return np.asarray((1 - share) * np.array(GRAY) + share * np.array(FIELD))


def ringed(picture: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The picture (h, w, 4) with a ring around a place (x, y) in pixels, with smooth edges."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    distance = np.abs(np.hypot(x - place[0], y - place[1]) - RING)
    cover = np.clip(RING_WIDTH / 2 + 0.5 - distance, 0, 1)[..., None]
    result = picture.astype(np.float64)
    result[..., :3] = (1 - cover) * result[..., :3] + cover * 255 * np.array(MARK)
    result[..., 3:] = np.maximum(result[..., 3:], 255 * cover)
    return np.round(result).astype(np.uint8)
