"""True answers to a swap: the mesh of one mesh's subject with another mesh's expression, where the
source can tell.
"""

from __future__ import annotations

import numpy as np

from morphable.data.dataset import MeshDataset
from morphable.data.labels import LabelTable
from morphable.errors import InputError

WEIGHT = "w/"


def reference_swaps(
    dataset: MeshDataset, identity: np.ndarray, expression: np.ndarray
) -> np.ndarray:
    """(n, V, 3) mm: the subjects of rows `identity` (n,) with the expressions of rows `expression`
    (n,).

    Hands are posed anew; so are faces where ICT-FaceKit is at hand. Elsewhere a mesh of that
    subject with the very same expression weights answers. What is not known is nan.
    """
    source = str(dataset.info.get("source", ""))
    people, faces = dataset.labels.take(identity), dataset.labels.take(expression)
    if source.startswith("hands:"):
        from morphable.data.makers.hands import pose_hands, rotation_labels

        return pose_hands(_numbers(people), rotation_labels(faces))
    if source.startswith(("faces:", "face-population:")):
        try:
            return _faces(dataset, people, faces)
        except InputError:
            pass  # no ICT-FaceKit here
    return _looked_up(dataset, identity, expression)


def _numbers(labels: LabelTable) -> np.ndarray:
    """(n,) the number in each subject's name, as the rigs count them: hand017 is 17."""
    return np.array(
        [int("".join(filter(str.isdigit, name))) for name in labels["subject"].astype(str)]
    )


def _faces(dataset: MeshDataset, people: LabelTable, faces: LabelTable) -> np.ndarray:
    from morphable.data.makers.faces import face_maker, weight_labels

    seed, linear = int(dataset.info["seed"]), bool(dataset.info["linear"])
    sizes = {
        5_023: ("5k", "head"),
        11_248: ("12k", "head"),
        68_089: ("70k", "head"),
        9_409: ("12k", "face"),
    }
    if dataset.template.n_vertices not in sizes:
        raise InputError("no face of this size is made here")
    size, part = sizes[dataset.template.n_vertices]
    maker = face_maker(seed=seed, linear=linear, size=size, part=part)
    if maker.topology.template.fingerprint != dataset.template.fingerprint:
        raise InputError("no face of this topology is made here")
    return maker.faces(_numbers(people), weight_labels(faces))


def _looked_up(dataset: MeshDataset, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """Meshes of the dataset that are the answer, nan where there is none or expressions have no
    weights to compare.
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
