"""The errors of each measured mesh as a table: its mean, its maximum, and the mean of each region."""

from __future__ import annotations

import csv
import io

import numpy as np

from morphable.data.dataset import SplitDataset
from morphable.evaluate.evaluation import MODEL, PCA, Evaluation
from morphable.evaluate.measures import areas
from morphable.evaluate.protocol import require_template
from morphable.models.base import MorphableModel

MeshTable = dict[str, np.ndarray]
"""Columns (N,) by name, one entry per measured mesh."""


def mesh_errors(
    model: MorphableModel, *, data: SplitDataset, subset: str = "test"
) -> dict[str, np.ndarray]:
    """Measure a model on each mesh of a subset, as `morphable evaluate` writes it to a CSV file.

    Args:
        model: A trained model.
        data: A dataset on the model's template, divided by one of its splits.
        subset: The subset that is measured: "test", "val" or "train".

    Returns:
        Columns by name, one entry per mesh, which `pandas.DataFrame` takes as they are: `mesh` (its
        file if the dataset has been imported, else its row), `row` in the dataset, `subject` (empty
        if unknown), `mean_mm` and `max_mm` of the distances between reconstructed and true
        vertices, `pca_mean_mm` of a PCA of the same latent size, and `mean_mm/NAME` of each region
        and mask.
    """
    require_template(model, data.whole, str(data.whole.path))
    return mesh_table(Evaluation.of(model, data, subset))


def mesh_table(evaluation: Evaluation) -> MeshTable:
    """The columns of `mesh_errors` for an evaluation."""
    labels, errors = evaluation.measured.labels, evaluation.errors(MODEL)
    rows = evaluation.places
    names = labels["file"] if "file" in labels else rows.astype(str)
    subjects = labels["subject"].astype(str) if "subject" in labels else np.full(len(rows), "")
    table = {
        "mesh": names,
        "row": rows,
        "subject": subjects,
        "mean_mm": errors.mean(1, dtype=np.float64),
        "max_mm": errors.max(1).astype(np.float64),
        "pca_mean_mm": np.asarray(evaluation.mesh_errors[PCA], np.float64),
    }
    for name, vertices in areas(evaluation.model.template).items():
        table[f"mean_mm/{name}"] = errors[:, vertices].mean(1, dtype=np.float64)
    return table


def csv_text(table: MeshTable) -> str:
    """The table as CSV: a line of names, then one line per mesh."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table)
    columns = [
        [f"{value:.6g}" for value in column] if column.dtype.kind == "f" else column.tolist()
        for column in table.values()
    ]
    writer.writerows(zip(*columns, strict=True))
    return file.getvalue()
