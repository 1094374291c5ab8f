"""HandleFit: moves a few vertices of a shape by the most likely change of its code, for any
differentiable decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from morphable.models.base import MorphableModel
from morphable.models.handles import HANDLE_ERROR

TRIALS = 8
"""Steps that are tried, all with the same slopes. A linear decoder needs one."""
CONVERGED = 1e-3
"""No further step if the last one changed the code by less than this, in standard deviations."""


@dataclass(frozen=True, eq=False)
class HandleFit:
    """The most likely step w of a code, in standard deviations of the prior, that displaces K
    vertices by d mm: it minimizes |f(w) - d|^2 / HANDLE_ERROR^2 + |w|^2, where f is what the
    decoder makes of the step.

    Gauss-Newton with the slopes J at the code: w = G (d - f(w) + J w), with
    G = (J^T J + HANDLE_ERROR^2)^-1 J^T. For a linear model, the first step is the solution. A step
    that does not lower the sum is halved, so that the result is never worse than not moving.

    code: (L,). handles: (K,) vertices. basis: (L, r), one standard deviation of the prior per
    column. slopes: J, (3K, r) mm. gain: G, (r, 3K).
    """

    model: MorphableModel
    code: Tensor
    handles: Tensor
    basis: Tensor
    slopes: Tensor
    gain: Tensor

    @classmethod
    def of(cls, model: MorphableModel, code: Tensor, handles: np.ndarray) -> HandleFit:
        """code: (L,) of the shape. handles: (K,) vertices."""
        vertices = torch.as_tensor(np.asarray(handles, np.int64), device=code.device)
        basis = prior_basis(model, code)
        slopes = _slopes(model, code, vertices).double() @ basis.double()
        ridge = HANDLE_ERROR**2 * torch.eye(len(slopes), dtype=slopes.dtype, device=slopes.device)
        # (J^T J + s)^-1 J^T = J^T (J J^T + s)^-1, a system of the size of the handles.
        gain = torch.linalg.solve(slopes @ slopes.T + ridge, slopes).T
        return cls(model, code, vertices, basis, slopes.to(code), gain.to(code))

    @torch.no_grad()
    def change(self, moved: np.ndarray) -> np.ndarray:
        """(K, 3) mm displacements of the handles -> (V, 3) mm those of all vertices. Zero gives
        exactly zero.
        """
        goal = torch.as_tensor(np.asarray(moved, np.float32)).to(self.code).ravel()
        step = torch.zeros(self.basis.shape[1]).to(self.code)
        change = torch.zeros_like(self._shape)
        least = float(goal.square().sum())
        tried = self.gain @ goal
        for _ in range(TRIALS):
            made = self.decoded(tried)
            missed = goal - made[self.handles].ravel()
            cost = float(missed.square().sum() + HANDLE_ERROR**2 * tried.square().sum())
            if cost < least:
                step, change, least = tried, made, cost
                tried = self.gain @ (missed + self.slopes @ step)
            else:  # too far for these slopes
                tried = (step + tried) / 2
            if float((tried - step).norm()) < CONVERGED:
                break
        return change.cpu().numpy().astype(np.float64)

    @torch.no_grad()
    def decoded(self, step: Tensor) -> Tensor:
        """(r,) -> (V, 3) mm: what a step of the code adds to the shape. Zero adds exactly zero."""
        # Both shapes are decoded alone: batches of different sizes differ in the last bits.
        change: Tensor = self.model.decode((self.code + self.basis @ step)[None])[0] - self._shape
        return change

    @cached_property
    def _shape(self) -> Tensor:
        with torch.no_grad():
            shape: Tensor = self.model.decode(self.code[None])[0]
        return shape


def prior_basis(model: MorphableModel, code: Tensor) -> Tensor:
    """(L, r) steps of one standard deviation of the prior. Without a prior: the free dimensions, as
    long as those of the code (L,) are on average.
    """
    if model.prior is not None:
        return model.prior.factor.to(code)
    free = torch.from_numpy(model.parts.free).to(code.device)
    return code[free].square().mean().sqrt() * torch.diag(free.to(code))[:, free]


def _slopes(model: MorphableModel, code: Tensor, handles: Tensor) -> Tensor:
    """(3K, L) mm per unit of the code, of K vertices."""
    rows = torch.arange(3 * len(handles), device=code.device)
    with torch.enable_grad():
        # One copy of the code per coordinate, so that one backward pass gives all rows.
        codes = code.detach().expand(len(rows), -1).clone().requires_grad_()
        shapes = model.decode(codes)
        chosen = shapes[rows, handles.repeat_interleave(3), torch.arange(3).repeat(len(handles))]
        (slopes,) = torch.autograd.grad(chosen.sum(), codes)
    return slopes
