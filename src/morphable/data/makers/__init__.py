"""Sources: where registered meshes come from. `make_source` makes a set by name; importers read
what others made.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from morphable.data.makers.bodies import bodies
from morphable.data.makers.faces import face_population, faces
from morphable.data.makers.hands import hands
from morphable.data.source import MeshSource
from morphable.errors import InputError

MAKERS: dict[str, Callable[..., MeshSource]] = {
    "hands": hands,
    "faces": faces,
    "face-population": face_population,
    "bodies": bodies,
}
"""What `data make NAME` can make; keyword arguments carry the names of the command's flags."""


def make_source(name: str, **options: Any) -> MeshSource:
    """The named set. Options that are None, and flags that are False, count as not given.

    Raises InputError for a name that does not exist and for an option that does not apply to the
    set.
    """
    if name not in MAKERS:
        raise InputError(f"data set {name!r}: expected one of {', '.join(MAKERS)}")
    given = {
        option: value
        for option, value in options.items()
        if value is not None and value is not False
    }
    known = inspect.signature(MAKERS[name]).parameters
    foreign = [option for option in given if option not in known]
    if foreign:
        raise InputError(
            f"{_quoted(foreign)}: not an option of {name}, which takes {_quoted(known)}",
            *foreign,
            *known,
        )
    return MAKERS[name](**given)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
