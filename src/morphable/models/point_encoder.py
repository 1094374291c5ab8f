"""PointEncoder: a point cloud transformer that maps points in any order, or a mesh, to 64 features."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import Configuration, Count, Share
from morphable.errors import InputError
from morphable.mesh.stored_arrays import stored_indices
from morphable.mesh.template import Template
from morphable.models.geometry import Arrays, Geometry
from morphable.ops.point_sampling import Sampling, sample_points, shared_sampling
from morphable.ops.pointcloud import MIN_POINTS, PointTransformer

HEAD = (256, 64)
"""Units of the layers after the transformer. The last layer gives the features."""
SCAN_NOISE_MM = 1.0
"""Standard deviation of the noise on the simulated scans."""


@dataclass(frozen=True)
class PointEncoderConfig(Configuration):
    """samples: number of points kept by the two stages of the transformer. neighbors: number of
    neighbors of each point. sampling: of registered meshes, `cloud`: each mesh is sampled and
    searched anew, as in the paper, so the order of its vertices does not matter; `template`: all
    meshes share the samples and neighbors of the template, which is faster. scan_share: share of
    each training batch that is encoded as a simulated scan, a random subset of the vertices with
    1 mm of noise, so that the model learns to encode scans without topology.
    """

    samples: tuple[int, ...] = (512, 256)
    neighbors: Count = 32
    sampling: Literal["cloud", "template"] = "cloud"
    scan_share: Share = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.samples) != 2 or min(self.samples) < 1:
            raise self.error("samples", f"expected two counts of at least 1, got {self.samples}")

    @property
    def learns_points(self) -> bool:
        """Whether training shows the encoder points without the template's sampling."""
        return self.sampling == "cloud" or self.scan_share > 0

    @property
    def sizes(self) -> tuple[int, int]:
        first, second = self.samples
        return first, second


@dataclass(frozen=True, eq=False)
class PointGeometry(Geometry):
    """The sampling of the template's vertices, which all meshes registered to it share. None if
    each mesh is sampled anew.
    """

    sampling: Sampling | None

    @classmethod
    def of(cls, template: Template, config: Any) -> Self:
        if config.sampling == "cloud" or config.encoder == "components":
            return cls(None)
        points = torch.from_numpy(template.mesh.vertices.astype(np.float64))
        return cls(shared_sampling(points, config.sizes, config.neighbors))

    def to_arrays(self) -> dict[str, np.ndarray]:
        arrays = {} if self.sampling is None else self.sampling.to_arrays()
        return {name: index.numpy().astype(np.int32) for name, index in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Arrays, template: Template) -> Self:
        if not arrays:
            return cls(None)
        used = stored_indices(arrays, "used", (None,), template.n_vertices)
        checked, points = {"used": used}, len(used)
        for stage in ("first", "second"):
            centers, neighbors = f"{stage}/centers", f"{stage}/neighbors"
            checked[centers] = stored_indices(arrays, centers, (1, None), points)
            samples = checked[centers].shape[1]
            checked[neighbors] = stored_indices(arrays, neighbors, (1, samples, None), points)
            points = samples  # the second stage samples the first's samples
        for name, index in checked.items():
            if not index.size:
                raise InputError(f"{name}: expected at least one point")
        return cls(
            Sampling.from_arrays({name: torch.from_numpy(index) for name, index in checked.items()})
        )


class PointEncoder(nn.Module):
    """Maps points (B, P, 3) mm to features (B, 64) that do not depend on the order of the points.

    `forward` samples each cloud anew. `of_meshes` does so too, or it uses the template's sampling.

    vertices: number of vertices of the template.
    """

    def __init__(self, geometry: PointGeometry, config: PointEncoderConfig, vertices: int) -> None:
        super().__init__()
        if config.sampling == "template" and geometry.sampling is None:
            raise InputError("model.sampling: is template, but the template's sampling is missing")
        self.scan_share, self.features = config.scan_share, HEAD[-1]
        self.center = nn.Buffer(torch.zeros(3))
        self.radius = nn.Buffer(torch.ones(()))
        shared = geometry.sampling if config.sampling == "template" else None
        self.own_sampling = None if shared is None else SamplingBuffers(shared)
        # A template with fewer than 64 vertices has no larger clouds.
        min_points = min(MIN_POINTS, vertices)
        self.trunk = PointTransformer(config.sizes, config.neighbors, min_points)
        widths = (self.trunk.features, *HEAD)
        layers = [
            (nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in itertools.pairwise(widths)
        ]
        self.head = nn.Sequential(*(piece for layer in layers for piece in layer))

    def initialize(self, mean: Tensor) -> None:
        """Set the origin to the center of the mean shape (V, 3) mm, the unit of length to its
        radius.
        """
        self.center.copy_(mean.mean(0))
        self.radius.copy_((mean - self.center).norm(dim=-1).max())

    def forward(self, points: Tensor) -> Tensor:
        """(B, P, 3) mm -> (B, 64) features of clouds.

        Raises InputError if a cloud has fewer than 64 points, or than a smaller template has.
        """
        return self.head(self.trunk(self._local(points)))

    def of_meshes(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm -> (B, 64) features of meshes on the template."""
        if self.own_sampling is None:
            return self(vertices)
        return self.head(self.trunk(self._local(vertices), self.own_sampling.value))

    def in_training(self, vertices: Tensor, generator: torch.Generator) -> Tensor:
        """Features (B, 64) of a training batch (B, V, 3) mm, of which the first share `scan_share`
        is turned into simulated scans.

        Every batch contains both scans and meshes, so that the running statistics of the batch
        norms fit both.
        """
        # The head comes after pooling over the points, so a batch of one mesh has no batch
        # statistics. The head then uses its running ones.
        self.head.train(self.training and len(vertices) > 1)
        scans = round(self.scan_share * len(vertices))
        if not scans:
            return self.of_meshes(vertices)

        points, kept = scan_like(vertices[:scans], generator)
        local = self._local(torch.cat([points, vertices[scans:]]))
        # Sample the kept points only, but in the numbering of all vertices: so scans and meshes go
        # through the transformer as one batch.
        own = self._sampled(local[:scans, kept]).renumber(kept)
        shared = self.own_sampling
        others = shared.value.among_all() if shared else self._sampled(local[scans:])
        sampling = own.followed_by(others, len(vertices) - scans)
        return self.head(self.trunk(local, sampling))

    def _sampled(self, points: Tensor) -> Sampling:
        return sample_points(points, self.trunk.sizes, self.trunk.neighbors)

    def _local(self, points: Tensor) -> Tensor:
        return (points - self.center) / self.radius


class SamplingBuffers(nn.Module):
    """The indices of a Sampling as buffers, so that they move to the module's device."""

    def __init__(self, sampling: Sampling) -> None:
        super().__init__()
        arrays = sampling.to_arrays()
        self.names = {name: name.replace("/", "_") for name in arrays}
        for name, index in arrays.items():
            self.register_buffer(self.names[name], index, persistent=False)

    @property
    def value(self) -> Sampling:
        return Sampling.from_arrays(
            {name: self.get_buffer(buffer) for name, buffer in self.names.items()}
        )


def scan_like(vertices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Simulate scans of meshes (B, V, 3) mm: returns their vertices with noise, and the indices
    (K,) of those that the scans keep, a random quarter or more.
    """
    count, device = vertices.shape[1], generator.device
    min_size = max(min(MIN_POINTS, count), count // 4)
    size = int(torch.randint(min_size, count + 1, (), generator=generator, device=device))
    kept = torch.randperm(count, generator=generator, device=device)[:size].to(vertices.device)
    noise = torch.randn(vertices.shape, generator=generator, device=device).to(vertices)
    return vertices + SCAN_NOISE_MM * noise, kept
