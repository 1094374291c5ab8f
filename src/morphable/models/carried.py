"""What to do if the training meshes carry fewer dimensions than a latent size asks for: the model has
as many as they carry, and says so.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

NOTHING = "the training meshes are all equal, so there is nothing to learn from them"


def carried(config: T, meshes: str, **sizes: int) -> T:
    """Return the configuration with no latent size above the given ones, and warn if one was.

    meshes: the meshes that carry only so many dimensions, for the warning. sizes: how many, by the
    name of the setting.

    >>> from morphable.models.pca import PcaConfig
    >>> carried(PcaConfig(latent=4), "20 training meshes", latent=19)
    PcaConfig(latent=4)
    """
    smaller = {name: size for name, size in sizes.items() if size < getattr(config, name)}
    if not smaller:
        return config
    for name, size in smaller.items():
        warnings.warn(
            f"{name} {getattr(config, name)}: {meshes} carry only {size}, so the model has {size}",
            stacklevel=3,
        )
    return dataclasses.replace(config, **smaller)  # type: ignore[type-var]


def carried_by_people(config: T, classes: Mapping[str, Sequence[str]], meshes: int) -> T:
    """The same for identity and expression: as many as people and their other meshes carry.

    classes: the class names of the labels; without subjects, every mesh may be another person.
    meshes: the number of training meshes.
    """
    people = len(classes.get("subject", ())) or meshes
    sizes = {"identity": max(1, people - 1), "expression": max(1, meshes - people)}
    return carried(config, f"{people} subjects with {meshes} meshes", **sizes)
