"""Geometry: what a network needs to know about a template, computed once and outside the
network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from morphable.errors import InputError
from morphable.mesh.automatic_regions import template_regions
from morphable.mesh.regions import Regions
from morphable.mesh.template import Template

Arrays = Mapping[str, np.ndarray]


class Geometry(ABC):
    """Arrays that pure functions compute in double precision, and that enter a network as
    non-persistent buffers.

    A model is saved with its geometry. So loading computes nothing, and a changed algorithm never
    changes a model that is already there.
    """

    @classmethod
    @abstractmethod
    def of(cls, template: Template, config: Any) -> Self:
        """The geometry that a network of this configuration needs; the expensive step."""

    @abstractmethod
    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything as plain arrays, except what the model's template holds anyway."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Arrays, template: Template) -> Self:
        """The inverse of `to_arrays`, with the model's template.

        Raises InputError if an array is missing.
        """


@dataclass(frozen=True)
class NoGeometry(Geometry):
    """For a model that needs to know nothing but the number of vertices."""

    @classmethod
    def of(cls, template: Template, config: Any) -> Self:
        return cls()

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {}

    @classmethod
    def from_arrays(cls, arrays: Arrays, template: Template) -> Self:
        return cls()


NO_GEOMETRY = NoGeometry()


@dataclass(frozen=True, eq=False)
class RegionGeometry(Geometry):
    """The regions that a model is made of: the template's own, or `config.regions` automatic ones.

    The model's template carries them (`on`), so they are stored with it and only there.
    """

    regions: Regions

    @classmethod
    def of(cls, template: Template, config: Any) -> Self:
        return cls(template_regions(template, config.regions))

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {}

    @classmethod
    def from_arrays(cls, arrays: Arrays, template: Template) -> Self:
        if template.regions is None or not template.regions.controls:
            raise InputError("template: expected regions with control vertices, it has none")
        return cls(template.regions)


def prefixed(prefix: str, arrays: Arrays) -> dict[str, np.ndarray]:
    """The arrays under names that start with `prefix`, so that one file can hold others too.

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
