"""ICT-FaceKit Light: a linear face model with 100 identity modes and 53 expression shapes.

Li et al., "Learning formation of physically-based face attributes", CVPR 2020;
github.com/ICT-VGL/ICT-FaceKit, MIT. The model is not bundled; users need a clone of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morphable.errors import InputError
from morphable.files import read_json, read_npz

VARIABLE = "MORPHABLE_ICT"
VERTICES = 26_719
HEAD, FACE, CLOSED_HEAD = 11_248, 9_409, 17_039
"""The model's first vertices are, up to these counts: head and neck; the face only; the head with
mouth, eye sockets and gums.
"""
LOWER_TEETH = slice(19_247, 21_451)
EYEBALLS = {"L": slice(21_451, 23_021), "R": slice(23_021, 24_591)}
CENTIMETER = np.float32(10)
IDENTITY_MODES = 100

ADVICE = (
    f"set `source` or the variable {VARIABLE} to a clone of github.com/ICT-VGL/ICT-FaceKit, "
    "its FaceXModel folder or a packed .npz"
)
"""It names the argument `source`, so errors that contain it pass "source" to InputError."""


@dataclass(frozen=True, eq=False)
class IctModel:
    """The whole model in millimeters; y is up, and the face looks to +z.

    neutral: (26719, 3). identity_modes: (100, 26719, 3) displacements per standard deviation.
    expressions: (53, 26719, 3) displacements at weight 1. names: the 53 names of the expressions.
    faces, uv_faces: (26384, 4), -1 padded. uv: (U, 2). landmarks: (68,). rigid: (1487,) vertices
    that no expression moves.
    """

    neutral: np.ndarray
    identity_modes: np.ndarray
    expressions: np.ndarray
    names: tuple[str, ...]
    faces: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    landmarks: np.ndarray
    rigid: np.ndarray


def find_ict(source: Path | None = None) -> Path:
    """Return the path `source` or, if that is None, the one in the variable MORPHABLE_ICT. Raises
    InputError with advice if there is no path or nothing exists there.
    """
    named = str(source) if source is not None else os.environ.get(VARIABLE, "")
    if not named:
        raise InputError(f"the ICT-FaceKit model is needed but was not given: {ADVICE}", "source")
    path = Path(named)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; {ADVICE}", "source")
    return path


def load_ict(path: Path) -> IctModel:
    """Read the model from a packed archive, a clone of the repository or its FaceXModel folder.

    Raises InputError if something is missing or does not have the model's topology.
    """
    if path.is_file():
        return _from_archive(path)
    for folder in (path, path / "FaceXModel"):
        if (folder / "generic_neutral_mesh.obj").exists():
            return _from_folder(folder)
    raise InputError(
        f"{path}: holds no generic_neutral_mesh.obj and no FaceXModel folder with one; {ADVICE}",
        "source",
    )


def _from_archive(path: Path) -> IctModel:
    arrays = read_npz(path)
    needed = (
        "neutral",
        "identity_modes",
        "expression_deltas",
        "expression_names",
        "quads",
        "quad_uv",
        "uv",
    )
    missing = sorted({*needed, "landmarks68", "rigid_vertices"} - arrays.keys())
    if missing:
        raise InputError(f"{path}: not a packed ICT-FaceKit model, it lacks {', '.join(missing)}")
    return _checked(
        path,
        IctModel(
            neutral=arrays["neutral"] * CENTIMETER,
            identity_modes=arrays["identity_modes"] * CENTIMETER,
            expressions=arrays["expression_deltas"] * CENTIMETER,
            names=tuple(str(name) for name in arrays["expression_names"]),
            faces=arrays["quads"].astype(np.int64),
            uv=arrays["uv"],
            uv_faces=arrays["quad_uv"].astype(np.int64),
            landmarks=arrays["landmarks68"].astype(np.int64),
            rigid=arrays["rigid_vertices"].astype(np.int64),
        ),
    )


def _from_folder(folder: Path) -> IctModel:
    """Read the 154 OBJ files of the Light model: the neutral mesh, and one mesh for each identity
    mode and each expression.
    """
    from morphable.mesh.io import read_mesh

    index = read_json(folder / "vertex_indices.json")
    missing = [
        key
        for key in ("expressions", "idx_to_landmark_verts", "idx_to_rigid_verts")
        if key not in index
    ]
    if missing:
        raise InputError(f"{folder / 'vertex_indices.json'}: lacks {', '.join(missing)}")
    neutral = read_mesh(folder / "generic_neutral_mesh.obj")
    if neutral.uv is None or neutral.uv_faces is None:
        raise InputError(f"{folder / 'generic_neutral_mesh.obj'}: has no texture coordinates")
    base = neutral.mesh.vertices.astype(np.float64)

    def deltas(names: list[str]) -> np.ndarray:
        stack = np.empty((len(names), *base.shape), np.float32)
        for row, name in enumerate(names):
            vertices = read_mesh(folder / f"{name}.obj").mesh.vertices
            if vertices.shape != base.shape:
                raise InputError(
                    f"{folder / name}.obj: expected {len(base)} vertices, got {len(vertices)}"
                )
            stack[row] = (vertices - base) * float(CENTIMETER)
        return stack

    names = [str(name) for name in index["expressions"]]
    return _checked(
        folder,
        IctModel(
            neutral=(base * float(CENTIMETER)).astype(np.float32),
            identity_modes=deltas([f"identity{mode:03d}" for mode in range(IDENTITY_MODES)]),
            expressions=deltas(names),
            names=tuple(names),
            faces=neutral.mesh.faces,
            uv=neutral.uv,
            uv_faces=neutral.uv_faces,
            landmarks=np.array(index["idx_to_landmark_verts"], np.int64),
            rigid=np.array(index["idx_to_rigid_verts"], np.int64),
        ),
    )


def _checked(path: Path, model: IctModel) -> IctModel:
    """Return the model. Raises InputError if its topology is not the one that the vertex ranges
    above are for.
    """
    modes = (IDENTITY_MODES, VERTICES, 3)
    for name, array, shape in (
        ("the neutral mesh", model.neutral, (VERTICES, 3)),
        ("the identity modes", model.identity_modes, modes),
        ("the expression shapes", model.expressions, (len(model.names), VERTICES, 3)),
    ):
        if array.shape != shape:
            raise InputError(
                f"{path}: expected {name} of ICT-FaceKit Light, shape {shape}, got {array.shape}"
            )
    absent = sorted({"jawOpen", "eyeBlink_L", "eyeBlink_R"} - set(model.names))
    if absent:
        raise InputError(f"{path}: the expression shapes lack {', '.join(absent)}")
    return model
