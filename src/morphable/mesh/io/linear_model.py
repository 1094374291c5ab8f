"""Files of linear shape models: our own .npz, and the HDF5 layout of statismo, which scalismo opens.

Both hold x = mean + sum_k z_k sqrt(variance_k) component_k, with z from N(0, I). The layout of
statismo 0.9, as scalismo reads it (D = 3V numbers, the coordinates of one vertex after another):

    /model/mean (D,)           positions, not offsets      /version/majorVersion 0
    /model/pcaBasis (D, K)     orthonormal columns         /version/minorVersion 9
    /model/pcaVariance (K,)                                /catalog/NAME/modelPath, modelType
    /model/noiseVariance       one number                  /representer/points (3, V)
    /modelinfo/...             how it was made             /representer/cells (3, T) triangles

The group /representer has the attributes `name` and `datasetType`. Version 0.8 stores the columns
of the basis times the standard deviations. The Basel models hold several models, each under a
prefix such as /shape.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from morphable.errors import InputError
from morphable.files import atomic_path, check_size, read_npz, reading, write_npz
from morphable.mesh.mesh import Mesh
from morphable.mesh.stored_arrays import stored_indices, stored_numbers, stored_text

LINEAR_SUFFIXES = (".npz", ".h5")
_OLD = ("vtkPolyDataRepresenter", "itkMeshRepresenter")
"""Representers of files without a version, which are of version 0.8."""


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A linear shape model: x = mean + sum_k z_k sqrt(variances_k) components_k + noise.

    reference: the mesh of the template, mm. mean: (V, 3) mm. components: (K, V, 3), orthonormal as
    K vectors. variances: (K,) mm², descending. noise_variance: mm² per coordinate. name: of the
    shape class. note: how the model was made, in a sentence.

    Raises InputError if the shapes do not fit together, or a variance is negative.
    """

    reference: Mesh
    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    noise_variance: float = 0.0
    name: str = "model"
    note: str = ""

    def __post_init__(self) -> None:
        shape = self.reference.vertices.shape
        if self.mean.shape != shape or self.components.shape[1:] != shape:
            raise InputError(
                f"linear model: expected a mean of shape {shape} and components of shape (K, "
                f"{shape[0]}, 3), got {self.mean.shape} and {self.components.shape}"
            )
        if self.variances.shape != (len(self.components),) or (self.variances < 0).any():
            raise InputError(
                f"linear model: expected {len(self.components)} variances of at least 0, got "
                f"{self.variances.shape}"
            )

    def shapes(self, coefficients: np.ndarray) -> np.ndarray:
        """(B, K) coefficients in standard deviations -> (B, V, 3) mm."""
        scaled = coefficients * np.sqrt(self.variances)
        return self.mean + np.tensordot(scaled, self.components, 1)


def write_linear_model(path: Path | str, model: LinearModel) -> None:
    """Write the model in float32 and atomically, as the suffix says: .npz or .h5.

    Raises InputError for another suffix, or if h5py is missing.
    """
    path = Path(path)
    match path.suffix.lower():
        case ".npz":
            write_npz(path, _to_arrays(model))
        case ".h5":
            h5py = import_h5py(path)
            with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
                _write_statismo(file, model)
        case suffix:
            raise _unknown(path, suffix)


def read_linear_model(path: Path | str, group: str = "/") -> LinearModel:
    """Read a linear model from .npz or .h5.

    group: the place of the model within an .h5 file that holds several, such as "/shape".

    Raises InputError if the file is missing, damaged or no such model, or h5py is missing.
    """
    path = Path(path)
    match path.suffix.lower():
        case ".npz":
            arrays = read_npz(path)
            with _naming(path):
                return _from_arrays(arrays)
        case ".h5":
            h5py = import_h5py(path)
            damage = reading(path, "not a readable HDF5 file, it may be truncated")
            with damage, h5py.File(path, "r") as file:
                arrays, attributes = _statismo_arrays(path, file, group)
            with _naming(path):
                return _of_statismo(arrays, attributes)
        case suffix:
            raise _unknown(path, suffix)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the name of the file before errors about its content."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _unknown(path: Path, suffix: str) -> InputError:
    known = " or ".join(LINEAR_SUFFIXES)
    return InputError(f"{path}: expected a linear model in {known}, got {suffix or 'no suffix'}")


def import_h5py(path: Path) -> ModuleType:
    """The optional package. Raises InputError, naming the file that needs it, if it is missing."""
    try:
        import h5py
    except ImportError:
        raise InputError(
            f"{path}: HDF5 files need h5py; install it with pip install 'morphable[hdf5]'"
        ) from None
    return h5py


# Our own layout


def _to_arrays(model: LinearModel) -> dict[str, np.ndarray]:
    return {
        "mean": model.mean.astype(np.float32),
        "components": model.components.astype(np.float32),
        "variances": model.variances.astype(np.float32),
        "noise_variance": np.array([model.noise_variance], np.float32),
        "reference": np.asarray(model.reference.vertices, np.float32),
        "faces": model.reference.faces.astype(np.int32),
        "name": np.array(model.name),
        "note": np.array(model.note),
        "unit": np.array("mm"),
    }


def _from_arrays(arrays: Mapping[str, np.ndarray]) -> LinearModel:
    wanted = ("mean", "components", "variances", "noise_variance", "reference", "faces")
    missing = [key for key in wanted if key not in arrays]
    if missing:
        raise InputError(f"not a linear model, it has no {', '.join(missing)}")
    reference = stored_numbers(arrays, "reference", (None, 3))
    corners = arrays["faces"].shape[1] if arrays["faces"].ndim == 2 else 3
    faces = stored_indices(arrays, "faces", (None, corners), len(reference), at_least=3 - corners)
    return LinearModel(
        Mesh(reference, faces),
        stored_numbers(arrays, "mean", (len(reference), 3)),
        stored_numbers(arrays, "components", (None, len(reference), 3)),
        stored_numbers(arrays, "variances", (None,)),
        float(stored_numbers(arrays, "noise_variance", (1,))[0]),
        stored_text(arrays, "name") if "name" in arrays else "model",
        stored_text(arrays, "note") if "note" in arrays else "",
    )


# The layout of statismo


def _write_statismo(file: Any, model: LinearModel) -> None:
    """file: an open h5py.File."""
    count = len(model.components)
    basis = model.components.reshape(count, -1).T
    for place, values in {
        "model/mean": model.mean.ravel(),
        "model/pcaBasis": basis,
        "model/pcaVariance": model.variances,
        "model/noiseVariance": np.array([model.noise_variance]),
        "representer/points": np.asarray(model.reference.vertices).T,
    }.items():
        file[place] = np.ascontiguousarray(values, np.float32)
    file["representer/cells"] = np.ascontiguousarray(model.reference.triangles.T, np.int32)
    file["representer"].attrs["name"] = "itkStandardMeshRepresenter"
    file["representer"].attrs["datasetType"] = "POLYGON_MESH"
    file["version/majorVersion"] = np.int32(0)
    file["version/minorVersion"] = np.int32(9)
    for place, text in {
        f"catalog/{model.name}/modelPath": "/",
        f"catalog/{model.name}/modelType": "POLYGON_MESH_MODEL",
        "modelinfo/modelBuilder-0/builderName": "morphable",
        "modelinfo/modelBuilder-0/parameters/note": model.note,
    }.items():
        file[place] = text
    file.create_group("modelinfo/modelBuilder-0/dataInfo")


_STATISMO = {
    "mean": "model/mean",
    "basis": "model/pcaBasis",
    "variances": "model/pcaVariance",
    "noise_variance": "model/noiseVariance",
    "points": "representer/points",
    "cells": "representer/cells",
}


def _statismo_arrays(
    path: Path, file: Any, group: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a model by our names, and what else is known about it: `old` (version 0.8),
    `name` and `note`.
    """
    base = file.get(group)
    places = _STATISMO if base is not None else {}
    found = {key: base[place] for key, place in places.items() if place in base}
    # A data set may state any size and store nothing, so its size is checked before it is read.
    size = sum(each.size * each.dtype.itemsize for each in found.values())
    check_size(path, size, path.stat().st_size)
    arrays = {key: np.asarray(each) for key, each in found.items()}
    missing = [
        _STATISMO[key] for key in ("mean", "basis", "variances", "points") if key not in arrays
    ]
    if missing:
        raise InputError(
            f"{path}: holds no statismo model at {group}, {missing[0]} is not there; at the top it "
            f"has {', '.join(file) or 'nothing'}"
        )
    representer = str(base["representer"].attrs.get("name", ""))
    version = (0, 8) if representer in _OLD else (0, 9)
    if "version/minorVersion" in file:
        major, minor = (np.ravel(file[f"version/{key}Version"]) for key in ("major", "minor"))
        version = (int(major[0]), int(minor[0]))
    if version not in ((0, 8), (0, 9), (1, 0)):
        raise InputError(
            f"{path}: is of statismo version {version[0]}.{version[1]}, not known here"
        )
    note = base.get("modelinfo/modelBuilder-0/parameters/note")
    attributes = {
        "old": version == (0, 8),
        "name": next(iter(file.get("catalog", ())), path.stem),
        "note": "" if note is None else note[()].decode(errors="replace"),
    }
    return arrays, attributes


def _of_statismo(arrays: dict[str, np.ndarray], attributes: Mapping[str, Any]) -> LinearModel:
    points = stored_numbers(arrays, "points", (3, None)).T
    count = len(points)
    variances = stored_numbers(arrays, "variances", (None,))
    basis = stored_numbers(arrays, "basis", (3 * count, len(variances)))
    if attributes["old"]:
        deviations = np.sqrt(np.maximum(variances, 0))
        basis = np.where(deviations > 1e-8, basis / np.maximum(deviations, 1e-8), 0)
    cells = np.zeros((3, 0), np.int64)
    if "cells" in arrays:
        cells = stored_indices(arrays, "cells", (3, None), count)
    noise = np.ravel(arrays.get("noise_variance", np.zeros(1)))
    return LinearModel(
        Mesh(np.ascontiguousarray(points), np.ascontiguousarray(cells.T)),
        stored_numbers(arrays, "mean", (3 * count,)).reshape(count, 3),
        np.ascontiguousarray(basis.T).reshape(len(variances), count, 3),
        variances,
        float(noise[0]) if len(noise) else 0.0,
        str(attributes["name"]),
        str(attributes["note"]),
    )
