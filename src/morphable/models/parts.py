"""Parts: the named slices of a flat code, which every model family has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from morphable.config import Configuration, Count
from morphable.errors import InputError

MAX_LATENT = 10_000
"""Largest latent size. The prior stores a matrix of this size squared, so a larger number is taken
for a typing error.
"""


@dataclass(frozen=True)
class Part:
    """`size` consecutive dimensions of the code under one name. A pinned part, such as a condition
    or displacements of handles, is a conditioning input: the caller gives it, and the prior never
    draws it.
    """

    name: str
    size: int
    pinned: bool = False


@dataclass(frozen=True)
class Parts(Mapping[str, slice]):
    """The parts of a code of L dimensions. `parts["identity"]` is the slice of one part; `entries`
    lists all parts in order.

    Raises InputError if two parts have the same name, if a part has no dimensions, and when a part
    is looked up that does not exist.

    >>> parts = Parts.of(identity=4, expression=2)
    >>> parts["expression"], parts.size
    (slice(4, 6, None), 6)
    """

    entries: tuple[Part, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.entries]
        if len(set(names)) != len(names):
            raise InputError(f"parts: names must differ, got {', '.join(names)}")
        for part in self.entries:
            if part.size < 1:
                raise InputError(
                    f"latent size of part {part.name!r}: expected at least 1, got {part.size}"
                )

    @classmethod
    def of(cls, **sizes: int) -> Parts:
        """Free parts with these names and sizes."""
        return cls(tuple(Part(name, size) for name, size in sizes.items()))

    def with_pinned(self, **sizes: int) -> Parts:
        """These parts, followed by pinned parts with these names and sizes."""
        return Parts(
            self.entries + tuple(Part(name, size, pinned=True) for name, size in sizes.items())
        )

    def __getitem__(self, name: str) -> slice:
        start = 0
        for part in self.entries:
            if part.name == name:
                return slice(start, start + part.size)
            start += part.size
        raise InputError(f"part {name!r}: this model's parts are {', '.join(self)}")

    def __contains__(self, name: object) -> bool:
        return any(part.name == name for part in self.entries)

    def __iter__(self) -> Iterator[str]:
        return (part.name for part in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def size(self) -> int:
        """L, the number of dimensions of the whole code, pinned parts included."""
        return sum(part.size for part in self.entries)

    @property
    def free(self) -> np.ndarray:
        """(L,) True for the dimensions that `encode` infers and the prior draws."""
        return np.repeat(
            [not part.pinned for part in self.entries], [part.size for part in self.entries]
        )

    @property
    def free_size(self) -> int:
        """The number of dimensions of the free parts together."""
        return int(self.free.sum())

    @property
    def described(self) -> str:
        """The sizes of all parts in words. Pinned parts are inputs that the caller gives, so they
        are no part of the latent size.

        >>> Parts.of(shape=64).with_pinned(controls=144).described
        'shape 64, controls 144 (given)'
        """
        return ", ".join(f"{p.name} {p.size}{' (given)' * p.pinned}" for p in self.entries)

    @property
    def free_names(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.entries if not part.pinned)

    @property
    def pinned_names(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.entries if part.pinned)


@dataclass(frozen=True)
class IdentityExpression(Configuration):
    """Sizes of the two parts of a code that separates identity from expression."""

    identity: Count = 4
    expression: Count = 4

    proportions: ClassVar[Mapping[str, int]] = {"identity": 1, "expression": 1}

    def parts(self) -> Parts:
        return Parts.of(identity=self.identity, expression=self.expression)


def recombine(parts: Parts, sources: Tensor, targets: Tensor, names: Sequence[str]) -> Tensor:
    """(S T K, L) codes: every source (S, L) with each of the K parts in `names` taken, one at a
    time, from every target (T, L). The part varies fastest, then the target.

    >>> import torch
    >>> parts = Parts.of(a=1, b=1)
    >>> recombine(parts, torch.tensor([[1, 2]]), torch.tensor([[3, 4]]), ["a", "b"]).tolist()
    [[3, 2], [1, 4]]
    """
    shape = (len(sources), len(targets), len(names), sources.shape[1])
    result = sources[:, None, None].expand(shape).clone()
    for number, name in enumerate(names):
        place = parts[name]
        result[:, :, number, place] = targets[:, place]
    return result.flatten(0, 2)
