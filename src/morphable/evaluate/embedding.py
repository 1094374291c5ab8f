"""Embeddings judge whether two shapes show the same person, or the same expression, by how far
apart their normal maps lie in the space of a network that was trained with triplets.

Abrevaya, Boukhayma, Wuhrer and Boyer (2019), with ResNet-18 (He et al. 2016) at 224 pixels. One
embedding is no judge: trained again, it can move a score by fifteen points. So there are at least
three, and they never see a shape that they judge: they are trained on real training meshes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.mesh.stored_arrays import stored_numbers

SIZE = 128
"""Dimensions of an embedding."""
MARGIN = 0.2
"""Of the triplet loss, between embeddings of length 1."""
CLASSES, PER_CLASS = 16, 4
"""Classes of a batch, and images of each. With fewer classes, as many more of each."""
RATE = 1e-3
CONTRAST, NOISE = 0.2, 0.05
"""How much the images of a batch are varied."""
MAX_FALSE_ACCEPTANCE = 0.1
"""A threshold accepts at most this share of pairs of different classes."""
BATCH = 64

Network = Literal["small", "resnet18"]


class Small(nn.Sequential):
    """Five convolutions with stride 2, for images of 64 pixels."""

    def __init__(self) -> None:
        widths = (3, 16, 32, 64, 128, 128)
        layers: list[nn.Module] = []
        for wide, wider in itertools.pairwise(widths):
            layers += [nn.Conv2d(wide, wider, 3, 2, 1, bias=False), nn.BatchNorm2d(wider)]
            layers += [nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(512, SIZE))


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, wide: int, wider: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(wide, wider, 3, stride, 1, bias=False),
            nn.BatchNorm2d(wider),
            nn.ReLU(),
            nn.Conv2d(wider, wider, 3, 1, 1, bias=False),
            nn.BatchNorm2d(wider),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or wide != wider:
            projection = nn.Conv2d(wide, wider, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(wider))

    def forward(self, image: Tensor) -> Tensor:
        return F.relu(self.body(image) + self.shortcut(image))


class ResNet18(nn.Sequential):
    """ResNet-18 with a linear layer to the embedding: 11,242,176 parameters."""

    def __init__(self) -> None:
        stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        widths = (64, 64, 128, 256, 512)
        blocks: list[nn.Module] = []
        for number, (wide, wider) in enumerate(itertools.pairwise(widths)):
            blocks += [Block(wide, wider, 2 if number else 1), Block(wider, wider, 1)]
        super().__init__(
            *stem,
            nn.MaxPool2d(3, 2, 1),
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(512, SIZE),
        )


NETWORKS: Mapping[Network, type[nn.Module]] = {"small": Small, "resnet18": ResNet18}


@dataclass(frozen=True)
class Threshold:
    """The distance below which two shapes count as the same class.

    accuracy: mean share of pairs of the same and of different classes that are judged right.
    false_acceptance, false_rejection: shares of the pairs of different and of the same class that
    are judged wrong.
    """

    distance: float
    accuracy: float
    false_acceptance: float
    false_rejection: float

    @classmethod
    def at(cls, distance: float, same: np.ndarray, different: np.ndarray) -> Threshold:
        """The threshold `distance`, measured on distances of pairs (S,) and (D,)."""
        accepted = float((different < distance).mean())
        rejected = float((same >= distance).mean())
        return cls(distance, 1 - (accepted + rejected) / 2, accepted, rejected)


def choose_threshold(same: np.ndarray, different: np.ndarray) -> float:
    """The distance that judges most pairs right while it accepts at most a tenth of those of
    different classes. Both kinds of pair count the same, however many there are.

    same, different: (S,) and (D,) distances of pairs of the same and of different classes.

    Trap: if the classes separate well, a wide range of thresholds is equally right, and the first
    of them is arbitrary. This is the middle of the widest such range.
    """
    ends = np.unique(np.concatenate([[0.0, 2.0], same, different]))
    # Between two neighboring distances, every threshold judges alike.
    middles = (ends[:-1] + ends[1:]) / 2
    accepted = np.searchsorted(np.sort(different), middles) / len(different)
    kept = np.searchsorted(np.sort(same), middles) / len(same)
    right = np.where(accepted < MAX_FALSE_ACCEPTANCE, kept + 1 - accepted, -1.0)
    best = np.flatnonzero(right >= right.max() - 1e-12)
    runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    widest = max(runs, key=lambda run: ends[run[-1] + 1] - ends[run[0]])
    return float((ends[widest[0]] + ends[widest[-1] + 1]) / 2)


def pair_distances(
    codes: np.ndarray, classes: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of all pairs of the same class (S,), and of all pairs of different classes (D,).

    codes: (N, SIZE). classes: (N,) the class in question. others: (N,) the other factor; pairs that
    agree in it are left out of those of the same class, unless it is -1: an expression of one
    person is too easy to recognize.
    """
    first, second = np.triu_indices(len(codes), 1)
    distance = np.linalg.norm(codes[first] - codes[second], axis=1)
    alike = classes[first] == classes[second]
    easy = (others[first] == others[second]) & (others[first] >= 0)
    return distance[alike & ~easy], distance[~alike]


class Embedding:
    """A trained network and its threshold.

    threshold: chosen on validation meshes, measured on test meshes.
    """

    def __init__(self, network: nn.Module, threshold: Threshold) -> None:
        self.network, self.threshold = network.eval(), threshold

    @torch.no_grad()
    def embed(self, images: np.ndarray) -> np.ndarray:
        return embed(self.network, images)

    def to_arrays(self) -> dict[str, np.ndarray]:
        arrays = {name: value.cpu().numpy() for name, value in self.network.state_dict().items()}
        judged = self.threshold
        numbers = [judged.distance, judged.accuracy]
        numbers += [judged.false_acceptance, judged.false_rejection]
        return arrays | {"threshold": np.array(numbers)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], network: Network) -> Embedding:
        """Raises InputError if the arrays are not those of such a network."""
        made = NETWORKS[network]()
        values = {name: torch.from_numpy(arrays[name]) for name in arrays if name != "threshold"}
        try:
            made.load_state_dict(values)
        except RuntimeError as error:
            raise InputError(f"embedding: not the weights of {network}") from error
        numbers = stored_numbers(arrays, "threshold", (4,))
        return cls(made, Threshold(*map(float, numbers)))


@torch.no_grad()
def embed(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """(N, 3, R, R) normal maps to (N, SIZE) embeddings of length 1."""
    device = next(network.parameters()).device
    codes = [
        F.normalize(network(torch.from_numpy(images[i : i + BATCH]).to(device)), dim=1).cpu()
        for i in range(0, len(images), BATCH)
    ]
    return torch.cat(codes).numpy()


def train_network(
    images: np.ndarray, classes: np.ndarray, network: Network, steps: int, seed: int, device: str
) -> nn.Module:
    """Train an embedding of images (N, 3, R, R) by their class numbers (N,), with all triplets
    of each batch (Hermans et al. 2017).
    """
    random = np.random.default_rng(seed)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    made = NETWORKS[network]().to(device).train()
    torch.random.set_rng_state(state)

    optimizer = torch.optim.Adam(made.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for rows in _batches(classes, steps, random):
        chosen = torch.from_numpy(images[rows]).to(device)
        codes = F.normalize(made(_varied(chosen, random)), dim=1)
        loss = triplets(codes, torch.from_numpy(classes[rows]).to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return made.eval()


def _varied(images: Tensor, random: np.random.Generator) -> Tensor:
    """Each image moved by up to a sixteenth of its size, its channels made weaker or stronger, with
    noise: labels of expressions are few, and without this an embedding learns them by heart.
    """
    reach = max(1, images.shape[-1] // 16)
    shifts = random.integers(-reach, reach + 1, (len(images), 2)).tolist()
    moved = torch.stack(
        [image.roll(shift, (1, 2)) for image, shift in zip(images, shifts, strict=True)]
    )
    strength = random.uniform(1 - CONTRAST, 1 + CONTRAST, (*images.shape[:2], 1, 1))
    noise = random.normal(0, NOISE, images.shape)
    changed: Tensor = moved * torch.from_numpy(strength).to(moved)
    return changed + torch.from_numpy(noise).to(moved)


def _batches(classes: np.ndarray, steps: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows of each step: PER_CLASS or more images each of up to CLASSES classes."""
    groups = [np.flatnonzero(classes == number) for number in np.unique(classes[classes >= 0])]
    groups = [rows for rows in groups if len(rows) > 1]
    count = min(CLASSES, len(groups))
    each = CLASSES * PER_CLASS // count
    for _ in range(steps):
        drawn = random.choice(len(groups), count, replace=False)
        yield np.concatenate(
            [random.permutation(groups[number])[:each] for number in drawn.tolist()]
        )


def triplets(codes: Tensor, classes: Tensor) -> Tensor:
    """Mean of own - other + MARGIN over the triplets of a batch in which it is positive, where
    `own` is an image's distance to another of its class, and `other` to one of another class.

    codes: (B, SIZE) of length 1. classes: (B,). Trap: with the hardest triplet of each image alone,
    all codes collapse to a point if an image has few classes to differ from.
    """
    # The epsilon keeps the gradient of an image's distance to itself defined.
    distance = ((2 - 2 * codes @ codes.T).clamp(min=0) + 1e-8).sqrt()
    alike = classes[:, None] == classes[None]
    losses = F.relu(distance[:, :, None] - distance[:, None, :] + MARGIN)
    others = ~torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    active = (alike & others)[:, :, None] & ~alike[:, None, :] & (losses > 0)
    return (losses * active).sum() / active.sum().clamp(min=1)


def same_share(codes: np.ndarray, threshold: float) -> float:
    """Share of pairs within each group that count as the same, of embeddings (G, R, SIZE)."""
    first, second = np.triu_indices(codes.shape[1], 1)
    distance = np.linalg.norm(codes[:, first] - codes[:, second], axis=-1)
    return float((distance < threshold).mean())


def has_pairs(classes: np.ndarray) -> bool:
    """Whether there are two classes, and a pair of the same one."""
    numbers, counts = np.unique(classes[classes >= 0], return_counts=True)
    return len(numbers) > 1 and bool((counts > 1).any())


def mean_and_spread(values: Sequence[float]) -> dict[str, float | list[float]]:
    """The mean of values and their standard deviation, with the values themselves."""
    array = np.array(values)
    return {"mean": float(array.mean()), "std": float(array.std()), "values": array.tolist()}
