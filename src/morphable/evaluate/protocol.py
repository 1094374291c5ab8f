"""Chooses the dataset, and the subset of it, on which a model is measured."""

from __future__ import annotations

from pathlib import Path

from morphable.data.dataset import MeshDataset, SplitDataset, load_dataset
from morphable.data.splits import SUBSETS
from morphable.errors import InputError
from morphable.models.base import MorphableModel


def open_dataset(model: MorphableModel, path: Path | None) -> MeshDataset:
    """Open the dataset at `path`; if None, the one that the model was trained on.

    Raises InputError if there is no such dataset, if its template is not the model's, or if the
    folder that the model was trained on holds another dataset now.
    """
    own = path is None
    if path is None:
        if "data" not in model.provenance:
            raise InputError("the model does not record its dataset; name one with `data`", "data")
        path = Path(model.provenance["data"])
        if not path.is_dir():
            raise InputError(
                f"{path}: the dataset the model was trained on is not there; name one with `data`",
                "data",
            )
    dataset = load_dataset(path)
    require_template(model, dataset, str(path))
    if own and not trained_on(model, dataset):
        raise InputError(
            f"{path}: holds other meshes or labels than those that the model was trained on; to "
            "measure it on these, name them with `data`",
            "data",
        )
    return dataset


def trained_on(model: MorphableModel, dataset: MeshDataset) -> bool:
    """Whether a dataset is the one that the model was trained on, wherever it is now. True for a
    model that does not record its dataset.
    """
    known = dataset.info["content_hash"]
    return bool(model.provenance.get("content_hash", known) == known)


def require_template(model: MorphableModel, dataset: MeshDataset, name: str) -> None:
    """Raise InputError, with the dataset's `name`, if its template is not the model's."""
    if dataset.template.fingerprint != model.template.fingerprint:
        own, other = model.template, dataset.template
        raise InputError(
            f"{name}: its template ({other.name}, {other.n_vertices} vertices, "
            f"{other.fingerprint}) is not the model's ({own.name}, {own.n_vertices} vertices, "
            f"{own.fingerprint})"
        )


def chosen_subset(
    model: MorphableModel, dataset: MeshDataset, split: str | None = None
) -> tuple[SplitDataset, str]:
    """The split and the subset named by `split`, which has the form `[NAME:]train|val|test`.

    By default, they are the split that the model was trained on, and its test subset. Raises
    InputError if the form is wrong or there is no such split.
    """
    name, colon, subset = ("test" if split is None else split).rpartition(":")
    if subset not in SUBSETS:
        raise InputError(
            f"`split` {split}: expected train, val or test, or a split and a subset as in "
            "subject:test",
            "split",
        )
    return dataset.split(name if colon else trained_split(model)), subset


def trained_split(model: MorphableModel) -> str | None:
    """The name of the split that the model was trained on, if it is recorded."""
    name = model.provenance.get("split")
    return None if name is None else str(name)
