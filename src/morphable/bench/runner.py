"""Runs a table: every model of it, on every dataset, with every seed, each in a run folder of its
own, once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from morphable.bench.complexity import decoding_cost, sphere
from morphable.bench.table import Data, Row, Table, with_baselines
from morphable.config import with_overrides
from morphable.data.dataset import MeshDataset, load_dataset, write_dataset
from morphable.data.makers import make_source
from morphable.data.makers.ict import VARIABLE, find_ict
from morphable.errors import InputError
from morphable.evaluate.errors import vertex_errors
from morphable.evaluate.protocol import evaluate_on
from morphable.files import read_json, read_npz, write_json, write_npz, write_text
from morphable.models.families import create, family, with_latent
from morphable.models.io import load
from morphable.train.checkpoint import read_metrics
from morphable.train.distributed import Workers
from morphable.train.loop import Listener
from morphable.train.run import RunConfig, completed, run

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What a person chooses about a bench. only, rows: empty = all. epochs, recipe: None = as the
    table says.
    """

    out: Path
    seeds: int = 1
    source: Path | None = None
    data: Sequence[Path] = ()
    only: Sequence[str] = ()
    rows: Sequence[str] = ()
    epochs: int | None = None
    recipe: str | None = None


@dataclass(frozen=True)
class Task:
    """One run of a bench."""

    data: Data
    row: Row
    seed: int
    folder: Path
    trained: bool = True

    @property
    def title(self) -> str:
        return f"{self.data.name}, {self.row.name}, code of {self.row.size}, seed {self.seed}"


@dataclass(frozen=True, eq=False)
class Outcome:
    """measures: evaluation.json's `model`, and what is known of the run; None where it failed, with
    the reason.

    mesh_errors: (N_test,) mm, the mean vertex error of each test mesh; subjects: (N_test,) whose
    they are.
    """

    task: Task
    measures: dict[str, Any] | None
    baselines: dict[str, Any]
    provenance: dict[str, Any]
    mesh_errors: np.ndarray
    subjects: np.ndarray
    failure: str = ""


def tasks(table: Table, options: Options) -> list[Task]:
    """Every run of the table, with PCA and `pca-mlp` beside; models without chance once.

    Dataset by dataset, and seed by seed within one, so that an unfinished bench has whole rows of
    fewer seeds.
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
            f"--only {sorted(unknown)[0]}: the table has no such dataset, it has {known}"
        )
    rows = [
        row
        for row in with_baselines(table).rows
        if not options.rows or row.baseline or row.name in options.rows
    ]
    strange = set(options.rows) - {row.name for row in rows}
    if strange:
        known = "; ".join(row.name for row in table.rows)
        raise InputError(f"--rows {sorted(strange)[0]}: the table has no such row, it has {known}")
    if options.seeds < 1:
        raise InputError(f"--seeds {options.seeds}: expected at least 1")
    found = []
    for data in datasets:
        if options.only and data.name not in options.only:
            continue
        for seed in range(options.seeds):
            for row in rows:
                if seed and not family(row.family).recipe(row.recipe).train:
                    continue
                name = f"{_slug(row.name)}-l{row.size}-s{seed}"
                found.append(
                    Task(data, row, seed, options.out / "runs" / data.name / name, table.trained)
                )
    return found


def prepare(data: Data, options: Options) -> MeshDataset | None:
    """The dataset, made where it is not there yet; None where it needs the ICT model and there is
    none.
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
            if options.source is not None:
                raise
            return None
    source = sphere(**arguments) if data.kind == SPHERE else make_source(data.kind, **arguments)
    return write_dataset(source, folder, int(arguments.get("seed", 0)))


SPHERE = "sphere"
NO_ICT = f"not run: no ICT data (--source, or the variable {VARIABLE})"


def configuration(task: Task, dataset: MeshDataset, options: Options) -> RunConfig:
    """The row's recipe with the row's changes. Raises InputError where an override does not exist."""
    row, name = task.row, options.recipe or task.row.recipe
    recipe = family(row.family).recipe(name)
    model = with_latent(with_overrides(recipe.model, row.model, f"{row.name}: model"), row.latent)
    split = task.data.split or dataset.default_split()
    if recipe.train is None:
        return RunConfig(row.family, dataset.path, split, model, None, name)
    epochs = None if row.baseline else options.epochs or task.data.epochs
    train = replace(recipe.train, seed=task.seed, epochs=epochs or recipe.train.epochs)
    train = with_overrides(train, row.train, f"{row.name}: train")
    return completed(RunConfig(row.family, dataset.path, split, model, train, name), dataset)


def perform(
    task: Task,
    dataset: MeshDataset,
    options: Options,
    workers: Workers,
    listener: Listener | None = None,
) -> Outcome:
    """Train and measure, or read what was done before. A run that cannot be trained is an outcome,
    not an error.

    Raises InputError where the folder holds another run, Interrupted where training was stopped by
    hand.
    """
    config = configuration(task, dataset, options)
    started = (task.folder / "config.toml").exists()
    if started and RunConfig.read(task.folder) != replace(
        config, data=RunConfig.read(task.folder).data
    ):
        raise InputError(
            f"{task.folder}: holds a run with other settings; choose another --out or remove it"
        )
    if not task.trained:
        return _created(task, dataset, config, workers)
    measured = dataset.part(config.split, "test")
    subjects = measured.labels.groups()
    if not (task.folder / "model" / "model.json").exists():
        try:
            run(config, task.folder, workers, started, listener)
        except InputError as error:
            return Outcome(task, None, {}, {}, np.zeros(0), subjects, str(error))
    return _measured(task, dataset, config, workers, subjects)


def _created(task: Task, dataset: MeshDataset, config: RunConfig, workers: Workers) -> Outcome:
    path = task.folder / "cost.json"
    if not path.exists() or (
        workers.device.type == "cuda" and "decode_gpu_ms" not in read_json(path)
    ):
        write_text(task.folder / "config.toml", config.toml(dataset))
        model = create(config.family, dataset.template, config.model).eval()
        write_json(path, decoding_cost(model, workers.device))
    nobody = np.zeros(0, np.int64)
    return Outcome(
        task, read_json(path), {}, {"vertices": dataset.template.n_vertices}, np.zeros(0), nobody
    )


def _measured(
    task: Task, dataset: MeshDataset, config: RunConfig, workers: Workers, subjects: np.ndarray
) -> Outcome:
    path, errors_path = task.folder / "evaluation.json", task.folder / "mesh_errors.npz"
    model = load(task.folder).to(workers.device)
    if not errors_path.exists():
        errors = vertex_errors(model, dataset.part(config.split, "test").vertices).mean(
            1, dtype=np.float64
        )
        write_npz(errors_path, {"mesh_errors": errors})
    if not path.exists():
        write_json(path, evaluate_on(model, dataset, f"{config.split}:test"))
    evaluation = read_json(path)
    metrics = read_metrics(task.folder / "metrics.jsonl")
    of_run: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    if metrics:
        of_run["seconds_per_epoch"] = metrics[-1]["seconds"] / len(metrics)
        fresh = create(config.family, dataset.template, config.model)
        of_run["training_parameters"] = sum(p.numel() for p in fresh.parameters())
    measures = evaluation["model"] | of_run
    errors = read_npz(errors_path)["mesh_errors"]
    return Outcome(
        task, measures, evaluation["baselines"], evaluation["provenance"], errors, subjects
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9+]+", "-", name.lower()).strip("-")
