"""Geometry: what a network needs to know about a template, computed once and outside the
network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from morphable.config import Configuration, CountOrZero
from morphable.errors import InputError
from morphable.mesh.automatic_regions import template_regions
from morphable.mesh.regions import Regions
from morphable.mesh.template import Template

Arrays = Mapping[str, np.ndarray]


class Geometry(ABC):
    """Arrays that are computed by pure functions in double precision, and enter a network as
    non-persistent buffers.

    A model is saved with its geometry. So loading computes nothing, and a later change of the
    algorithms does not change a saved model.
    """

    @classmethod
    @abstractmethod
    def of(cls, template: Template, config: Any) -> Self:
        """Compute the geometry that a network of this configuration needs. This can be slow."""

    @abstractmethod
    def to_arrays(self) -> dict[str, np.ndarray]:
        """All of the geometry as plain arrays, except what the model's template already holds."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Arrays, template: Template) -> Self:
        """The inverse of `to_arrays`, with the model's template.

        Raises InputError if an array is missing.
        """


@dataclass(frozen=True)
class NoGeometry(Geometry):
    """The geometry of a model that needs only the number of vertices."""

    @classmethod
    def of(cls, template: Template, config: Any) -> Self:
        return cls()

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {}

    @classmethod
    def from_arrays(cls, arrays: Arrays, template: Template) -> Self:
        return cls()


NO_GEOMETRY = NoGeometry()


@dataclass(frozen=True, kw_only=True)
class RegionCounts(Configuration):
    """regions: number of automatic regions; 0 = the template's own, or 11 automatic ones if it has
    none. merged_from: numbers of the finer regions that these are merged from, one after another
    and falling, so that sets of several numbers nest; () = they are made by themselves.
    """

    regions: CountOrZero = 0
    merged_from: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = [*self.merged_from, self.regions]
        if self.merged_from and not (self.regions and counts == sorted(set(counts), reverse=True)):
            raise self.error(
                "merged_from",
                f"expected falling numbers above model.regions ({self.regions}), "
                f"got {', '.join(map(str, self.merged_from))}",
            )


@dataclass(frozen=True, eq=False)
class RegionGeometry(Geometry):
    """The regions that a model is made of: the template's own, or `config.regions` automatic ones.

    They become part of the model's template and are saved with it, so `to_arrays` is empty.
    """

    regions: Regions

    @classmethod
    def of(cls, template: Template, config: Any) -> Self:
        return cls(template_regions(template, config.regions, config.merged_from))

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {}

    @classmethod
    def from_arrays(cls, arrays: Arrays, template: Template) -> Self:
        if template.regions is None or not template.regions.controls:
            raise InputError("template: expected regions with control vertices, it has none")
        return cls(template.regions)


def prefixed(prefix: str, arrays: Arrays) -> dict[str, np.ndarray]:
    """The same arrays, with `prefix` before each name, so that one file can hold several groups.

    >>> prefixed("spirals/", {"0": np.zeros(1)})
    {'spirals/0': array([0.])}
    """
    return {prefix + name: array for name, array in arrays.items()}


def under(prefix: str, arrays: Arrays) -> dict[str, np.ndarray]:
    """The inverse of `prefixed`; arrays with other names are left out."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
