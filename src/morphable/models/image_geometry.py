"""Geometry images as torch operators: `ImageGeometry` is the layout that a model is built on,
`ImageMaps` takes vertices to images and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.mesh.geometry_image import GeometryImage, LaplacianReadout
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template
from morphable.models.geometry import Arrays, Geometry
from morphable.ops.gather import wants_plain
from morphable.ops.sparse import SparseMap

Readout = Literal["bilinear", "laplacian"]


@dataclass(frozen=True, eq=False)
class ImageGeometry(Geometry):
    """The geometry images of a template, at `config.resolution`."""

    layout: GeometryImage
    mesh: Mesh

    @classmethod
    def of(cls, template: Template, config: Any) -> Self:
        return cls(GeometryImage.of(template, config.resolution), template.mesh)

    def to_arrays(self) -> dict[str, np.ndarray]:
        return self.layout.to_arrays()

    @classmethod
    def from_arrays(cls, arrays: Arrays, template: Template) -> Self:
        return cls(GeometryImage.from_arrays(arrays, template.n_vertices), template.mesh)

    @cached_property
    def solve(self) -> LaplacianReadout:
        """The factored solve on the template's own shape."""
        return LaplacianReadout(self.layout, self.mesh)


class ImageMaps(nn.Module):
    """Constant linear maps between values at vertices (B, V, C) and images (B, C, R, R), whose
    empty pixels are zero.

    readout: how vertices are read from an image, `bilinear`, or by the `laplacian` solve, which is
    smoother and runs on the CPU in double precision.
    """

    def __init__(self, geometry: ImageGeometry, readout: Readout) -> None:
        super().__init__()
        layout = geometry.layout
        self.resolution = layout.resolution
        self.solve = geometry.solve if readout == "laplacian" else None
        self.mask = nn.Buffer(torch.from_numpy(layout.mask), persistent=False)
        self.covered = nn.Buffer(torch.from_numpy(layout.covered), persistent=False)
        # Spread over all pixels of the image: the rows of empty ones are empty.
        place = (np.ones(len(layout.covered)), (np.arange(len(layout.covered)), layout.covered))
        spread = sp.csr_matrix(place, shape=(len(layout.covered), self.resolution**2))
        self.raster = SparseMap(spread.T @ layout.raster)
        self.readout = SparseMap(layout.readout @ spread)

    def to_image(self, values: Tensor) -> Tensor:
        """(B, V, C) to (B, C, R, R)"""
        pixels: Tensor = self.raster(values)
        return pixels.transpose(1, 2).unflatten(2, (self.resolution, self.resolution))

    def to_vertices(self, image: Tensor) -> Tensor:
        """(B, C, R, R) to (B, V, C)"""
        pixels = image.flatten(2).transpose(1, 2)
        if self.solve is not None:
            if wants_plain(pixels) and len(pixels):
                raise InputError(
                    "model.readout: `laplacian` is a solve outside of torch, which torch.func, "
                    "torch.export and torch.jit.trace cannot follow; `bilinear` works with them"
                )
            solved: Tensor = _Solve.apply(pixels[:, self.covered], self.solve, False)
            return solved
        vertices: Tensor = self.readout(pixels)
        return vertices


class _Solve(torch.autograd.Function):
    """A linear map that scipy computes, (B, P, C) to (B, V, C), or its transpose. Each is the
    other's backward pass, so that they are differentiable any number of times.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, solve: LaplacianReadout, transposed: bool) -> Tensor:
        ctx.solve, ctx.transposed = solve, transposed
        map_of = solve.transposed if transposed else solve.solve
        return torch.from_numpy(np.ascontiguousarray(map_of(x.detach().cpu().numpy()))).to(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Solve.apply(grad, ctx.solve, not ctx.transposed), None, None


def total_variation(images: Tensor) -> Tensor:
    """(B,) sum over pixels and channels of the differences to the pixels on the right and below."""
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().flatten(1).sum(1)
    right = (images[..., 1:] - images[..., :-1]).abs().flatten(1).sum(1)
    return down + right
