"""train_model: one call from a dataset to a trained model in a run folder, for use from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from morphable.config import with_overrides
from morphable.data.dataset import SplitDataset
from morphable.errors import InputError
from morphable.models.base import MorphableModel
from morphable.models.families import family as find
from morphable.models.families import with_latent
from morphable.train.distributed import workers
from morphable.train.events import Listener
from morphable.train.run import RunConfig, run


def train_model(
    family: str,
    *,
    data: SplitDataset,
    folder: Path | str,
    latent: int | Mapping[str, int] | None = None,
    recipe: str = "fast",
    model: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    device: str = "cpu",
    listener: Listener | None = None,
) -> MorphableModel:
    """Train a model and write a run folder, as the command `morphable train` does.

    Args:
        family: A row of `MODELS`, such as "coma".
        data: A dataset divided by one of its splits, `dataset.split("subject")`. The model is
        trained on the training subset; the errors on the validation subset decide which epoch is
        kept. folder: The run folder to write. It must not exist. latent: The latent size, in total
        or of each part by name. If None, that of the recipe. recipe: "fast" (ours) or "paper" (as
        published). model: Settings of the model that differ from the recipe, `{"activation":
        "elu"}`. train: Settings of the training that differ from the recipe, `{"epochs": 5}`.
        device: "cpu" or "cuda". listener: Called with a `TrainingEvent` after every step, to show
        progress.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        InputError: If a setting does not exist, the folder exists already, or the family cannot be
            trained on the data.
    """
    row = find(family).recipe(recipe)
    settings = with_overrides(row.model, model or {}, "model")
    if latent is not None:
        settings = with_latent(settings, latent)
    if row.train is None and train:
        raise InputError(f"train: {family} is estimated in closed form, it has no such settings")
    training = row.train.with_overrides(train or {}, "train") if row.train else None

    config = RunConfig(family, settings, training, recipe)
    with workers(device) as here:
        return run(config, data, Path(folder), here, listener=listener)
