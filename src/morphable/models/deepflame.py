"""deepflame: principal components of neutral shapes, plus a CoMA autoencoder of the offsets that
expressions add. Ranjan et al. (ECCV 2018) replace the expression space of FLAME by CoMA so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import Count
from morphable.mesh.template import Template
from morphable.models.autoencoder import AutoencoderConfig, HierarchicalAutoencoder
from morphable.models.base import (
    NO_LABELS,
    NO_ORIGIN,
    Given,
    Labels,
    Origin,
    Shapes,
    TrainableModel,
)
from morphable.models.carried import carried
from morphable.models.linear_basis import LinearBasis
from morphable.models.linear_two_space import damped_inverse, people_and_offsets
from morphable.models.mesh_geometry import MeshGeometry
from morphable.models.mesh_network import MeshNetworkConfig, Scheme
from morphable.models.parts import IdentityExpression
from morphable.models.principal_basis import principal_basis
from morphable.models.training import Batch, Progress


@dataclass(frozen=True)
class DeepFlameConfig(MeshNetworkConfig, IdentityExpression):
    """Sizes of the two parts, and the settings of the autoencoder of offsets, which mean what they
    mean in CoMA.
    """

    identity: Count = 65
    expression: Count = 20
    bottleneck_activation: bool = True
    initialization: Scheme = "normal"
    normalization: Literal["vertex", "global"] = "vertex"
    loss: Literal["l1", "distance"] = "l1"

    proportions: ClassVar[Mapping[str, int]] = {"identity": 65, "expression": 20}

    @property
    def autoencoder(self) -> AutoencoderConfig:
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        del own["identity"]
        return AutoencoderConfig(latent=own.pop("expression"), **own)


class DeepFlame(TrainableModel):
    """x = neutral(identity) + offset(expression), with neutral = PCA of neutral shapes and offset =
    the decoder of a CoMA autoencoder.

    Training, and `reconstruct_beside`, subtract the true neutral mesh. `encode` has only the mesh:
    it takes the identity from the fit of two linear spaces, that of neutral shapes and that of
    offsets.
    """

    config: DeepFlameConfig
    geometry: MeshGeometry
    geometry_type = MeshGeometry
    needs_neutral = True
    labels_used = ("neutral",)

    def __init__(
        self,
        template: Template,
        config: DeepFlameConfig,
        geometry: MeshGeometry,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        super().__init__(template, config.parts(), config, geometry, origin)
        self.people = LinearBasis(config.identity, template.n_vertices)
        self.to_identity = nn.Buffer(torch.zeros(3 * template.n_vertices, config.identity))
        self.offsets = HierarchicalAutoencoder(template, config.autoencoder, geometry)

    @classmethod
    def config_for(cls, config: Any, classes: Mapping[str, Sequence[str]], meshes: int) -> Any:
        people = len(classes.get("subject", ())) or meshes
        return carried(config, f"{people} subjects", identity=max(1, people - 1))

    def initialize(self, shapes: Shapes, labels: Labels = NO_LABELS) -> None:
        neutral = labels.get("neutral", np.full(len(shapes), -1))
        rows, offsets = people_and_offsets(shapes, neutral, "deepflame")
        people = principal_basis(shapes[rows], self.config.identity)
        moves = principal_basis(offsets, self.config.expression)
        self.people.set(people)
        scaled = [space.components * space.deviations[:, None] for space in (people, moves)]
        inverse = damped_inverse(np.concatenate(scaled))
        self.to_identity.copy_(torch.tensor(inverse[:, : self.config.identity]))
        self.offsets.initialize(offsets)

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        self.check_vertices(vertices)
        identity = (vertices.flatten(1) - self.people.mean) @ self.to_identity
        expression = self.offsets.encode(vertices - self.people.shape_of(identity))
        return torch.cat([identity, expression], 1)

    def decode(self, code: Tensor) -> Tensor:
        return self.neutral(code) + self.offsets.decode(code[:, self.parts["expression"]])

    def neutral(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, V, 3) mm: the shape without an offset."""
        self.check_code(code)
        return self.people.shape_of(code[:, self.parts["identity"]])

    def reconstruct_beside(self, vertices: Tensor, neutral: Tensor) -> Tensor:
        """(B, V, 3) mm reconstructed as in the paper of `gan`, with the true neutral meshes (B, V,
        3) mm. No other family has this privilege.
        """
        return neutral + self.offsets(vertices - neutral)

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        assert batch.neutral is not None
        return self.offsets.loss(Batch(batch.vertices - batch.neutral), progress)
