"""The referee judges a generative model by what no single measure tells: how real its samples are,
whether they cover the data, how much they vary, whether each part of the code changes its own
factor only, and what its decoder can represent.

The measures are those of Abrevaya, Boukhayma, Wuhrer and Boyer (2019), beside the same measures of
real meshes, since a sample cannot be nearer to the training meshes than a held-out mesh is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from morphable.data.dataset import SplitDataset
from morphable.evaluate.conditions import Conditions, sample_codes
from morphable.evaluate.embedding import mean_and_spread, same_share
from morphable.evaluate.errors import summary
from morphable.evaluate.evaluation import code_errors
from morphable.evaluate.judges import COLUMNS, Judges, JudgeSettings, factor_classes
from morphable.evaluate.population import (
    VERTICES,
    Summary,
    class_pairs,
    distances_summary,
    nearest,
    nearest_neighbor_accuracy,
    pair_distances,
    random_pairs,
    reduced,
)
from morphable.models.base import MorphableModel
from morphable.models.batched import decode_all, encode_all
from morphable.models.inversion import invert_all
from morphable.rows import evenly_spread

MEASURES = (
    "specificity_mm",
    "real_specificity_mm",
    "coverage_mm",
    "real_coverage_mm",
    "one_nn_accuracy",
    "real_one_nn_accuracy",
    "diversity_mm",
    "real_diversity_mm",
    "decoupling",
    "generalization_mm",
    "encoder_error_mm",
)
"""What a verdict holds, in this order."""
JUDGED = (
    "specificity_mm",
    "coverage_mm",
    "one_nn_accuracy",
    "diversity_mm",
    "decoupling",
    "generalization_mm",
)
"""What an evaluation and a table take from a verdict. Its specificity is of more samples than that of
an evaluation, which it replaces."""
REAL = "real_meshes"
"""The baseline that is no model: real meshes, measured as samples are."""
TRAINING_MESHES = 5000
"""Training meshes among which the nearest is searched: at most so many, evenly spread."""
HELD_OUT = 1000
"""Held-out meshes that samples are compared with: at most so many, evenly spread."""
COLLAPSED = 0.05
"""A generator has collapsed if its samples differ by less than this share of what training meshes
differ by."""
MOVED = 0.1
"""The decoupling is also measured with the thresholds moved by this share."""
PART = {"identity": ("identity",), "expression": ("expression", "condition")}
"""The names that the part of the code of a factor may have."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class RefereeSettings:
    """samples: shapes drawn from the prior. faces, resamplings: codes of a factor, and shapes drawn
    with each. pairs: for diversity. fitted: held-out meshes that codes are fitted to.
    """

    samples: int = 400
    faces: int = 100
    resamplings: int = 10
    pairs: int = 2000
    fitted: int = 20
    judges: JudgeSettings = field(default_factory=JudgeSettings)
    seed: int = 0


QUICK = RefereeSettings()


def full_settings(device: str = "cpu") -> RefereeSettings:
    """The numbers of the paper, and its embedding."""
    judges = JudgeSettings("resnet18", 224, 3000, 3, device)
    return RefereeSettings(1000, 100, 100, 10_000, 175, judges)


def judge(
    model: MorphableModel,
    data: SplitDataset,
    subset: str = "test",
    settings: RefereeSettings = QUICK,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """All measures of a model by name, None where the model or the data cannot have one; with
    `collapsed`, what is collapsed in words ("" if nothing is), and `judges`, how right each
    embedding is.
    `provenance` says on what, and with which settings, it was measured.

    Every measure of several values is a mapping with `mean` and `std`.
    """
    say("comparing real meshes")
    real = _Real.of(data, subset, settings)
    verdict: dict[str, Any] = dict.fromkeys(MEASURES)
    verdict["real_specificity_mm"] = distances_summary(nearest(real.held_out, real.train)[:, 1])
    verdict["real_diversity_mm"] = real.diversity
    # As many training meshes, measured as if a model had drawn them. The meshes of a held-out
    # subject are near to each other, so not even these are told from held-out meshes by chance.
    rows = np.random.default_rng(settings.seed).permutation(len(real.train))[: settings.samples]
    verdict |= _compared("real_", real.train[rows], real)
    verdict |= _fitted(model, data, subset, settings, say)
    verdict |= {"diversity_mm": dict.fromkeys(real.diversity), "decoupling": dict.fromkeys(COLUMNS)}
    verdict |= {"collapsed": "", "judges": {}, "provenance": _provenance(data, subset, settings)}
    if model.prior is None:
        return verdict

    say("drawing samples")
    generator = torch.Generator().manual_seed(settings.seed)
    draw = _Sampler(model, Conditions.of(model, data.whole).pinned(model, data.split.train))
    samples = decode_all(model, draw.codes(settings.samples, generator))[:, real.vertices]
    verdict["specificity_mm"] = distances_summary(nearest(samples, real.train)[:, 1])
    verdict |= _compared("", samples, real)
    chosen = random_pairs(len(samples), settings.pairs, settings.seed)
    diversity: dict[str, Summary | None] = dict.fromkeys(real.diversity)
    diversity["global"] = distances_summary(pair_distances(samples, *chosen))
    verdict["diversity_mm"] = diversity
    verdict["collapsed"] = collapse(diversity, real.diversity)

    factors = {name: draw.part_of(name) for name in COLUMNS}
    if not any(factors.values()):
        return verdict
    judges = Judges.of(data, settings.judges, say)
    verdict["judges"] = _accuracies(judges)
    for factor, part in factors.items():
        if part is None:
            continue
        say(f"resampling around the {factor}")
        groups = draw.groups(part, settings, generator)
        diversity[factor], shares = _resampled(model, groups, judges, factor, real, settings)
        verdict["decoupling"][factor] = shares
    verdict["collapsed"] = collapse(diversity, real.diversity)
    if verdict["collapsed"]:
        # Shapes that are all alike are also all of one person and one expression.
        verdict["decoupling"] = dict.fromkeys(COLUMNS)
    return verdict


def verdict_measures(verdict: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The measures of the model and those of real meshes in a verdict, by the names of the table of
    measures. What the model or the data cannot have is left out.
    """
    sides: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for side, prefix in zip(sides, ("", "real_"), strict=True):
        for name in JUDGED:
            value = verdict.get(prefix + name)
            parts = {"": value} if value is None or "mean" in value else value
            for part, found in parts.items():
                if found is not None:
                    side[f"{name}/{part}" if part else name] = found
    return sides


def collapse(diversity: Mapping[str, Summary | None], real: Mapping[str, Summary | None]) -> str:
    """What has collapsed, in a sentence; "" if nothing has.

    >>> collapse({"global": {"mean": 0.01}}, {"global": {"mean": 8.0}})
    'The generator has collapsed: its samples differ by 0.01 mm, training meshes by 8.00 mm.'
    """
    causes = {
        "global": "The generator has collapsed: its samples differ",
        "identity": "The code has collapsed outside the identity: samples of one identity differ",
        "expression": "The code has collapsed outside the expression: samples of one expression "
        "differ",
    }
    for name, cause in causes.items():
        own, reference = diversity.get(name), real.get(name)
        if own and reference and own["mean"] < COLLAPSED * reference["mean"]:
            return (
                f"{cause} by {own['mean']:.2f} mm, training meshes by {reference['mean']:.2f} mm."
            )
    return ""


@dataclass(frozen=True, eq=False)
class _Real:
    """Real meshes on a few vertices. vertices: (v,) the chosen ones. train, held_out: (N, v, 3) mm."""

    vertices: np.ndarray
    train: np.ndarray
    held_out: np.ndarray
    diversity: Mapping[str, Summary | None]

    @classmethod
    def of(cls, data: SplitDataset, subset: str, settings: RefereeSettings) -> _Real:
        whole, vertices = (
            data.whole.vertices,
            evenly_spread(data.whole.template.n_vertices, VERTICES),
        )
        rows = data.split.train[evenly_spread(len(data.split.train), TRAINING_MESHES)]
        other = data.split.subset(subset)
        train = reduced(whole, rows, vertices)
        held_out = reduced(whole, other[evenly_spread(len(other), HELD_OUT)], vertices)
        labels = {name: factor_classes(data.whole, name)[rows] for name in COLUMNS}
        pairs = {
            "global": random_pairs(len(rows), settings.pairs, settings.seed),
            "identity": class_pairs(
                labels["identity"], labels["expression"], settings.pairs, settings.seed
            ),
            "expression": class_pairs(
                labels["expression"], labels["identity"], settings.pairs, settings.seed
            ),
        }
        diversity = {
            name: None if chosen is None else distances_summary(pair_distances(train, *chosen))
            for name, chosen in pairs.items()
        }
        return cls(vertices, train, held_out, diversity)


def _compared(prefix: str, shapes: np.ndarray, real: _Real) -> dict[str, Any]:
    """Coverage and 1-nearest-neighbor accuracy of shapes (N, v, 3) against held-out meshes."""
    told = nearest_neighbor_accuracy(shapes, real.held_out) if len(shapes) >= 3 else None
    return {
        f"{prefix}coverage_mm": distances_summary(nearest(real.held_out, shapes)[:, 1]),
        f"{prefix}one_nn_accuracy": told,
    }


@dataclass(frozen=True, eq=False)
class _Sampler:
    """Draws codes. conditions: (M, n) pinned numbers of training meshes; None: those of the prior."""

    model: MorphableModel
    conditions: Tensor | None

    def codes(self, count: int, generator: torch.Generator) -> Tensor:
        return sample_codes(self.model, count, generator, self.conditions)

    def part_of(self, factor: str) -> str | None:
        """The part of the code that stands for a factor, if there is one that others go with."""
        found = [name for name in PART[factor] if name in self.model.parts]
        return found[0] if found and len(self.model.parts) > 1 else None

    def groups(self, part: str, settings: RefereeSettings, generator: torch.Generator) -> Tensor:
        """(faces, resamplings, L) codes. Those of a group share one part; the rest is drawn anew."""
        count, each = settings.faces, settings.resamplings
        codes = self.codes(count * each, generator).unflatten(0, (count, each))
        where = self.model.parts[part]
        codes[:, :, where] = codes[:, :1, where]
        return codes


def _resampled(
    model: MorphableModel,
    groups: Tensor,
    judges: Judges,
    factor: str,
    real: _Real,
    settings: RefereeSettings,
) -> tuple[Summary, dict[str, Any] | None]:
    """The diversity within groups of codes (G, R, L), and the share of their pairs that each
    embedding judges to be the same.
    """
    first, second = np.triu_indices(groups.shape[1], 1)
    chosen = evenly_spread(len(first), max(1, settings.pairs // len(groups)))
    embeddings = judges.embeddings.get(factor, ())
    distances: list[np.ndarray] = []
    codes: list[list[np.ndarray]] = [[] for _ in embeddings]
    for group in groups:
        shapes = decode_all(model, group)
        few = shapes[:, real.vertices]
        distances.append(pair_distances(few, first[chosen], second[chosen]))
        if embeddings:
            images = judges.maps.draw(shapes)
            for own, embedding in zip(codes, embeddings, strict=True):
                own.append(embedding.embed(images))
    diversity = distances_summary(np.concatenate(distances))
    if not embeddings:
        return diversity, None
    shares = {
        moved: [
            same_share(np.stack(own), embedding.threshold.distance * (1 + moved))
            for own, embedding in zip(codes, embeddings, strict=True)
        ]
        for moved in (0.0, -MOVED, MOVED)
    }
    moved = [float(np.mean(shares[share])) for share in (-MOVED, MOVED)]
    return diversity, mean_and_spread(shares[0.0]) | {"thresholds_moved_by_a_tenth": moved}


def _provenance(data: SplitDataset, subset: str, settings: RefereeSettings) -> dict[str, Any]:
    return {
        "content_hash": data.whole.info["content_hash"],
        "split": data.name,
        "part": subset,
        "split_hash": data.split.hash,
        "settings": asdict(settings),
    }


def _accuracies(judges: Judges) -> dict[str, list[dict[str, float]]]:
    return {
        factor: [
            {
                "threshold": embedding.threshold.distance,
                "accuracy": embedding.threshold.accuracy,
                "false_acceptance": embedding.threshold.false_acceptance,
                "false_rejection": embedding.threshold.false_rejection,
            }
            for embedding in embeddings
        ]
        for factor, embeddings in judges.embeddings.items()
    }


def _fitted(
    model: MorphableModel, data: SplitDataset, subset: str, settings: RefereeSettings, say: Say
) -> dict[str, Any]:
    """Errors of fitted codes, and of encoded ones, on the same held-out meshes."""
    rows = data.split.subset(subset)
    rows = rows[evenly_spread(len(rows), settings.fitted)]
    shapes, conditions = data.whole.vertices.select(rows), Conditions.of(model, data.whole)
    given = conditions.given(rows) if conditions.known[rows].all() else None
    groups = data.whole.labels.groups()[rows]
    say(f"fitting codes to {len(rows)} held-out meshes")
    found = invert_all(model, shapes, given)
    encoded = code_errors(model, encode_all(model, shapes, given=given), shapes)
    fitted = summary(found.errors.cpu().numpy().astype(np.float64), groups)
    return {
        "generalization_mm": fitted | {"restarts": int(found.restarts.sum())},
        "encoder_error_mm": summary(encoded.mean(1, dtype=np.float64), groups),
    }
