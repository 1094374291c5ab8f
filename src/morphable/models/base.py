"""MorphableModel: a distribution of shapes on a template, with a code of named parts. It has three
kinds, by how it learns: EstimatedModel, TrainableModel and AdversarialModel.
"""

from __future__ import annotations

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.dense import DenseDecoder
from morphable.models.geometry import Geometry, NoGeometry
from morphable.models.parts import Parts
from morphable.models.prior import CodePrior
from morphable.models.training import Batch, Progress

Given = Mapping[str, Tensor]
"""Values of pinned parts by name: (B, size) or (size,)."""


Labels = Mapping[str, np.ndarray]
"""Labels of training meshes by name: (N,) class numbers, -1 = missing, or numbers such as `level`."""
NO_LABELS: Labels = {}


class Shapes(Protocol):
    """Training meshes as a model reads them: (N, V, 3) float32 mm. An array, or a file that is
    larger than memory.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> np.ndarray: ...


def blocks(shapes: Shapes, size: int = 256) -> Iterator[np.ndarray]:
    """Yield the meshes in order, at most `size` at a time, (n, V, 3) mm."""
    for start in range(0, len(shapes), size):
        yield shapes[start : start + size]


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    family: the name of its row in MODELS, "" if it has none. provenance: how it was trained, on
    which data and with which versions. Empty if it was not trained by a run.
    """

    family: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)


NO_ORIGIN = Origin()


class MorphableModel(nn.Module, ABC):
    """A 3D morphable model: codes (B, L) with named parts, shapes (B, V, 3) mm on one template.

    In the words of shape models: `encode` gives coefficients, `decode` an instance, `forward` the
    projection onto the model, `sample` random instances, and `prior.given` the posterior.

    A subclass is built as `Model(template, config, geometry, origin)`, with the geometry that
    `Model.geometry_type.of(template, config)` computes. It gets no further attributes later.
    """

    geometry_type: ClassVar[type[Geometry]] = NoGeometry
    axis_aligned_code: ClassVar[bool] = False
    """Whether single dimensions of the code are meaningful, as in a VAE, whose dimensions are
    independent. Otherwise the code may be rotated, and only the directions of its distribution are
    meaningful.
    """
    needs_neutral: ClassVar[bool] = False
    """Whether training needs neutral meshes. A loss finds them in `batch.neutral`, an estimate in
    the label `neutral`.
    """
    parts_from_data: ClassVar[bool] = False
    """Whether the parts of the code are regions of the template or parts found in the data, so that
    the family does not say what they are called.
    """
    prior_is_fitted: ClassVar[bool] = True
    """Whether the prior is fitted to the codes of the training meshes after training. Otherwise it
    is part of the model's definition.
    """
    encodes_by_search: ClassVar[bool] = False
    """Whether `encode` is a search or a series of solves, without a network to begin with."""
    why_no_prior: ClassVar[str] = ""
    """If the model has no prior: why, and what to do about it. For error messages."""

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
        """Return this model with another origin. The two share their weights."""
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
        """The name for error messages: the family, or the class if there is no family."""
        return self.family or type(self).__name__

    @classmethod
    def config_for(cls, config: Any, classes: Mapping[str, Sequence[str]], meshes: int) -> Any:
        """Return `config` with the settings that depend on the training data filled in.

        classes: by label, its class names in the order of their numbers. meshes: their number.
        """
        return config

    @classmethod
    def config_by_shapes(
        cls, config: Any, template: Template, shapes: Shapes, people: Callable[[], np.ndarray]
    ) -> Any:
        """Return `config` with the settings filled in that the training meshes (N, V, 3) mm decide.

        people: gives (N,) the number of each mesh's subject; a mesh without one has a number of its
        own.
        """
        return config

    @abstractmethod
    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        """(B, V, 3) mm -> (B, L) codes, without randomness. Pinned parts are taken from `given`.
        Those that are not given are zero, unless the model infers them.
        """

    def encode_points(self, points: Tensor, given: Given | None = None) -> Tensor:
        """(B, P, 3) mm -> (B, L) codes of clouds without topology, in any order, aligned to the
        template.

        Raises InputError if the model encodes only registered meshes, as most models do.
        """
        raise InputError(f"{self.name}: encodes registered meshes, not points in any order")

    @abstractmethod
    def decode(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, V, 3) mm, differentiable. Raises InputError for another shape."""

    def forward(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        """Reconstruct: (B, V, 3) mm -> (B, V, 3) mm."""
        return self.decode(self.encode(vertices, given))

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        given: Given | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        """(n, V, 3) mm random shapes from the prior, conditioned on the parts in `given`.

        generator: the source of the random numbers; if None, torch's global one, so that the shapes
        differ from call to call unless `torch.manual_seed` was called. scale: multiplies the
        standard deviation of the prior. Raises InputError if the model has no prior.
        """
        prior = self.require_prior()
        if given:
            prior = prior.given(given)
        return self.decode(prior.sample(n, generator, scale))

    def require_prior(self) -> CodePrior:
        """The prior. Raises InputError with the reason if the model has none."""
        if self.prior is None:
            raise InputError(
                f"{self.name}: this model has no prior to sample from; {self.why_no_prior}"
            )
        return self.prior

    def dense_decoder(self) -> DenseDecoder | None:
        """The decoder as a sum of fixed shapes, whose amounts a network of dense layers computes
        from the code; None if it is not of this form. Programs without torch run it.
        """
        return None

    def neutral(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, V, 3) mm neutral shape of the subject of each code.

        All parts but the identity are set to zero, which is their neutral value. A model with a
        separate decoder for neutral shapes overrides this. Raises InputError if the code has no
        identity part.
        """
        if "identity" not in self.parts:
            raise InputError(f"{self.name}: has no part 'identity', so no neutral shape")
        self.check_code(code)
        person = torch.zeros_like(code)
        person[:, self.parts["identity"]] = code[:, self.parts["identity"]]
        return self.decode(person)

    def assemble(self, free: Tensor, given: Given | None = None) -> Tensor:
        """Join values of the free parts (B, L_free) and the pinned parts in `given` to codes (B,
        L). Pinned parts that are not given are zero.

        Raises InputError if there is no such part or a value has another shape.
        """
        count = free.shape[0]
        given = given or {}
        for name in given:
            _ = self.parts[name]  # raises if there is none
        pieces, start = [], 0
        for part in self.parts.entries:
            piece = free.new_zeros(count, part.size)
            if not part.pinned:
                piece = free[:, start : start + part.size]
                start += part.size
            if part.name in given:
                value = given[part.name]
                if tuple(value.shape) not in ((part.size,), (1, part.size), (count, part.size)):
                    raise InputError(
                        f"part {part.name!r}: expected ({part.size},) or ({count}, {part.size}) "
                        f"numbers, got shape {tuple(value.shape)}"
                    )
                piece = value.to(free).expand(count, -1)
            pieces.append(piece)
        return torch.cat(pieces, 1)

    def names_of(self, part: str) -> tuple[str, ...]:
        """The names of a part's dimensions; empty if they have none."""
        return ()

    @property
    def latent(self) -> int:
        """Latent size: the number of dimensions that describe a shape.

        A family whose code has more dimensions than that overrides this property.
        """
        return self.parts.free_size

    @property
    def encodes_points(self) -> bool:
        """Whether `encode_points` works, which encodes points in any order, without topology."""
        return False

    @property
    def encoder_is_network(self) -> bool:
        """Whether `encode` is a network from beginning to end."""
        return not self.encodes_by_search

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
        """Raises InputError if `vertices` is not (B, V, 3) with this template's V."""
        if vertices.ndim != 3 or vertices.shape[1:] != (self.template.n_vertices, 3):
            expected = f"(B, {self.template.n_vertices}, 3)"
            raise InputError(f"vertices: expected {expected}, got {tuple(vertices.shape)}")

    def check_code(self, code: Tensor) -> None:
        """Raises InputError if `code` is not (B, L) with this model's L."""
        if code.ndim != 2 or code.shape[1] != self.parts.size:
            raise InputError(f"code: expected (B, {self.parts.size}), got {tuple(code.shape)}")


class EstimatedModel(MorphableModel):
    """A model that is computed in closed form or by a few alternating solves, not trained."""

    prior: CodePrior

    @classmethod
    @abstractmethod
    def estimate(
        cls, template: Template, vertices: Shapes, labels: Mapping[str, np.ndarray], config: Any
    ) -> Self:
        """Estimate the model and its prior from shapes (N, V, 3) mm.

        labels: those of the following that the data has. `subject` and `expression`: (N,) class
        numbers, -1 = missing. `neutral`: (N,) row of each mesh's neutral mesh, -1 = none. `level`:
        (N,) from 0 to 1.
        """


class TrainingHooks(ABC):
    """The methods that the training loop calls, whatever the objective of the model is.

    This class is not a model itself, so that both kinds of trained model are direct subclasses of
    MorphableModel.
    """

    stages: ClassVar[tuple[str, ...]] = ()
    """Names of the stages of training, in order. Empty if there is only one stage."""

    @property
    def labels_used(self) -> tuple[str, ...]:
        """The label columns that the loss and `initialize` read. `initialize` finds the row of each
        mesh's neutral mesh in `neutral`.
        """
        return ()

    @property
    def labels_drawn(self) -> tuple[str, ...]:
        """Those of them that a loss wants for a whole batch: if most training meshes lack such a
        label, a batch comes with another one of as many meshes that have it, `batch.labelled`.
        """
        return ()

    @abstractmethod
    def initialize(self, shapes: Shapes, labels: Labels = NO_LABELS) -> None:
        """Compute statistics (mean, scale, basis) of the training meshes. Called before training.

        labels: those of `labels_used` that the data has.
        """

    @property
    def starts_linear(self) -> bool:
        """Whether the untrained model is a linear model already. Then its error is validated before
        the first step too, and if no epoch is better, it is kept as epoch 0.
        """
        return False

    def after_step(self, progress: Progress) -> None:
        """Called after each training step, when the weights have changed. By default, nothing."""
        return

    @abstractmethod
    def validate(self, vertices: Tensor, stage: str) -> Tensor | None:
        """Errors in mm, as a tensor of any shape, for validation meshes (B, V, 3) mm. The weights
        of the epoch with the smallest mean error are kept.

        Returns None if validation would cost too much. Then the last epoch is kept.
        """

    def finish(self, validation: Batch) -> None:
        """Choose what is chosen once, after training, on the validation meshes: a model may set
        buffers, such as gates (`models/gates.py`). By default, nothing.

        Called without gradients, in evaluation mode, with the weights that are kept, before
        `for_inference`; not if those are the untrained ones (`starts_linear`). validation: all
        validation meshes as one batch, with those of `labels_used` that the data has. Class numbers
        count the classes of the validation meshes alone.
        """
        return

    def for_inference(self) -> Self:
        """Return the trained model without the things that only training needs. By default, the
        model itself.
        """
        return self

    def snapshot(self) -> dict[str, np.ndarray]:
        """Arrays that are saved at a few epochs of training, for the report. By default, none."""
        return {}


class TrainableModel(MorphableModel, TrainingHooks):
    """A model that is trained to minimize one objective."""

    def validate(self, vertices: Tensor, stage: str) -> Tensor | None:
        """(B, V) mm vertex errors of the reconstructions."""
        errors: Tensor = (self(vertices) - vertices).norm(dim=-1)
        return errors

    @abstractmethod
    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """The weighted terms of the objective, which is their sum."""


class AdversarialModel(MorphableModel, TrainingHooks):
    """A generator that is trained against a critic. The critic is trained to distinguish generated
    shapes from real ones.

    Each training step updates one of the two: `critic_steps` steps of the critic, then one of the
    generator. `progress.step` counts both, so `progress.step // (critic_steps + 1)` is the number
    of the round.

    Training draws codes from the prior, so the prior is part of the model's definition and is not
    fitted afterwards. There is no validation unless a model overrides `validate`, because `encode`
    may be an optimization that is too slow to run every epoch.
    """

    prior_is_fitted: ClassVar[bool] = False
    prior: CodePrior

    @property
    @abstractmethod
    def critic_steps(self) -> int:
        """Number of critic steps before each generator step, at least 1."""

    @abstractmethod
    def critic_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters that `critic_loss` trains."""

    @abstractmethod
    def generator_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters that `generator_loss` trains: all except the critic's."""

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
