"""Read linear models as others store them: statismo HDF5 and Basel files, FLAME and SMPL, UHM and
Handy. Pickles are read without executing them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from morphable.errors import InputError
from morphable.files import read_npz
from morphable.mesh.io.inert_pickle import read_pickle
from morphable.mesh.io.linear_model import LinearModel, read_linear_model
from morphable.mesh.mesh import Mesh
from morphable.mesh.units import millimeters

UHM_MM = 156.28255886643
"""Millimeters of a unit of the UHM head model, by a loader of its authors' later code."""
KINDS = ("flame", "handy", "uhm")
SUFFIXES = (".npz", ".h5", ".pkl")


def read_foreign_model(
    path: Path,
    unit: str | None = None,
    group: str = "/",
    template: Mesh | None = None,
    kind: str | None = None,
) -> LinearModel:
    """Read a linear model and convert it to millimeters.

    unit: of the file; None: mm for HDF5, m for FLAME, SMPL and Handy, and that of UHM. group: the
    place within an HDF5 file, such as /shape. template: its faces are used if the file has none.
    kind: one of KINDS that the file must be; None: any.

    Raises InputError, naming the file, if it is no such model.
    """
    suffix = path.suffix.lower()
    if suffix in (".h5", ".hdf5"):
        return _scaled(read_linear_model(path, group), millimeters(unit or "mm"))
    if suffix == ".npz":
        arrays: dict[str, Any] = dict(read_npz(path))
        if "components" in arrays and "reference" in arrays:
            return _scaled(read_linear_model(path), millimeters(unit or "mm"))
    elif suffix == ".pkl":
        arrays = read_pickle(path)
    else:
        raise InputError(f"{path}: expected a linear model in {', '.join(SUFFIXES)}")
    found = _kind(arrays)
    if found is None or kind not in (None, found):
        held = ", ".join(sorted(arrays)[:12]) or "nothing"
        raise InputError(
            f"{path}: not a linear model of {kind or 'FLAME, SMPL, UHM or Handy'}; it holds {held}"
        )
    scale = UHM_MM if found == "uhm" and unit is None else millimeters(unit or "m")
    try:
        model = {"flame": _flame, "handy": _handy, "uhm": _uhm}[found](arrays, template, path)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a readable {found} model ({error})") from error
    return _scaled(model, scale)


def _kind(arrays: Mapping[str, Any]) -> str | None:
    for kind, keys in (
        ("flame", {"v_template", "shapedirs"}),
        ("handy", {"v_template", "components", "eigenvalues"}),
        ("uhm", {"Mean", "Eigenvectors", "EigenValues"}),
    ):
        if keys <= arrays.keys():
            return kind
    return None


def _flame(arrays: Mapping[str, Any], template: Mesh | None, path: Path) -> LinearModel:
    """x = v_template + shapedirs @ beta with beta from N(0, I); FLAME's last 100 are expressions."""
    mean = _numbers(arrays["v_template"], (None, 3))
    slopes = _numbers(arrays["shapedirs"], (len(mean), 3, None))
    rows = slopes.reshape(3 * len(mean), -1).T
    # Shape and expression directions are not orthogonal to each other.
    _, deviations, components = np.linalg.svd(rows, full_matrices=False)
    kept = deviations > 1e-7 * deviations[0]
    return _model(arrays, template, path, mean, components[kept], deviations[kept] ** 2)


def _handy(arrays: Mapping[str, Any], template: Mesh | None, path: Path) -> LinearModel:
    """x = v_template + components^T w with w_k from N(0, eigenvalue_k)."""
    mean = _numbers(arrays["v_template"], (None, 3))
    variances = _numbers(np.ravel(arrays["eigenvalues"]), (None,))
    components = _numbers(arrays["components"], (None, 3 * len(mean)))
    return _model(arrays, template, path, mean, components, variances)


def _uhm(arrays: Mapping[str, Any], template: Mesh | None, path: Path) -> LinearModel:
    """x = Mean + Eigenvectors @ w with w_k from N(0, EigenValue_k)."""
    mean = _numbers(np.ravel(arrays["Mean"]), (None,))
    if len(mean) % 3:
        raise ValueError(f"Mean has {len(mean)} numbers, which is no multiple of 3")
    variances = _numbers(np.ravel(arrays["EigenValues"]), (None,))
    vectors = _numbers(arrays["Eigenvectors"], (len(mean), None))
    return _model(arrays, template, path, mean.reshape(-1, 3), vectors.T, variances)


def _model(
    arrays: Mapping[str, Any],
    template: Mesh | None,
    path: Path,
    mean: np.ndarray,
    components: np.ndarray,
    variances: np.ndarray,
) -> LinearModel:
    count = min(len(variances), len(components))
    length = np.linalg.norm(components[:count], axis=1)
    order = np.argsort(-variances[:count] * length**2, kind="stable")
    unit = components[:count] / np.maximum(length, 1e-30)[:, None]
    return LinearModel(
        Mesh(mean, _faces(arrays, template, len(mean), path)),
        mean,
        unit[order].reshape(count, -1, 3),
        (variances[:count] * length**2)[order],
        0.0,
        path.stem,
        f"read from {path.name}",
    )


def _faces(arrays: Mapping[str, Any], template: Mesh | None, count: int, path: Path) -> np.ndarray:
    for key in ("f", "faces", "Trilist", "trilist", "triangles"):
        if arrays.get(key) is not None:
            return np.asarray(arrays[key]).astype(np.int64).reshape(-1, 3)
    if template is None:
        raise InputError(f"{path}: holds no faces; name a mesh with them by `template`", "template")
    if len(template.vertices) != count:
        raise InputError(
            f"{path}: has {count} vertices, `template` {len(template.vertices)}", "template"
        )
    return template.faces


def _numbers(values: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim != len(shape) or any(
        wanted not in (None, got) for wanted, got in zip(shape, array.shape, strict=True)
    ):
        raise ValueError(f"expected numbers of shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("a number is not finite")
    return array


def _scaled(model: LinearModel, scale: float) -> LinearModel:
    if scale == 1:
        return model
    reference = model.reference.moved(np.asarray(model.reference.vertices, np.float64) * scale)
    return LinearModel(
        reference,
        model.mean * scale,
        model.components,
        model.variances * scale**2,
        model.noise_variance * scale**2,
        model.name,
        model.note,
    )
