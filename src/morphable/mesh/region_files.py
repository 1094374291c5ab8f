"""Read region label files. Every vertex must be in exactly one region; the error names the first
vertex that is not.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from morphable.errors import InputError
from morphable.files import read_json, read_npz, reading
from morphable.mesh.mesh import Mesh
from morphable.mesh.regions import Regions, spread_controls
from morphable.mesh.stored_arrays import stored_texts

FORMATS = (
    ".json {name: [vertex, ...]}, .csv (vertex,region), .npy (V,) numbers, "
    ".npz (regions, region_names), .obj groups"
)


def read_regions(path: Path, mesh: Mesh) -> Regions:
    """Read the regions of a mesh from a file in one of the FORMATS.

    Control vertices are those of the file, which .npz and .json files ({name: {"vertices": [],
    "controls": []}}) can hold; regions without any get spread ones. The regions of an .obj file are
    its polygon groups (`g`): a vertex goes to the group of most of its faces.

    Raises InputError if a vertex is in no region or in two, a vertex does not exist, or the format
    is unknown.
    """
    readers = {
        ".json": _read_json,
        ".csv": _read_csv,
        ".npy": _read_npy,
        ".npz": _read_npz,
        ".obj": _read_obj,
    }
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: regions are read from {FORMATS}")
    members, own_controls = readers[path.suffix.lower()](path, len(mesh.vertices))
    labels = disjoint(members, len(mesh.vertices), str(path))
    names = tuple(members)
    spread = spread_controls(mesh, labels)
    controls = []
    for number, name in enumerate(names):
        chosen = (
            _indices(own_controls[name], f"{path}: controls of {name!r}", len(labels))
            if name in own_controls
            else spread[number]
        )
        outside = chosen[labels[chosen] != number]
        if len(outside):
            raise InputError(
                f"{path}: control vertex {outside[0]} of {name!r} is not in that region"
            )
        controls.append(chosen)
    return Regions(labels, names, tuple(controls))


def disjoint(
    members: Mapping[str, Sequence[int] | np.ndarray], n_vertices: int, where: str
) -> np.ndarray:
    """Turn lists of vertices by region name into region numbers (V,).

    where: the source of the lists for error messages. Raises InputError unless each vertex is
    listed exactly once.

    >>> disjoint({"a": [0, 2], "b": [1]}, 3, "labels")
    array([0, 1, 0])
    """
    labels = np.full(n_vertices, -1, np.int64)
    names = list(members)
    if not names:
        raise InputError(f"{where}: holds no region")
    for number, name in enumerate(names):
        vertices = _indices(members[name], f"{where}: region {name!r}", n_vertices)
        if not len(vertices):
            raise InputError(f"{where}: region {name!r} has no vertex")
        unique, count = np.unique(vertices, return_counts=True)
        if (count > 1).any():
            raise InputError(
                f"{where}: vertex {unique[count > 1][0]} is listed twice in region {name!r}"
            )
        taken = vertices[labels[vertices] >= 0]
        if len(taken):
            other = names[labels[taken[0]]]
            raise InputError(
                f"{where}: vertex {taken[0]} is listed twice, in {other!r} and in {name!r}; "
                "regions must not overlap"
            )
        labels[vertices] = number
    missed = np.flatnonzero(labels < 0)
    if len(missed):
        raise InputError(
            f"{where}: {len(missed)} of {n_vertices} vertices are in no region, the first is "
            f"vertex {missed[0]}"
        )
    return labels


def _indices(values: Any, where: str, n_vertices: int) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError:  # lists of unequal length, which are no array
        array = np.zeros((0, 0))
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"{where}: expected a list of vertex numbers")
    array = array.astype(np.int64)
    if array.size and not (array.min() >= 0 and array.max() < n_vertices):
        bad = array[(array < 0) | (array >= n_vertices)][0]
        raise InputError(f"{where}: vertex {bad} does not exist, expected 0..{n_vertices - 1}")
    return array


Members = tuple[dict[str, Any], dict[str, Any]]
"""Vertices by region name, and control vertices by region name for the regions that have some."""


def _read_json(path: Path, n_vertices: int) -> Members:
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected an object {{name: [vertex, ...]}}")
    controls = {
        name: item["controls"]
        for name, item in value.items()
        if isinstance(item, dict) and "controls" in item
    }
    return {
        n: item.get("vertices", []) if isinstance(item, dict) else item for n, item in value.items()
    }, controls


def _read_csv(path: Path, n_vertices: int) -> Members:
    with (
        reading(path, "cannot be read as CSV"),
        path.open(newline="", encoding="utf-8") as file,
    ):
        table = csv.DictReader(file)
        rows = [(table.line_num, row) for row in table]
        columns = table.fieldnames or ()

    if not {"vertex", "region"} <= set(columns):
        raise InputError(f"{path}: expected the columns vertex,region, got {','.join(columns)}")
    members: dict[str, Any] = {}
    for line, row in rows:
        try:
            members.setdefault(str(row["region"]), []).append(int(row["vertex"]))
        except (TypeError, ValueError):
            raise InputError(
                f"{path}, line {line}: {row['vertex']!r} is not a vertex number"
            ) from None
    return members, {}


def _read_npy(path: Path, n_vertices: int) -> Members:
    with reading(path, "not a readable .npy file"):
        labels = np.load(path, allow_pickle=False)
    return _by_number(labels, None, path, n_vertices), {}


def _read_npz(path: Path, n_vertices: int) -> Members:
    arrays = read_npz(path)
    if "regions" not in arrays:
        raise InputError(f"{path}: holds no array 'regions', only {', '.join(arrays) or 'nothing'}")
    try:
        names = list(stored_texts(arrays, "region_names")) if "region_names" in arrays else None
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    members = _by_number(arrays["regions"], names, path, n_vertices)
    keys = [f"control_vertices/{number}" for number in range(len(members))]
    return members, {
        name: arrays[key] for name, key in zip(members, keys, strict=True) if key in arrays
    }


def _by_number(
    labels: np.ndarray, names: Sequence[str] | None, path: Path, n_vertices: int
) -> dict[str, Any]:
    """Vertices by region name, from one region number per vertex; negative means no region."""
    if labels.shape != (n_vertices,) or labels.dtype.kind not in "iu":
        raise InputError(
            f"{path}: expected ({n_vertices},) whole numbers, one per vertex, got "
            f"{labels.shape} {labels.dtype}"
        )
    numbers = [int(number) for number in np.unique(labels) if number >= 0]
    if names is not None and numbers != list(range(len(names))):
        raise InputError(
            f"{path}: {len(names)} region names do not fit the region numbers {numbers}"
        )
    return {names[n] if names else f"r{n}": np.flatnonzero(labels == n) for n in numbers}


def _read_obj(path: Path, n_vertices: int) -> Members:
    votes: dict[str, np.ndarray] = {}
    group = ""
    with reading(path, "cannot be read"):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        word, *rest = line.split()[:5] or [""]
        if word == "g":
            group = " ".join(rest)
        elif word == "f":
            try:
                corners = np.array([int(item.split("/")[0]) for item in rest]) - 1
                np.add.at(votes.setdefault(group, np.zeros(n_vertices, np.int64)), corners, 1)
            except (ValueError, IndexError):
                raise InputError(
                    f"{path}: the face {line!r} does not fit a mesh of {n_vertices} vertices"
                ) from None
    if set(votes) <= {""}:
        raise InputError(f"{path}: has no polygon groups (lines that begin with g)")
    table = np.stack(list(votes.values()))
    best = np.where(table.sum(0) > 0, table.argmax(0), -1)
    # A group may lose all its vertices to its neighbors; it is then no region.
    return {
        name: vertices for n, name in enumerate(votes) if len(vertices := np.flatnonzero(best == n))
    }, {}
