"""save and load: a model is written as a folder or a zip, which can be loaded without its dataset
and without a download.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

import morphable
from morphable.config import as_table, with_overrides
from morphable.errors import InputError
from morphable.files import (
    BROKEN_JSON,
    atomic_folder,
    atomic_path,
    read_npz,
    reading,
)
from morphable.mesh.template import Template
from morphable.models.base import MorphableModel, Origin
from morphable.models.families import MODELS, build
from morphable.models.geometry import prefixed, under
from morphable.models.stored import open_stored

FORMAT_VERSION = 2
"""Since version 2, regions are stored once, with the template, and tensors have other names."""
GEOMETRY = "geometry/"


def save(model: MorphableModel, path: Path | str, *, half: bool = False) -> None:
    """Write a model folder, or a zip if `path` ends in .zip. An interrupted write leaves nothing.

    half: whether to store matrices in half precision, which takes half the space. Vectors and
    coordinates (..., 3) stay as they are, and a loaded model always computes in float32.

    Raises InputError if `path` exists.
    """
    path = Path(path)
    files = _contents(model, half)
    if path.suffix == ".zip":
        if path.exists():
            raise InputError(f"{path}: already exists; choose another name or remove it first")
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return
    with atomic_folder(path) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)


def _contents(model: MorphableModel, half: bool) -> dict[str, bytes]:
    parts = [
        {"name": part.name, "size": part.size, "pinned": part.pinned}
        for part in model.parts.entries
    ]
    description = {
        "format_version": FORMAT_VERSION,
        "morphable_version": morphable.__version__,
        "family": model.family,
        "config": as_table(model.config),
        "parts": parts,
        "units": model.units,
        "template_fingerprint": model.template.fingerprint,
        "training_data_licence": model.provenance.get("licence", "unknown"),
        "provenance": dict(model.provenance),
    }
    arrays = model.template.to_arrays() | prefixed(GEOMETRY, model.geometry.to_arrays())
    buffer = io.BytesIO()
    plain: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez_compressed(buffer, **plain)
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    if half:
        tensors = {
            name: own.half()
            if own.ndim > 1 and own.shape[-1] != 3 and own.is_floating_point()
            else own
            for name, own in tensors.items()
        }
    return {
        "model.json": (json.dumps(description, indent=2) + "\n").encode(),
        "weights.safetensors": save_tensors(tensors),
        "template.npz": buffer.getvalue(),
        "README.md": _card(model, description).encode(),
    }


def _card(model: MorphableModel, description: Mapping[str, Any]) -> str:
    provenance = model.provenance
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        f"# {model.family} model of class `{model.template.name}`",
        "",
        f"{MODELS[model.family].summary[0].upper()}{MODELS[model.family].summary[1:]}.",
        "",
        f"- vertices: {model.template.n_vertices} (millimeters, y up, right-handed), "
        f"topology fingerprint `{model.template.fingerprint}`",
        f"- latent size: {model.latent}; parts of the code: {model.parts.described}",
        f"- trainable parameters: {parameters:,}",
        f"- training data: {provenance.get('source', 'unknown')} "
        f"({provenance.get('train_meshes', '?')} meshes, "
        f"split `{provenance.get('split', '?')}`)",
        f"- licence of the training data: {description['training_data_licence']}",
        *([f"- error: {provenance['measured']}"] if "measured" in provenance else []),
        f"- made by: `{provenance.get('command', 'python')}` with morphable "
        f"{description['morphable_version']}",
        "",
        "Load it with `morphable.load(path)`; `model.decode(code)` gives vertices in millimeters.",
        "A model can represent only shapes like those it was trained on, not people or poses that "
        "were absent from its training data.",
    ]
    return "\n".join(lines) + "\n"


def load(path: Path | str) -> MorphableModel:
    """Load a model from a folder, a zip, a run folder (its `model/`), or by its name in the zoo, as
    "zoo:hands", in evaluation mode on the CPU. Its parameters do not require gradients;
    `model.requires_grad_()` makes them trainable.

    Raises InputError if the run is still in training; and, naming the file, if a file is missing,
    truncated, unsafe or of another format version.
    """
    read, label = open_stored(Path(path))
    description = _parse_json(read("model.json"), label("model.json"))
    origin = _origin(description, label("model.json"))
    settings = _table(description, "config", label("model.json"))
    arrays = read_npz(io.BytesIO(read("template.npz")), label("template.npz"))
    template = Template.from_arrays(arrays, label("template.npz"))
    if template.fingerprint != description.get("template_fingerprint"):
        raise InputError(f"{label('template.npz')}: is not the template that model.json names")
    # The fast recipe only lends the class of the configuration: `settings` replaces all its values.
    row = MODELS[origin.family]
    config = with_overrides(row.fast.model, settings, label("model.json"))
    try:
        geometry = row.model.geometry_type.from_arrays(under(GEOMETRY, arrays), template)
        model = build(template, config, geometry, origin)
    except (InputError, KeyError) as error:
        raise InputError(f"{label('template.npz')}: does not fit the family ({error})") from error
    try:
        tensors = load_tensors(read("weights.safetensors"))
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise InputError(f"{label('weights.safetensors')}: {name} is not finite")
        load_weights(model, tensors)
    except (SafetensorError, KeyError, TensorError) as error:
        raise InputError(
            f"{label('weights.safetensors')}: does not hold this model, it may be cut short "
            f"({error})"
        ) from error
    return model.eval().requires_grad_(False)


class TensorError(ValueError):
    """Raised if tensors are not those of a model."""


def load_weights(model: nn.Module, tensors: Mapping[str, Any]) -> None:
    """Load the tensors of a file into a model. Raises TensorError, naming a tensor, if they are
    those of another model.
    """
    own = model.state_dict()
    for name in [*own, *tensors]:
        tensor = tensors.get(name)
        if name not in own:
            raise TensorError(f"{name}: the model has no such tensor")
        if not isinstance(tensor, Tensor):
            raise TensorError(f"there is no tensor {name}")
        if tensor.shape != own[name].shape:
            expected, got = tuple(own[name].shape), tuple(tensor.shape)
            raise TensorError(f"{name}: expected the shape {expected}, got {got}")
    model.load_state_dict(tensors)


def _origin(description: Mapping[str, Any], label: str) -> Origin:
    """The model's family and provenance. Raises InputError if the format version or the family is
    not one that this version of morphable reads.
    """
    version = description.get("format_version")
    if version == 1:
        raise InputError(
            f"{label}: written in format version 1, which is no longer read; this morphable reads "
            f"version {FORMAT_VERSION}: train the model again"
        )
    if version != FORMAT_VERSION:
        raise InputError(f"{label}: expected format version {FORMAT_VERSION}, got {version}")
    name = str(description.get("family"))
    if name not in MODELS:
        raise InputError(
            f"{label}: the family {name!r} is not part of morphable; add it first, "
            "with `family_from` or morphable.add_family",
            "family_from",
        )
    return Origin(name, _table(description, "provenance", label))


def _table(description: Mapping[str, Any], key: str, label: str) -> dict[str, Any]:
    value = description.get(key)
    if not isinstance(value, dict):
        raise InputError(f"{label}: {key}: expected an object, got {value!r}")
    return value


def _parse_json(content: bytes, label: str) -> dict[str, Any]:
    with reading(label, BROKEN_JSON):
        value = json.loads(content)
    if not isinstance(value, dict):
        raise InputError(f"{label}: expected a JSON object")
    return value
