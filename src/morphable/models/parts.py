"""Parts: the named slices of a flat code, the one device that carries every model family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from morphable.config import Configuration, Count
from morphable.errors import InputError


@dataclass(frozen=True)
class Part:
    """One named run of `size` numbers in the code. A pinned part (condition, controls) is given,
    never inferred.
    """

    name: str
    size: int
    pinned: bool = False


@dataclass(frozen=True)
class Parts(Mapping[str, slice]):
    """The parts of a code of length L, in order; `parts["identity"]` is their slice.

    >>> parts = Parts.of(identity=4, expression=2)
    >>> parts["expression"], parts.size
    (slice(4, 6, None), 6)
    """

    items_: tuple[Part, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.items_]
        if len(set(names)) != len(names):
            raise InputError(f"parts: names must differ, got {', '.join(names)}")
        for part in self.items_:
            if part.size < 1:
                raise InputError(
                    f"latent size of part {part.name!r}: expected at least 1, got {part.size}"
                )

    @classmethod
    def of(cls, **sizes: int) -> Parts:
        """Free parts by size."""
        return cls(tuple(Part(name, size) for name, size in sizes.items()))

    def with_pinned(self, **sizes: int) -> Parts:
        """These parts followed by pinned ones."""
        return Parts(
            self.items_ + tuple(Part(name, size, pinned=True) for name, size in sizes.items())
        )

    def __getitem__(self, name: str) -> slice:
        start = 0
        for part in self.items_:
            if part.name == name:
                return slice(start, start + part.size)
            start += part.size
        raise InputError(f"part {name!r}: this model's parts are {', '.join(self)}")

    def __contains__(self, name: object) -> bool:
        return any(part.name == name for part in self.items_)

    def __iter__(self) -> Iterator[str]:
        return (part.name for part in self.items_)

    def __len__(self) -> int:
        return len(self.items_)

    @property
    def size(self) -> int:
        """Length L of the whole code."""
        return sum(part.size for part in self.items_)

    @property
    def free(self) -> np.ndarray:
        """(L,) True where the code is inferred by `encode` and drawn by the prior."""
        return np.repeat(
            [not part.pinned for part in self.items_], [part.size for part in self.items_]
        )

    @property
    def free_size(self) -> int:
        return int(self.free.sum())


@dataclass(frozen=True)
class IdentityExpression(Configuration):
    """Sizes of the code of a model that tells identity and expression apart."""

    identity: Count = 4
    expression: Count = 4

    proportions: ClassVar[Mapping[str, int]] = {"identity": 1, "expression": 1}
