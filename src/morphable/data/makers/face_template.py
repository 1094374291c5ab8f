"""The topologies of face datasets: head or face, with 5k, 12k or 70k vertices, as templates with
regions and landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import scipy.sparse as sp

from morphable.data.makers.ict import CLOSED_HEAD, FACE, HEAD, IctModel
from morphable.data.makers.rig import ASSETS
from morphable.data.makers.rig_regions import grow_regions, mirror_map
from morphable.data.makers.subdivide import Subdivision, subdivide
from morphable.errors import InputError
from morphable.files import read_npz
from morphable.mesh.decimate import decimate
from morphable.mesh.mesh import Mesh
from morphable.mesh.regions import Regions, connected_regions, farthest_points
from morphable.mesh.template import Template

SIZES = ("5k", "12k", "70k")
PARTS = {"head": HEAD, "face": FACE}
SMALL = 5_023
CONTROLS = 10
MIRROR_TOLERANCE = 1.0
"""mm; the asymmetry of the mean head is half of that."""


@dataclass(frozen=True, eq=False)
class FaceTopology:
    """A template and the way from the model to it.

    n_base: number of the model's first vertices that it is made from. resample: (V, n_base) map
    from those to the template's vertices; None: they are the same.
    """

    template: Template
    n_base: int
    resample: sp.csr_matrix | None = None

    def finish(self, vertices: np.ndarray) -> np.ndarray:
        """Map meshes (B, n_base, 3) of the model's topology to (B, V, 3) of the template's."""
        if self.resample is None:
            return vertices
        flat = vertices.swapaxes(0, 1).reshape(self.n_base, -1)
        made = (self.resample @ flat).reshape(-1, len(vertices), 3)
        return np.ascontiguousarray(made.swapaxes(0, 1))


def face_topology(model: IctModel, size: str = "12k", part: str = "head") -> FaceTopology:
    """Return the topology of a size and part. Raises InputError if they do not exist."""
    if size not in SIZES:
        raise InputError(f"`size` {size}: expected one of {', '.join(SIZES)}", "size")
    if part not in PARTS:
        raise InputError(f"`part` {part}: expected one of {', '.join(PARTS)}", "part")
    if size == "70k":
        if part != "head":
            raise InputError(
                f"`size` 70k: only the whole head comes in this size, got `part` {part}",
                "size",
                "part",
            )
        return _subdivided(leading_template(model, CLOSED_HEAD))
    base = leading_template(model, PARTS[part])
    return _decimated(base) if size == "5k" else FaceTopology(base, base.n_vertices)


@cache
def leading_template(model: IctModel, count: int) -> Template:
    """Make a template of the model's first `count` vertices, with its quads and texture seams."""
    inside = model.faces.max(axis=1) < count
    faces, uv_faces = model.faces[inside], model.uv_faces[inside]
    used = np.unique(uv_faces[uv_faces >= 0])
    vertices = model.neutral[:count].astype(np.float64)
    known = read_npz(ASSETS / "ict_regions.npz")
    names = tuple(str(name) for name in known["region_names"])
    regions = np.full(count, -1)
    labelled = min(count, HEAD)
    regions[:labelled] = known["region"][:labelled]
    regions = grow_regions(regions, faces)
    # Gums and tongue are not connected to the skin; they belong to the mouth.
    regions[regions < 0] = names.index("mouth")
    regions = connected_regions(regions, faces)
    return Template(
        mesh=Mesh(vertices, faces),
        name="face" if count == FACE else "head",
        uv=model.uv[used],
        uv_faces=np.where(uv_faces < 0, -1, np.searchsorted(used, uv_faces)),
        regions=Regions(
            regions,
            names,
            _controls(vertices, regions, known["control_vertices"].astype(np.int64)),
        ),
        landmarks=model.landmarks,
        mirror=mirror_map(vertices, MIRROR_TOLERANCE),
        masks={} if count == FACE else {"face": np.arange(count) < FACE},
        rigid=model.rigid[model.rigid < count],
    )


def _controls(
    vertices: np.ndarray, regions: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Choose the control vertices of each region: the known ones (R, K), or newly spread ones if
    any of those does not exist in this region.
    """
    chosen = []
    for region, row in enumerate(known):
        here = row[row < len(vertices)]
        here = here[regions[here] == region]
        if len(here) < len(row):
            here = farthest_points(vertices, np.flatnonzero(regions == region), CONTROLS)
        chosen.append(here)
    return tuple(chosen)


@cache
def _decimated(base: Template) -> FaceTopology:
    """Select 5,023 of the base's vertices, so that meshes are subsets of the larger ones.

    Texture coordinates and the mirror map are dropped, because coarse faces cross the seams and the
    midline.
    """
    triangles = base.mesh.triangles
    coarse = decimate(base.mesh.vertices, triangles, SMALL)
    kept = coarse.kept
    new = np.full(base.n_vertices, -1)
    new[kept] = np.arange(len(kept))
    vertices = base.mesh.vertices[kept]
    assert base.regions is not None and base.rigid is not None
    names = base.regions.names
    regions = connected_regions(base.regions.labels[kept], coarse.triangles)
    controls = tuple(
        farthest_points(vertices, np.flatnonzero(regions == region), CONTROLS)
        for region in range(len(names))
    )
    # A landmark whose vertex was not kept moves to the nearest kept vertex.
    marks = [
        int(np.linalg.norm(vertices - point, axis=1).argmin())
        for point in base.mesh.vertices[base.landmarks]
    ]
    template = Template(
        mesh=Mesh(vertices, coarse.triangles),
        name=base.name,
        regions=Regions(regions, names, controls),
        landmarks=np.array(marks),
        masks={name: mask[kept] for name, mask in base.masks.items()},
        rigid=new[base.rigid][new[base.rigid] >= 0],
    )
    ones = np.ones(len(kept), np.float32)
    select = sp.csr_matrix((ones, (np.arange(len(kept)), kept)), shape=(len(kept), base.n_vertices))
    return FaceTopology(template, base.n_vertices, select)


@cache
def _subdivided(base: Template) -> FaceTopology:
    """Apply one Catmull-Clark step to the closed head: 68,089 vertices, of which the first 17,039
    are the base's, smoothed.
    """
    step = subdivide(base.mesh.faces, base.n_vertices)
    assert base.regions is not None and base.uv is not None and base.uv_faces is not None
    flat = subdivide(base.uv_faces, len(base.uv), smooth=False)
    labels = _inherited(base.regions.labels, step, base.mesh.faces)
    vertices = step.matrix @ base.mesh.vertices
    fine = replace(
        base,
        mesh=Mesh(vertices, step.faces),
        uv=(flat.matrix @ base.uv).astype(np.float32),
        uv_faces=flat.faces,
        regions=replace(base.regions, labels=connected_regions(labels, step.faces)),
        mirror=mirror_map(vertices, MIRROR_TOLERANCE),
        masks={
            name: _inherited(mask, step, base.mesh.faces, np.minimum)
            for name, mask in base.masks.items()
        },
    )
    return FaceTopology(fine, base.n_vertices, step.matrix.astype(np.float32))


def _inherited(
    values: np.ndarray, step: Subdivision, faces: np.ndarray, join: np.ufunc = np.maximum
) -> np.ndarray:
    """Extend values per vertex to the new vertices of edges and faces; `join` combines the values
    of the ends or corners.
    """
    ends = join(values[step.edges[:, 0]], values[step.edges[:, 1]])
    corners = values[np.where(faces < 0, faces[:, :1], faces)]
    return np.concatenate([values, ends, join.reduce(corners, axis=1)])
