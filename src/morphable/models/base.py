"""MorphableModel: a distribution of shapes on a template, with named coordinates; and its three
ways to learn.
"""

from __future__ import annotations

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.geometry import Geometry, NoGeometry
from morphable.models.parts import Parts
from morphable.models.prior import CodePrior
from morphable.models.training import Batch, Progress

Given = Mapping[str, Tensor]
"""Values of pinned parts by name: (B, size) or (size,)."""


class Shapes(Protocol):
    """Training meshes as a model reads them: (N, V, 3) float32 mm, maybe more than fit in
    memory.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> np.ndarray: ...


def blocks(shapes: Shapes, size: int = 256) -> Iterator[np.ndarray]:
    """The meshes in order, at most `size` at a time, (n, V, 3) mm."""
    for start in range(0, len(shapes), size):
        yield shapes[start : start + size]


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    family: its row of the MODELS table, "" for none. provenance: how it was trained, on what data,
    with which versions; empty for a model that was not trained by a run.
    """

    family: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)


NO_ORIGIN = Origin()


class MorphableModel(nn.Module, ABC):
    """A 3D morphable model: codes (B, L) with named parts, shapes (B, V, 3) mm on one template.

    In the words of shape models: `encode` gives coefficients, `decode` an instance, `forward` the
    projection onto the model, `sample` random instances, and `prior.given` the posterior.

    A subclass is built as `Model(template, config, geometry, origin)`, with the geometry that
    `Model.geometry_type.of(template, config)` computes. Nothing is assigned afterwards.
    """

    geometry_type: ClassVar[type[Geometry]] = NoGeometry
    axis_aligned_code: ClassVar[bool] = False
    """Whether each dimension of the code is a variable of its own, as in a VAE. Otherwise only
    directions have a meaning.
    """
    encodes_points: ClassVar[bool] = False
    """Whether `encode_points` is there: points in any order, without topology."""
    needs_neutral: ClassVar[bool] = False
    """Whether it learns from neutral meshes: `batch.neutral` of a loss, or the rows `neutral` of an
    estimate.
    """
    prior_is_fitted: ClassVar[bool] = True
    """Whether the prior is fitted to the codes of the training meshes. Otherwise the model defines
    it.
    """
    why_no_prior: ClassVar[str] = ""
    """For models that have no prior: why, and what to do about it."""

    prior: CodePrior | None

    def __init__(
        self,
        template: Template,
        parts: Parts,
        config: Any,
        geometry: Geometry,
        origin: Origin,
        *,
        has_prior: bool = True,
    ) -> None:
        super().__init__()
        self.template = template
        self.parts = parts
        self.config = config
        self.geometry = geometry
        self.origin = origin
        self.prior = CodePrior(parts) if has_prior else None

    def with_origin(self, origin: Origin) -> Self:
        """This model, sharing its weights, with another origin."""
        other = copy.copy(self)
        other.origin = origin
        return other

    @property
    def family(self) -> str:
        return self.origin.family

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.origin.provenance

    @property
    def name(self) -> str:
        """What to call it in a message: its family, or its class if it is of none."""
        return self.family or type(self).__name__

    @classmethod
    def config_for(cls, config: Any, classes: Mapping[str, Sequence[str]]) -> Any:
        """`config` with what it must know about the training data: the class names of each label,
        in the order of their numbers.
        """
        return config

    @abstractmethod
    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        """(B, V, 3) mm -> (B, L), deterministic. Pinned parts come from `given`; those that it does
        not name are zero, unless the model infers them.
        """

    def encode_points(self, points: Tensor, given: Given | None = None) -> Tensor:
        """(B, P, 3) mm -> (B, L): clouds without topology, in any order, placed as the template.

        Raises InputError if the model encodes registered meshes only, as most do.
        """
        raise InputError(f"{self.name}: encodes registered meshes, not points in any order")

    @abstractmethod
    def decode(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, V, 3) mm, differentiable."""

    def forward(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        """Reconstruct: (B, V, 3) mm -> (B, V, 3) mm."""
        return self.decode(self.encode(vertices, given))

    def sample(
        self, n: int, generator: torch.Generator, given: Given | None = None, scale: float = 1.0
    ) -> Tensor:
        """(n, V, 3) mm shapes drawn from the prior, conditioned on the parts in `given`.

        Raises InputError if the model has no prior.
        """
        prior = self.require_prior()
        if given:
            prior = prior.given(given)
        return self.decode(prior.sample(n, generator, scale))

    def require_prior(self) -> CodePrior:
        """The prior. Raises InputError, saying why, if the model has none."""
        if self.prior is None:
            raise InputError(
                f"{self.name}: this model has no prior to sample from; {self.why_no_prior}"
            )
        return self.prior

    def neutral(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, V, 3) mm: the person of each code without expression.

        Zero is the neutral value of every other part, unless a model has a decoder of its own for
        neutral shapes. Raises InputError if the code has no identity part.
        """
        if "identity" not in self.parts:
            raise InputError(f"{self.name}: has no part 'identity', so no neutral shape")
        person = torch.zeros_like(code)
        person[:, self.parts["identity"]] = code[:, self.parts["identity"]]
        return self.decode(person)

    def assemble(self, free: Tensor, given: Given | None = None) -> Tensor:
        """(B, L_free) values of the free parts, and the pinned values, as one code (B, L)."""
        code = free.new_zeros(len(free), self.parts.size)
        code[:, torch.from_numpy(self.parts.free).to(free.device)] = free
        for name, value in (given or {}).items():
            code[:, self.parts[name]] = value.to(code)
        return code

    def names_of(self, part: str) -> tuple[str, ...]:
        """The names of a part's dimensions; empty if they have none."""
        return ()

    @property
    def latent(self) -> int:
        """Latent size: the number of dimensions that the model describes a shape with.

        A family whose code is longer than that overrides it.
        """
        return self.parts.free_size

    @property
    def searched_size(self) -> int:
        """How many numbers `encode` chooses by least error in pinned parts that are not given.

        They help to describe a mesh as the latent dimensions do, so comparisons count them.
        """
        return 0

    @property
    def label_classes(self) -> Mapping[str, Sequence[str]]:
        """The class names, in the order of their numbers, of each label that decides a pinned
        part.
        """
        return {}

    def given_by_labels(self, labels: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        """The values (B, size) of the pinned parts that the labels of B = `count` meshes state.

        labels: by name, (B,) class numbers as in `label_classes`, or numbers such as `level`.
        """
        return {}

    @property
    def units(self) -> str:
        return "mm"

    @property
    def device(self) -> torch.device:
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def check_vertices(self, vertices: Tensor) -> None:
        """InputError unless `vertices` is (B, V, 3) with this template's V."""
        if vertices.ndim != 3 or vertices.shape[1:] != (self.template.n_vertices, 3):
            expected = f"(B, {self.template.n_vertices}, 3)"
            raise InputError(f"vertices: expected {expected}, got {tuple(vertices.shape)}")


class EstimatedModel(MorphableModel):
    """A model computed in closed form, or by a few alternating solves."""

    prior: CodePrior

    @classmethod
    @abstractmethod
    def estimate(
        cls, template: Template, vertices: Shapes, labels: Mapping[str, np.ndarray], config: Any
    ) -> Self:
        """The model of these shapes (N, V, 3) mm, with its prior.

        labels: those that the data has of `subject` and `expression`, (N,) class numbers with -1 =
        missing; `neutral`, (N,) the row of each mesh's neutral mesh, -1 = none; `level`, (N,) 0..1.
        """


class TrainingHooks(ABC):
    """What the training loop asks of a model, whatever the model descends.

    This is not a model, so that both kinds of trained model are direct subclasses of
    MorphableModel.
    """

    labels_used: ClassVar[tuple[str, ...]] = ()
    """The label columns that the loss reads."""
    stages: ClassVar[tuple[str, ...]] = ()
    """The stages that training can go through, in this order; empty if there is only one."""

    @abstractmethod
    def initialize(self, shapes: Shapes) -> None:
        """Set the statistics (mean, scale, basis) from the training meshes, before training."""

    @abstractmethod
    def validate(self, vertices: Tensor, stage: str) -> Tensor | None:
        """(B, V, 3) mm -> errors in mm, of any shape; the epoch whose mean error is least is kept.

        None if the model cannot be validated at a reasonable cost: then the last epoch is kept.
        """

    def for_inference(self) -> Self:
        """The trained model without what only training needs; the model itself by default."""
        return self

    def snapshot(self) -> dict[str, np.ndarray]:
        """Arrays to keep from a few epochs of training, for the report; none by default."""
        return {}


class TrainableModel(MorphableModel, TrainingHooks):
    """A model that descends one objective."""

    def validate(self, vertices: Tensor, stage: str) -> Tensor | None:
        """The vertex errors of the reconstruction."""
        errors: Tensor = (self(vertices) - vertices).norm(dim=-1)
        return errors

    @abstractmethod
    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """The weighted terms of the objective, which is their sum."""


class AdversarialModel(MorphableModel, TrainingHooks):
    """A generator that learns from a critic, which learns to tell its shapes from real ones.

    Each training step moves one of the two: `critic_steps` steps of the critic, then one of the
    generator. `progress.step` counts the steps of both, so `progress.step // (critic_steps + 1)` is
    the number of the round.

    Codes are drawn from the prior in training, so the prior is part of the model's definition and
    is not fitted afterwards. `encode` may be a search, too slow to run every epoch, so there is no
    validation unless a model overrides `validate`.
    """

    prior_is_fitted: ClassVar[bool] = False
    prior: CodePrior

    @property
    @abstractmethod
    def critic_steps(self) -> int:
        """Steps of the critic before each step of the generator, at least 1."""

    @abstractmethod
    def critic_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters that `critic_loss` trains."""

    @abstractmethod
    def generator_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters that `generator_loss` trains: all that are not the critic's."""

    @abstractmethod
    def critic_loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """The weighted terms of the critic's objective, which is their sum."""

    @abstractmethod
    def generator_loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """The weighted terms of the generator's objective, which is their sum."""

    def validate(self, vertices: Tensor, stage: str) -> Tensor | None:
        """None: there is no validation."""
        return None


LearnedModel: TypeAlias = TrainableModel | AdversarialModel
"""A model that is trained step by step."""
