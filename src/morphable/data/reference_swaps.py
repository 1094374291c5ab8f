"""Reference swaps: the mesh of one mesh's subject with another mesh's expression, if it is known."""

from __future__ import annotations

import numpy as np

from morphable.data.dataset import MeshDataset
from morphable.data.makers import MAKERS
from morphable.errors import InputError

WEIGHT = "w/"


def reference_swaps(
    dataset: MeshDataset, identity: np.ndarray, expression: np.ndarray
) -> np.ndarray:
    """(n, V, 3) mm: the subjects of rows `identity` (n,) with the expressions of rows `expression`
    (n,).

    A set that records its maker has them made; faces need ICT-FaceKit for that. Elsewhere a mesh of
    that subject with the very same expression weights is the answer. What is not known is nan.
    """
    maker = dataset.info.get("maker", {})
    if maker.get("name") in MAKERS:
        people, faces = dataset.labels.take(identity), dataset.labels.take(expression)
        try:
            made = MAKERS[maker["name"]].true_meshes(maker["options"], people, faces)
        except (InputError, KeyError):
            made = np.zeros(0)  # no ICT-FaceKit here, or the labels were replaced
        if made.shape == (len(identity), *dataset.vertices.shape[1:]):
            return made
    return _looked_up(dataset, identity, expression)


def _looked_up(dataset: MeshDataset, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """Meshes of the dataset that are the answer, nan if there is none or expressions have no weights
    to compare.
    """
    shape = dataset.vertices.shape[1:]
    answers = np.full((len(identity), *shape), np.nan, np.float32)
    names = [name for name in dataset.labels.columns if name.startswith(WEIGHT)]
    if not names or "subject" not in dataset.labels:
        return answers
    weights = np.stack([dataset.labels[name] for name in names], 1)
    subject = dataset.labels["subject"].astype(str)
    for number, (person, face) in enumerate(zip(identity, expression, strict=True)):
        same = np.flatnonzero((subject == subject[person]) & (weights == weights[face]).all(1))
        if len(same):
            answers[number] = dataset.vertices[int(same[0])]
    return answers
