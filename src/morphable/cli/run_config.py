"""Build the configuration of a run from what was typed.

The recipe comes first, then the config file, the flags and --set; each overrides those before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphable.cli.messages import flag
from morphable.cli.parse import parse_latent, parse_settings
from morphable.errors import InputError

if TYPE_CHECKING:
    from morphable.data.dataset import SplitDataset
    from morphable.models.training import TrainConfig
    from morphable.train.run import RunConfig


@dataclass(frozen=True)
class Choices:
    """The options that were typed after `train FAMILY`; None and () for those that were not."""

    recipe: str = "fast"
    latent: str | None = None
    split: str | None = None
    epochs: int | None = None
    stages: str | None = None
    seed: int | None = None
    set: Sequence[str] = ()
    config: Path | None = None

    def require_none(self) -> None:
        """Raise InputError if an option was typed: a resumed run keeps its settings."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) != field.default:
                raise InputError(
                    f"--resume continues the run as it was started; "
                    f"{flag(field.name)} cannot be changed"
                )

    def training(self) -> dict[str, Any]:
        """Return the training settings that were typed as flags of their own."""
        settings = {"epochs": self.epochs, "stages": self.stages, "seed": self.seed}
        return {name: value for name, value in settings.items() if value is not None}


def new_run(family: str, data: Path, choices: Choices) -> tuple[RunConfig, SplitDataset]:
    """Return the configuration of a new run, and the dataset with the split that it trains on.

    Raises InputError if a setting is unknown, invalid, or of no use to the family.
    """
    from morphable.config import with_overrides
    from morphable.data.dataset import load_dataset
    from morphable.models.families import family as find_family
    from morphable.models.families import with_latent
    from morphable.train.run import RunConfig

    recipe = find_family(family).recipe(choices.recipe)
    file = _read_tables(choices.config, family) if choices.config else {}
    typed = parse_settings(choices.set)
    split = file.get("data", {}).get("split") if choices.split is None else choices.split
    split_data = load_dataset(data).split(split)

    model = with_overrides(recipe.model, file.get("model", {}), f"{choices.config}: model")
    if choices.latent is not None:
        model = with_latent(model, parse_latent(choices.latent))
    model = with_overrides(model, typed.get("model", {}), "--set model")

    from_file, from_set = file.get("train", {}), typed.get("train", {})
    if recipe.train is None:
        refused = [flag(name) for name in choices.training()]
        refused += [f"train.{key}" for key in from_file | from_set]
        if refused:
            raise InputError(
                f"{refused[0]}: {family} is estimated in closed form and takes no training setting"
            )
        return RunConfig(family, model, None, choices.recipe), split_data

    train: TrainConfig = recipe.train.with_overrides(from_file, f"{choices.config}: train")
    train = train.with_overrides(choices.training(), "train")
    train = train.with_overrides(from_set, "--set train")
    _check_stage_settings(family, train, from_set)
    return RunConfig(family, model, train, choices.recipe), split_data


def _check_stage_settings(family: str, training: TrainConfig, values: Mapping[str, str]) -> None:
    """Raise InputError if a setting is for a stage that the family lacks or the run leaves out."""
    from morphable.models.base import LearnedModel
    from morphable.models.families import family as find
    from morphable.train.stages import check_stages

    kind = find(family).model
    assert issubclass(kind, LearnedModel)
    check_stages(family, training, kind.stages)
    for key in values:
        stage, dot, _ = key.partition(".")
        if dot and stage not in (training.stages or kind.stages[:1]):
            leading = ",".join(kind.stages[: kind.stages.index(stage) + 1])
            raise InputError(
                f"--set train.{key}: this run leaves the stage {stage} out; add --stages {leading}"
            )


def resumed_run(family: str, data: Path, out: Path) -> tuple[RunConfig, SplitDataset]:
    """Return the configuration and the split that the run in `out` was started with.

    The dataset may have moved since then. Raises InputError if it has changed, or if the run is of
    another family.
    """
    from morphable.data.dataset import load_dataset
    from morphable.train.run import RecordedRun

    recorded = RecordedRun.read(out)
    if recorded.config.family != family:
        raise InputError(f"{out}: was started as {recorded.config.family}, not {family}")
    dataset = load_dataset(data)
    if dataset.info["content_hash"] != recorded.content_hash:
        raise InputError(
            f"{out}: was started on {recorded.path} as it was then; "
            f"{data} holds other meshes or labels"
        )
    return recorded.config, dataset.split(recorded.split)


def _read_tables(path: Path, family: str) -> dict[str, dict[str, Any]]:
    """Return the tables of a --config file.

    The file may be the config.toml of another run. Then its split is used, but not its dataset.
    """
    from morphable.train.checkpoint import RUN_FORMAT, check_run_format
    from morphable.train.run import read_toml

    tables: dict[str, dict[str, Any]] = {}
    content = read_toml(path)
    # Files that people write have no format version, only those of runs do.
    check_run_format(path, content.pop("format_version", RUN_FORMAT))
    for name, table in content.items():
        if name not in ("data", "model", "train") or not isinstance(table, dict):
            raise InputError(
                f"{path}: expected the tables [data], [model] and [train], got {name!r}"
            )
        if table.get("family", family) != family:
            raise InputError(f"{path}: is for the family {table['family']}, not {family}")
        tables[name] = {
            key: value for key, value in table.items() if key not in ("family", "recipe")
        }
    return tables
