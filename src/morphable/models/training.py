"""Batch and Progress, the arguments of a loss; and TrainConfig, which says how a recipe optimizes a
model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from morphable.config import (
    Configuration,
    Count,
    Positive,
    PositiveOrZero,
    Range,
    as_table,
    with_overrides,
)
from morphable.errors import InputError


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of training meshes.

    vertices: (B, V, 3) mm. neutral: (B, V, 3) mm, the neutral mesh of each, or None if one of them
    has none. labels: by name, (B,) int64 class numbers with -1 = missing, or float32 if the column
    holds numbers. labelled: for each sparse label that the model draws, another batch whose meshes
    all have it.
    """

    vertices: Tensor
    neutral: Tensor | None = None
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    labelled: Mapping[str, Batch] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Progress:
    """How far training has come. `epoch` and `step` count from 0 within the `stage`.

    generator: the source of all random draws of a loss, so that a resumed run repeats them.
    """

    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int
    generator: torch.Generator
    stage: str = ""


VERTEX_SHARE = 6
"""A loss that measures distances at some vertices takes one in so many."""


def some_vertices(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """The numbers of one in VERTEX_SHARE of `count` vertices, drawn anew in each step."""
    drawn = torch.randperm(count, generator=generator)[: -(-count // VERTEX_SHARE)]
    return drawn.to(device)


Seed = Annotated[int, Range("a whole number from 0 to 2^32 - 1", lambda seed: 0 <= seed < 2**32)]
ShareOfStage = Annotated[
    float, Range("a share of the stage from 0 to below 1", lambda share: 0 <= share < 1)
]
Share = Annotated[float, Range("a share from 0 to below 1", lambda share: 0 <= share < 1)]
Betas = Annotated[
    tuple[float, float],
    Range(
        "two numbers from 0 to below 1",
        lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
    ),
]

RUN_WIDE = (
    "seed",
    "checkpoint_seconds",
    "stages",
    "stage_settings",
    "transport",
    "transport_method",
)
"""The settings that must be the same in all stages."""


@dataclass(frozen=True)
class TrainConfig(Configuration):
    """How a recipe optimizes a model.

    momentum: of the optimizer `sgd`. betas: decay rates of Adam's two running averages. decay,
    decay_every: the exponential schedule multiplies the rate by `decay` every `decay_every` epochs.
    warmup: share of the stage during which the rate rises from zero. gradient_clip: largest norm of
    the gradient, 0 = no limit. checkpoint_seconds: longest time between two checkpoints. keep: the
    epoch whose weights are kept, the `best` on the validation meshes or the `last`. If the model
    has no validation, it is the last. least_gain: a model that starts as a linear model keeps its
    start unless an epoch lowers the validation error by at least this share, since a smaller gain
    can be luck. On n < 16 validation people who are not trained on it is sqrt(16 / n) times as much.

    stages: the leading stages of the model to run, each for `epochs` epochs and starting from the
    weights that the previous one kept. Empty: the first stage only. stage_settings: settings
    of single stages that differ from those here, `{"manipulate": {"learning_rate": 1e-4}}`.

    transport: this share of the meshes of an epoch are not training meshes, but mixtures of two
    training people's neutral meshes with the expression or pose of a third. An epoch has as many
    meshes as without. transport_method: how the deformation is carried over, `gradients` or
    `offsets` (see `edit.transport`), or `auto`: the one that explains training people better.
    """

    table: ClassVar[str] = "train"

    epochs: Count = 100
    batch_size: Count = 32
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: PositiveOrZero = 0.0
    momentum: PositiveOrZero = 0.9
    betas: Betas = (0.9, 0.999)
    schedule: Literal["constant", "exponential", "cosine"] = "cosine"
    decay: Positive = 0.99
    decay_every: Count = 1
    warmup: ShareOfStage = 0.02
    gradient_clip: PositiveOrZero = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: Seed = 0
    checkpoint_seconds: PositiveOrZero = 60.0
    stages: tuple[str, ...] = ()
    keep: Literal["best", "last"] = "best"
    least_gain: Share = 0.02
    stage_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    transport: Share = 0.0
    transport_method: Literal["auto", "gradients", "offsets"] = "auto"

    def for_stage(self, stage: str) -> TrainConfig:
        """The settings of one stage."""
        return replace(self, **self.stage_settings.get(stage, {}), stage_settings={})

    def with_overrides(self, values: Mapping[str, Any], where: str) -> TrainConfig:
        """Return these settings with some replaced, like `config.with_overrides`. A setting of one
        stage is named `STAGE.KEY`, or given in a table `STAGE`.

        A value for one stage takes precedence over a value for all stages. But a new value for all
        stages replaces the recipe's values for single stages: a user who sets the learning rate
        gets it in every stage, even if the recipe has a different rate for one of them.

        Raises InputError, naming `where`.key, for an unknown key or a value that does not fit.

        >>> recipe = TrainConfig(stage_settings={"edit": {"epochs": 7, "batch_size": 8}})
        >>> config = recipe.with_overrides({"epochs": "5", "edit.warmup": "0.5"}, "train")
        >>> config.epochs, config.stage_settings
        (5, {'edit': {'batch_size': 8, 'warmup': 0.5}})
        """
        general, by_stage = _split(values)
        if "stage_settings" in general:
            raise InputError(f"{where}.stage_settings: set a stage's own values as STAGE.KEY")
        config = with_overrides(replace(self, stage_settings={}), general, where)

        # Drop the recipe's values for single stages that the user has set for all stages.
        merged = {
            stage: {key: value for key, value in own.items() if key not in general}
            for stage, own in self.stage_settings.items()
        }
        for stage, own in by_stage.items():
            merged[stage] = merged.get(stage, {}) | config._typed(own, f"{where}.{stage}")
        return replace(config, stage_settings={stage: own for stage, own in merged.items() if own})

    def _typed(self, own: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The settings of one stage, converted to their types and checked like those of the run."""
        for key in RUN_WIDE:
            if key in own:
                raise InputError(f"{where}.{key}: cannot differ from stage to stage")
        config = with_overrides(self, own, where)
        return {key: getattr(config, key) for key in own}

    def as_table(self) -> dict[str, Any]:
        """The settings as a table for TOML and JSON, with a subtable per stage that has its own."""
        settings = as_table(self)
        del settings["stage_settings"]
        for stage, own in self.stage_settings.items():
            settings[stage] = {key: as_table(self.for_stage(stage))[key] for key in own}
        return settings


def _split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Split settings into those for all stages, and those for single stages by name."""
    general: dict[str, Any] = {}
    by_stage: dict[str, dict[str, Any]] = {}

    for name, value in values.items():
        stage, dot, key = name.partition(".")
        if isinstance(value, Mapping):
            by_stage.setdefault(name, {}).update(value)
        elif dot:
            by_stage.setdefault(stage, {})[key] = value
        else:
            general[name] = value

    return general, by_stage
