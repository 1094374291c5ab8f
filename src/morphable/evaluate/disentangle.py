"""Measures how well a model with an identity part separates identity from expression.

- Disentanglement error: Sun, Pears and Gu, WACV 2022, and the root mean square of Jiang et al.,
  CVPR 2019.
- Leakage: how well a probe predicts one factor from the code of the other.
- Swap error: the distance to the true shape, if the source of the dataset can compute it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor

from morphable.data.dataset import MeshDataset
from morphable.data.labels import LabelTable
from morphable.data.neutral import neutral_targets
from morphable.data.reference_swaps import reference_swaps
from morphable.evaluate.directions import INACTIVE_VARIANCE
from morphable.evaluate.errors import summary
from morphable.evaluate.evaluation import MODEL, Evaluation
from morphable.mesh.align import procrustes
from morphable.models.base import MorphableModel
from morphable.models.batched import BATCH, decode_all, neutral_all
from morphable.rows import evenly_spread

MAX_MESHES = 2000
"""At most this many meshes are measured, evenly spread."""
MAX_SWAPS = 200
"""Number of swaps that are tried."""
FOLDS = 4
"""Folds of the cross-validation of a probe."""
MAX_CLASSES = 40
"""A probe distinguishes at most this many classes, the most frequent ones."""
PROBE_MESHES = 1000
"""At most this many meshes are used for a probe, drawn at random."""


def disentanglement(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Compute the measures that the labels allow. Empty if the model has no identity part or the
    data no subjects.

    Neutral meshes and true swaps are taken from the whole dataset, since they may belong to another
    subset than the measured meshes.
    """
    model, whole = evaluation.model, evaluation.data.whole
    if "identity" not in model.parts or "subject" not in evaluation.measured.labels:
        return {}
    rows = evenly_spread(len(evaluation.codes), MAX_MESHES)
    chosen, codes = evaluation.measured.select(rows), evaluation.codes[rows]
    subjects, groups = chosen.labels.classes("subject").numbers, chosen.labels.groups()
    result: dict[str, Any] = {}
    predicted = _per_subject(model, codes, subjects)
    if predicted:
        each = np.arange(len(predicted))
        spreads = np.array([disentanglement_error(shapes) for shapes in predicted])
        result["disentanglement_error_mm"] = summary(spreads, each)
        rms = np.array([disentanglement_error_rms(shapes) for shapes in predicted])
        result["disentanglement_error_rms_mm"] = summary(rms, each)
    errors = neutral_errors(model, codes, whole, chosen)
    known = np.isfinite(errors)
    if known.any():
        result["neutral_error_mm"] = summary(errors[known], groups[known])
    result |= leakage(model, codes, chosen)
    swapped, people, faces = swap_errors(model, codes, whole, chosen)
    if len(swapped):
        of_people, of_faces = groups[people], groups[faces]
        result["swap_error_mm"] = summary(swapped, of_people, partners=of_faces)
        own = evaluation.mesh_errors[MODEL][rows]
        cost = swapped - (own[people] + own[faces]) / 2
        result["swap_cost_mm"] = summary(cost, of_people, partners=of_faces)
    retained = expression_retention(model, codes, chosen, subjects)
    if retained is not None:
        result["expression_kept"] = retained
    if model.axis_aligned_code:
        result |= collapsed(model, codes)
    return {"model": result}


def _per_subject(model: MorphableModel, codes: Tensor, subjects: np.ndarray) -> list[np.ndarray]:
    """For each subject with at least two meshes, the neutral shapes (n, V, 3) mm predicted from
    them.
    """
    numbers, counts = np.unique(subjects[subjects >= 0], return_counts=True)
    rows = [torch.from_numpy(np.flatnonzero(subjects == number)) for number in numbers[counts > 1]]
    return [neutral_all(model, codes[own]) for own in rows]


def disentanglement_error(shapes: np.ndarray) -> float:
    """Standard deviation in mm of the distances of all vertices to the mean shape, pooled (Sun et
    al., eq. 14).

    Trap: this measures how uneven the distances are, not how large. If all are equal, it is zero.

    shapes: (n, V, 3) mm neutral shapes of one subject, predicted from its different expressions.
    """
    return float(np.linalg.norm(shapes - shapes.mean(0, dtype=np.float64), axis=-1).std())


def disentanglement_error_rms(shapes: np.ndarray) -> float:
    """Mean over vertices of the root mean square distance in mm to the mean shape, after rigid
    alignment (Jiang et al.).

    shapes: (n, V, 3) mm neutral shapes of one subject, as above. They are aligned to the first.
    """
    aligned = procrustes(shapes, shapes[0]).apply(np.asarray(shapes, np.float64))
    return float(np.sqrt(aligned.var(0).sum(-1)).mean())


def neutral_errors(
    model: MorphableModel, codes: Tensor, whole: MeshDataset, chosen: MeshDataset
) -> np.ndarray:
    """(N,) mm mean vertex distance of each predicted neutral shape to the true one of the subject;
    nan if that is unknown.
    """
    targets = neutral_targets(whole)
    errors = np.full(len(codes), np.nan)
    known = np.flatnonzero(targets.known(chosen.rows))
    for rows in np.array_split(known, max(1, len(codes) // BATCH)):
        if len(rows):
            shapes = neutral_all(model, codes[torch.from_numpy(rows)])
            truth = targets.of(chosen.rows[rows])
            errors[rows] = np.linalg.norm(shapes - truth, axis=-1).mean(-1)
    return errors


def expression_retention(
    model: MorphableModel, codes: Tensor, chosen: MeshDataset, subjects: np.ndarray
) -> float | None:
    """Share of the variance within subjects, which is due to expression, that reconstructions
    retain.

    1 - |(r - mean r) - (x - mean x)|^2 / |x - mean x|^2, where x are the meshes and r the
    reconstructions of a subject, summed over subjects. 1 means that all of it is retained. A model
    that reconstructs all meshes of a subject as the same shape scores 0, although its
    disentanglement error is zero. None if every subject has only one mesh.
    """
    missed = total = 0.0
    for number in np.unique(subjects[subjects >= 0]):
        rows = np.flatnonzero(subjects == number)
        shapes = chosen.vertices[rows].astype(np.float64)
        decoded = decode_all(model, codes[torch.from_numpy(rows)])
        moved = shapes - shapes.mean(0)
        missed += float(np.square(decoded - decoded.mean(0, dtype=np.float64) - moved).sum())
        total += float(np.square(moved).sum())
    return 1 - missed / total if total > 0 else None


def leakage(
    model: MorphableModel, codes: Tensor, chosen: MeshDataset, seed: int = 0
) -> dict[str, float]:
    """Accuracy of probes that predict the subject from the rest of the code (`identity_leakage`),
    and the expression from the identity part (`expression_leakage`).

    The accuracy is that of a linear probe on held-out meshes: of expressions or sequences that the
    probe was not fitted to for the subject, of subjects that it was not fitted to for the
    expression. `_nonlinear` is that of a support vector machine with a Gaussian kernel; `_chance`,
    of always predicting the most frequent class.
    """
    free = model.parts.free.copy()
    free[model.parts["identity"]] = False
    values, labels = codes.cpu().numpy(), chosen.labels
    inputs = {
        "identity": (values[:, free], "subject", performances(labels)),
        "expression": (values[:, model.parts["identity"]], "expression", labels.groups()),
    }
    result: dict[str, float] = {}
    for name, (numbers, column, held) in inputs.items():
        if column in labels and numbers.shape[1]:
            scores = probe(numbers, labels.classes(column).numbers, held, seed)
            result |= {f"{name}_leakage{suffix}": score for suffix, score in scores.items()}
    return result


def performances(labels: LabelTable) -> np.ndarray:
    """(N,) group number of each mesh, for probes of the subject: meshes of one expression are a
    group, or of one sequence if sequences run through several expressions.

    The groups are those of all subjects together. If they were each subject's own, the probe would
    see the held-out expression of all other subjects and never guess the right one. A mesh with
    neither label is a group of its own.
    """
    own = np.arange(labels.count)
    expressions, sequences = (
        labels.classes(name).numbers if name in labels else np.full(labels.count, -1)
        for name in ("expression", "sequence")
    )
    known = sequences >= 0
    passed = len(np.unique(np.stack([sequences, expressions], 1)[known], axis=0))
    several = passed > len(np.unique(sequences[known]))
    first, second = (sequences, expressions) if several else (expressions, sequences)
    named = np.where(first >= 0, first, np.where(second >= 0, labels.count + second, -1))
    return np.where(named >= 0, named, 2 * labels.count + own)


def probe(
    numbers: np.ndarray, classes: np.ndarray, held: np.ndarray, seed: int = 0
) -> dict[str, float]:
    """Cross-validated accuracy of predicting `classes` (N,) from `numbers` (N, n), by probe: "" is
    the linear one, "_nonlinear" and "_chance" as in `leakage`.

    held: (N,) group of each mesh; the meshes of a group are held out together. Trap: with single
    meshes held out, a probe recognizes the neighboring frames of a recording, and codes without any
    identity seem to have it.

    Meshes without a class, and classes with fewer than FOLDS meshes or in a single group, are left
    out. The result is empty if fewer than two classes are left.
    """
    rows = _probed(classes, held, np.flatnonzero(classes >= 0))
    drawn = np.sort(np.random.default_rng(seed).permutation(rows)[:PROBE_MESHES])
    rows = _probed(classes, held, drawn)
    x, y, groups = numbers[rows], classes[rows], held[rows]
    if len(np.unique(y)) < 2:
        return {}
    count = min(FOLDS, len(np.unique(groups)))
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    divided = list(folds.split(x, y, groups))
    probes = {"": LogisticRegression(max_iter=2000), "_nonlinear": SVC()}
    scores = {name: _accuracy(made, x, y, divided) for name, made in probes.items()}
    return scores | {"_chance": float(np.unique(y, return_counts=True)[1].max() / len(y))}


def _probed(classes: np.ndarray, held: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Those of the rows whose class has FOLDS meshes in at least two groups: the MAX_CLASSES most
    frequent classes.
    """
    names, counts = np.unique(classes[rows], return_counts=True)
    frequent = names[np.argsort(-counts, kind="stable")][: int((counts >= FOLDS).sum())]
    usable = [c for c in frequent if len(np.unique(held[rows[classes[rows] == c]])) > 1]
    return rows[np.isin(classes[rows], usable[:MAX_CLASSES])]


def _accuracy(made: Any, x: np.ndarray, y: np.ndarray, folds: list[Any]) -> float:
    """Share of the classes (N,) guessed right, each by a probe that was fitted to the other folds."""
    right = 0
    for fitted, held_out in folds:
        if len(np.unique(y[fitted])) < 2:  # nothing to choose from
            right += int((y[held_out] == y[fitted][0]).sum())
            continue
        found = make_pipeline(StandardScaler(), made).fit(x[fitted], y[fitted])
        right += int((found.predict(x[held_out]) == y[held_out]).sum())
    return right / len(y)


def swap_errors(
    model: MorphableModel, codes: Tensor, dataset: MeshDataset, chosen: MeshDataset, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean vertex distance in mm of each swap to the true shape, and the rows of the mesh whose
    identity it has and of the mesh whose expression it has, all (n,).

    A swap combines the identity of one mesh with the other parts of a mesh of another subject, both
    drawn at random. Swaps whose true shape is unknown are left out.
    """
    random = np.random.default_rng(seed)
    subjects = chosen.labels.groups()
    a, b = random.integers(len(chosen), size=(2, MAX_SWAPS))
    a, b = a[subjects[a] != subjects[b]], b[subjects[a] != subjects[b]]
    mixed = codes[torch.from_numpy(b)].clone()
    where = model.parts["identity"]
    mixed[:, where] = codes[torch.from_numpy(a)][:, where]
    if not len(a):
        return np.zeros(0), a, b
    errors = []
    for chunk in np.array_split(np.arange(len(a)), max(1, len(a) // BATCH)):
        truth = reference_swaps(dataset, chosen.rows[a[chunk]], chosen.rows[b[chunk]])
        decoded = decode_all(model, mixed[torch.from_numpy(chunk)])
        errors.append(np.linalg.norm(decoded - truth, axis=-1).mean(-1))
    distances = np.concatenate(errors)
    known = np.isfinite(distances)
    return distances[known], a[known], b[known]


def collapsed(model: MorphableModel, codes: Tensor) -> dict[str, int]:
    """`collapsed/PART`: the number of latent dimensions of each part that are nearly constant over
    the meshes.
    """
    variance = codes.double().var(0)
    return {
        f"collapsed/{name}": int((variance[model.parts[name]] < INACTIVE_VARIANCE).sum())
        for name in model.parts.free_names
    }
