"""What a model is told while it learns: Batch and Progress; and TrainConfig, how a recipe optimizes
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

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
    """Where training stands: `epoch` and `step` from 0 within the `stage`, and the generator that
    all draws use.
    """

    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int
    count: int
    generator: torch.Generator
    stage: str = ""


@dataclass(frozen=True)
class TrainConfig:
    """How a recipe optimizes a model. `decay` multiplies the rate every `decay_every` epochs
    (exponential schedule).

    stages: of those that the model has, the first ones to run, `epochs` each, every one from what
    the one before kept; none = the first alone. keep: of each stage the epoch that is `best` on the
    validation meshes, or the `last`, where what validation sees, the error of reconstruction, is
    not all that is learned.
    """

    epochs: int = 100
    batch_size: int = 32
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
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
                f"train.warmup: expected a share of the run from 0 to below 1, got {self.warmup}"
            )
