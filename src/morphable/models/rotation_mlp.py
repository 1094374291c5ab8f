"""rotation-mlp: an MLP autoencoder on principal components of local rotations and stretches, our own
family. On shapes that bend it starts where PCA of positions needs many more numbers; on others it
takes the positions themselves, and is pca-mlp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import Count, Share
from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.base import (
    NO_LABELS,
    NO_ORIGIN,
    Labels,
    Origin,
    Shapes,
    blocks,
)
from morphable.models.carried import carried
from morphable.models.dense import DenseDecoder
from morphable.models.gates import BATCH, choose_gates
from morphable.models.linear_basis import LinearBasis, units_of
from morphable.models.linear_two_space import people_and_expressive
from morphable.models.local_rotations import LocalRotations, ReadTriangles
from morphable.models.nearest_code import SearchedConfig, SearchedModel
from morphable.models.parts import Parts
from morphable.models.pca_mlp import dense_decoder, linear_skip, mlp, start_as_components
from morphable.models.principal_basis import principal_basis
from morphable.models.training import Batch, Progress, some_vertices
from morphable.rows import evenly_spread

MIXTURE = (-0.3, 1.3)
"""Range of t in (1 - t) a + t b, for mixtures of two people."""
FEW = 8
"""Features are compared by so many components. By more of them positions catch up, since arcs can be
pieced together, but what a network learns remains easier from rotations.
"""
MAX_MESHES = 10_000
"""What rotations say of meshes is learned from at most so many, evenly spread; so many poses are put
on mixtures of people.
"""
CLEARLY = 0.9
"""Rotations are read only if their error is below this share of that of positions: a smaller lead on
some people can be lost on others, and positions can always fall back to PCA.
"""
JUDGED, HELD_OUT = 1200, 5
"""At most so many training meshes decide which features are read; every so many-th person's are
held out.
"""


@dataclass(frozen=True)
class RotationMlpConfig(SearchedConfig):
    """features: what the network reads and writes principal components of: local `rotations` and
    stretches, or `positions`. `auto` takes rotations if a few components of theirs explain the
    meshes of left-out training people better, and all of them leave little. triangles: at how many
    of them rotations are read. rank: number of components. width, depth: units per hidden layer,
    and number of hidden layers, of each network.

    mixtures: this share of each batch are mixtures of two people, in the pose of a training mesh.
    Neutral meshes are needed for that; without them no mixtures are made.
    """

    latent: Count = 8
    features: Literal["auto", "rotations", "positions"] = "auto"
    triangles: Count = 150
    rank: Count = 128
    width: Count = 256
    depth: Count = 2
    mixtures: Share = 0.5


class RotationMlp(SearchedModel):
    """z = A f + a e(f), f' = B z + b d(z), x = write(f') + b r(z): f are whitened principal
    components of the features, A and B linear, e, d and r MLPs that start at zero.

    It minimizes the mean vertex error. The gates a and b are 1 in training, and then chosen on the
    validation meshes (`models/gates.py`).
    """

    geometry_type = ReadTriangles
    config: RotationMlpConfig
    people: Tensor
    poses: Tensor

    def __init__(
        self,
        template: Template,
        config: RotationMlpConfig,
        geometry: ReadTriangles,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        super().__init__(template, Parts.of(shape=config.latent), config, geometry, origin)
        hidden = [config.width] * config.depth
        rank = max(config.rank, config.latent)
        self.basis = LinearBasis(rank, template.n_vertices)
        self.rotations: LocalRotations | None = None
        if config.features != "positions":
            self.rotations = LocalRotations(geometry, rank)
            self.rest = mlp([config.latent, *hidden, rank])
        self.encoder_skip = linear_skip(rank, config.latent)
        self.decoder_skip = linear_skip(config.latent, rank)
        self.encoder = mlp([rank, *hidden, config.latent])
        self.decoder = mlp([config.latent, *hidden, rank])
        self.encoder_gate = nn.Buffer(torch.ones(()))
        self.decoder_gate = nn.Buffer(torch.ones(()))
        # Only training needs these.
        for stock in ("people", "poses"):
            self.register_buffer(stock, torch.zeros(0, rank), persistent=False)

    @property
    def deviations(self) -> Tensor:
        """(K,) mm of the components that the network reads and writes."""
        return self.basis.deviations if self.rotations is None else self.rotations.deviations

    @property
    def _unit(self) -> Tensor:
        """The unit of the decoder networks' outputs, in mm, as that of `pca-mlp`."""
        return self.deviations[: self.config.latent].mean()

    @classmethod
    def config_for(cls, config: Any, classes: Mapping[str, Sequence[str]], meshes: int) -> Any:
        return carried(config, f"{meshes} training meshes", latent=meshes - 1)

    @classmethod
    def config_by_shapes(
        cls, config: Any, template: Template, shapes: Shapes, people: Callable[[], np.ndarray]
    ) -> Any:
        if config.features != "auto":
            return config
        rows = evenly_spread(len(shapes), JUDGED)
        held = people()[rows] % HELD_OUT == 0
        better = "positions"
        if 0 < held.sum() < len(rows) - 1:
            kept, judged = shapes[rows[~held]], torch.from_numpy(shapes[rows[held]])
            with suppress(InputError):  # no triangles whose rotations could be read
                size = min(config.latent, len(kept) - 1)
                straight = _error_by_size(cls, template, config, "rotations", kept, judged)
                plain = _error_by_size(cls, template, config, "positions", kept, judged)
                few = min(size, FEW)
                ahead = straight(few) < CLEARLY * plain(few)
                if ahead and straight(config.rank) < 0.5 * plain(size):
                    better = "rotations"
        return replace(config, features=better)

    @property
    def starts_linear(self) -> bool:
        return True

    def initialize(self, shapes: Shapes, labels: Labels = NO_LABELS) -> None:
        self.basis.set(principal_basis(shapes, len(self.basis.components)))
        if self.rotations is not None:
            some = shapes[evenly_spread(len(shapes), MAX_MESHES)]
            self.rotations.choose_reference(some)
            meshes = [torch.from_numpy(block).to(self.basis.mean) for block in blocks(some)]
            coefficients = [self.basis.coefficients_of(block) for block in meshes]
            self.rotations.fit(meshes, torch.cat(coefficients))
        start_as_components(self.encoder_skip, self.deviations)
        if self.config.mixtures:
            self._prepare_mixtures(shapes, labels.get("neutral", np.full(len(shapes), -1)))

    @torch.no_grad()
    def _prepare_mixtures(self, shapes: Shapes, neutral: np.ndarray) -> None:
        """Keep what mixtures are made of: the neutral meshes, and what poses add to them.

        neutral: (N,) the row of each mesh's neutral mesh, -1 = none.
        """
        people, posed = people_and_expressive(neutral)
        if len(people) < 2 or len(posed) < 2:
            return
        posed = posed[evenly_spread(len(posed), MAX_MESHES)]
        self.people = self._read_all(shapes, people)
        of_person = torch.from_numpy(np.searchsorted(people, neutral[posed]))
        self.poses = self._read_all(shapes, posed) - self.people[of_person.to(self.people.device)]

    def _read_all(self, shapes: Shapes, rows: np.ndarray) -> Tensor:
        """`_read` of these rows of shapes (N, V, 3) mm."""
        parts = np.array_split(rows, -(-len(rows) // 256))
        return torch.cat(
            [self._read(torch.from_numpy(shapes[part]).to(self.people)) for part in parts]
        )

    # The code

    def encoded(self, vertices: Tensor) -> Tensor:
        code, added = self._encoded(self._read(vertices))
        return code + self.encoder_gate * added

    def _read(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm -> (B, K) mm along the components."""
        if self.rotations is None:
            return self.basis.coefficients_of(vertices)
        return self.rotations.read(vertices)

    def _encoded(self, read: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K) -> codes (B, L), by the linear map and what the network adds."""
        whitened = read / units_of(self.deviations)
        return self.encoder_skip(whitened), self.encoder(whitened)

    def coefficients_of_code(self, code: Tensor) -> Tensor:
        unit = self.decoder_gate * self._unit
        made = self.decoder_skip(code) * self.deviations + unit * self.decoder(code)
        if self.rotations is None:
            return made
        return self.rotations.write(made) + unit * self.rest(code)

    def _coefficients_of(self, read: Tensor) -> Tensor:
        """(B, K) mm as of `_read` -> (B, K) mm, the coefficients of the whole mesh."""
        return read if self.rotations is None else self.rotations.write(read)

    @torch.no_grad()
    def dense_decoder(self) -> DenseDecoder | None:
        if self.rotations is not None:
            return None
        factor = self.decoder_gate * self._unit
        return dense_decoder(self.basis, self.decoder_skip, self.decoder, factor)

    def of_components(self, vertices: Tensor, size: int) -> Tensor:
        """(B, V, 3) mm -> (B, V, 3) mm, described by the first components alone, without networks."""
        read = self._read(vertices)
        read[:, size:] = 0
        return self.basis.shape_with(self._coefficients_of(read))

    # The objective

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        generator, device = progress.generator, batch.vertices.device
        some = some_vertices(self.template.n_vertices, generator, device)
        mean = self.basis.mean.unflatten(0, (-1, 3))[some]
        components = self.basis.components.unflatten(1, (-1, 3))[:, some].flatten(1)

        mixtures = self._mixtures(len(batch.vertices), generator)
        own = batch.vertices[len(mixtures) :]
        read = torch.cat([mixtures, self._read(own)])
        made = (self._coefficients_of(mixtures) @ components).unflatten(1, (-1, 3))
        wanted = torch.cat([made, own[:, some] - mean])
        code, added = self._encoded(read)
        found = (self.coefficients_of_code(code + added) @ components).unflatten(1, (-1, 3))
        return {"vertex_error": (found - wanted).norm(dim=-1).mean()}

    @torch.no_grad()
    def _mixtures(self, batch: int, generator: torch.Generator) -> Tensor:
        """(n, K) mm as of `_read`, of random mixtures, their share of a batch."""
        stock, low, high = len(self.people), *MIXTURE
        if not stock:
            return self.people
        count = round(self.config.mixtures * batch)
        first, second = torch.randint(stock, (2, count), generator=generator)
        pose = torch.randint(len(self.poses), (count,), generator=generator)
        amount = low + (high - low) * torch.rand(count, 1, generator=generator)
        device = self.people.device
        first, second = self.people[first.to(device)], self.people[second.to(device)]
        person: Tensor = first + amount.to(device) * (second - first)
        return person + self.poses[pose.to(device)]

    def finish(self, validation: Batch) -> None:
        meshes = validation.vertices
        read = torch.cat([self._read(block) for block in meshes.split(BATCH)])
        code, added = self._encoded(read)

        def score() -> float:
            codes = (code + self.encoder_gate * added).split(BATCH)
            errors = [
                (self.decode(some) - block).norm(dim=-1).mean(1)
                for some, block in zip(codes, meshes.split(BATCH), strict=True)
            ]
            return float(torch.cat(errors).mean())

        choose_gates((self.encoder_gate, self.decoder_gate), score)

    def for_inference(self) -> Self:
        self.people, self.poses = self.people[:0], self.poses[:0]
        return self


def _error_by_size(
    kind: type[RotationMlp],
    template: Template,
    config: RotationMlpConfig,
    features: Literal["rotations", "positions"],
    kept: np.ndarray,
    judged: Tensor,
) -> Callable[[int], float]:
    """How well so many components of the features of `kept` meshes describe the `judged` ones: a
    function from their number to the mean vertex error in mm.
    """
    tried = replace(config, features=features, latent=1, width=1, depth=1, mixtures=0.0)
    model = kind(template, tried, ReadTriangles.of(template, tried))
    model.initialize(kept)

    @torch.no_grad()
    def error(size: int) -> float:
        return float((model.of_components(judged, size) - judged).norm(dim=-1).mean())

    return error
