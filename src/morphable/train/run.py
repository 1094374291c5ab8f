"""A run: trains one model on one dataset, and writes everything about it into one folder."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tomli_w
import torch

from morphable.config import as_table, with_overrides
from morphable.data.dataset import SplitDataset
from morphable.data.labels import LabelTable
from morphable.data.neutral import require_neutral
from morphable.data.unchanged import DataChanged
from morphable.errors import InputError
from morphable.files import reading, remove_leftovers, require_new, write_text
from morphable.lock import LOCK, locked, require_idle
from morphable.models.base import (
    EstimatedModel,
    LearnedModel,
    MorphableModel,
    Origin,
    Shapes,
    blocks,
)
from morphable.models.batched import encode_all
from morphable.models.families import create, family
from morphable.models.io import save
from morphable.models.training import TrainConfig
from morphable.rows import evenly_spread
from morphable.train.batches import Batches, TrainingData
from morphable.train.checkpoint import (
    RUN_FORMAT,
    check_run_format,
    has_checkpoint,
)
from morphable.train.distributed import Workers
from morphable.train.events import Listener, with_event_files
from morphable.train.loop import Loop
from morphable.train.provenance import command_line, versions
from morphable.train.stages import check_stages
from morphable.train.transported import Transported, transported

T = TypeVar("T")
CLASS_LABELS = ("subject", "expression")
MAX_PRIOR_CODES = 20_000
"""The prior is fitted on at most this many training meshes, evenly spread."""
PRIOR_BATCH = 64
MANY_PEOPLE = 16
"""By so many unseen people and more, `train.least_gain` is enough as it is."""


@dataclass(frozen=True)
class RunConfig:
    """What to train and how. `train` is None if the model is estimated, not trained."""

    family: str
    model: Any
    train: TrainConfig | None
    recipe: str = "fast"

    def toml(self, data: SplitDataset) -> str:
        """The content of config.toml for a run on this data."""
        source = {"path": str(data.whole.path), "split": data.name}
        source["content_hash"] = data.whole.info["content_hash"]
        model = {"family": self.family, **as_table(self.model)}
        tables: dict[str, Any] = {"format_version": RUN_FORMAT, "data": source, "model": model}
        if self.train is not None:
            tables["train"] = {"recipe": self.recipe, **self.train.as_table()}
        return tomli_w.dumps(tables)


@dataclass(frozen=True)
class RecordedRun:
    """The content of config.toml in a run folder: the settings of the run, and its dataset."""

    config: RunConfig
    path: Path
    split: str
    content_hash: str

    @classmethod
    def read(cls, folder: Path) -> RecordedRun:
        """Read config.toml. Raises InputError if there is none, or if it is not that of a run."""
        where = folder / "config.toml"
        if not where.exists():
            raise InputError(f"{folder}: nothing to resume: training never reached its first step")
        tables = read_toml(where)
        try:
            return cls._of(tables, where)
        except InputError as error:
            named = str(error).startswith(str(where))
            raise InputError(str(error) if named else f"{where}: {error}") from error

    @classmethod
    def _of(cls, tables: Mapping[str, Any], where: Path) -> RecordedRun:
        model, data = dict(_entry(tables, "model", dict)), _entry(tables, "data", dict)
        check_run_format(where, tables.get("format_version"))
        train = dict(_entry({"train": {}, **tables}, "train", dict))
        recipe_name = _entry({"recipe": "fast", **train}, "recipe", str)
        train.pop("recipe", None)
        name = _entry(model, "family", str)
        del model["family"]
        recipe = family(name).recipe(recipe_name)
        settings = with_overrides(recipe.model, model, "model")
        trained = recipe.train.with_overrides(train, "train") if recipe.train else None
        config = RunConfig(name, settings, trained, recipe_name)
        path, split, content_hash = (
            _entry(data, key, str) for key in ("path", "split", "content_hash")
        )
        return cls(config, Path(path), split, content_hash)


def _entry(table: Mapping[str, Any], key: str, kind: type[T]) -> T:
    """The value of a key of config.toml. Raises InputError if it is missing or of another kind."""
    value = table.get(key)
    if not isinstance(value, kind):
        expected = "a table" if kind is dict else "a text"
        raise InputError(f"not the configuration of a run: {key} is not {expected}")
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises InputError if it cannot be read."""
    with reading(path, "cannot be read as TOML"):
        return tomllib.loads(path.read_text(encoding="utf-8"))


def run(
    config: RunConfig,
    data: SplitDataset,
    folder: Path,
    workers: Workers,
    resume: bool = False,
    listener: Listener | None = None,
) -> MorphableModel:
    """Train or estimate a model on `data.train`, and write it to `folder`/model.

    resume: if True, continue the run in an existing folder from its last checkpoint, or from the
    start if it has none. Raises InputError if the input is wrong, before any work starts; if
    another process trains into the folder; and, after writing the model as it then is, if the
    dataset changes during training.
    """
    if len(data.train) < 2:
        raise InputError(
            f"{data.whole.path}: split {data.name!r} has {len(data.train)} training mesh, "
            "at least 2 are needed"
        )
    if len(data.train) < workers.count:
        raise InputError(
            f"{len(data.train)} training meshes do not give each of {workers.count} processes one"
        )
    if not _vary(data.train.vertices):
        raise InputError(
            f"{data.whole.path}: the training meshes of split {data.name!r} are all equal, so there "
            "is nothing to learn from them"
        )
    with _run_folder(folder, workers, resume):
        kind = family(config.family).model
        config = completed(config, data)
        if issubclass(kind, EstimatedModel):
            model: MorphableModel = _estimate(kind, config, data)
            _write_config(config, data, folder, workers)
            epoch, changed, made = None, None, None
        else:
            loop = _loop(config, data, folder, workers, listener)
            if not resume:
                _write_config(config, data, folder, workers)
            model, epoch, changed = _train(loop, resume)
            made = loop.batches.made
        model = model.with_origin(Origin(config.family, _provenance(config, data, epoch, made)))
        if workers.rank == 0:
            save(model, folder / "model")
        workers.barrier()
        if changed is not None:
            raise InputError(
                f"{changed}; training stopped, and {folder / 'model'} holds what it had learned "
                f"(epoch {epoch}); to continue once the dataset is back, remove that folder and "
                "resume"
            ) from changed
    return model


def _vary(shapes: Shapes) -> bool:
    """Whether any two meshes differ by more than rounding errors."""
    first = np.asarray(shapes[0])
    limit = 1e-6 * np.ptp(first, axis=0).max()
    return any(np.abs(block - first).max() > limit for block in blocks(shapes))


@contextlib.contextmanager
def _run_folder(folder: Path, workers: Workers, resume: bool) -> Iterator[None]:
    """Let no other process train into the folder while the block runs. A new run that fails before
    its first checkpoint leaves nothing.

    Raises InputError in all processes if another one trains there, or a new run's folder is not
    new.
    """
    with contextlib.ExitStack() as held:
        fault = None
        if workers.rank == 0:
            try:
                require_idle(folder)
                if not resume:
                    require_new(folder, besides=LOCK)
                held.enter_context(locked(folder))
                if not resume:
                    # Checked again, since another run may have ended in between.
                    require_new(folder, besides=LOCK)
                remove_leftovers(folder)
            except InputError as error:
                fault = error
        if workers.mean([fault is not None])[0] > 0:
            raise fault or InputError(f"{folder}: the first process could not start a run there")
        try:
            yield
        except BaseException:
            if workers.rank == 0 and not resume and not has_checkpoint(folder):
                _empty(folder)
            raise


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def completed(config: RunConfig, data: SplitDataset) -> RunConfig:
    """Return the configuration with the model's settings that depend on the training data, such as
    the names of expressions.
    """
    train = data.train
    kind = family(config.family).model
    model = kind.config_for(config.model, ClassNames(train.labels), len(train))
    template, people = data.whole.template, train.labels.groups
    model = kind.config_by_shapes(model, template, train.vertices, people)
    return dataclasses.replace(config, model=model)


@dataclass(frozen=True)
class ClassNames(Mapping[str, Sequence[str]]):
    """By label column, the names of its classes, found only when a model asks for them."""

    labels: LabelTable

    def __getitem__(self, name: str) -> Sequence[str]:
        if name not in self.labels:
            raise KeyError(name)
        return self.labels.classes(name).names

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels.columns)

    def __len__(self) -> int:
        return len(self.labels.columns)


def _estimate(kind: type[EstimatedModel], config: RunConfig, data: SplitDataset) -> EstimatedModel:
    training = TrainingData.of(data.train, (*CLASS_LABELS, "level"))
    shapes, labels = training.at_start(with_neutral=kind.needs_neutral)
    model = kind.estimate(data.whole.template, shapes, labels, config.model)
    return model.eval()


def _loop(
    config: RunConfig,
    data: SplitDataset,
    folder: Path,
    workers: Workers,
    listener: Listener | None,
) -> Loop:
    """Build an untrained model with everything needed to train it. Nothing is written yet."""
    kind = family(config.family).model
    assert config.train is not None and issubclass(kind, LearnedModel)
    check_stages(config.family, config.train, kind.stages)
    held_out = data.val  # raises if there is none, before the model is built
    torch.manual_seed(config.train.seed)
    model = create(config.family, data.whole.template, config.model)
    assert isinstance(model, LearnedModel)
    model.to(workers.device)
    training = TrainingData.of(data.train, model.labels_used)
    validation = TrainingData.of(held_out, model.labels_used)
    if model.needs_neutral:
        require_neutral(data.whole.path, training.neutral)
    batches = Batches(
        training,
        config.train.batch_size,
        config.train.seed,
        workers.device,
        workers.rank,
        workers.count,
        model.labels_drawn,
        transported(config.train, data.train, training.with_neutral_meshes().neutral, workers),
    )
    check = data.whole.require_unchanged
    caution = caution_for(data)
    return Loop(model, batches, validation, config.train, folder, workers, check, listener, caution)


def caution_for(data: SplitDataset) -> float:
    """By what to multiply `train.least_gain`: 1 for validation meshes of at least MANY_PEOPLE people
    who are not trained on, or of none; more for fewer, whose mean error varies as one by the root of
    their number.
    """
    known, held_out = data.train.labels, data.val.labels
    people = len(np.unique(held_out.groups()))  # a mesh of an unknown subject counts as one
    if "subject" in known and "subject" in held_out:
        people -= len(set(known.classes("subject").names) & set(held_out.classes("subject").names))
    return math.sqrt(max(1.0, MANY_PEOPLE / people)) if people else 1.0


def _write_config(config: RunConfig, data: SplitDataset, folder: Path, workers: Workers) -> None:
    """Write the first file of a run. This comes late, when no input can be wrong any more."""
    if workers.rank == 0:
        write_text(folder / "config.toml", config.toml(data))
    workers.barrier()


def _train(loop: Loop, resume: bool) -> tuple[MorphableModel, int, DataChanged | None]:
    """Run the loop and load the weights that it kept; returns the model for inference, the number
    of the epoch of its weights, and why training ended early if the dataset changed.
    """
    model, training = loop.model, loop.batches.data
    changed = None
    model.initialize(*training.at_start(with_neutral="neutral" in model.labels_used))
    if resume:
        loop.resume()
    if loop.workers.rank == 0:
        loop.listener = with_event_files(loop.listener, loop.folder / "events")
    try:
        loop.run()
    except DataChanged as error:
        changed = error
    loop.workers.barrier()
    epoch = loop.finish()
    finished = model.for_inference()
    if finished.prior_is_fitted:
        fit_prior(finished, training)
    return finished, epoch, changed


def fit_prior(model: MorphableModel, training: TrainingData) -> None:
    """Fit the model's prior, if it has one, to the codes of the training meshes, with the
    conditions that their labels state.
    """
    if model.prior is None:
        return
    rows = evenly_spread(len(training), MAX_PRIOR_CODES)
    shapes = training.vertices if len(rows) == len(training) else _Rows(training, rows)
    labels = {name: torch.from_numpy(column[rows]) for name, column in training.labels.items()}
    given = model.given_by_labels(labels, len(rows))
    model.prior.fit(encode_all(model, shapes, PRIOR_BATCH, given).cpu())


class _Rows:
    """A subset of the training meshes, read only when indexed."""

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
    config: RunConfig, data: SplitDataset, epoch: int | None, made: Transported | None
) -> dict[str, Any]:
    whole = data.whole
    info = {
        key: whole.info[key] for key in ("source", "licence", "content_hash") if key in whole.info
    }
    record: dict[str, Any] = info | {
        "command": command_line(),
        "data": str(whole.path.resolve()),
        "split": data.name,
        "split_hash": data.split.hash,
        "train_meshes": len(data.train),
        "versions": versions(),
        "threads": torch.get_num_threads(),
    }
    if config.train is not None:
        record |= {"recipe": config.recipe, "train": config.train.as_table(), "kept_epoch": epoch}
    if made is not None:
        record["transported"] = {
            "meshes": len(made),
            "method": made.method,
            "seconds": round(made.seconds, 3),
        }
    return record
