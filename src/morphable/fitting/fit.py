"""fit: find the code and the pose with which a model shows what was seen of a shape: all of its
vertices, some of them, a few landmarks, or a scan without correspondences.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from morphable.errors import InputError
from morphable.fitting.descent import descend
from morphable.fitting.observations import Observations
from morphable.fitting.problem import POSE_SIZE, Pose, Problem, fit_frame, known_parts
from morphable.fitting.redundancy import redundancy
from morphable.fitting.result import Fit, Noise, found_fit
from morphable.fitting.start import SIZE_DEVIATION, Reference, Start, first_poses, refine_start
from morphable.fitting.surface import (
    ALIKE_SLIDE,
    COARSE,
    COARSE_ROUNDS,
    FINE,
    FINE_ROUNDS,
    REACH,
    SLIDE,
    Match,
    Surface,
    match_scan,
)
from morphable.mesh.align import Similarity, procrustes
from morphable.mesh.distance import point_to_surface
from morphable.mesh.landmarks import Landmarks
from morphable.mesh.scan import Scan
from morphable.models.base import Given, MorphableModel
from morphable.models.batched import decode_all, encode_all

STEPS = 100
"""Steps of a descent at most; most shapes need fewer than ten."""
ROUNDS = 8
"""The noise is estimated at most so many times."""
SETTLED = 0.02
"""The noise is settled if an estimate changes it by less than this share."""
LEAST_NOISE = 1e-3
"""mm. A shape that the model shows exactly has at least this noise."""
STARTS = 3
"""Poses of a scan from which its shape is fitted."""
LEAST_OVERLAP = 0.5
"""Share of a scan's points that must lie near the fitted surface."""
KNOWN = 1e6
"""Measurements behind a noise that is as good as known."""


def fit(
    model: MorphableModel,
    target: Any,
    *,
    mask: Any = None,
    nan_is_missing: bool = False,
    landmarks: Landmarks | None = None,
    given: Given | None = None,
    pose: Pose | None = None,
    noise: float | None = None,
    prior_weight: float = 1.0,
) -> Fit:
    """Fit a model to one shape or to B of them.

    target: registered shapes (V, 3) or (B, V, 3) mm, as an array or a tensor; `Landmarks`; or a
    `Scan`, which may lie anywhere and show only a part. landmarks: of a scan, if some are known.
    mask: (V,) or (B, V) bool, the vertices that are known; None: all. nan_is_missing: vertices that
    are NaN are unknown. given: values (size,) or (B, size) of pinned parts. pose: "none" if the
    targets lie in the model's frame, "rigid" to fit a rotation and a shift, "similarity" to fit the
    size too; None: "none" for registered shapes, "rigid" for landmarks, "similarity" for scans.
    noise: mm, the standard
    deviation per coordinate of what was seen about what the model can show; None: estimated from
    the residuals of each shape. prior_weight: multiplies the model's prior, 0 = without it.

    Raises InputError if the target does not fit the model, or leaves the pose undetermined.
    """
    check_settings(pose, noise, prior_weight)
    if isinstance(target, Landmarks):
        if mask is not None or nan_is_missing:
            raise InputError("`mask`: landmarks have none, list only those that are known", "mask")
        if landmarks is not None:
            raise InputError("`landmarks`: the target is landmarks already", "landmarks")
        target.check(model.template.n_vertices)
        positions = _batch(target.positions)
        vertices, weights = torch.from_numpy(target.vertices), torch.ones(positions.shape[:2])
        seen = Observations.of_vertices(vertices, positions, weights).to(model.device)
        return _fit_vertices(model, seen, given or {}, pose or "rigid", noise, prior_weight)
    if isinstance(target, Scan):
        if mask is not None or nan_is_missing:
            raise InputError("`mask`: a scan has none, leave out what is unknown", "mask")
        if landmarks is not None:
            landmarks.check(model.template.n_vertices)
        return _fit_scan(
            model,
            target,
            landmarks or Landmarks.none(),
            given or {},
            pose or "similarity",
            noise,
            prior_weight,
        )
    if landmarks is not None:
        raise InputError("`landmarks`: only a scan needs them beside the target", "landmarks")
    positions, weights = _registered(model, target, mask, nan_is_missing)
    every = torch.arange(model.template.n_vertices)
    whole = bool((weights > 0).all())
    seen = Observations.of_vertices(every, positions, weights, whole).to(model.device)
    return _fit_vertices(model, seen, given or {}, pose or "none", noise, prior_weight)


def check_settings(pose: str | None, noise: float | None, prior_weight: float) -> None:
    """Raise InputError if a setting of a fit has no allowed value."""
    if pose not in (None, "none", "rigid", "similarity"):
        raise InputError(f"`pose` {pose}: expected none, rigid or similarity", "pose")
    if noise is not None and not 0 < noise < np.inf:
        raise InputError(f"`noise` {noise}: expected a positive number of mm", "noise")
    if not 0 <= prior_weight < np.inf:
        raise InputError(
            f"`prior_weight` {prior_weight}: expected a number of at least 0", "prior_weight"
        )


def _batch(positions: Any) -> Tensor:
    values = torch.as_tensor(np.asarray(positions, np.float32))
    return values[None] if values.ndim == 2 else values


def _registered(
    model: MorphableModel, target: Any, mask: Any, nan_is_missing: bool
) -> tuple[Tensor, Tensor]:
    """Positions (B, V, 3) mm and weights (B, V) of registered shapes."""
    positions = _batch(target.detach().cpu() if isinstance(target, Tensor) else target)
    model.check_vertices(positions)
    weights = positions.new_ones(positions.shape[:2])
    if mask is not None:
        known = torch.as_tensor(np.asarray(mask))
        if known.dtype != torch.bool or known.shape not in (weights.shape[1:], weights.shape):
            raise InputError(
                f"`mask`: expected ({weights.shape[1]},) bool, got {tuple(known.shape)} "
                f"{str(known.dtype).removeprefix('torch.')}",
                "mask",
            )
        weights = weights * known
    bad = ~positions.isfinite().all(-1)
    if nan_is_missing:
        weights = weights * ~bad
    elif (bad & (weights > 0)).any():
        row, vertex = torch.nonzero(bad & (weights > 0))[0].tolist()
        raise InputError(
            f"target: {int(bad[row].sum())} vertices of shape {row} are not finite, the first is "
            f"vertex {vertex}; with `nan_is_missing` they count as unknown",
            "nan_is_missing",
        )
    if not weights.any(1).all():
        row = int((~weights.any(1)).nonzero()[0])
        raise InputError(f"target: no vertex of shape {row} is known")
    return torch.where(bad[..., None], 0.0, positions), weights


@torch.no_grad()
def _fit_vertices(
    model: MorphableModel,
    observations: Observations,
    given: Given,
    pose: Pose,
    noise: float | None,
    prior_weight: float,
) -> Fit:
    """Fit a model to vertices of B shapes."""
    count = len(observations)
    mean = model.decode(fit_frame(model, 1, _first(given)).origin)[0]
    start = _align(observations, observations.places(mean), pose)
    seen = observations.moved(start)
    codes = _encoded(model, seen, given)
    frame = fit_frame(model, count, given if codes is None else known_parts(model, codes))
    problem = Problem(model, frame, seen, pose, mean.mean(0), prior_weight)
    variables = torch.zeros(count, problem.size, device=model.device)
    if codes is None:
        return solve(problem, variables, start, noise)
    encoded = torch.nn.functional.pad(frame.coordinates(codes), (0, POSE_SIZE[pose]))
    everyone = torch.arange(count, device=model.device)
    nearer = problem.squares(encoded, everyone) < problem.squares(variables, everyone)
    found = solve(problem, torch.where(nearer[:, None], encoded, variables), start, noise)
    return _nearer(found, codes, seen, start)


def _nearer(found: Fit, codes: Tensor, seen: Observations, start: Similarity) -> Fit:
    """The fit, with the code of the encoder for shapes that it shows with a lower mean distance, as
    a network that was trained to do so sometimes does.
    """
    shapes = decode_all(found.model, codes)
    distance = (torch.from_numpy(shapes) - seen.positions.cpu()).norm(dim=-1).numpy()
    distance /= start.scale[:, None]
    better = distance.mean(1) < found.error
    return replace(
        found,
        code=torch.where(torch.from_numpy(better).to(codes.device)[:, None], codes, found.code),
        vertices=np.where(better[:, None, None], shapes, found.vertices),
        map=Similarity(
            np.where(better[:, None, None], start.rotation, found.map.rotation),
            np.where(better[:, None], start.translation, found.map.translation),
            np.where(better, start.scale, found.map.scale),
        ),
        residuals=np.where(better[:, None], distance, found.residuals),
    )


def solve(problem: Problem, variables: Tensor, start: Similarity, noise: float | None) -> Fit:
    """Minimize a problem from variables (B, D) on, and by turns estimate the noise from what is
    left, unless it is given. start: what brought the targets to the problem's frame.

    The estimate is that of the greatest evidence (MacKay 1992): the squares that are left, divided
    by the number of measurements less that of the variables that they determine.
    """
    count, device = len(variables), variables.device
    everyone = torch.arange(count, device=device)
    seen = problem.observations
    alike = everyone[:1] if seen.are_alike else everyone
    around = problem.linearize(variables[0], 0)
    information = problem.information(around, alike)
    if noise is None:
        squares = problem.squares(variables, everyone)
        level = (squares / seen.measurements).sqrt().to(variables).clamp(min=LEAST_NOISE)
    else:
        level = torch.as_tensor(noise * start.scale).to(variables)
    steps, repeats = torch.zeros_like(everyone), torch.ones_like(level)
    freedom = torch.full_like(level, KNOWN)  # of a noise that is given
    for number in range(ROUNDS):
        if number and problem.pose != "none":
            # A turned shape moves otherwise, so the metric follows the pose.
            information = problem.information_at(variables)
        # Repeated observations matter for what was not seen. A shape that was seen whole is shown
        # as nearly as the model can.
        doubt = level if seen.are_whole else level * repeats.sqrt()
        covariance = problem.covariance(information, doubt)
        metric = covariance / doubt.double().square()[:, None, None]
        found = descend(problem.objective(doubt), variables, metric.to(variables), STEPS)
        variables, steps = found.variables, steps + found.steps
        if noise is not None:
            break
        offsets = problem.offsets(variables, everyone)
        squares = (offsets.square().sum(-1) * seen.weights).sum(-1)
        determined = (metric * information).sum((1, 2))
        freedom = (seen.measurements - determined).clamp(min=1.0)
        level = (squares / freedom).sqrt().to(level).clamp(min=LEAST_NOISE)
        repeats = redundancy(offsets, seen.places(around.base), seen.weights)
        settled = level if seen.are_whole else level * repeats.sqrt()
        if (settled / doubt).log().abs().max() < SETTLED:
            break
    return found_fit(problem, variables, start, Noise(level, repeats, freedom / repeats), steps)


@torch.no_grad()
def _fit_scan(
    model: MorphableModel,
    scan: Scan,
    landmarks: Landmarks,
    given: Given,
    pose: Pose,
    noise: float | None,
    prior_weight: float,
) -> Fit:
    """Fit a model to a scan, from the poses and shapes in which its linearization fits best."""
    frame = fit_frame(model, 1, given)
    mean = model.decode(frame.origin)[0]
    surface = Surface.of(model)
    vertices = torch.from_numpy(landmarks.vertices)
    seen = Observations.of_vertices(
        vertices, _batch(landmarks.positions), torch.ones(1, len(vertices))
    ).to(model.device)
    problem = Problem(model, frame, seen, pose, mean.mean(0), prior_weight, SIZE_DEVIATION)
    found: list[tuple[Match, Similarity]] = []
    for start in _starts(problem, scan, landmarks, surface):
        map = start.map
        batch = Similarity(map.rotation[None], map.translation[None], map.scale[None])
        variables = torch.zeros(1, problem.size, device=model.device)
        variables[0, : problem.latent] = torch.from_numpy(start.coordinates).to(variables)
        level = None if noise is None else noise * float(map.scale)
        own = replace(problem, observations=seen.moved(batch))
        moved = scan.moved(map)
        match = match_scan(own, surface, moved, variables, COARSE, COARSE_ROUNDS, REACH, level)
        found.append((match, batch))
    match, batch = min(found, key=lambda pair: pair[0].distance / float(pair[1].scale[0]))
    map = Similarity(batch.rotation[0], batch.translation[0], batch.scale[0])
    level = None if noise is None else noise * float(map.scale)
    own = replace(problem, observations=seen.moved(batch))
    slide = SLIDE if scan.normals is None else ALIKE_SLIDE
    fine = match_scan(
        own, surface, scan.moved(map), match.variables, FINE, FINE_ROUNDS, 0.0, level, slide
    )
    if fine.share < LEAST_OVERLAP:
        raise InputError(
            f"scan: only {100 * fine.share:.0f} % of its points lie near the model's surface when "
            "it is fitted, so they do not show the same thing"
            + (
                "; it is taken to lie in the model's frame, with `pose` similarity it may lie "
                "anywhere"
                if pose == "none"
                else ""
            ),
            "pose",
        )
    steps = torch.tensor([sum(one.steps for one, _ in found) + fine.steps])
    scanned = found_fit(
        fine.problem, fine.variables, batch, Noise(fine.level, fine.repeats, fine.freedom), steps
    )
    distance = point_to_surface(scan.points, scanned.placed[0], surface.triangles)
    return replace(scanned, residuals=distance[None])


def _starts(problem: Problem, scan: Scan, landmarks: Landmarks, surface: Surface) -> list[Start]:
    around = problem.linearize(torch.zeros(problem.size, device=problem.frame.origin.device), 0)
    mean = around.base.double().cpu().numpy()
    slopes = around.slopes[:, :, : problem.latent].double().cpu().numpy()
    scale = problem.pose == "similarity"
    if problem.pose == "none":
        eye = Similarity(np.eye(3), np.zeros(3), np.array(1.0))
        return [Start(eye, np.zeros(problem.latent), 0.0)]
    reference = Reference.of(mean, surface.triangles, slopes)
    if len(landmarks.vertices) >= 3:
        rough = procrustes(landmarks.positions, mean[landmarks.vertices], scale=scale)
        return [refine_start(scan, reference, rough, scale=scale)]
    return first_poses(scan, reference, STARTS, scale=scale)


def _first(given: Given) -> Given:
    return {name: value[:1] if value.ndim == 2 else value for name, value in given.items()}


def _encoded(model: MorphableModel, observations: Observations, given: Given) -> Tensor | None:
    """(B, L) codes from the model's encoder; None if a vertex is unknown or encoding is a search
    itself.
    """
    if model.encodes_by_search or not observations.are_whole:
        return None
    shapes = observations.positions.cpu().numpy()
    known = {
        name: value.expand(len(shapes), -1) if value.ndim == 2 else value
        for name, value in given.items()
    }
    return encode_all(model, shapes, given=known)


def _align(observations: Observations, reference: Tensor, pose: Pose) -> Similarity:
    """What brings the observed places of each shape to those of the reference (K, 3) mm, B
    similarities.
    """
    count = len(observations)
    if pose == "none":
        return Similarity(np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 3)), np.ones(count))
    found = []
    for row in range(count):
        weights = observations.weights[row].double().cpu().numpy()
        if (weights > 0).sum() < 3:
            raise InputError(
                f"target: a pose needs at least three points, shape {row} has "
                f"{int((weights > 0).sum())}; with `pose` none it is taken to lie in the model's "
                "frame",
                "pose",
            )
        own = observations.positions[row].double().cpu().numpy()
        target = reference.double().cpu().numpy()
        found.append(procrustes(own, target, weights=weights, scale=pose == "similarity"))
    parts = zip(*((one.rotation, one.translation, one.scale) for one in found), strict=True)
    return Similarity(*(np.stack(part) for part in parts))
