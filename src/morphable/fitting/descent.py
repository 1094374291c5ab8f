"""descend: minimize a smooth function of a few hundred variables for many shapes at once, by
limited-memory BFGS (Nocedal 1980) that starts from a known metric.

With the Gauss-Newton matrix as the metric, the first step on a quadratic function is its solution
in closed form; on a decoder that bends, a few gradients correct the metric. Every shape has its own
step, and its result does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps variables (n, D) of the shapes in `rows` (n,) to values (n,) and gradients (n, D)."""

MEMORY = 8
"""Steps that correct the metric."""
HALVINGS = 8
"""A step is halved at most so many times, until the value falls."""
SUFFICIENT = 1e-4
"""Share of the fall predicted by the gradient that a step must reach (Armijo)."""
TOLERANCE = 1e-5
"""A shape is done if its next step promises to lower the value by less than this share."""


@dataclass(frozen=True, eq=False)
class Minimum:
    """variables: (B, D). values: (B,). steps: (B,) number of evaluations of the gradient."""

    variables: Tensor
    values: Tensor
    steps: Tensor


def descend(objective: Objective, start: Tensor, inverse_metric: Tensor, steps: int) -> Minimum:
    """Minimize from `start` (B, D) in at most `steps` steps.

    inverse_metric: (B or 1, D, D) inverse of the matrix that approximates the second derivatives.
    """
    count, size = start.shape
    x, everyone = start.clone(), torch.arange(count, device=start.device)
    value, gradient = objective(x, everyone)
    evaluations = torch.ones_like(everyone)
    # Rings of the last steps and changes of the gradient; an empty place has curvature zero.
    moves = x.new_zeros(MEMORY, count, size)
    turns = torch.zeros_like(moves)
    going = everyone[value.isfinite()]
    for step in range(steps):
        g = gradient[going]
        direction = -_newton(g, moves[:, going], turns[:, going], step, _of(inverse_metric, going))
        slope = (g * direction).sum(1)
        keep = (slope < 0) & (-slope > 2 * TOLERANCE * value[going].abs() + 1e-30)
        going, direction, slope = going[keep], direction[keep], slope[keep]
        if not len(going):
            break
        length = torch.ones_like(slope)
        open_ = torch.arange(len(going), device=going.device)
        moved = torch.zeros(len(going), dtype=torch.bool, device=going.device)
        for _ in range(HALVINGS):
            rows = going[open_]
            trial = x[rows] + length[open_, None] * direction[open_]
            new_value, new_gradient = objective(trial, rows)
            evaluations[rows] += 1
            lower = new_value <= value[rows] + SUFFICIENT * length[open_] * slope[open_]
            done = rows[lower]
            place = step % MEMORY
            moves[place, done] = trial[lower] - x[done]
            turns[place, done] = new_gradient[lower] - gradient[done]
            x[done], value[done] = trial[lower], new_value[lower]
            gradient[done] = new_gradient[lower]
            moved[open_[lower]] = True
            open_ = open_[~lower]
            if not len(open_):
                break
            length[open_] /= 2
        # Where no step lowers the value, rounding errors are as large as what is left to gain.
        going = going[moved]
    return Minimum(x, value, evaluations)


def _of(matrix: Tensor, rows: Tensor) -> Tensor:
    return matrix if len(matrix) == 1 else matrix[rows]


def _newton(
    gradient: Tensor, moves: Tensor, turns: Tensor, step: int, inverse_metric: Tensor
) -> Tensor:
    """The two-loop recursion: the inverse of the corrected metric times the gradient (n, D).

    moves, turns: (MEMORY, n, D) rings, of which place `step - 1` was written last.
    """
    order = [(step - 1 - back) % MEMORY for back in range(min(step, MEMORY))]
    curvature = (moves * turns).sum(-1)
    usable = curvature > 1e-10 * turns.square().sum(-1).clamp(min=1e-30)
    weight = torch.where(usable, 1 / curvature.where(usable, torch.ones_like(curvature)), 0.0)
    q, shares = gradient, {}
    for place in order:
        shares[place] = weight[place] * (moves[place] * q).sum(-1)
        q = q - shares[place][:, None] * turns[place]
    q = (inverse_metric @ q[:, :, None])[:, :, 0]
    for place in reversed(order):
        back = weight[place] * (turns[place] * q).sum(-1)
        q = q + (shares[place] - back)[:, None] * moves[place]
    return q
