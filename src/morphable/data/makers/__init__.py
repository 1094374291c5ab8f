"""Makers of open datasets, one file each, and the literal table that finds them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from morphable.data.labels import LabelTable
from morphable.data.makers.bodies import bodies, true_bodies
from morphable.data.makers.faces import face_population, faces, true_faces
from morphable.data.makers.hands import hands, true_hands
from morphable.data.options import checked_options, recorded_options
from morphable.data.source import MeshSource
from morphable.errors import InputError

TrueMeshes = Callable[[Mapping[str, Any], LabelTable, LabelTable], np.ndarray]
"""(options of the set, n labels of people, n labels of expressions or poses) -> (n, V, 3) mm: the
mesh of each person with each expression. Raises InputError if that cannot be made here.
"""


@dataclass(frozen=True)
class Maker:
    """make: keyword options -> the set. true_meshes: makes any mesh of such a set again."""

    make: Callable[..., MeshSource]
    true_meshes: TrueMeshes


MAKERS: dict[str, Maker] = {
    "hands": Maker(hands, true_hands),
    "faces": Maker(faces, true_faces),
    "face-population": Maker(face_population, true_faces),
    "bodies": Maker(bodies, true_bodies),
}
"""What `data make NAME` can make; the options have the names of the keyword arguments."""


def make_source(name: str, **options: Any) -> MeshSource:
    """The named set, which records its maker. Options that are None, and flags that are False, count
    as not given.

    Raises InputError for a name that does not exist and for an option that does not apply to the
    set.
    """
    if name not in MAKERS:
        raise InputError(f"data set {name!r}: expected one of {', '.join(MAKERS)}")
    make = MAKERS[name].make
    chosen = checked_options(name, make, options)
    source = make(**chosen)
    maker = {"name": name, "options": recorded_options(make, chosen)}
    return replace(source, info={**source.info, "maker": maker})
