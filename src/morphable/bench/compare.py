"""Compare finished runs that were measured on the same meshes, in one table and one page. Every run
is paired with the first one, mesh by mesh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from morphable.bench.document import duration, without_interval, write_tables
from morphable.bench.grid import Grid, grid
from morphable.bench.pictures import MAX_MODELS, pictures_of
from morphable.bench.results import cell, change
from morphable.bench.runner import Outcome, Task, outcome_of
from morphable.bench.table import (
    ERROR,
    JUDGED,
    MEDIAN,
    PARAMETERS,
    SECONDS,
    SPECIFICITY,
    Column,
    Data,
    Row,
    Table,
)
from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.evaluate.evaluation import PCA, Evaluation
from morphable.evaluate.protocol import chosen_subset, open_dataset
from morphable.evaluate.record import Measured
from morphable.files import atomic_folder, write_json
from morphable.models.io import load
from morphable.train.provenance import command_line, versions

COLUMNS = (
    ERROR,
    MEDIAN,
    Column("95th percentile, mm", "vertex_error_mm", "p95"),
    Column("max, mm", "vertex_error_mm", "max"),
    SPECIFICITY,
    Column("disentanglement, mm", "disentanglement_error_mm"),
    Column("swap, mm", "swap_error_mm"),
    Column("swap minus vertex, mm", "swap_cost_mm"),
    Column("control, mm", "control_error_mm"),
    Column("other, mm", "other_error_mm"),
    *(column for column in JUDGED if column is not SPECIFICITY),
    PARAMETERS,
    SECONDS,
)
"""Those that no run has are left out."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs beside PCA and the mean shape. outcomes: of the runs, then of PCA at each of their
    latent sizes. evaluations: of the runs, by the name of their row.
    """

    table: Table
    outcomes: Sequence[Outcome]
    evaluations: Mapping[str, Evaluation]
    dataset: MeshDataset

    @property
    def grid(self) -> Grid:
        rows, data = [o.task.row for o in self.outcomes], self.table.datasets[0].name
        return grid(self.table, self.outcomes, data, rows, self.outcomes[:1])

    @property
    def facts(self) -> list[str]:
        """The sentences under the table."""
        facts = [
            f"Change of the vertex error: against {self.outcomes[0].task.row.name}, paired by mesh: "
            "a 95 % confidence interval of the models that were trained, for which whole subjects "
            "are redrawn (bootstrap-t).",
            "Bold: the best of each column among models of equal latent size, if one direction is "
            "better.",
            *without_interval(self.outcomes[:1]),
        ]
        facts += [
            f"{o.task.row.name}: {o.task.folder}, trained in {duration(o.seconds)}."
            for o in self.outcomes
            if o.seconds
        ]
        return [*facts, f"Command: `{command_line()}`, {torch.get_num_threads()} thread(s)."]

    def write(self, out: Path) -> None:
        """Write the table (.md, .html, .csv, .tex) and comparison.json into a new folder."""
        shown = dict(list(self.evaluations.items())[:MAX_MODELS])
        pictures = {self.grid.data: pictures_of(shown)}
        with atomic_folder(out) as folder:
            write_tables(folder, self.table, [self.grid], self.facts, pictures)
            write_json(folder / "comparison.json", self._record())

    def _record(self) -> dict[str, Any]:
        first = self.outcomes[0]
        runs = []
        for outcome in self.outcomes:
            difference = None if outcome is first else change([outcome], [first])
            runs.append(
                {
                    "row": outcome.task.row.name,
                    "family": outcome.task.row.family,
                    "latent": outcome.task.row.size,
                    "folder": str(outcome.task.folder) if outcome.provenance else None,
                    "measures": outcome.measures,
                    "provenance": outcome.provenance,
                    "change": None if difference is None else vars(difference),
                }
            )
        return {"command": command_line(), "versions": versions(), "runs": runs}


def compare(folders: Sequence[Path]) -> Comparison:
    """Compare finished runs; one that is not evaluated yet is evaluated, as `report` does.

    Raises InputError if there are fewer than two, one is no finished run or is named twice, or they
    were not measured on the same meshes.
    """
    if len(folders) < 2:
        raise InputError(f"expected at least two runs to compare, got {len(folders)}")
    resolved = [folder.resolve() for folder in folders]
    for folder in folders:
        if resolved.count(folder.resolve()) > 1:
            raise InputError(f"{folder}: is named twice")
        if not (folder / "config.toml").exists():
            raise InputError(f"{folder}: not a run folder, it has no config.toml")
    measured = [_measured(folder) for folder in folders]
    names = _names(folders)
    first = measured[0].measures["provenance"]
    for folder, one in zip(folders, measured, strict=True):
        _require_same_meshes(folders[0], first, folder, one.measures["provenance"])
    dataset = measured[0].evaluation.data.whole
    data = Data(dataset.path.name, "", {"path": dataset.path})
    outcomes = [
        outcome_of(Task(data, _row(name, one), 0, folder), one)
        for folder, name, one in zip(folders, names, measured, strict=True)
    ]
    outcomes += _baselines(data, measured)
    columns = [column for column in COLUMNS if any(cell([o], column) for o in outcomes)]
    table = Table(
        "comparison",
        f"{len(folders)} runs compared",
        [data],
        [outcome.task.row for outcome in outcomes],
        columns,
    )
    evaluations = {name: one.evaluation for name, one in zip(names, measured, strict=True)}
    return Comparison(table, outcomes, evaluations, dataset)


def _measured(folder: Path) -> Measured:
    model = load(folder)
    dataset = open_dataset(model, None)
    measured = Measured.read(folder, model, dataset)
    if measured is None:
        measured = Measured.of(Evaluation.of(model, *chosen_subset(model, dataset)))
        measured.write(folder)
    return measured


def _names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or the whole path if two end alike."""
    short = [folder.resolve().name for folder in folders]
    if len(set(short)) == len(short):
        return short
    return [str(folder) for folder in folders]


def _row(name: str, measured: Measured) -> Row:
    model = measured.evaluation.model
    train = measured.measures["provenance"]["model"].get("train")
    text = f"{name}: {model.family}" + (f", {train['epochs']} epochs" if train else "")
    return Row(text, model.family, latent=model.latent)


def _require_same_meshes(
    first: Path, expected: Mapping[str, Any], folder: Path, found: Mapping[str, Any]
) -> None:
    for key, what in (
        ("content_hash", "another dataset"),
        ("split_hash", "another split"),
        ("part", "another subset"),
    ):
        if found[key] != expected[key]:
            raise InputError(
                f"{folder}: was measured on {what} than {first} ({found['part']} of "
                f"{found['data']}, split {found['split']}; not {expected['part']} of "
                f"{expected['data']}, split {expected['split']})"
            )


def _baselines(data: Data, measured: Sequence[Measured]) -> list[Outcome]:
    """PCA at each latent size of the runs, as it was measured beside them."""
    found: dict[int, Outcome] = {}
    for one in measured:
        evaluation, record = one.evaluation, one.measures
        size = int(record["provenance"]["pca_latent"])
        row = Row("PCA", "pca", latent=size, own_epochs=True)
        found.setdefault(
            size,
            Outcome(
                Task(data, row, 0, Path()),
                record["baselines"]["pca"],
                mesh_errors=np.asarray(evaluation.mesh_errors[PCA]),
                groups=evaluation.groups,
            ),
        )
    return [found[size] for size in sorted(found)]
