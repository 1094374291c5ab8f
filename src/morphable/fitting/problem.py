"""Problem: the function that a fit minimizes, its linearization, and the Gaussian that follows.

A shape is seen as p = a R x(code) + b + noise, with independent noise of `noise` mm per coordinate,
and the code has the model's prior. The most probable code and pose minimize

    1/2 sum_k weight_k |a R x_k + b - p_k|^2  +  1/2 prior_weight noise^2 |w|^2,

where w are the coordinates of the code in which the prior is standard normal (Blanz and Vetter
2003). The variables of a fit are w and the pose. Around the solution the function is quadratic,
exactly so for a linear model without a pose: the Gauss-Newton matrix is the inverse covariance of
the posterior (Laplace's approximation).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from morphable.fitting.observations import Observations
from morphable.mesh.align import Similarity
from morphable.models.base import Given, MorphableModel
from morphable.models.batched import BATCH
from morphable.models.inversion import Frame

Pose = Literal["none", "rigid", "similarity"]
POSE_SIZE: dict[Pose, int] = {"none": 0, "rigid": 6, "similarity": 7}

DIFFERENCE = 0.1
"""Half the step of the central differences, in standard deviations of the prior."""
UNLIKELY = 1e-2
"""Standard deviation of directions in which the training codes do not vary, as a share of the
largest: a shape of another subject may need them.
"""


@dataclass(frozen=True, eq=False)
class Linearization:
    """The model around one shape's code and pose.

    base: (V, 3) mm the shape in the frame of the observations. slopes: (V, 3, D) mm its derivatives by the D
    variables.
    """

    base: Tensor
    slopes: Tensor


@dataclass(frozen=True, eq=False)
class Problem:
    """What B shapes are fitted to.

    frame: coordinates w of the codes. observations: in a frame near the model's own. pose: which
    kind is fitted, from there on. Its variables are a rotation vector about `center` (3,) mm, a
    shift in mm and the logarithm of a size. size_deviation: standard deviation of the last, about
    zero: a part of a smooth surface fits a surface of any size.
    """

    model: MorphableModel
    frame: Frame
    observations: Observations
    pose: Pose
    center: Tensor
    prior_weight: float
    size_deviation: float = torch.inf

    def seen(self, observations: Observations) -> Problem:
        """The same problem with other observations."""
        return replace(self, observations=observations)

    @property
    def latent(self) -> int:
        """The number of variables that are a code's."""
        return self.frame.size

    @property
    def size(self) -> int:
        """D, the number of variables."""
        return self.latent + POSE_SIZE[self.pose]

    @property
    def precision(self) -> Tensor:
        """(D,) what the prior adds to the second derivatives, for a noise of 1 mm."""
        result = self.frame.origin.new_zeros(self.size)
        result[: self.latent] = self.prior_weight
        if self.pose == "similarity":
            result[-1] = self.size_deviation**-2
        return result

    def code(self, variables: Tensor, rows: Tensor) -> Tensor:
        """(n, D) variables -> (n, L) codes."""
        return self.frame.code(variables[:, : self.latent], rows)

    def place(self, variables: Tensor) -> tuple[Tensor, Tensor]:
        """(n, D) variables -> the linear map (n, 3, 3) and the shift (n, 1, 3) mm of the poses."""
        if self.pose == "none":
            eye = torch.eye(3).to(variables)
            return eye.expand(len(variables), 3, 3), variables.new_zeros(len(variables), 1, 3)
        turn, move = variables[:, self.latent :][:, :3], variables[:, self.latent :][:, 3:6]
        linear = torch.linalg.matrix_exp(_cross(turn))
        if self.pose == "similarity":
            linear = linear * variables[:, -1, None, None].exp()
        shift = move + self.center - linear @ self.center
        return linear, shift[:, None]

    def placed(self, variables: Tensor, rows: Tensor) -> Tensor:
        """(n, D) variables -> (n, V, 3) mm shapes in the frame of the observations."""
        shapes = self.model.decode(self.code(variables, rows))
        if self.pose == "none":
            return shapes
        linear, shift = self.place(variables)
        return shapes @ linear.transpose(1, 2) + shift

    def map(self, variables: Tensor) -> Similarity:
        """What brings the fitted shapes to the frame of the observations, B similarities."""
        linear, shift = (part.double().cpu().numpy() for part in self.place(variables))
        scale = np.cbrt(np.linalg.det(linear))
        return Similarity(linear / scale[:, None, None], shift[:, 0], scale)

    def offsets(self, variables: Tensor, rows: Tensor) -> Tensor:
        """(n, K, 3) mm from what was seen to the fitted shapes, as they count."""
        seen = self.observations.rows(rows)
        return seen.measured(seen.places(self.placed(variables, rows)) - seen.positions)

    def squares(self, variables: Tensor, rows: Tensor) -> Tensor:
        """(n,) mm^2 weighted sums of the squared distances to what was seen."""
        squared = self.offsets(variables, rows).square().sum(-1)
        return (squared * self.observations.weights[rows]).sum(-1)

    def objective(self, noise: Tensor) -> _Objective:
        """The function to minimize, if the noise of each shape is (B,) mm."""
        return _Objective(self, noise)

    @torch.no_grad()
    def linearize(self, variables: Tensor, row: int) -> Linearization:
        """The model around the variables (D,) of one shape, by central differences of the decoder.
        Forward-mode gradients would run the decoder in basic operations, which are slower.
        """
        rows = torch.full((BATCH,), row, device=variables.device)
        linear, shift = self.place(variables[None])
        base = self.model.decode(self.code(variables[None], rows[:1]))[0]
        step = DIFFERENCE * torch.eye(self.latent, self.size).to(variables)
        points = torch.cat([variables + step, variables - step])
        decoded = torch.cat(
            [
                self.model.decode(self.code(block, rows[: len(block)]))
                for block in points.split(BATCH)
            ]
        )
        ahead, behind = decoded.split(self.latent)
        slopes = [((ahead - behind) / (2 * DIFFERENCE) @ linear[0].T).permute(1, 2, 0)]
        placed = base @ linear[0].T + shift[0]
        if self.pose != "none":
            around = placed - self.center - variables[self.latent :][3:6]
            # d(exp([t]) x) / dt = -[x]
            slopes += [-_cross(around), torch.eye(3).to(around).expand(len(around), 3, 3)]
        if self.pose == "similarity":
            slopes.append(around[:, :, None])
        return Linearization(placed, torch.cat(slopes, 2))

    def information(self, around: Linearization, rows: Tensor) -> Tensor:
        """(n, D, D) double: what the observations of each shape add to the second derivatives of
        the function. Divided by noise^2 it is their information on the variables.
        """
        result = []
        for row in rows.tolist():
            seen = self.observations.rows(torch.tensor([row]))
            slopes = seen.places(around.slopes.flatten(1)[None]).unflatten(-1, (3, -1))  # 1K3D
            slopes = (
                torch.stack(
                    [seen.measured(slopes[..., column]) for column in range(slopes.shape[-1])], -1
                )
                if seen.normals is not None
                else slopes
            )
            weighted = slopes[0] * seen.weights[0].sqrt()[:, None, None]
            flat = weighted.flatten(0, 1)
            result.append((flat.T @ flat).double())
        return torch.stack(result)

    def information_at(self, variables: Tensor) -> Tensor:
        """(B, D, D) double: the same around the variables (B, D) of each shape itself."""
        rows = torch.arange(len(variables), device=variables.device)
        each = [
            self.information(self.linearize(one, row), rows[row : row + 1])
            for row, one in enumerate(variables)
        ]
        return torch.cat(each)

    def covariance(self, information: Tensor, noise: Tensor) -> Tensor:
        """(n, D, D) double: covariance of the variables given the observations."""
        squared = noise.double().square()[:, None, None]
        second = information + squared * torch.diag(self.precision).double()
        # A direction that nothing determines, as without a prior, must not stop the others.
        ridge = 1e-9 * second.diagonal(dim1=1, dim2=2).clamp(min=1e-30)
        return squared * torch.linalg.inv(second + torch.diag_embed(ridge))


@dataclass(frozen=True, eq=False)
class _Objective:
    problem: Problem
    noise: Tensor

    def __call__(self, variables: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        problem = self.problem
        values, gradients = [], []
        for here, own in zip(variables.split(BATCH), rows.split(BATCH), strict=True):
            with torch.enable_grad():
                here = here.detach().requires_grad_()
                prior = (here.square() * problem.precision).sum(1) * self.noise[own].square()
                value = (problem.squares(here, own) + prior) / 2
                (gradient,) = torch.autograd.grad(value.sum(), here)
            values.append(value.detach())
            gradients.append(gradient)
        return torch.cat(values), torch.cat(gradients)


def _cross(vectors: Tensor) -> Tensor:
    """(n, 3) -> (n, 3, 3) the matrices of the cross products with them."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    rows = (zero, -z, y, z, zero, -x, -y, x, zero)
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def known_parts(model: MorphableModel, code: Tensor) -> Given:
    """The pinned parts of codes (B, L) by name."""
    return {name: code[:, model.parts[name]] for name in model.parts.pinned_names}


def fit_frame(model: MorphableModel, count: int, given: Given) -> Frame:
    """Coordinates of the free parts of `count` codes in which the prior is standard normal.

    A model without a prior gets one around the code of the template, as wide as that code is long.
    """
    free = torch.from_numpy(model.parts.free).to(model.device).nonzero()[:, 0]
    basis = torch.zeros(model.parts.size, len(free), device=model.device)
    if model.prior is not None:
        mean: Tensor = model.prior.mean
        factor = model.prior.factor[free].double()
        values, vectors = torch.linalg.eigh(factor @ factor.T)
        values = values.clamp(min=UNLIKELY**2 * float(values[-1]))
        basis[free] = (vectors * values.sqrt()).to(basis)
    else:
        shape = torch.as_tensor(np.asarray(model.template.mesh.vertices, np.float32))
        mean = model.encode(shape[None].to(model.device))[0]
        basis[free] = mean[free].square().mean().sqrt() * torch.eye(len(free)).to(basis)
    origin = mean.expand(count, -1).clone()
    for name, value in given.items():
        origin[:, model.parts[name]] = value.to(origin)
    return Frame(origin, basis[None])
