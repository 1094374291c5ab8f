"""The samples of generative models against real meshes, by a judge that costs minutes.

    python benchmarks/gan_samples.py --data pop RUN [RUN...]

Prints for each model the specificity (with that of held-out meshes), the diversity of all samples,
of those that share the identity and of those that share the expression (relative to the training
set's), the decoupling by three pairs of embeddings, and the total variation of geometry images.

The first seven frames of each person of `face-population` are its named expressions. The judge
knows all of them, however few of them the labels name. The embeddings are MLPs on whitened PCA
coefficients, trained with a triplet loss on the training people. A pair counts as the same if its
distance is below the threshold at which most held-out pairs are right; of equals, the middle one.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphable.data.dataset import MeshDataset, load_dataset
from morphable.models.base import MorphableModel
from morphable.models.gan import Gan
from morphable.models.image_geometry import total_variation
from morphable.models.io import load
from morphable.models.principal_basis import principal_basis

EVERY = 16
"""Distances are measured on every sixteenth vertex."""
EXPRESSIONS = 7
PAIRS = 4000
SAMPLES, FIXED, REPEATS = 400, 40, 10


@dataclass(frozen=True, eq=False)
class Meshes:
    """shapes: (N, n, 3) mm. classes: by part, (N,) class numbers, -1 = none."""

    shapes: np.ndarray
    classes: dict[str, np.ndarray]

    @classmethod
    def of(cls, data: MeshDataset) -> Meshes:
        frame = np.asarray(data.labels["frame"]).astype(int)
        shapes = np.ascontiguousarray(data.vertices[:][:, ::EVERY])
        subject = data.labels.classes("subject").numbers
        expression = np.where(frame < EXPRESSIONS, frame, -1)
        return cls(shapes, {"identity": subject, "expression": expression})


@dataclass(frozen=True, eq=False)
class Embedding:
    network: nn.Module
    threshold: float
    accuracy: float


def nearest(shapes: np.ndarray, others: np.ndarray) -> float:
    """Mean over shapes of the distance to the nearest of the others, in mm."""
    candidates = torch.from_numpy(others)
    found = [(candidates - shape).norm(dim=-1).mean(1).min() for shape in torch.from_numpy(shapes)]
    return float(torch.stack(found).mean())


def apart(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(first - second, axis=-1).mean())


def pairs_of(numbers: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(PAIRS, 2) rows that share a class."""
    members = [np.flatnonzero(numbers == number) for number in range(numbers.max() + 1)]
    chosen = random.integers(0, len(members), PAIRS)
    return np.array([random.choice(members[number], 2, replace=False) for number in chosen])


def trained(inputs: Tensor, numbers: np.ndarray, seed: int) -> nn.Module:
    """An embedding that has been trained with the hardest triplets of each batch."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    size = inputs.shape[1]
    network = nn.Sequential(
        nn.Linear(size, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 128)
    )
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    members = [np.flatnonzero(numbers == number) for number in range(numbers.max() + 1)]
    for _ in range(1500):
        chosen = random.choice(len(members), min(16, len(members)), replace=False)
        each = 4 if len(chosen) == 16 else 9
        rows = np.concatenate([random.choice(members[number], each, False) for number in chosen])
        label = torch.from_numpy(numbers[rows])
        embedded = F.normalize(network(inputs[rows]), dim=1)
        distance = torch.cdist(embedded, embedded)
        same = label[:, None] == label[None]
        furthest = (distance * same).max(1).values
        closest = (distance + 10 * same).min(1).values
        optimizer.zero_grad()
        F.relu(furthest - closest + 0.2).mean().backward()
        optimizer.step()
    return network


def embedding(
    inputs: Tensor, numbers: np.ndarray, held: Tensor, held_numbers: np.ndarray, seed: int
) -> Embedding:
    network = trained(inputs, numbers, seed)
    random = np.random.default_rng(seed)
    with torch.no_grad():
        embedded = F.normalize(network(held), dim=1)
    members = [np.flatnonzero(held_numbers == n) for n in range(held_numbers.max() + 1)]
    alike, different = np.zeros(3000), np.zeros(3000)
    for pair in range(len(alike)):
        one, two = random.choice(members[random.integers(len(members))], 2, replace=False)
        alike[pair] = (embedded[one] - embedded[two]).norm()
        here, there = random.choice(len(members), 2, replace=False)
        one, two = random.choice(members[here]), random.choice(members[there])
        different[pair] = (embedded[one] - embedded[two]).norm()
    thresholds = np.linspace(0, 2, 401)
    accepted = np.array([(different < threshold).mean() for threshold in thresholds])
    right = np.array([(alike < threshold).mean() for threshold in thresholds])
    accuracy = np.where(accepted < 0.1, (right + 1 - accepted) / 2, 0)
    best = thresholds[accuracy >= accuracy.max() - 1e-9]
    return Embedding(network, float((best[0] + best[-1]) / 2), float(accuracy.max()))


class Judge:
    """What is known about real meshes, computed once for all models."""

    def __init__(self, data: Path, embeddings: int) -> None:
        split = load_dataset(data).split("subject")
        self.train, held = Meshes.of(split.train), Meshes.of(split.test)
        self.test = torch.from_numpy(split.test.vertices[:64])
        self.real = nearest(held.shapes[::2], self.train.shapes)
        random = np.random.default_rng(0)
        shapes = self.train.shapes
        pairs = {"all": random.integers(0, len(shapes), (PAIRS, 2))}
        pairs |= {part: pairs_of(own, random) for part, own in self.train.classes.items()}
        self.diversity = {
            part: apart(shapes[rows[:, 0]], shapes[rows[:, 1]]) for part, rows in pairs.items()
        }
        self.basis = principal_basis(shapes, 128)
        inputs, others = self.inputs(shapes), self.inputs(held.shapes)
        self.embeddings = {
            part: [
                embedding(inputs, own, others, held.classes[part], seed)
                for seed in range(embeddings)
            ]
            for part, own in self.train.classes.items()
        }

    def inputs(self, shapes: np.ndarray) -> Tensor:
        centered = shapes.reshape(len(shapes), -1) - self.basis.mean
        return torch.tensor(centered @ self.basis.components.T / self.basis.deviations).float()

    def describe(self) -> str:
        accuracy = {
            part: " ".join(f"{one.accuracy:.1%}" for one in own)
            for part, own in self.embeddings.items()
        }
        diversity = ", ".join(f"{part} {value:.2f}" for part, value in self.diversity.items())
        return f"held-out specificity {self.real:.2f} mm, diversity mm {diversity}, {accuracy}"

    @torch.no_grad()
    def judge(self, model: MorphableModel) -> str:
        random = torch.Generator().manual_seed(1)
        code = model.require_prior().sample(SAMPLES, random)
        samples = decoded(model, code)
        specificity = nearest(samples, self.train.shapes)
        diversity = [apart(samples[0::2], samples[1::2]) / self.diversity["all"]]
        scores = []
        for part, own in self.embeddings.items():
            codes = model.require_prior().sample(FIXED * REPEATS, random)
            shared = codes[::REPEATS, model.parts[part]]
            codes[:, model.parts[part]] = shared.repeat_interleave(REPEATS, 0)
            shapes = decoded(model, codes)
            groups = shapes.reshape(FIXED, REPEATS, *shapes.shape[1:])
            diversity.append(apart(groups[:, :1], groups[:, 1:]) / self.diversity[part])
            upper = torch.triu_indices(REPEATS, REPEATS, 1)
            inputs, score = self.inputs(shapes), []
            for one in own:
                embedded = F.normalize(one.network(inputs), dim=1).view(FIXED, REPEATS, -1)
                distance = torch.cdist(embedded, embedded)[:, upper[0], upper[1]]
                score.append(100 * float((distance < one.threshold).float().mean()))
            scores.append(f"{part} {np.mean(score):.1f} ± {np.std(score):.1f}")
        ratios = " / ".join(f"{ratio:.2f}" for ratio in diversity)
        line = f"specificity {specificity:.2f} mm ({specificity / self.real:.2f}), "
        line += f"diversity {ratios}, decoupling {', '.join(scores)}"
        if isinstance(model, Gan):
            own = total_variation(model.image(code[:64])).mean()
            real = total_variation(model.image_of(self.test)).mean()
            line += f", total variation {own:.0f} (held-out meshes {real:.0f})"
        return line


def decoded(model: MorphableModel, codes: Tensor) -> np.ndarray:
    parts = [model.decode(some)[:, ::EVERY] for some in codes.split(64)]
    return torch.cat(parts).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--embeddings", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    judge = Judge(args.data, args.embeddings)
    print(judge.describe())
    for run in args.runs:
        print(f"{run}: {judge.judge(load(run))}", flush=True)


if __name__ == "__main__":
    main()
