"""morphable: deep 3D morphable models of registered meshes, from training to editing, under one
interface.

    import morphable
    model = morphable.load("runs/demo")          # a run folder, a model folder or a zip
    vertices = model.decode(model.encode(vertices))  # (B, V, 3) mm

The names below are loaded when first used, so that `import morphable` stays light.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "InputError": "morphable.errors",
    "Mesh": "morphable.mesh.mesh",
    "Template": "morphable.mesh.template",
    "Hierarchy": "morphable.mesh.hierarchy",
    "build_hierarchy": "morphable.mesh.hierarchy",
    "read_mesh": "morphable.mesh.io",
    "write_mesh": "morphable.mesh.io",
    "MeshDataset": "morphable.data.dataset",
    "load_dataset": "morphable.data.dataset",
    "MorphableModel": "morphable.models.base",
    "MODELS": "morphable.models.families",
    "load": "morphable.models.io",
    "save": "morphable.models.io",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'morphable' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
