"""Judges of a dataset: several embeddings for each factor that its labels name, trained on its
training meshes and kept in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from morphable.data.dataset import MeshDataset, SplitDataset
from morphable.data.neutral import expression_levels, neutral_targets
from morphable.draw.normal_map import NormalMaps
from morphable.evaluate.embedding import (
    Embedding,
    Network,
    Threshold,
    choose_threshold,
    embed,
    has_pairs,
    pair_distances,
    train_network,
)
from morphable.files import content_hash
from morphable.mesh.cache import cached
from morphable.rows import evenly_spread

ALGORITHM = "triplets on normal maps, 4"
"""Part of the cache key: change it with anything that changes the result."""
COLUMNS = {"identity": "subject", "expression": "expression"}
"""The label column of each factor."""
NEUTRAL = "neutral"
EXPRESSIVE = 0.5
"""A mesh shows its expression if its level is at least this."""
PER_CLASS = 60
"""Training images of a class: at most so many, evenly spread. They are all kept in memory."""
HELD_OUT = 400
"""Validation and test meshes: at most so many, evenly spread."""
SEEN = 40
"""Shapes that the camera's frame is fitted to."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class JudgeSettings:
    """network, pixels: what an embedding is, and the size of its normal maps. steps: of training.
    count: embeddings per factor. device: where they are trained.
    """

    network: Network = "small"
    pixels: int = 64
    steps: int = 1000
    count: int = 3
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class Judges:
    """maps: draws the normal maps that the embeddings see. embeddings: by factor; a factor without
    enough labels has none.
    """

    maps: NormalMaps
    embeddings: Mapping[str, Sequence[Embedding]]

    @classmethod
    def of(
        cls, data: SplitDataset, settings: JudgeSettings, say: Say = lambda text: None
    ) -> Judges:
        """Train the embeddings of a dataset and a split, or read them from the cache."""
        train = data.train.vertices
        seen = [np.asarray(train[int(row)]) for row in evenly_spread(len(train), SEEN)]
        maps = NormalMaps.of(data.whole.template, seen, settings.pixels)
        labels = {name: factor_classes(data.whole, name) for name in COLUMNS}
        embeddings = {
            factor: _trained(data, factor, labels, maps, settings, say)
            for factor in COLUMNS
            if all(has_pairs(labels[factor][rows]) for rows in _subsets(data))
        }
        return cls(maps, embeddings)


def factor_classes(dataset: MeshDataset, factor: str) -> np.ndarray:
    """(N,) class number of each mesh in a factor, -1 = unknown. An expression below half its level
    is none.
    """
    column = COLUMNS[factor]
    if column not in dataset.labels:
        return np.full(len(dataset), -1)
    classes = dataset.labels.classes(column)
    if factor != "expression":
        return classes.numbers
    levels = expression_levels(dataset, neutral_targets(dataset))
    if levels is None:
        return classes.numbers
    neutral = [number for number, name in enumerate(classes.names) if name.lower() == NEUTRAL]
    weak = (levels < EXPRESSIVE) & ~np.isin(classes.numbers, neutral)
    return np.where(weak, -1, classes.numbers)


def _subsets(data: SplitDataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return data.split.train, data.split.val, data.split.test


def _trained(
    data: SplitDataset,
    factor: str,
    labels: Mapping[str, np.ndarray],
    maps: NormalMaps,
    settings: JudgeSettings,
    say: Say,
) -> list[Embedding]:
    images: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def drawn(name: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a subset, and their normal maps, which the embeddings of a factor share."""
        if name not in images:
            rows = _chosen(labels[factor], data.split.subset(name), name == "train")
            shapes = data.whole.vertices
            pictures = [maps.draw(np.asarray(shapes[row : row + 1])) for row in rows.tolist()]
            images[name] = rows, np.concatenate(pictures)
        return images[name]

    def build(seed: int) -> dict[str, np.ndarray]:
        say(f"training embedding {seed + 1} of {settings.count} for the {factor}")
        rows, pictures = drawn("train")
        classes = labels[factor][rows]
        options = (settings.network, settings.steps, seed, settings.device)
        network = train_network(pictures, classes, *options)
        other = labels["expression" if factor == "identity" else "identity"]
        held_out = []
        for name in ("val", "test"):
            rows, pictures = drawn(name)
            codes = embed(network, pictures)
            held_out.append(pair_distances(codes, labels[factor][rows], other[rows]))
        distance = choose_threshold(*held_out[0])
        return Embedding(network.cpu(), Threshold.at(distance, *held_out[1])).to_arrays()

    info = data.whole.info
    sizes = f"{settings.network} {settings.pixels} {settings.steps}"
    key = content_hash(ALGORITHM, str(info["content_hash"]), data.split.hash, factor, sizes)
    return [
        cached(
            "embedding",
            f"{key} {seed}",
            lambda seed=seed: build(seed),  # type: ignore[misc]
            lambda arrays: Embedding.from_arrays(arrays, settings.network),
        )
        for seed in range(settings.count)
    ]


def _chosen(classes: np.ndarray, rows: np.ndarray, training: bool) -> np.ndarray:
    """Those of the rows of a subset that an embedding is trained on or measured by."""
    known = rows[classes[rows] >= 0]
    if not training:
        return known[evenly_spread(len(known), HELD_OUT)]
    groups = [known[classes[known] == number] for number in np.unique(classes[known])]
    return np.sort(np.concatenate([rows[evenly_spread(len(rows), PER_CLASS)] for rows in groups]))
