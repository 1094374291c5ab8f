"""What goes into the studio and out of it: uploads, which are checked like any file, and downloads."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from morphable.data.picked import landmarks_of
from morphable.data.registered_mesh import read_registered, write_shape
from morphable.errors import InputError
from morphable.files import read_npz
from morphable.mesh.io import MESH_SUFFIXES
from morphable.mesh.io.landmarks import LANDMARK_SUFFIXES
from morphable.mesh.landmarks import Landmarks
from morphable.models.base import MorphableModel
from morphable.studio.session import Shape

MAX_UPLOAD = 64 * 2**20
"""Bytes. A mesh of 70,000 vertices as text has about 8 million."""
CODE_SUFFIX = ".npz"
FORMAT = "morphable code 1"


def read_mesh_upload(
    name: str, content: bytes, model: MorphableModel, unit: str | None = None
) -> np.ndarray:
    """(V, 3) mm of an uploaded mesh on the model's template. Raises InputError as
    `read_registered`, and for a file that is empty, too large or of another kind.
    """
    with uploaded(name, content, MESH_SUFFIXES) as path, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of faces in another order, which are accepted
        return read_registered(path, model.template, unit)


def read_landmarks_upload(name: str, content: bytes, model: MorphableModel) -> Landmarks:
    """Landmarks in an uploaded file. Raises InputError as `landmarks_of`."""
    with uploaded(name, content, LANDMARK_SUFFIXES) as path:
        return landmarks_of(path, model.template)


@contextmanager
def uploaded(name: str, content: bytes, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """An uploaded file in a folder of its own. Errors in the block name it as the person does.

    Of the name, which comes from outside, only the last part is used, and only in messages.
    """
    shown = PurePosixPath(name.replace("\\", "/")).name[-100:] or "the file"
    suffix = next((s for s in sorted(suffixes, key=len)[::-1] if shown.lower().endswith(s)), None)
    if suffix is None:
        raise InputError(f"{shown}: expected a file ending in {', '.join(suffixes)}")
    if len(content) > MAX_UPLOAD:
        raise InputError(
            f"{shown}: has {len(content) / 2**20:.0f} MiB, at most {MAX_UPLOAD // 2**20} are read"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"upload{suffix}"
        path.write_bytes(content)
        try:
            yield path
        except InputError as error:
            raise InputError(str(error).replace(str(path), shown)) from error


def mesh_bytes(vertices: np.ndarray, model: MorphableModel, suffix: str) -> bytes:
    """A mesh (V, 3) mm as the bytes of a file: .ply, .obj, or .glb, which is in meters."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"shape{suffix}"
        write_shape(path, vertices, model.template)
        return path.read_bytes()


def code_bytes(shape: Shape, model: MorphableModel) -> bytes:
    """A shape as the bytes of an .npz file, which loads back exactly: its code, its parts' names
    and sizes, its change beyond the code, and what it belongs to.
    """
    arrays = {
        "format": np.array(FORMAT),
        "family": np.array(model.family),
        "template": np.array(model.template.fingerprint),
        "parts": np.array(list(model.parts)),
        "sizes": np.array([part.size for part in model.parts.entries]),
        "code": shape.code.cpu().numpy().astype(np.float32),
    }
    if shape.change is not None:
        arrays["change"] = shape.change.astype(np.float32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def read_code_upload(name: str, content: bytes, model: MorphableModel) -> Shape:
    """Read what `code_bytes` made. Raises InputError if the file is damaged or of another model."""
    with uploaded(name, content, (CODE_SUFFIX,)) as path:
        arrays = read_npz(path)
        if "code" not in arrays or str(arrays.get("format")) != FORMAT:
            raise InputError(f"{path}: not a code saved by the studio")
        own = [part.size for part in model.parts.entries]
        theirs = dict(
            zip(arrays.get("parts", []), np.atleast_1d(arrays.get("sizes", 0)), strict=False)
        )
        if (
            str(arrays.get("template")) != model.template.fingerprint
            or list(map(str, theirs)) != list(model.parts)
            or [int(size) for size in theirs.values()] != own
        ):
            raise InputError(
                f"{path}: is a code of another model ({arrays.get('family', 'unknown')}: "
                f"{', '.join(f'{part} {size}' for part, size in theirs.items())})"
            )
        code = _numbers(arrays["code"], (sum(own),), f"{path}: its code")
        change = arrays.get("change")
        if change is not None:
            change = _numbers(change, (model.template.n_vertices, 3), f"{path}: its change")
        return Shape(torch.from_numpy(code), change)


def _numbers(array: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
        raise InputError(f"{what} is damaged: expected {shape} finite float32 numbers")
    return array
