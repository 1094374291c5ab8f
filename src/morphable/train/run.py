"""A run: one model trained on one dataset, with everything about it in one folder."""

from __future__ import annotations

import dataclasses
import platform
import shlex
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch

import morphable
from morphable.config import as_table, with_overrides
from morphable.data.dataset import MeshDataset, load_dataset
from morphable.data.neutral import require_neutral
from morphable.errors import InputError
from morphable.files import atomic_folder, reading, require_new, write_text
from morphable.models.base import EstimatedModel, MorphableModel, Origin, TrainableModel, blocks
from morphable.models.families import create, family
from morphable.models.io import save
from morphable.models.training import TrainConfig
from morphable.rows import evenly_spread
from morphable.train.batches import Batches, TrainingData
from morphable.train.checkpoint import read_checkpoint
from morphable.train.distributed import Workers
from morphable.train.loop import Listener, Loop

CLASS_LABELS = ("subject", "expression")
MAX_PRIOR_CODES = 20_000
"""The prior is fitted on at most this many training meshes, evenly spread."""


@dataclass(frozen=True)
class RunConfig:
    """What to train: the three tables of config.toml. `train` is None for a model that is
    estimated.
    """

    family: str
    data: Path
    split: str
    model: Any
    train: TrainConfig | None
    recipe: str = "fast"

    def toml(self, dataset: MeshDataset) -> str:
        data = {
            "path": str(self.data),
            "split": self.split,
            "content_hash": dataset.info["content_hash"],
        }
        tables: dict[str, Any] = {
            "data": data,
            "model": {"family": self.family, **as_table(self.model)},
        }
        if self.train is not None:
            tables["train"] = {"recipe": self.recipe, **as_table(self.train)}
        return tomli_w.dumps(tables)

    @classmethod
    def read(cls, folder: Path) -> RunConfig:
        """The configuration of an existing run folder."""
        if not (folder / "config.toml").exists():
            raise InputError(
                f"{folder}: no run to go on with, it was not started or did not get to its first step"
            )
        tables = read_toml(folder / "config.toml")
        try:
            model, data = dict(tables["model"]), dict(tables["data"])
            name, train = model.pop("family"), dict(tables.get("train", {}))
            recipe_name = train.pop("recipe", "fast")
            recipe = family(name).recipe(recipe_name)
            where = str(folder / "config.toml")
            config = (
                with_overrides(recipe.train, train, f"{where}: train") if recipe.train else None
            )
            settings = with_overrides(recipe.model, model, f"{where}: model")
            return cls(name, Path(data["path"]), str(data["split"]), settings, config, recipe_name)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{folder / 'config.toml'}: not the configuration of a run ({error})"
            ) from error


def read_toml(path: Path) -> dict[str, Any]:
    with reading(path, "cannot be read as TOML"):
        return tomllib.loads(path.read_text(encoding="utf-8"))


def run(
    config: RunConfig,
    folder: Path,
    workers: Workers,
    resume: bool = False,
    listener: Listener | None = None,
) -> MorphableModel:
    """Train (or estimate) and write `folder`/model. Raises InputError before any work starts where
    the input is wrong.

    With `resume` an existing folder is continued from its last checkpoint, or from the start where
    there is none.
    """
    dataset = load_dataset(config.data)
    data = dataset.part(config.split, "train")
    if len(data) < 2:
        raise InputError(
            f"{config.data}: split {config.split!r} has {len(data)} training mesh, at least 2 are needed"
        )
    if not resume:
        require_new(folder)
    kind = family(config.family).model
    config = completed(config, dataset)
    if issubclass(kind, EstimatedModel):
        origin = Origin(config.family, _provenance(config, dataset, data, None))
        estimated = _estimate(kind, config, data).with_origin(origin)
        workers.barrier()  # every process has seen that the folder is new
        if workers.rank == 0:
            with atomic_folder(folder) as new:  # at once, since there is nothing to resume
                write_text(new / "config.toml", config.toml(dataset))
                save(estimated, new / "model")
        workers.barrier()
        return estimated
    loop = _loop(config, dataset, folder, workers, listener)
    _write_config(config, dataset, folder, workers, resume)
    model, epoch = _train(loop, resume)
    model = model.with_origin(Origin(config.family, _provenance(config, dataset, data, epoch)))
    if workers.rank == 0:
        save(model, folder / "model")
    workers.barrier()
    return model


def completed(config: RunConfig, dataset: MeshDataset) -> RunConfig:
    """The configuration with what the model must know of its training data, such as the names of
    expressions.
    """
    labels = dataset.part(config.split, "train").labels
    classes = {name: labels.classes(name).names for name in CLASS_LABELS if name in labels}
    return dataclasses.replace(
        config, model=family(config.family).model.config_for(config.model, classes)
    )


def _estimate(kind: type[EstimatedModel], config: RunConfig, data: MeshDataset) -> EstimatedModel:
    training = TrainingData.of(data, (*CLASS_LABELS, "level"))
    if kind.needs_neutral:
        training = training.with_neutral_meshes()
    labels = {**training.labels, "neutral": training.neutral}
    model = kind.estimate(data.template, training.vertices, labels, config.model)
    return model.eval()


def _loop(
    config: RunConfig,
    dataset: MeshDataset,
    folder: Path,
    workers: Workers,
    listener: Listener | None,
) -> Loop:
    """A fresh model with everything it needs to be trained; nothing is written yet."""
    assert config.train is not None
    validation = dataset.part(config.split, "val")
    torch.manual_seed(config.train.seed)
    model = create(config.family, dataset.template, config.model)
    assert isinstance(model, TrainableModel)
    model.to(workers.device)
    training = TrainingData.of(dataset.part(config.split, "train"), model.labels_used)
    _check_stages(config.family, config.train.stages, model.stages)
    if model.needs_neutral:
        require_neutral(config.data, training.neutral)
    batches = Batches(
        training,
        config.train.batch_size,
        config.train.seed,
        workers.device,
        workers.rank,
        workers.count,
    )
    if batches.steps == 0:
        raise InputError(
            f"{len(training)} training meshes do not give each of {workers.count} processes one"
        )
    return Loop(model, batches, validation.vertices[:], config.train, folder, workers, listener)


def _check_stages(name: str, chosen: tuple[str, ...], known: tuple[str, ...]) -> None:
    """InputError unless the stages are the first ones of those that the model has."""
    if chosen == known[: len(chosen)]:
        return
    if not known:
        raise InputError(
            f"--stages {','.join(chosen)}: {name} is trained in one stage and takes no --stages"
        )
    options = " or ".join(",".join(known[: n + 1]) for n in range(len(known)))
    raise InputError(f"--stages {','.join(chosen)}: {name} goes through {options}")


def _write_config(
    config: RunConfig, dataset: MeshDataset, folder: Path, workers: Workers, resume: bool
) -> None:
    """Make the run folder: only now, when nothing about the input can be wrong any more."""
    workers.barrier()  # every process has seen that the folder is new
    if workers.rank == 0 and not resume:
        write_text(folder / "config.toml", config.toml(dataset))
    workers.barrier()


def _train(loop: Loop, resume: bool) -> tuple[TrainableModel, int]:
    """Run the loop, take the best epoch's weights, fit the prior; returns the finished model and
    that epoch.
    """
    model, training = loop.model, loop.batches.data
    model.initialize(training.vertices)
    if resume:
        loop.resume()
    if loop.workers.rank == 0:
        events = _event_writer(loop.folder)
        loop.listener = _both(loop.listener, events) if events else loop.listener
    loop.run()
    loop.workers.barrier()
    best = read_checkpoint(loop.folder / "checkpoint" / "best.pt")
    model.load_state_dict(best["model"])
    finished = model.eval().for_inference()
    fit_prior(finished, training)
    return finished, int(best["epoch"])


def fit_prior(model: TrainableModel, training: TrainingData) -> None:
    """Fit the model's prior, if it has one, to the codes of the training meshes."""
    if model.prior is None:
        return
    rows = evenly_spread(len(training), MAX_PRIOR_CODES)
    codes = []
    with torch.no_grad():
        for block in blocks(
            training.vertices if len(rows) == len(training) else _Rows(training, rows), 64
        ):
            codes.append(model.encode(torch.from_numpy(block).to(model.device)).cpu())
    model.prior.fit(torch.cat(codes))


class _Rows:
    """Some of the training meshes, read when asked for."""

    def __init__(self, training: TrainingData, rows: np.ndarray) -> None:
        self.training, self.rows = training, rows

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.training.vertices.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.training.vertices[self.rows[index]]


def _provenance(
    config: RunConfig, dataset: MeshDataset, data: MeshDataset, epoch: int | None
) -> dict[str, Any]:
    info = {
        key: dataset.info[key]
        for key in ("source", "licence", "content_hash")
        if key in dataset.info
    }
    record: dict[str, Any] = info | {
        "command": command_line(),
        "data": str(config.data.resolve()),
        "split": config.split,
        "split_hash": dataset.split(config.split).hash,
        "train_meshes": len(data),
        "versions": versions(),
        "threads": torch.get_num_threads(),
    }
    if config.train is not None:
        record |= {"recipe": config.recipe, "train": as_table(config.train), "best_epoch": epoch}
    return record


def command_line() -> str:
    """The command that this process was started with, as a person would type it."""
    program = Path(sys.argv[0]).name
    words = ["morphable" if program in ("__main__.py", "main.py") else program, *sys.argv[1:]]
    return shlex.join(words)


def versions() -> dict[str, str]:
    return {
        "morphable": morphable.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _event_writer(folder: Path) -> Listener | None:
    """A listener that writes TensorBoard events, or None where the `tensorboard` extra is not
    installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer = SummaryWriter(str(folder / "events"))

    def write(report: Any) -> None:
        if report.validation_mm is not None:
            for name, value in dataclasses.asdict(report)["terms"].items():
                writer.add_scalar(f"train/{name}", value, report.step)
            writer.add_scalar("validation_mm", report.validation_mm, report.step)
            writer.flush()

    return write


def _both(first: Listener | None, second: Listener) -> Listener:
    def listen(report: Any) -> None:
        if first is not None:
            first(report)
        second(report)

    return listen
