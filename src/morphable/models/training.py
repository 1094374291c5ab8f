"""What a loss is given, Batch and Progress; and TrainConfig, how a recipe optimizes a model."""

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
    """vertices (B, V, 3) mm; neutral (B, V, 3) mm or None; labels by name: (B,) int64 classes with
    -1 = missing, or float32 if the column holds numbers.
    """

    vertices: Tensor
    neutral: Tensor | None = None
    labels: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Progress:
    """How far training is: `epoch` and `step` count from 0 within the `stage`.

    generator: all random draws of a loss use it.
    """

    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int
    generator: torch.Generator
    stage: str = ""


Seed = Annotated[int, Range("a whole number from 0 to 2^32 - 1", lambda seed: 0 <= seed < 2**32)]
ShareOfStage = Annotated[
    float, Range("a share of the stage from 0 to below 1", lambda share: 0 <= share < 1)
]
Betas = Annotated[
    tuple[float, float],
    Range(
        "two numbers from 0 to below 1",
        lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
    ),
]

RUN_WIDE = ("seed", "checkpoint_seconds", "stages", "stage_settings")
"""The settings that cannot differ from stage to stage."""


@dataclass(frozen=True)
class TrainConfig(Configuration):
    """How a recipe optimizes a model.

    momentum: of `sgd`. betas: decay rates of Adam's two running averages. decay: the exponential
    schedule multiplies the rate by it every `decay_every` epochs. warmup: the share of the stage in
    which the rate rises from zero. keep: which epoch's weights are kept, the `best` on the
    validation meshes or the `last`; the last if the model has no validation.

    stages: the leading stages of the model to run, each for `epochs` epochs and starting from the
    weights that the previous one kept. Empty: the first stage only. stage_settings: by stage, the
    settings that differ from those here, `{"manipulate": {"learning_rate": 1e-4}}`.
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
    stage_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def for_stage(self, stage: str) -> TrainConfig:
        """The settings of one stage."""
        return replace(self, **self.stage_settings.get(stage, {}), stage_settings={})

    def with_overrides(self, values: Mapping[str, Any], where: str) -> TrainConfig:
        """These settings with some replaced, like `config.with_overrides`; a setting of one stage
        is `STAGE.KEY`, or stands in a table `STAGE`.

        A stage's own value counts before one for all stages. But a value for all stages replaces
        what these settings say of a single stage: the user's rate counts in every stage, even if
        the recipe has a rate of its own for one of them.

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

        merged = {
            stage: {key: value for key, value in own.items() if key not in general}
            for stage, own in self.stage_settings.items()
        }
        for stage, own in by_stage.items():
            merged[stage] = merged.get(stage, {}) | config._typed(own, f"{where}.{stage}")
        return replace(config, stage_settings={stage: own for stage, own in merged.items() if own})

    def _typed(self, own: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The settings of one stage with their types; they are read as if they were the run's."""
        for key in RUN_WIDE:
            if key in own:
                raise InputError(f"{where}.{key}: cannot differ from stage to stage")
        config = with_overrides(self, own, where)
        return {key: getattr(config, key) for key in own}

    def as_table(self) -> dict[str, Any]:
        """A table ready for TOML and JSON: the settings, and one per stage with its own."""
        settings = as_table(self)
        del settings["stage_settings"]
        for stage, own in self.stage_settings.items():
            settings[stage] = {key: as_table(self.for_stage(stage))[key] for key in own}
        return settings


def _split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The settings for all stages, and those for one stage by the name of the stage."""
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
