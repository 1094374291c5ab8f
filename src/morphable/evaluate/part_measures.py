"""Measures of parts that a model found by itself (`LocalWeights`): how local edits of one part are,
how much parts overlap, and what exchanging parts between meshes adds to the space of codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from morphable.evaluate.errors import summary
from morphable.evaluate.evaluation import Evaluation
from morphable.evaluate.intervals import ratio_interval
from morphable.models.batched import BATCH
from morphable.models.local_weights import LocalWeights, exchange
from morphable.models.parts import recombine
from morphable.rows import evenly_spread

MAX_PAIRS = 100
"""Locality is measured on at most this many pairs of meshes, evenly spread."""
SOURCES, TARGETS = 5, 11
"""Syntheses have the parts of so many targets on so many sources, as in the paper."""
COMPARED = 220
"""At most so many training and measured meshes are compared with the syntheses, as in the paper."""
DRAWS = 10
"""How often sources and targets are drawn, for confidence intervals."""
NEIGHBORS = 5
"""A mesh is covered by a set if one of the set is nearer than the mesh's fifth nearest neighbor
(Naeem et al., "Reliable fidelity and diversity metrics for generative models", ICML 2020).
"""


def part_measures(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Measure a model that found its own parts; empty for other models."""
    model = evaluation.model
    if not isinstance(model, LocalWeights) or len(evaluation.codes) < 2:
        return {}
    measures: dict[str, Any] = {
        **locality(model, evaluation.codes, evaluation.groups),
        "part_overlap": overlap(model.weights),
        "dead_parts": int(model.dead_parts),
    }
    return {"model": measures | diversity_measures(evaluation)}


@torch.no_grad()
def locality(model: LocalWeights, codes: Tensor, groups: np.ndarray) -> dict[str, Any]:
    """How far vertices move inside a part, divided by how far they move outside, when the part's
    code becomes that of another mesh. Means over vertices are weighted by w inside and by 1 - w
    outside. `part_locality/K` is of one part, `part_locality` of the movement in all parts together.

    codes: (N, L). groups: (N,) the group of each.
    """
    rows = evenly_spread(len(codes), MAX_PAIRS)
    partners = np.roll(rows, -(len(rows) // 2))
    weights = model.decoder.weights.T  # (K, V)
    inside: list[np.ndarray] = []
    outside: list[np.ndarray] = []

    for start in range(0, len(rows), BATCH):
        chunk = slice(start, start + BATCH)
        source, target = (
            codes[torch.from_numpy(order[chunk])].to(model.device) for order in (rows, partners)
        )
        before = model.decode(source)
        moved = torch.stack([_moved(model, source, target, part, before) for part in model.parts])
        for means, share in ((inside, weights), (outside, 1 - weights)):
            total = torch.einsum("kbv,kv->bk", moved, share)
            means.append((total / share.sum(1).clamp(min=1e-12)).cpu().numpy())

    near, far = np.concatenate(inside), np.concatenate(outside)  # (pairs, K) mm
    result = {"part_locality": _ratio(near.mean(1), far.mean(1), groups[rows])}
    for number, part in enumerate(model.parts):
        result[f"part_locality/{part}"] = _ratio(near[:, number], far[:, number], groups[rows])
    return result


def _moved(
    model: LocalWeights, source: Tensor, target: Tensor, part: str, before: Tensor
) -> Tensor:
    """(B, V) mm: how far vertices move when a part of `source` becomes that of `target` (B, L)."""
    edited = source.clone()
    edited[:, model.parts[part]] = target[:, model.parts[part]]
    distances: Tensor = (model.decode(edited) - before).norm(dim=-1)
    return distances


def _ratio(values: np.ndarray, references: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """mean(values) / mean(references), both (N,), with its confidence interval."""
    least = 1e-9  # A part that moves nothing outside would be infinitely local.
    references = np.maximum(references.astype(np.float64), least)
    values = values.astype(np.float64)
    bounds = ratio_interval(values, references, groups)
    return {
        "mean": float(values.mean() / references.mean()),
        "ci95": None if bounds is None else [*bounds],
        "groups": len(set(groups.tolist())),
    }


def overlap(weights: np.ndarray) -> float:
    """Mean over pairs of parts of 2 sum min(w_i, w_j) / sum (w_i + w_j), for weights (V, K): 0 if
    no vertex belongs to two parts, 1 if all parts are equal. A single part has none, 0, and two
    dead parts (without weights) neither.
    """
    first, second = np.triu_indices(weights.shape[1], 1)
    if not len(first):
        return 0.0
    a, b = weights[:, first].astype(np.float64), weights[:, second].astype(np.float64)
    return float((2 * np.minimum(a, b).sum(0) / np.maximum((a + b).sum(0), 1e-300)).mean())


@dataclass(frozen=True, eq=False)
class Diversity:
    """Codes z of training meshes, of held-out meshes, of syntheses as in the paper, and of mixtures
    in which every part comes from a mesh of its own; each (n, Z), as encoded.
    """

    training: np.ndarray
    held_out: np.ndarray
    syntheses: np.ndarray
    mixtures: np.ndarray

    def plane(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean (Z,) of the training codes and their two principal directions (2, Z)."""
        mean = self.training.mean(0)
        return mean, np.linalg.svd(self.training - mean, full_matrices=False)[2][:2]

    def area(self, codes: np.ndarray) -> float:
        """The area of the ellipse of codes in that plane, relative to the training codes'."""
        _, axes = self.plane()
        own, reference = (_ellipse_area(which @ axes.T) for which in (codes, self.training))
        return own / max(reference, 1e-300)

    def spread(self, codes: np.ndarray) -> float:
        """The root mean square distance of codes to their mean, relative to the training codes'."""
        own, reference = (np.sqrt(which.var(0).sum()) for which in (codes, self.training))
        return float(own / max(reference, 1e-300))

    def coverage(self, codes: np.ndarray) -> float:
        """The share of held-out meshes that `codes` cover, see NEIGHBORS."""
        own = _distances(self.held_out, self.held_out)
        reach = np.sort(own, 1)[:, min(NEIGHBORS, len(own) - 1)]  # column 0 is the mesh itself
        return float((_distances(self.held_out, codes).min(1) <= reach).mean())

    def novelty(self, codes: np.ndarray) -> float:
        """The mean distance of codes to the nearest training code, relative to that of held-out
        meshes.
        """
        own, reference = (
            _distances(which, self.training).min(1).mean() for which in (codes, self.held_out)
        )
        return float(own / max(reference, 1e-300))


@torch.no_grad()
def diversity(evaluation: Evaluation, model: LocalWeights, draws: int = 1) -> list[Diversity]:
    """The codes that the paper plots, for several draws of sources and targets among the measured
    meshes, and as many mixtures as there are measured meshes. Both are decoded and encoded again.
    """
    training = evaluation.data.train.vertices
    rows = evenly_spread(len(training), COMPARED)
    encoded = _encodings(model, len(rows), lambda chunk: _meshes(model, training, rows[chunk]))
    measured = evaluation.codes.to(model.device)
    kept = torch.from_numpy(evenly_spread(len(measured), COMPARED)).to(model.device)
    held_out = model.encoding_of(measured[kept]).cpu().numpy()

    def again(codes: Tensor) -> np.ndarray:
        return _encodings(model, len(codes), lambda chunk: model.decode(codes[chunk]))

    results = []
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(measured), generator=generator)
        sources = min(SOURCES, len(order) // 2)
        chosen = measured[order.to(model.device)]
        syntheses = recombine(
            model.parts, chosen[:sources], chosen[sources:][:TARGETS], list(model.parts)
        )
        mixtures = _mixtures(measured[kept], len(model.parts), generator)
        results.append(Diversity(encoded, held_out, again(syntheses), again(mixtures)))
    return results


def _mixtures(codes: Tensor, parts: int, generator: torch.Generator) -> Tensor:
    """Exchange each part of the codes (n, L) between the meshes at random."""
    orders = [torch.randperm(len(codes), generator=generator) for _ in range(parts)]
    order = torch.stack(orders, 1).to(codes.device)
    return exchange(codes.unflatten(1, (parts, -1)), order).flatten(1)


def diversity_measures(evaluation: Evaluation) -> dict[str, Any]:
    """Area, spread and coverage of part syntheses, and the same of other codes to compare with."""
    model = evaluation.model
    assert isinstance(model, LocalWeights)
    draws = diversity(evaluation, model, DRAWS)
    numbers = np.arange(len(draws))
    first = draws[0]
    measures: dict[str, Any] = {}
    for name in ("synthesis", "mixture"):
        for measure in ("area", "spread", "coverage", "novelty"):
            values = [
                getattr(draw, measure)(draw.syntheses if name == "synthesis" else draw.mixtures)
                for draw in draws
            ]
            measures[f"{name}_{measure}"] = summary(np.array(values), numbers)
    return measures | {
        "held_out_area": first.area(first.held_out),
        "held_out_spread": first.spread(first.held_out),
        "training_coverage": first.coverage(first.training),
    }


def _meshes(model: LocalWeights, shapes: Any, rows: np.ndarray) -> Tensor:
    """The meshes (n, V, 3) mm in these rows, on the model's device."""
    meshes = np.stack([np.asarray(shapes[int(row)]) for row in rows])
    return torch.from_numpy(meshes).to(model.device)


def _encodings(model: LocalWeights, count: int, meshes: Callable[[slice], Tensor]) -> np.ndarray:
    """(count, Z) codes z of meshes that come in batches."""
    batches = [slice(start, start + BATCH) for start in range(0, count, BATCH)]
    codes = [model.encoding(meshes(chunk)).cpu().numpy() for chunk in batches]
    return np.concatenate(codes).astype(np.float64)


def _ellipse_area(points: np.ndarray) -> float:
    """The area, up to a factor, of the covariance ellipse of points (n, 2)."""
    return float(np.sqrt(max(np.linalg.det(np.cov(points.T)), 0.0)))


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) distances between codes (n, Z) and (m, Z)."""
    return np.asarray(np.linalg.norm(a[:, None] - b[None], axis=2))
