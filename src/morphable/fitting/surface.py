"""fit_scan: fit a model to points without correspondences, by iterated closest points in which the
shape takes part.

Each round matches points of the scan to places of the fitted surface, and fits code and pose to the
matches. Where the scan has normals, the place that is nearest in position and normal is meant: on
smooth skin the nearest place alone lets the surface slide, and a fit that is near everywhere shows
another shape. Distances across the surface count in full, along it less, and without normals little
(Chen and Medioni 1992). Matches on the border of an open surface, with another normal, or far off
(Tukey's weights) do not count. Few points come first, then many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from morphable.fitting.descent import descend
from morphable.fitting.observations import Observations
from morphable.fitting.problem import Problem
from morphable.fitting.redundancy import redundancy
from morphable.mesh.distance import ClosestPoints, balanced_length, closest_alike, closest_points
from morphable.mesh.scan import Scan
from morphable.mesh.topology import boundary_edges, vertex_normals
from morphable.models.base import MorphableModel
from morphable.rows import evenly_spread

COARSE, FINE = 800, 6000
"""Points of the scan that are matched in the first and the last rounds."""
COARSE_ROUNDS, FINE_ROUNDS = 15, 25
LEAST_NOISE = 1e-3
"""mm. A scan that the model shows exactly has at least this noise."""
STEPS = 4
"""Steps of the descent per round."""
SPREAD = 4.0
"""Matches farther than this many robust standard deviations do not count."""
REACH, NARROWER = 0.15, 0.7
"""In the first round, matches up to this share of the model's size count, so that a finger in
another pose is caught; then less by this factor from round to round.
"""
SETTLED_REACH = 0.01
"""The rounds go on while the reach is above this."""
NORMAL_LENGTH = 0.06
"""How far apart places with opposite normals count as in the first round and at most, in sizes of the
model, divided by two. Then normals count as much as positions: as they differ where they match.
"""
SLIDE, ALIKE_SLIDE = 0.1, 0.7
"""How much a distance along the surface counts against one across it. The second is that of the last
rounds if the scan has normals: early it would hold fingers where they are wrong.
"""
MIN_COSINE = 0.5
"""Matches whose normals differ by more than 60 degrees do not count."""
LEAST_SPREAD = 1e-3
"""The robust standard deviation is at least this share of the model's size."""
FAR = 0.05
"""Points farther from the surface than this share of its size show something else."""
STILL = 0.01
"""The rounds end if they move the surface by less than this share of the noise."""


@dataclass(frozen=True, eq=False)
class Surface:
    """What matching needs of a model's template."""

    triangles: np.ndarray
    on_border: np.ndarray

    @classmethod
    def of(cls, model: MorphableModel) -> Surface:
        on_border = np.zeros(model.template.n_vertices, bool)
        on_border[boundary_edges(model.template.mesh.faces)] = True
        return cls(model.template.mesh.triangles, on_border)


@dataclass(frozen=True, eq=False)
class Match:
    """A fit to a scan, in the frame of its problem.

    problem: with the last matches as its observations. variables: (1, D). level, repeats, freedom:
    see `Noise`, (1,) each. steps: gradients computed. distance: mm, the mean distance of the points
    to the surface, each at most FAR of its size. share: of the points that matched.
    """

    problem: Problem
    variables: Tensor
    level: Tensor
    repeats: Tensor
    freedom: Tensor
    steps: int
    distance: float
    share: float


def match_scan(
    problem: Problem,
    surface: Surface,
    scan: Scan,
    variables: Tensor,
    points: int,
    rounds: int,
    reach: float,
    noise: float | None,
    slide: float = SLIDE,
) -> Match:
    """Fit to at most `points` points of a scan that lies in the frame of the problem, from
    variables (1, D) on. reach: of the first matches. slide: how much a distance along the surface
    counts against one across it. The problem's own observations, landmarks, stay among the matches.
    """
    row = torch.zeros(1, dtype=torch.long, device=variables.device)
    some = scan.rows(evenly_spread(len(scan.points), points))
    landmarks, steps = problem.observations, 0
    repeats = torch.ones(1, device=variables.device)
    level = torch.full_like(repeats, noise or 0.0)
    around = problem.linearize(variables[0], 0)
    placed = problem.placed(variables, row)
    normal_length = NORMAL_LENGTH * float(np.linalg.norm(np.ptp(placed[0].cpu().numpy(), axis=0)))
    for number in range(rounds):
        found = matches(
            surface, some, placed[0], landmarks, reach * NARROWER**number, normal_length, slide
        )
        seen, normal_length = found.observations, found.normal_length
        problem = problem.seen(seen)
        if noise is None and not number:
            squares = problem.squares(variables, row)
            level = (squares / seen.measurements).sqrt().to(variables).clamp(min=LEAST_NOISE)
        doubt = level * repeats.sqrt()
        information = problem.information(around, row)
        covariance = problem.covariance(information, doubt)
        metric = covariance / doubt.double().square()[:, None, None]
        lowest = descend(problem.objective(doubt), variables, metric.to(variables), STEPS)
        variables, steps = lowest.variables, steps + int(lowest.steps)
        offsets = problem.offsets(variables, row)
        squares = (offsets.square().sum(-1) * seen.weights).sum(-1)
        freedom = (seen.measurements - (metric * information).sum((1, 2))).clamp(min=1.0)
        if noise is None:
            level = (squares / freedom).sqrt().to(level).clamp(min=LEAST_NOISE)
        repeats = redundancy(offsets, seen.places(placed[0]), seen.weights)
        moved = problem.placed(variables, row)
        change = (moved - placed).norm(dim=-1).mean()
        placed = moved
        if change < STILL * level and reach * NARROWER**number < SETTLED_REACH:
            break
    last = matches(surface, some, placed[0], landmarks, 0.0, normal_length, slide)
    return Match(
        problem, variables, level, repeats, freedom / repeats, steps, last.distance, last.share
    )


@dataclass(frozen=True, eq=False)
class Matches:
    """Places of a surface for the points of a scan.

    observations: the places, followed by the landmarks. distance, share: as in `Match`.
    normal_length: mm, by which a difference of normals would be multiplied to count as much as the
    offsets of the positions do here.
    """

    observations: Observations
    distance: float
    share: float
    normal_length: float


def matches(
    surface: Surface,
    scan: Scan,
    placed: Tensor,
    landmarks: Observations,
    reach: float,
    normal_length: float,
    slide: float,
) -> Matches:
    """Match the points with a placed surface (V, 3) mm. reach: matches up to this share of the
    surface's size count, even if most are nearer. normal_length: mm, see `closest_alike`.
    """
    vertices = placed.double().cpu().numpy()
    size = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    own = vertex_normals(vertices, surface.triangles)
    nearest = _nearest(surface, scan, vertices, own, normal_length)
    corners = surface.triangles[nearest.face]
    places, normals = (
        np.einsum("pc,pcx->px", nearest.barycentric, values[corners]) for values in (vertices, own)
    )
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    # A point beyond the border of an open surface is nearest to the border.
    inside = nearest.barycentric > 1e-9
    usable = ~(surface.on_border[corners] | ~inside).all(1) | (
        nearest.distance < LEAST_SPREAD * size
    )
    known = _with_normals(scan)
    if scan.normals is not None:
        usable &= ~known | ((scan.normals * normals).sum(1) > MIN_COSINE)
    if not usable.any():
        usable[:] = True
    spread = 1.4826 * float(np.median(nearest.distance[usable]))
    limit = max(SPREAD * max(spread, LEAST_SPREAD * size), reach * size)
    weights = usable * np.square(np.clip(1 - np.square(nearest.distance / limit), 0, None))

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(placed.device)

    joined = Observations(
        torch.cat([tensor(corners), landmarks.corners]),
        torch.cat([tensor(nearest.barycentric).float(), landmarks.shares]),
        torch.cat([tensor(scan.points).float()[None], landmarks.positions], 1),
        torch.cat([tensor(weights).float()[None], landmarks.weights / slide**2], 1),
        torch.cat([tensor(normals).float()[None], torch.zeros_like(landmarks.positions)], 1),
        slide,
    )
    distance = np.linalg.norm(places - scan.points, axis=1)
    near = FAR * size
    compared = usable & known
    if scan.normals is not None and compared.any():
        turned = np.linalg.norm(scan.normals - normals, axis=1)
        balanced = balanced_length(distance[compared], turned[compared])
        normal_length = min(balanced, NORMAL_LENGTH * size)
    return Matches(
        joined,
        float(np.minimum(distance, near).mean()),
        float((distance < near).mean()),
        normal_length,
    )


def _nearest(
    surface: Surface, scan: Scan, vertices: np.ndarray, normals: np.ndarray, normal_length: float
) -> ClosestPoints:
    """For each point the place of the surface (V, 3), with normals (V, 3), that is nearest in
    position and, where the point has one, in normal.
    """
    triangles = surface.triangles
    if scan.normals is None:
        return closest_points(scan.points, vertices, triangles)
    alike = closest_alike(scan.points, scan.normals, vertices, normals, triangles, normal_length)
    unknown = ~_with_normals(scan)
    if unknown.any():
        nearest = closest_points(scan.points[unknown], vertices, triangles)
        alike.face[unknown] = nearest.face
        alike.barycentric[unknown] = nearest.barycentric
        alike.distance[unknown] = nearest.distance
    return alike


def _with_normals(scan: Scan) -> np.ndarray:
    """(P,) bool: the points whose normals are known."""
    if scan.normals is None:
        return np.zeros(len(scan.points), bool)
    return np.asarray(np.any(scan.normals != 0, axis=1))
