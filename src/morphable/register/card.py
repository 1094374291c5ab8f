"""Card: what a registration is worth: how far scan and mesh are apart after it, where the mesh is
folded or stretched, how much of it was seen, and whether to keep it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from morphable.mesh.distance import closest_points
from morphable.mesh.nonrigid import Target, match_target
from morphable.mesh.template import Template
from morphable.mesh.topology import boundary_edges, edges, vertex_normals

NEAR = 0.02
"""A vertex is covered if the scan is at most this share of the mesh's size away."""
MAX_DISTANCE = 0.02
"""Nine in ten of the scan's points lie nearer to the mesh than this share of its size."""
MIN_COVERAGE = 0.4
"""Share of the mesh that the scan shows at least."""
MAX_FLIPPED = 0.01
"""Share of faces that point against their neighbors at most."""
STRETCH = 2.0
"""An edge is stretched if it is longer or shorter by this factor than at the start."""
MAX_STRETCHED = 0.05
"""Share of stretched edges at most."""
WORTH_NAMING = 0.1
"""A region is named if this share of its vertices is stretched."""


@dataclass(frozen=True)
class Spread:
    """Distances in mm, in the scan's own size."""

    mean: float
    median: float
    p90: float
    max: float

    @classmethod
    def of(cls, distance: np.ndarray) -> Spread:
        values = distance if len(distance) else np.zeros(1)
        return cls(
            float(values.mean()),
            float(np.median(values)),
            float(np.quantile(values, 0.9)),
            float(values.max()),
        )


@dataclass(frozen=True)
class Card:
    """The report card of one scan.

    aligned: how the mesh was brought to the scan, in words. scan_to_mesh: from the scan's points,
    without those beyond the mesh's border. mesh_to_scan: from the covered vertices. coverage: share
    of vertices that the scan shows. flipped: number of faces that point against their neighbors.
    stretched: share of edges. regions: names of stretched regions. size: of the scan, relative to
    the template's frame. reason: why the registration is rejected; "" if it is accepted.
    """

    aligned: str
    scan_to_mesh: Spread
    mesh_to_scan: Spread
    coverage: float
    flipped: int
    stretched: float
    regions: tuple[str, ...]
    size: float
    reason: str

    @property
    def accepted(self) -> bool:
        return not self.reason

    def record(self) -> dict[str, Any]:
        """The card as JSON has it."""
        return {"accepted": self.accepted, **asdict(self)}

    @classmethod
    def read(cls, record: dict[str, Any]) -> Card:
        values = {name: value for name, value in record.items() if name != "accepted"}
        for name in ("scan_to_mesh", "mesh_to_scan"):
            values[name] = Spread(**values[name])
        return cls(**{**values, "regions": tuple(values["regions"])})

    @classmethod
    def failed(cls, reason: str) -> Card:
        """The card of a scan that could not even be read or placed."""
        none = Spread(0.0, 0.0, 0.0, 0.0)
        return cls("not aligned", none, none, 0.0, 0, 0.0, (), 1.0, reason)


def judge(
    template: Template,
    start: np.ndarray,
    vertices: np.ndarray,
    target: Target,
    scale: float,
    aligned: str,
) -> Card:
    """Judge a mesh that was brought onto a target.

    start: (V, 3) mm the shape that was deformed. vertices: (V, 3) mm the result, in the same frame
    as the target. scale: what the scan was multiplied by to lie in that frame. aligned: how, in
    words.
    """
    triangles = template.mesh.triangles
    size = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    forth = scan_distance(template, vertices, target)
    found = match_target(target, vertices, triangles)
    covered = found.usable & (found.distance < NEAR * size)
    flipped = int(flipped_faces(vertices, start, triangles).sum())
    pairs = edges(template.mesh.faces)
    odd = stretched_edges(vertices, start, pairs)
    share = float(odd.mean())
    regions = _stretched_regions(template, pairs, odd)
    coverage = float(covered.mean())
    reason = ""
    if np.quantile(forth, 0.9) > MAX_DISTANCE * size:
        reason = (
            f"a tenth of the scan's points are more than {np.quantile(forth, 0.9) / scale:.2g} mm "
            "from the mesh"
        )
    elif coverage < MIN_COVERAGE:
        reason = f"the scan shows only {100 * coverage:.0f} % of the template"
    elif flipped > MAX_FLIPPED * len(triangles):
        reason = f"{flipped:,} faces are flipped"
    elif share > MAX_STRETCHED:
        where = f", most in {', '.join(regions)}" if regions else ""
        reason = f"{100 * share:.0f} % of the edges are stretched or squeezed{where}"
    return Card(
        aligned,
        Spread.of(forth / scale),
        Spread.of(found.distance[covered] / scale),
        coverage,
        flipped,
        share,
        regions,
        1 / scale,
        reason,
    )


def scan_distance(template: Template, vertices: np.ndarray, target: Target) -> np.ndarray:
    """The distances from the scan's points to a mesh (V, 3), without the points whose nearest place
    is on the border of an open mesh: they show what the template does not have.
    """
    triangles = template.mesh.triangles
    nearest = closest_points(target.scan.points, vertices, triangles)
    border = np.zeros(len(vertices), bool)
    border[boundary_edges(template.mesh.faces)] = True
    beyond = (border[triangles[nearest.face]] | (nearest.barycentric <= 1e-9)).all(1)
    return nearest.distance if beyond.all() else nearest.distance[~beyond]


def flipped_faces(vertices: np.ndarray, start: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(T,) bool: faces that point against the surface around them, and did not at the start."""
    return _against(vertices, triangles) & ~_against(start, triangles)


def _against(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    around = vertex_normals(vertices, triangles)[triangles].sum(1)
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    return np.asarray((np.cross(b - a, c - a) * around).sum(1) < 0)


def stretched_edges(vertices: np.ndarray, start: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(E,) bool: edges whose length changed by more than the factor STRETCH, relative to all."""

    def lengths(shape: np.ndarray) -> np.ndarray:
        return np.maximum(np.linalg.norm(shape[pairs[:, 0]] - shape[pairs[:, 1]], axis=1), 1e-9)

    change = np.log(lengths(np.asarray(vertices, np.float64)) / lengths(np.asarray(start)))
    return np.abs(change - np.median(change)) > np.log(STRETCH)


def _stretched_regions(template: Template, pairs: np.ndarray, odd: np.ndarray) -> tuple[str, ...]:
    if template.regions is None:
        return ()
    touched = np.zeros(template.n_vertices, bool)
    touched[pairs[odd]] = True
    names = template.regions.names
    return tuple(name for name in names if touched[template.region(name)].mean() > WORTH_NAMING)
