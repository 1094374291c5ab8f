"""What a loss is given, Batch and Progress; and TrainConfig, how a recipe optimizes a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from morphable.config import as_table, changed
from morphable.errors import InputError


@dataclass(frozen=True, eq=False)
class Batch:
    """vertices (B, V, 3) mm; neutral (B, V, 3) mm or None; labels by name: (B,) int64 classes with
    -1 = missing, or float32 where the column is one of numbers.
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


RUN_WIDE = ("seed", "checkpoint_seconds", "stages", "stage_settings")
"""The settings that cannot differ from stage to stage."""


@dataclass(frozen=True)
class TrainConfig:
    """How a recipe optimizes a model.

    momentum: of `sgd`. betas: decay rates of Adam's two running averages. decay: the exponential
    schedule multiplies the rate by it every `decay_every` epochs. warmup: the share of the stage in
    which the rate rises from zero. keep: which epoch's weights are kept, the `best` on the
    validation meshes or the `last`; the last if the model has no validation.

    stages: the leading stages of the model to run, each for `epochs` epochs and starting from the
    weights that the previous one kept. Empty: the first stage only. stage_settings: by stage, the
    settings that differ from those here, `{"manipulate": {"learning_rate": 1e-4}}`.
    """

    epochs: int = 100
    batch_size: int = 32
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["constant", "exponential", "cosine"] = "cosine"
    decay: float = 0.99
    decay_every: int = 1
    warmup: float = 0.02
    gradient_clip: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    checkpoint_seconds: float = 60.0
    stages: tuple[str, ...] = ()
    keep: Literal["best", "last"] = "best"
    stage_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "decay_every"):
            if getattr(self, name) < 1:
                raise InputError(f"train.{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "decay"):
            if not getattr(self, name) > 0:
                raise InputError(
                    f"train.{name}: expected a positive number, got {getattr(self, name)}"
                )
        for name in ("weight_decay", "momentum", "gradient_clip", "seed", "checkpoint_seconds"):
            if not getattr(self, name) >= 0:
                raise InputError(
                    f"train.{name}: expected a number of at least 0, got {getattr(self, name)}"
                )
        if self.seed >= 2**32:
            raise InputError(f"train.seed: expected less than 2^32, got {self.seed}")
        if not 0 <= self.warmup < 1:
            raise InputError(
                f"train.warmup: expected a share of the stage from 0 to below 1, got {self.warmup}"
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(
                f"train.betas: expected two numbers from 0 to below 1, got {list(self.betas)}"
            )

    def for_stage(self, stage: str) -> TrainConfig:
        """The settings of one stage."""
        return replace(self, **self.stage_settings.get(stage, {}), stage_settings={})

    def with_settings(self, values: Mapping[str, Any], where: str) -> TrainConfig:
        """These settings with some replaced. A setting of one stage is `STAGE.KEY`, or stands in a
        table `STAGE`.

        A stage's own value counts before one for all stages. But a value for all stages replaces
        what earlier settings said of a single stage: the user's rate counts in every stage,
        although the recipe has a rate of its own for one of them.

        Raises InputError, naming `where`.key, for an unknown key or a value that does not fit.

        >>> recipe = TrainConfig(stage_settings={"edit": {"epochs": 7, "batch_size": 8}})
        >>> config = recipe.with_settings({"epochs": "5", "edit.warmup": "0.5"}, "train")
        >>> config.epochs, dict(config.stage_settings)
        (5, {'edit': {'batch_size': 8, 'warmup': 0.5}})
        """
        general, by_stage = _split(values)
        if "stage_settings" in general:
            raise InputError(f"{where}.stage_settings: set a stage's own values as STAGE.KEY")
        config = changed(replace(self, stage_settings={}), general, where)
        own = {
            stage: {key: value for key, value in settings.items() if key not in general}
            for stage, settings in self.stage_settings.items()
        }
        for stage, table in by_stage.items():
            for key in RUN_WIDE:
                if key in table:
                    raise InputError(f"{where}.{stage}.{key}: cannot differ from stage to stage")
            # Read as settings of the run, which checks the keys and gives the values their types.
            typed = changed(config, table, f"{where}.{stage}")
            own[stage] = own.get(stage, {}) | {key: getattr(typed, key) for key in table}
        return replace(config, stage_settings={stage: own[stage] for stage in own if own[stage]})

    def as_table(self) -> dict[str, Any]:
        """TOML- and JSON-ready: the settings, then a table per stage that has its own."""
        general = as_table(replace(self, stage_settings={}))
        del general["stage_settings"]
        return general | {
            stage: {key: list(value) if isinstance(value, tuple) else value for key, value in own.items()}
            for stage, own in self.stage_settings.items()
        }


def _split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings for all stages, and those for one stage by its name."""
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
