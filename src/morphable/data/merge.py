"""Merge datasets of one template into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from morphable.data.dataset import MeshDataset
from morphable.data.labels import LabelTable
from morphable.data.source import MeshSource
from morphable.data.splits import SUBSETS, Split
from morphable.errors import InputError

MARK = "dataset"
"""The column that names the dataset of each mesh."""


def merged(datasets: Sequence[MeshDataset], rename: bool = False) -> MeshSource:
    """The meshes of all datasets, one after another, with the template of the first.

    A label that some of the sets lack is empty there. Subjects of the same name count as one person;
    rename: put the name of its set in front of each subject and sequence instead. Splits that all
    sets have are merged by subset, besides those that follow from the labels.

    Raises InputError if there are fewer than two sets, or the topology of one is another.
    """
    if len(datasets) < 2:
        raise InputError("merge: expected at least two datasets")
    first = datasets[0]
    for other in datasets[1:]:
        if other.template.fingerprint != first.template.fingerprint:
            raise InputError(
                f"{other.path}: its template ({other.template.n_vertices:,} vertices, "
                f"{other.template.fingerprint}) is not that of {first.path} "
                f"({first.template.n_vertices:,} vertices, {first.template.fingerprint})"
            )
    names = [dataset.path.resolve().name for dataset in datasets]
    names = [name if names.count(name) == 1 else f"{name}-{i}" for i, name in enumerate(names, 1)]
    starts = np.cumsum([0] + [len(dataset) for dataset in datasets])
    table = _labels(datasets, names, starts, rename)

    def blocks() -> Iterator[np.ndarray]:
        for dataset in datasets:
            yield from dataset.vertices.blocks()

    licences = dict.fromkeys(str(dataset.info.get("licence", "unknown")) for dataset in datasets)
    info: dict[str, Any] = {
        "source": "merged from " + ", ".join(names),
        "licence": "; ".join(licences),
        "unit": "mm",
        "merged": [
            {"name": name, "content_hash": dataset.info["content_hash"], "meshes": len(dataset)}
            for name, dataset in zip(names, datasets, strict=True)
        ],
    }
    common = set.intersection(*(set(dataset.split_names) for dataset in datasets))
    splits = {name: _split(datasets, starts, name) for name in sorted(common)}
    return MeshSource(first.template, table, blocks, info, splits)


def shared_subjects(datasets: Sequence[MeshDataset]) -> list[str]:
    """The subjects that several datasets have, by name."""
    known = [
        set(dataset.labels.classes("subject").names)
        for dataset in datasets
        if "subject" in dataset.labels
    ]
    every = [name for names in known for name in names]
    return sorted({name for name in every if every.count(name) > 1})


def _labels(
    datasets: Sequence[MeshDataset], names: Sequence[str], starts: np.ndarray, rename: bool
) -> LabelTable:
    columns: dict[str, list[np.ndarray]] = {}
    for key in dict.fromkeys(key for dataset in datasets for key in dataset.labels.columns):
        parts = [dataset.labels.columns.get(key) for dataset in datasets]
        kinds = {part.dtype.kind for part in parts if part is not None}
        filled = []
        for part, dataset, name, start in zip(parts, datasets, names, starts, strict=False):
            if key in ("neutral", "mirror_of"):
                own = np.full(len(dataset), -1) if part is None else part
                filled.append(np.where(own >= 0, own + start, -1))
            elif kinds <= {"i", "f"}:
                filled.append(np.full(len(dataset), np.nan) if part is None else part)
            else:
                text = np.full(len(dataset), "") if part is None else part.astype(str)
                if rename and key in ("subject", "sequence", "file"):
                    text = np.array([f"{name}/{word}" if word else "" for word in text.tolist()])
                filled.append(text)
        columns[key] = filled
    columns[MARK] = [
        np.full(len(dataset), name) for dataset, name in zip(datasets, names, strict=True)
    ]
    joined = {key: np.concatenate(parts) for key, parts in columns.items()}
    return LabelTable(joined, int(starts[-1]))


def _split(datasets: Sequence[MeshDataset], starts: np.ndarray, name: str) -> Split:
    splits = [dataset.split(name).split for dataset in datasets]
    train, val, test = (
        np.concatenate(
            [split.subset(subset) + start for split, start in zip(splits, starts, strict=False)]
        )
        for subset in SUBSETS
    )
    return Split(train, val, test, splits[0].seed)
