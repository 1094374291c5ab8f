"""Apart: how well a model separates identity from expression on validation meshes, in one number,
by which gates are chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from morphable.models.parts import Parts
from morphable.models.training import Batch
from morphable.rows import evenly_spread

MAX_MESHES = 600
"""At most so many validation meshes are judged, evenly spread."""
MAX_SWAPS = 200
MAX_VERTICES = 1000
"""Distances are measured at so many vertices, evenly spread."""
TOLERANCE: Mapping[str, float] = {"vertex": 0.01}
"""How much worse than the linear model's the vertex error may be, relatively; no other measure may
be worse. The linear model fits both codes to a mesh jointly, and spends expression on what its
identity cannot say of a person: parting the two costs some of that.
"""
NOT_REWARDED = ("disentanglement",)
"""These measures must not be worse, and count for nothing else. The disentanglement error falls if
neutral meshes shrink towards their mean.
"""
PENALTY = 100.0
SAME_PERSON = 0.1
"""mm. Neutral meshes that are less apart on average show one person."""
LEAST = 1e-4
"""mm, or share of the variance: measures below this count as equal."""


class Apart:
    """Measures of a model with the parts identity and expression on validation meshes. They are
    those of `evaluate/disentangle.py`, except that transported meshes stand in for true swaps,
    which training does not know.

    meshes: (N, V, 3) mm the judged ones. sources: (M, V, 3) mm, whose expressions are swapped in.
    seen: (S,) the vertices at which distances are measured.
    """

    def __init__(
        self,
        validation: Batch,
        others: Batch,
        transport: Callable[..., np.ndarray],
    ) -> None:
        """others: meshes of training people with their neutral meshes, whose expressions are
        swapped in if there is only one validation person. transport: maps source's neutral, source
        and person's neutral meshes to transported ones.
        """
        device = validation.vertices.device
        rows = torch.from_numpy(evenly_spread(len(validation.vertices), MAX_MESHES)).to(device)
        self.seen = torch.from_numpy(evenly_spread(validation.vertices.shape[1], MAX_VERTICES)).to(
            device
        )
        self.meshes = validation.vertices[rows]
        self.sources, self.person = self.meshes[:0], rows[:0]
        self.first, self.second = rows[:0], rows[:0]
        self.truth = self.meshes[:, self.seen]
        self.neutral = self.swaps = self.known = self.truth[:0]
        if others.neutral is not None:
            self.known = others.neutral[:, self.seen]
        if validation.neutral is None:
            return
        neutral = validation.neutral[rows]
        self.neutral = neutral[:, self.seen]
        self.person = torch.unique(self.neutral.flatten(1), dim=0, return_inverse=True)[1]
        alone = self.people == 1
        given = others if alone else Batch(self.meshes, neutral)
        self.sources = given.vertices
        if not len(self.sources):
            return
        random = np.random.default_rng(0)
        self.first, self.second = (
            torch.from_numpy(random.integers(size, size=MAX_SWAPS)).to(device)
            for size in (len(self.meshes), len(self.sources))
        )
        if not alone:
            differ = self.person[self.first] != self.person[self.second]
            self.first, self.second = self.first[differ], self.second[differ]
        assert given.neutral is not None
        triple = (given.neutral[self.second], self.sources[self.second], neutral[self.first])
        made = transport(*(meshes.numpy(force=True) for meshes in triple))
        self.swaps = torch.from_numpy(made).to(self.meshes)[:, self.seen]

    @property
    def people(self) -> int:
        """How many people the judged meshes are of, as far as they have neutral meshes."""
        return len(self.person.unique()) if len(self.neutral) else 0

    @property
    def strangers(self) -> int:
        """How many of these people are not those of `others`, by their neutral meshes."""
        if not len(self.neutral):
            return 0
        first = [int((self.person == number).nonzero()[0]) for number in range(self.people)]
        apart = [
            (self.known - mesh).norm(dim=-1).mean(1).min() if len(self.known) else math.inf
            for mesh in self.neutral[first]
        ]
        return sum(float(least) > SAME_PERSON for least in apart)

    def measures(
        self, parts: Parts, codes: Tensor, sources: Tensor, decode: Callable[[Tensor], Tensor]
    ) -> dict[str, float]:
        """`vertex`, `neutral`, `swap` and `disentanglement` in mm, and `lost`, the share of the
        variance within people that reconstructions lack; what the meshes do not allow is left out.

        codes: (N, L) of `meshes`. sources: (M, L) of `sources`. decode: maps codes to their `seen`
        vertices (n, S, 3) mm.
        """
        identity = parts["identity"]
        shapes = decode(codes)
        found = {"vertex": _error(shapes, self.truth)}
        if not len(self.neutral):
            return found
        persons = torch.zeros_like(codes)
        persons[:, identity] = codes[:, identity]
        neutral = decode(persons)
        found["neutral"] = _error(neutral, self.neutral)

        spreads, missed, total = [], 0.0, 0.0
        for number in range(self.people):
            own = self.person == number
            if int(own.sum()) < 2:
                continue
            spreads.append(centered(neutral[own]).norm(dim=-1).std())
            moved = centered(self.truth[own])
            missed += float((centered(shapes[own]) - moved).square().sum())
            total += float(moved.square().sum())
        if total > 0:
            found["disentanglement"] = float(torch.stack(spreads).mean())
            found["lost"] = missed / total
        if len(self.swaps):
            mixed = sources[self.second].clone()
            mixed[:, identity] = codes[self.first][:, identity]
            found["swap"] = _error(decode(mixed), self.swaps)
        return found


def relative_score(found: Mapping[str, float], linear: Mapping[str, float]) -> float:
    """The mean logarithm of the rewarded measures divided by those of the linear model, plus a
    penalty on each measure that is worse by more than its tolerance. So no such measure can be part
    of the least score, which is at most the linear model's own, 0.

    >>> round(relative_score({"vertex": 1.0, "swap": 1.0}, {"vertex": 2.0, "swap": 2.0}), 3)
    -0.693
    >>> relative_score({"vertex": 1.0, "swap": 3.0}, {"vertex": 2.0, "swap": 2.0}) > 0
    True
    """
    changes = {
        name: math.log(max(found[name], LEAST) / max(linear[name], LEAST)) for name in linear
    }
    worse = sum(max(0.0, change - TOLERANCE.get(name, 0.0)) for name, change in changes.items())
    rewarded = [change for name, change in changes.items() if name not in NOT_REWARDED]
    return sum(rewarded) / len(rewarded) + PENALTY * worse


def _error(shapes: Tensor, truth: Tensor) -> float:
    return float((shapes - truth).norm(dim=-1).mean())


def centered(shapes: Tensor) -> Tensor:
    return shapes - shapes.mean(0)
