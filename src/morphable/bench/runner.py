"""Run a table: each of its models on each dataset with each seed, in run folders of their own. Runs
that are finished are read, not repeated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from morphable.bench.complexity import decoding_cost, sphere
from morphable.bench.table import Data, Row, Table, with_baselines
from morphable.config import MAX_COUNT, with_overrides
from morphable.data.dataset import MeshDataset, SplitDataset, load_dataset, write_dataset
from morphable.data.makers import make_source
from morphable.data.makers.ict import VARIABLE, find_ict
from morphable.errors import InputError
from morphable.evaluate.evaluation import MODEL, Evaluation
from morphable.evaluate.record import Measured
from morphable.evaluate.referee import REAL, judge, verdict_measures
from morphable.files import read_json, write_json, write_text
from morphable.models.base import MorphableModel
from morphable.models.families import create, family, with_latent
from morphable.models.io import load
from morphable.ops.allocator import keep_freed_memory
from morphable.train.checkpoint import read_metrics
from morphable.train.distributed import Workers, workers
from morphable.train.events import Listener
from morphable.train.run import RecordedRun, RunConfig, completed, run

MAX_SEEDS = 1000


@dataclass(frozen=True)
class Options:
    """What a user can choose about a bench.

    only, rows: names of datasets and rows; all if empty. epochs, recipe, split: those of the table
    if None. folds: the name of a cross-validation of the datasets in `data`, whose splits are NAME-1,
    NAME-2, ...: every row is trained on each of them.
    """

    out: Path
    seeds: int = 1
    source: Path | None = None
    data: Sequence[Path] = ()
    only: Sequence[str] = ()
    rows: Sequence[str] = ()
    epochs: int | None = None
    recipe: str | None = None
    split: str | None = None
    folds: str | None = None

    def absolute(self) -> Options:
        """The same choice for processes that run elsewhere."""
        return replace(
            self,
            out=self.out.absolute(),
            source=None if self.source is None else self.source.absolute(),
            data=[path.absolute() for path in self.data],
        )


@dataclass(frozen=True)
class Task:
    """One run of a bench."""

    data: Data
    row: Row
    seed: int
    folder: Path
    trained: bool = True
    judged: bool = False
    fold: int = 0
    """From 1 on, of a cross-validation; 0 if there is none."""

    @property
    def title(self) -> str:
        place = f"{self.data.name}, split {self.data.split}" if self.fold else self.data.name
        return f"{place}, {self.row.name}, latent size {self.row.size}, seed {self.seed}"


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of a run. N: the number of test meshes.

    measures: `model` in evaluation.json and the costs of the run; None if the run failed, and then
    `failure` says why. mesh_errors: (N,) mm, the mean vertex error of each test mesh. groups: (N,)
    the subject number of each; a mesh without a subject has a number of its own. seconds: how long
    training took.
    """

    task: Task
    measures: dict[str, Any] | None
    baselines: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    mesh_errors: np.ndarray = field(default_factory=lambda: np.zeros(0))
    groups: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    failure: str = ""
    seconds: float = 0.0

    @property
    def epochs(self) -> int | None:
        """The epochs of each stage of training; None if nothing was trained."""
        train = self.provenance.get("model", {}).get("train")
        return None if train is None else int(train["epochs"])


def tasks(table: Table, options: Options) -> list[Task]:
    """Return every run of the table, or those of the chosen rows, plus the PCA and `pca-mlp`
    baselines of their latent sizes. Deterministic models run once, not once per seed.

    The order is by dataset, then by seed, so that an unfinished bench has complete tables of fewer
    seeds. Raises InputError for a dataset or row that the table lacks.
    """
    datasets = table.datasets
    if options.data:
        epochs = table.datasets[0].epochs
        datasets = [
            Data(path.resolve().name, "", {"path": path}, epochs=epochs) for path in options.data
        ]
    unknown = set(options.only) - {data.name for data in datasets}
    if unknown:
        known = ", ".join(data.name for data in datasets)
        raise InputError(
            f"`only` {sorted(unknown)[0]}: the table has no such dataset, it has {known}", "only"
        )
    rows = list(with_baselines(table).rows)
    strange = set(options.rows) - {row.name for row in rows}
    if options.rows:
        asked = [row for row in rows if row.name in options.rows]
        sizes = {row.size for row in asked}
        rows = [row for row in rows if row in asked or (_is_baseline(row) and row.size in sizes)]
    if strange:
        known = "; ".join(row.name for row in table.rows)
        raise InputError(
            f"`rows` {sorted(strange)[0]}: the table has no such row, it has {known}", "rows"
        )
    if not 1 <= options.seeds <= MAX_SEEDS:
        expected = f"at least 1, at most {MAX_SEEDS:,}"
        raise InputError(f"`seeds` {options.seeds}: expected {expected}", "seeds")
    if options.epochs is not None and not 1 <= options.epochs <= MAX_COUNT:
        expected = f"at least 1, at most {MAX_COUNT:,}"
        raise InputError(f"`epochs` {options.epochs}: expected {expected}", "epochs")
    if options.source is not None and not options.source.exists():
        raise InputError(f"`source` {options.source}: no such file or folder", "source")
    planned = []
    for data in datasets:
        if options.only and data.name not in options.only:
            continue
        for fold, split in _splits(data, options):
            divided = replace(data, split=split or data.split)
            for seed in range(options.seeds):
                for row in rows:
                    # A model without training settings is estimated: each seed would give the same.
                    if seed and not family(row.family).recipe(row.recipe).train:
                        continue
                    name = f"{_slug(row.name)}-l{row.size}-s{seed}" + (f"-f{fold}" if fold else "")
                    folder = options.out / "runs" / data.name / name
                    task = Task(divided, row, seed, folder, table.trained, table.judged, fold)
                    planned.append(task)
    return planned


def _splits(data: Data, options: Options) -> list[tuple[int, str | None]]:
    """The folds of a dataset and their splits, or its one split, which is fold 0."""
    if options.folds is None:
        return [(0, options.split)]
    if options.split is not None:
        raise InputError("`folds` and `split`: choose one", "folds", "split")
    if "path" not in data.options:
        raise InputError("`folds`: needs `data`, the datasets that were split", "folds", "data")
    known = load_dataset(data.options["path"]).split_names
    found: list[tuple[int, str | None]] = []
    while (name := f"{options.folds}-{len(found) + 1}") in known:
        found.append((len(found) + 1, name))
    if len(found) < 2:
        raise InputError(
            f"`folds` {options.folds}: {data.options['path']} has no splits {options.folds}-1 and "
            f"{options.folds}-2; make them with `morphable data split`",
            "folds",
        )
    return found


def _is_baseline(row: Row) -> bool:
    """Whether every table shows this model: some tables have PCA among their own rows."""
    return row.family in ("pca", "pca-mlp") and not row.model and not row.train


def prepare(data: Data, options: Options) -> SplitDataset | None:
    """Return the dataset with its split, or None if it needs the ICT model and there is none."""
    dataset = _dataset(data, options)
    return None if dataset is None else dataset.split(data.split)


def _dataset(data: Data, options: Options) -> MeshDataset | None:
    """Return the dataset, and make it first if it does not exist yet. None if it needs the ICT
    model and there is none.
    """
    if "path" in data.options:
        return load_dataset(data.options["path"])
    folder = options.out / "data" / data.name
    if folder.exists():
        return load_dataset(folder)
    arguments = dict(data.options)
    if data.kind.startswith("face"):
        try:
            arguments["source"] = find_ict(options.source)
        except InputError:
            if options.source is not None:  # a source that was given must be right
                raise
            return None
    source = sphere(**arguments) if data.kind == SPHERE else make_source(data.kind, **arguments)
    return write_dataset(source, folder, int(arguments.get("seed", 0)))


SPHERE = "sphere"
NO_ICT = f"not run: no ICT data (give its path, or set the variable {VARIABLE})"


def configuration(task: Task, data: SplitDataset, options: Options) -> RunConfig:
    """Return the row's recipe with the row's changes. Raises InputError for an unknown setting."""
    row, name = task.row, options.recipe or task.row.recipe
    recipe = family(row.family).recipe(name)
    model = with_latent(with_overrides(recipe.model, row.model, f"{row.name}: model"), row.latent)
    if recipe.train is None or not task.trained:
        return RunConfig(row.family, model, recipe.train, name)
    epochs = None if row.own_epochs else options.epochs or task.data.epochs
    chosen = {"seed": task.seed} | ({"epochs": epochs} if epochs else {})
    train = recipe.train.with_overrides(chosen, "train")
    train = train.with_overrides(row.train, f"{row.name}: train")
    return completed(RunConfig(row.family, model, train, name), data)


def perform(
    task: Task,
    data: SplitDataset,
    options: Options,
    workers: Workers,
    listener: Listener | None = None,
) -> Outcome:
    """Train and measure a run, or read the results if that was done before. If the run cannot be
    trained, the outcome says why.

    Raises InputError if the folder holds another run, and Interrupted if training was stopped by
    hand.
    """
    config = configuration(task, data, options)
    started = (task.folder / "config.toml").exists()
    if started:
        recorded = RecordedRun.read(task.folder)
        if (recorded.config, recorded.split) != (config, data.name):
            raise InputError(
                f"{task.folder}: holds a run with other settings; "
                "choose another `out` or remove it",
                "out",
            )
    if not task.trained:
        return _created(task, data, config, workers)
    if not (task.folder / "model" / "model.json").exists():
        try:
            run(config, data, task.folder, workers, started, listener)
        except InputError as error:
            return Outcome(task, None, failure=str(error))
    return _measured(task, data, config, workers)


@dataclass(frozen=True)
class Elsewhere:
    """A run for another process, which opens the dataset itself: it must be there already.

    threads: of that process; None: as many as it has.
    """

    task: Task
    options: Options
    device: str
    threads: int | None


def perform_elsewhere(run: Elsewhere) -> Outcome:
    """`perform` as `spread` calls it in another process."""
    keep_freed_memory()
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    data = prepare(run.task.data, run.options)
    if data is None:
        raise InputError(f"{run.task.data.name}: {NO_ICT}")
    with workers(run.device) as here:
        return perform(run.task, data, run.options, here)


def _created(task: Task, data: SplitDataset, config: RunConfig, workers: Workers) -> Outcome:
    path, template = task.folder / "cost.json", data.whole.template
    if not path.exists() or (
        workers.device.type == "cuda" and "decode_gpu_ms" not in read_json(path)
    ):
        write_text(task.folder / "config.toml", config.toml(data))
        model = create(config.family, template, config.model).eval()
        write_json(path, decoding_cost(model, workers.device))
    return Outcome(task, read_json(path), provenance={"vertices": template.n_vertices})


def _measured(task: Task, data: SplitDataset, config: RunConfig, workers: Workers) -> Outcome:
    model = load(task.folder).to(workers.device)
    measured = Measured.read(task.folder, model, data.whole)
    if measured is None:
        measured = Measured.of(Evaluation.of(model, data))
        measured.write(task.folder)
    result = outcome_of(task, measured)
    if task.judged:
        result = with_verdict(result, _verdict(task, model, data))
    if result.seconds and result.measures is not None:
        # Learned maps are folded when a model is saved, so a loaded one has fewer parameters than
        # one in training.
        fresh = create(config.family, data.whole.template, config.model)
        result.measures["training_parameters"] = sum(p.numel() for p in fresh.parameters())
    return result


def _verdict(task: Task, model: MorphableModel, data: SplitDataset) -> dict[str, Any]:
    """The referee's verdict on a model, which is kept in the run folder."""
    path = task.folder / "referee.json"
    if path.exists():
        found: dict[str, Any] = read_json(path)
        return found
    write_json(path, judge(model, data))
    return _verdict(task, model, data)


def with_verdict(outcome: Outcome, verdict: Mapping[str, Any]) -> Outcome:
    """The outcome with the referee's measures. Those of real meshes are a baseline of their own."""
    own, real = verdict_measures(verdict)
    measures = {**(outcome.measures or {}), **own}
    return replace(outcome, measures=measures, baselines={**outcome.baselines, REAL: real})


def outcome_of(task: Task, measured: Measured) -> Outcome:
    """The result of a run that was trained and measured."""
    record, evaluation = measured.measures, measured.evaluation
    of_run: dict[str, Any] = {
        "parameters": sum(p.numel() for p in evaluation.model.parameters()),
    }
    seconds = 0.0
    if metrics := read_metrics(task.folder / "metrics.jsonl"):
        seconds = float(metrics[-1]["seconds"])
        of_run["epochs"] = len(metrics)
        of_run["training_seconds"] = seconds
        of_run["seconds_per_epoch"] = seconds / len(metrics)
    return Outcome(
        task,
        record["model"] | of_run,
        record["baselines"],
        record["provenance"],
        evaluation.mesh_errors[MODEL],
        evaluation.groups,
        seconds=seconds,
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9+]+", "-", name.lower()).strip("-")
