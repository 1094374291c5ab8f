"""invert: find the codes whose decoded shapes are nearest to given ones, by descent, for any
differentiable decoder. It encodes for models without an encoder, and measures what a decoder can
represent at all.

The objective is that of Abrevaya, Boukhayma, Wuhrer and Boyer (2019): the sum of the distances of
the vertices, not squared, plus a small weight times the squared length of the code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from morphable.config import Configuration, Count, CountOrZero, Positive, PositiveOrZero
from morphable.models.base import Given, MorphableModel, Shapes, blocks

Advance = Callable[[int], None]
"""Called with the number of shapes that are done."""

BATCH = 256
"""Shapes that are fitted together."""
PATIENCE = 10
"""Steps without progress after which the step is shortened."""
GAIN = 1e-3
"""Progress is a loss lower than the last one by at least this share."""
SHORTER = 0.5
"""Factor of a step that made no progress."""
SHORTEST = 1 / 256
"""A fit stops when its steps are this share of the first one."""
EXACT = 1e-3
"""Below this error in mm, a start needs no progress."""
MOMENTS = (0.9, 0.99)
"""Memory of Adam's two moments."""


@dataclass(frozen=True)
class Search(Configuration):
    """Settings of an inversion.

    steps: at most so many per start. rate: length of the first step, in standard deviations of the
    prior. prior_weight: mm per squared standard deviation, against the sum of the distances of all
    vertices. restarts: at most so many after a divergent start. seed: of their random codes.
    """

    steps: Count = 1000
    rate: Positive = 0.1
    prior_weight: PositiveOrZero = 1e-4
    restarts: CountOrZero = 2
    seed: CountOrZero = 0


@dataclass(frozen=True, eq=False)
class Inversion:
    """The codes that were found for N shapes.

    codes: (N, L). errors: (N,) mm, the mean vertex distance of each decoded code. restarts: (N,)
    number of divergent starts before the one that was kept. steps: (N,) number of steps, over all
    starts. diverged: (N,) whether the last start diverged too.
    """

    codes: Tensor
    errors: Tensor
    restarts: Tensor
    steps: Tensor
    diverged: Tensor


@dataclass(frozen=True, eq=False)
class Frame:
    """Coordinates w (B, W) of codes in which the prior is standard normal: code = origin + basis w.

    origin: (B, L) with the pinned parts at their values. basis: (B or 1, L, W).
    """

    origin: Tensor
    basis: Tensor

    @property
    def size(self) -> int:
        """W, the number of coordinates."""
        return self.basis.shape[2]

    def coordinates(self, code: Tensor) -> Tensor:
        """(B, L) codes -> (B, W), the nearest if there are none."""
        inverse = torch.linalg.pinv(self.basis.double())
        return (inverse @ (code - self.origin).double()[:, :, None])[:, :, 0].to(code)

    def code(self, w: Tensor, rows: Tensor) -> Tensor:
        basis = self.basis if len(self.basis) == 1 else self.basis[rows]
        return self.origin[rows] + (basis @ w[:, :, None])[:, :, 0]


@torch.no_grad()
def invert(
    model: MorphableModel,
    vertices: Tensor,
    given: Given | None = None,
    search: Search = Search(),
) -> Inversion:
    """Fit codes to shapes (B, V, 3) mm, all in one batch. Each shape has its own steps, so its code
    does not depend on the others.

    The first start is the mean of the prior; a model without a prior starts from its encoder. A
    start has diverged if its loss is not finite, or if it ends no nearer than it would at the first
    start. The shape is then started again from a random code, the same for all shapes.

    given: values of pinned parts, as for `encode`.
    """
    model.check_vertices(vertices)
    frame = _frame(model, vertices, given)
    everyone = torch.arange(len(vertices), device=vertices.device)
    start = torch.zeros(len(vertices), model.parts.size, device=vertices.device)
    limit = _distances(model, frame.code(start, everyone), vertices)

    best, errors = start.clone(), torch.full_like(limit, torch.inf)
    restarts, steps = torch.zeros_like(everyone), torch.zeros_like(everyone)
    rows = everyone
    generator = torch.Generator().manual_seed(search.seed)
    for attempt in range(search.restarts + 1):
        if attempt:
            drawn = torch.randn(model.parts.size, generator=generator).to(start)
            start = drawn.expand(len(rows), -1)
            restarts[rows] += 1
        found = _descend(model, frame, vertices, rows, start, search)
        steps[rows] += found.steps
        nearer = found.errors < errors[rows]
        best[rows[nearer]], errors[rows[nearer]] = found.best[nearer], found.errors[nearer]
        sound = (errors[rows] < limit[rows]) | (errors[rows] < EXACT)
        # An infinite or undefined error where the search begins is no bound.
        sound |= errors[rows].isfinite() & ~limit[rows].isfinite()
        rows = rows[~sound]
        if not len(rows):
            break
        start = best[rows]
    diverged = torch.zeros_like(everyone, dtype=torch.bool)
    diverged[rows] = True
    return Inversion(frame.code(best, everyone), errors, restarts, steps, diverged)


def invert_all(
    model: MorphableModel,
    shapes: Shapes,
    given: Given | None = None,
    search: Search = Search(),
    batch: int = BATCH,
    advance: Advance = lambda done: None,
) -> Inversion:
    """Fit codes to shapes (N, V, 3) mm, which may be larger than memory, `batch` at a time.

    given: values (N, size) of pinned parts.
    """
    found: list[Inversion] = []
    done = 0
    for block in blocks(shapes, batch):
        rows = slice(done, done + len(block))
        known = {name: value[rows].to(model.device) for name, value in (given or {}).items()}
        vertices = torch.from_numpy(np.asarray(block, np.float32)).to(model.device)
        found.append(invert(model, vertices, known, search))
        done += len(block)
        advance(done)
    fields = ("codes", "errors", "restarts", "steps", "diverged")
    return Inversion(*(torch.cat([getattr(part, name) for part in found]) for name in fields))


def _frame(model: MorphableModel, vertices: Tensor, given: Given | None) -> Frame:
    free = torch.from_numpy(model.parts.free).to(vertices.device)
    if model.prior is not None:
        origin = model.prior.mean.expand(len(vertices), -1).clone()
        basis = model.prior.factor[None]
    else:
        # The size of the encoder's code says how far apart codes lie, for want of a prior.
        origin = model.encode(vertices, given).clone()
        scale = origin[:, free].square().mean(1).sqrt()
        basis = scale[:, None, None] * torch.diag(free.to(origin))
    for name, value in (given or {}).items():
        origin[:, model.parts[name]] = value.to(origin)
    return Frame(origin, basis)


@dataclass(frozen=True, eq=False)
class _Found:
    """What one start found. best: (n, L) coordinates. errors: (n,) mm, infinite if the start met a
    loss that is not finite. steps: (n,).
    """

    best: Tensor
    errors: Tensor
    steps: Tensor


def _descend(
    model: MorphableModel,
    frame: Frame,
    vertices: Tensor,
    rows: Tensor,
    start: Tensor,
    search: Search,
) -> _Found:
    """Adam from `start` (n, L), for the rows (n,) of `vertices`, with a step length per shape: a
    shape without progress goes back to its best code and continues in shorter steps. Shapes that
    are done leave the batch.
    """
    w, best = start.clone(), start.clone()
    first, second = torch.zeros_like(w), torch.zeros_like(w)
    errors = torch.full((len(rows),), torch.inf, device=w.device)
    lowest, reference = errors.clone(), errors.clone()
    rate = torch.full_like(errors, search.rate)
    idle, steps = torch.zeros_like(rows), torch.zeros_like(rows)
    going = torch.arange(len(rows), device=w.device)
    weight = search.prior_weight / vertices.shape[1]

    for step in range(1, search.steps + 1):
        own = rows[going]
        with torch.enable_grad():
            here = w[going].requires_grad_()
            error = _distances(model, frame.code(here, own), vertices[own])
            loss = error + weight * here.square().sum(1)
            (gradient,) = torch.autograd.grad(loss.sum(), here)
        here, error, loss = here.detach(), error.detach(), loss.detach()
        steps[going] += 1

        lower = loss < lowest[going]
        best[going[lower]] = here[lower]
        lowest[going[lower]], errors[going[lower]] = loss[lower], error[lower]
        progress = loss < reference[going] * (1 - GAIN)
        reference[going[progress]] = loss[progress]
        idle[going] = torch.where(progress, 0, idle[going] + 1)

        # Adam. The gradient of a distance does not shrink near its minimum, so the steps must.
        first[going] = first[going].lerp(gradient, 1 - MOMENTS[0])
        second[going] = second[going].lerp(gradient.square(), 1 - MOMENTS[1])
        mean = first[going] / (1 - MOMENTS[0] ** step)
        deviation = (second[going] / (1 - MOMENTS[1] ** step)).sqrt() + 1e-12
        w[going] = here - rate[going, None] * mean / deviation

        stuck = going[idle[going] >= PATIENCE]
        w[stuck], rate[stuck], idle[stuck] = best[stuck], rate[stuck] * SHORTER, 0
        first[stuck] = 0.0
        broken = ~(loss.isfinite() & gradient.isfinite().all(1))
        errors[going[broken]] = torch.inf
        going = going[~broken & (rate[going] >= search.rate * SHORTEST)]
        if not len(going):
            break
    return _Found(best, errors, steps)


def _distances(model: MorphableModel, code: Tensor, vertices: Tensor) -> Tensor:
    """(B,) mm mean vertex distances of decoded codes to shapes (B, V, 3) mm."""
    # The epsilon under the root keeps the gradient of a vertex that is met exactly defined.
    squared = (model.decode(code) - vertices).square().sum(-1)
    return (squared + 1e-12).sqrt().mean(1)
