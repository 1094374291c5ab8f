"""evaluate_on: which meshes a model is measured on, and the record that makes the numbers
repeatable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from morphable.data.dataset import MeshDataset, load_dataset
from morphable.data.splits import PARTS
from morphable.errors import InputError
from morphable.evaluate.disentangle import disentanglement
from morphable.evaluate.edit_errors import Measurer, editing
from morphable.evaluate.measure import evaluate
from morphable.models.base import MorphableModel

MEASURERS: tuple[Measurer, ...] = (disentanglement, editing)
"""What only some families are measured by; each says itself which."""


def open_dataset(model: MorphableModel, path: Path | None) -> MeshDataset:
    """The dataset at `path`, or the one the model was trained on.

    Raises InputError where neither is there or its template is not the model's.
    """
    if path is None:
        if "data" not in model.provenance:
            raise InputError("the model does not record its dataset; name one with --data")
        path = Path(model.provenance["data"])
        if not path.is_dir():
            raise InputError(
                f"{path}: the dataset the model was trained on is not there; name one with --data"
            )
    dataset = load_dataset(path)
    require_template(model, dataset, str(path))
    return dataset


def require_template(model: MorphableModel, dataset: MeshDataset, name: str) -> None:
    if dataset.template.fingerprint != model.template.fingerprint:
        own, other = model.template, dataset.template
        raise InputError(
            f"{name}: its template ({other.name}, {other.n_vertices} vertices, {other.fingerprint}) is not the "
            f"model's ({own.name}, {own.n_vertices} vertices, {own.fingerprint})"
        )


def evaluate_on(model: MorphableModel, dataset: MeshDataset, split: str | None) -> dict[str, Any]:
    """The content of evaluation.json. `split`: `[NAME:]train|val|test`, by default the model's own
    split and `test`.

    The baselines are fitted on the split's training meshes.
    """
    name, _, part = (split or "test").rpartition(":")
    if part not in PARTS:
        raise InputError(
            f"--split {split}: expected train, val or test, or a split and a part as in subject:test"
        )
    name = name or str(model.provenance.get("split") or dataset.default_split())
    measured = dataset.part(name, part)
    train = dataset.part(name, "train")
    subjects = measured.labels.groups()
    result = evaluate(model, train.vertices, measured.vertices, subjects)
    for measure in MEASURERS:
        for row, found in measure(model, train, measured).items():
            place = result["model"] if row == "model" else result["baselines"].setdefault(row, {})
            place.update(found)
    result["provenance"] = {
        "model": dict(model.provenance),
        "data": str(dataset.path.resolve()),
        "content_hash": dataset.info["content_hash"],
        "split": name,
        "part": part,
        "split_hash": dataset.split(name).hash,
        "meshes": len(measured),
        "subjects": len(set(subjects.tolist())),
        "train_meshes": len(train),
        "latent": model.parts.free_size,
        "family": model.family,
        "threads": torch.get_num_threads(),
    }
    return result
