"""read_landmarks: positions picked on a shape, from the files that people make them with.

| suffix | made by | what it holds |
|---|---|---|
| .csv | a spreadsheet | columns x, y, z, and `vertex` (its number) or `name` |
| .json | a program | a list of objects with the same keys, or {name: [x, y, z]} |
| .pp | MeshLab, PickPoints | names and positions |
| .fcsv | Slicer up to 4 | labels, positions, and the frame, LPS or RAS |
| .mrk.json | Slicer 5 | labels, positions, and the frame |

Slicer writes positions of a mesh file in LPS (left, posterior, superior), whose x and y have the
opposite sign in RAS. A mesh that Slicer reads is taken to be LPS, so positions are returned in LPS.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from morphable.errors import InputError
from morphable.files import reading
from morphable.mesh.io.meshfile import read_bytes

LANDMARK_SUFFIXES = (".csv", ".json", ".pp", ".fcsv", ".mrk.json")
FRAMES = {"LPS": 1.0, "RAS": -1.0, "0": -1.0, "1": 1.0}
"""Sign of x and y in LPS. Old files of Slicer have a number in place of the name."""


@dataclass(frozen=True, eq=False)
class PickedPoints:
    """Points that were picked on a shape.

    names: (K,) the name of each, all different; a number if the file gives vertices. positions: (K,
    3) in the unit of the file. are_vertices: whether the names are vertex numbers.
    """

    names: tuple[str, ...]
    positions: np.ndarray
    are_vertices: bool


def is_landmark_file(path: Path) -> bool:
    return path.name.lower().endswith(LANDMARK_SUFFIXES)


def read_landmarks(path: Path) -> PickedPoints:
    """Read a landmark file in the format that its suffix names.

    Raises InputError, naming the file, if the suffix is unknown, the file is missing, empty or
    damaged, a point has no three finite numbers, or two points have the same name.
    """
    name = path.name.lower()
    if not is_landmark_file(path):
        raise InputError(
            f"{path}: unknown landmark file, expected one of {' '.join(LANDMARK_SUFFIXES)}"
        )
    data = read_bytes(path)
    with reading(path, "not a readable landmark file"):
        text = data.decode("utf-8")
        if name.endswith(".mrk.json"):
            points = _slicer_json(path, json.loads(text))
        elif name.endswith(".json"):
            points = _json(path, json.loads(text))
        elif name.endswith(".pp"):
            points = _meshlab(path, text)
        elif name.endswith(".fcsv"):
            points = _slicer_csv(path, text)
        else:
            points = _csv(path, text)
    return _checked(path, points)


Point = tuple[str, Iterable[Any], bool]
"""Name, three numbers, and whether the name is that of a vertex."""


def _checked(path: Path, points: list[Point]) -> PickedPoints:
    if not points:
        raise InputError(f"{path}: holds no landmarks")
    names = [name for name, _, _ in points]
    positions = np.zeros((len(points), 3))
    for row, (name, values, _) in enumerate(points):
        try:
            numbers = [float(value) for value in values]
        except (TypeError, ValueError):
            numbers = []
        if len(numbers) != 3 or not np.isfinite(numbers).all():
            raise InputError(f"{path}: landmark {name!r} has no position of three numbers")
        positions[row] = numbers
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"{path}: two landmarks have the name {repeated[0]!r}")
    are_vertices = all(by_vertex for _, _, by_vertex in points)
    if are_vertices and not all(name.isdecimal() and len(name) < 10 for name in names):
        wrong = next(name for name in names if not (name.isdecimal() and len(name) < 10))
        raise InputError(f"{path}: expected a vertex number, got {wrong!r}")
    return PickedPoints(tuple(names), positions, are_vertices)


def _named(path: Path, row: Mapping[str, Any], number: int) -> Point:
    """A point from an object or a row with keys x, y, z and `vertex` or `name`."""
    known = {str(key).strip().lower(): value for key, value in row.items() if key is not None}
    position = known.get("position", [known.get(axis) for axis in "xyz"])
    if "vertex" in known:
        return str(known["vertex"]).strip(), position, True
    return str(known.get("name", number)).strip(), position, False


def _csv(path: Path, text: str) -> list[Point]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    rows = csv.DictReader(lines)
    columns = {str(column).strip().lower() for column in rows.fieldnames or ()}
    if not {"x", "y", "z"} <= columns:
        raise InputError(
            f"{path}: expected the columns x, y, z, and vertex or name, got "
            f"{', '.join(sorted(columns))}"
        )
    return [_named(path, row, number) for number, row in enumerate(rows)]


def _json(path: Path, value: Any) -> list[Point]:
    if isinstance(value, dict) and "markups" in value:
        return _slicer_json(path, value)
    if isinstance(value, dict) and isinstance(value.get("landmarks"), list | dict):
        value = value["landmarks"]
    if isinstance(value, dict):
        return [(str(name), position, False) for name, position in value.items()]
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return [_named(path, item, number) for number, item in enumerate(value)]
    raise InputError(
        f"{path}: expected a list of objects with vertex or name and x, y, z, or an object of "
        "positions by name"
    )


def _meshlab(path: Path, text: str) -> list[Point]:
    if "<!ENTITY" in text:  # entities can make a small file huge
        raise InputError(f"{path}: holds XML entities, which MeshLab does not write")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: not a readable landmark file ({error})") from error
    return [
        (point.get("name", str(number)), [point.get(axis) for axis in "xyz"], False)
        for number, point in enumerate(root.iter("point"))
        if point.get("active", "1") != "0"
    ]


def _slicer_csv(path: Path, text: str) -> list[Point]:
    sign, columns = FRAMES["RAS"], ["id", "x", "y", "z", *["ow", "ox", "oy", "oz"]]
    columns += ["vis", "sel", "lock", "label"]
    rows: list[str] = []
    for line in text.splitlines():
        key, _, value = line.removeprefix("#").partition("=")
        if line.startswith("#") and key.strip() == "CoordinateSystem":
            sign = _sign(path, value.strip())
        elif line.startswith("#") and key.strip() == "columns":
            columns = [column.strip() for column in value.split(",")]
        elif line.strip() and not line.startswith("#"):
            rows.append(line)
    points: list[Point] = []
    for number, row in enumerate(csv.reader(rows)):
        cells = dict(zip(columns, row, strict=False))
        position = _signed([cells.get(axis) for axis in "xyz"], sign)
        points.append((cells.get("label") or str(number), position, False))
    return points


def _slicer_json(path: Path, value: Any) -> list[Point]:
    points: list[Point] = []
    for markup in value["markups"]:
        sign = _sign(path, str(markup.get("coordinateSystem", "LPS")))
        for number, point in enumerate(markup.get("controlPoints", [])):
            if point.get("positionStatus", "defined") == "defined":
                name = str(point.get("label") or point.get("id") or number)
                points.append((name, _signed(point["position"], sign), False))
    return points


def _sign(path: Path, frame: str) -> float:
    if frame.upper() not in FRAMES:
        raise InputError(f"{path}: unknown coordinate system {frame!r}, expected LPS or RAS")
    return FRAMES[frame.upper()]


def _signed(position: Iterable[Any], sign: float) -> list[Any]:
    try:
        x, y, z = (float(value) for value in position)
    except (TypeError, ValueError):
        return []
    return [sign * x, sign * y, z]
