"""What a model is told while it learns: Batch and Progress; and TrainConfig, how a recipe optimizes
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from morphable.config import Configuration, Count, Positive, PositiveOrZero, Range


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


Seed = Annotated[int, Range("a whole number from 0 to 2^32 - 1", lambda seed: 0 <= seed < 2**32)]
ShareOfRun = Annotated[
    float, Range("a share of the run from 0 to below 1", lambda share: 0 <= share < 1)
]


@dataclass(frozen=True)
class TrainConfig(Configuration):
    """How a recipe optimizes a model. `decay` multiplies the rate every `decay_every` epochs
    (exponential schedule).

    stages: of those that the model has, the first ones to run, `epochs` each, every one from what
    the one before kept; none = the first alone. keep: of each stage the epoch that is `best` on the
    validation meshes, or the `last`, where what validation sees, the error of reconstruction, is
    not all that is learned.
    """

    table: ClassVar[str] = "train"

    epochs: Count = 100
    batch_size: Count = 32
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: PositiveOrZero = 0.0
    momentum: PositiveOrZero = 0.9
    schedule: Literal["constant", "exponential", "cosine"] = "cosine"
    decay: Positive = 0.99
    decay_every: Count = 1
    warmup: ShareOfRun = 0.02
    gradient_clip: PositiveOrZero = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: Seed = 0
    checkpoint_seconds: PositiveOrZero = 60.0
    stages: tuple[str, ...] = ()
    keep: Literal["best", "last"] = "best"
