"""AFLW2000-3D (Zhu et al. 2016): coefficients of 2,000 fitted faces, evaluated without pose on the
model of 3DDFA, 53,215 of the vertices of the Basel model of 2009.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from morphable.data.importers.files_source import stack_in_mm
from morphable.data.importers.mesh_files import Placing, finished_source
from morphable.data.importers.reading import READ_AGAIN, Reading
from morphable.data.labels import LabelTable
from morphable.data.source import MeshSource
from morphable.errors import InputError
from morphable.files import reading as reading_file
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template

LICENCE = "AFLW2000-3D and the Basel face model: research only, by agreement"
SHAPE, EXPRESSION = "Model_Shape.mat", "Model_Exp.mat"


def aflw2000_3d(
    raw: Path,
    reading: Reading = READ_AGAIN,
    *,
    model: Path | None = None,
    name: str = "face",
    licence: str = LICENCE,
    align: bool | str = False,
    align_on: str | None = None,
    mirror: bool = False,
) -> MeshSource:
    """A folder with the .mat files of the images, each with Shape_Para and Exp_Para. model: the
    folder with Model_Shape.mat and Model_Exp.mat, as 3DDFA's Matlab package makes them; else `raw`.

    Faces are evaluated in the pose of the model, in micrometers, which are converted to millimeters;
    `Fitted_Face` is posed in image coordinates and is not used. The vertices are those of the Basel
    model without the inner mouth: 53,215 of 53,490, recorded as `vertex_base`.
    """
    where = raw if model is None else model
    basis = _Basis(where)
    files = sorted(raw.glob("*.mat")) if raw.is_dir() else []
    files = [path for path in files if path.name not in (SHAPE, EXPRESSION)]
    if not files:
        raise InputError(f"{raw}: holds no .mat file of an image")
    rows = [_coefficients(path, basis) for path in files]
    codes = _Faces(basis, np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows]))
    stack = stack_in_mm(codes, "mm", name=str(raw))
    template = Template(Mesh(basis.mean.reshape(-1, 3) / 1000, basis.triangles), name)
    names = np.array([path.name for path in files])
    table = LabelTable({"file": names, "subject": np.array([p.stem for p in files])}, len(files))
    info = {
        "licence": licence,
        "unit": "um",
        "source": "AFLW2000-3D, coefficients of 3DDFA's model",
        "vertex_base": f"{template.n_vertices} vertices of Model_Shape.mat, of BFM-2009's 53,490",
    }
    return finished_source(template, table, stack, info, Placing.of(align, align_on, mirror))


class _Basis:
    """The linear model: mean (3V,), directions (3V, K) and triangles (T, 3), in micrometers."""

    def __init__(self, folder: Path) -> None:
        shape, expression = _mat(folder / SHAPE), _mat(folder / EXPRESSION)
        try:
            self.shape = np.asarray(shape["w"], np.float64)
            self.expression = np.asarray(expression["w_exp"], np.float64)
            self.mean = np.ravel(shape["mu_shape"]).astype(np.float64)
            self.mean = self.mean + np.ravel(expression["mu_exp"])
            triangles = np.asarray(shape["tri"]).astype(np.int64)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{folder / SHAPE}: expected w, mu_shape and tri, and w_exp and mu_exp in "
                f"{EXPRESSION} ({error})"
            ) from error
        triangles = triangles.T if triangles.shape[0] == 3 else triangles
        self.triangles = triangles - int(triangles.min() == 1)  # Matlab counts from one
        if len(self.mean) % 3 or not len(self.mean) == len(self.shape) == len(self.expression):
            raise InputError(f"{folder / SHAPE}: its arrays and those of {EXPRESSION} do not fit")


class _Faces:
    """Looks like an array (N, V, 3) mm of the faces with these coefficients."""

    def __init__(self, basis: _Basis, shape: np.ndarray, expression: np.ndarray) -> None:
        self.basis, self.codes = basis, np.concatenate([shape, expression], axis=1)
        self.directions = np.concatenate([basis.shape, basis.expression], axis=1)
        self.shape = (len(shape), len(basis.mean) // 3, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        flat = self.basis.mean + self.codes[rows] @ self.directions.T
        return flat.reshape(len(flat), -1, 3) / 1000


def _coefficients(path: Path, basis: _Basis) -> tuple[np.ndarray, np.ndarray]:
    values = _mat(path)
    found = []
    for key, directions in (("Shape_Para", basis.shape), ("Exp_Para", basis.expression)):
        numbers = np.ravel(values.get(key, np.zeros(0)))
        if numbers.shape != (directions.shape[1],) or not np.isfinite(numbers).all():
            raise InputError(
                f"{path}: {key}: expected {directions.shape[1]} numbers, got {numbers.shape}"
            )
        found.append(numbers.astype(np.float64))
    return found[0], found[1]


def _mat(path: Path) -> dict[str, Any]:
    """The numbers in a Matlab file; scipy's reader executes nothing."""
    from scipy.io import loadmat

    with (
        reading_file(path, "not a readable Matlab file, it may be truncated"),
        path.open("rb") as file,
    ):
        values = loadmat(file)
    return {
        key: value
        for key, value in values.items()
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    }
