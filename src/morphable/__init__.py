"""morphable: deep 3D morphable models of registered meshes, from training to editing, under one
interface.

    import morphable
    model = morphable.load("runs/demo")              # a run folder, a model folder or a zip
    vertices = model.decode(model.encode(vertices))  # (B, V, 3) mm

Shapes in signatures and docstrings use one letter per dimension throughout the package:

    B  meshes in a batch          L  length of a code: latent dimensions plus conditioning inputs
    N  meshes in a dataset        C  channels (features) per vertex
    V  vertices of a template     K  neighbors per vertex, terms of a polynomial, components
    F  faces                      R  regions of a template

Lengths are in millimeters, arrays and tensors are float32, y points up.

The names below are imported when first used, so that `import morphable` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "InputError": "morphable.errors",
    # Meshes and what they share
    "Mesh": "morphable.mesh.mesh",
    "read_mesh": "morphable.mesh.io",
    "write_mesh": "morphable.mesh.io",
    "Template": "morphable.mesh.template",
    "Hierarchy": "morphable.mesh.hierarchy",
    "build_hierarchy": "morphable.mesh.hierarchy",
    # Datasets
    "MeshDataset": "morphable.data.dataset",
    "SplitDataset": "morphable.data.dataset",
    "MeshSource": "morphable.data.source",
    "LabelTable": "morphable.data.labels",
    "make_source": "morphable.data.makers",
    "write_dataset": "morphable.data.dataset",
    "load_dataset": "morphable.data.dataset",
    # Fitting
    "fit": "morphable.fitting.fit",
    "Fit": "morphable.fitting.result",
    "Landmarks": "morphable.mesh.landmarks",
    "Scan": "morphable.mesh.scan",
    # Models
    "MorphableModel": "morphable.models.base",
    "Origin": "morphable.models.base",
    "Geometry": "morphable.models.geometry",
    "EstimatedModel": "morphable.models.base",
    "TrainableModel": "morphable.models.base",
    "AdversarialModel": "morphable.models.base",
    "Parts": "morphable.models.parts",
    "Batch": "morphable.models.training",
    "Progress": "morphable.models.training",
    "TrainConfig": "morphable.models.training",
    "train_model": "morphable.train.from_python",
    "evaluate_model": "morphable.evaluate.record",
    "mesh_errors": "morphable.evaluate.mesh_table",
    # Files for other programs
    "latent_steps": "morphable.export.directions",
    "region_offsets": "morphable.export.directions",
    "export_glb": "morphable.export.glb",
    "export_page": "morphable.export.page",
    "export_onnx": "morphable.export.onnx",
    "linearized": "morphable.export.linear",
    "LinearModel": "morphable.mesh.io.linear_model",
    "read_linear_model": "morphable.mesh.io.linear_model",
    "write_linear_model": "morphable.mesh.io.linear_model",
    # Families
    "MODELS": "morphable.models.families",
    "Family": "morphable.models.families",
    "Recipe": "morphable.models.recipes",
    "add_family": "morphable.models.families",
    "create": "morphable.models.families",
    "load": "morphable.models.io",
    "save": "morphable.models.io",
}
"""Every public name and the module that defines it."""

if TYPE_CHECKING:
    # The same names for editors and type checkers, which do not run `__getattr__`.
    from morphable.data.dataset import MeshDataset as MeshDataset
    from morphable.data.dataset import SplitDataset as SplitDataset
    from morphable.data.dataset import load_dataset as load_dataset
    from morphable.data.dataset import write_dataset as write_dataset
    from morphable.data.labels import LabelTable as LabelTable
    from morphable.data.makers import make_source as make_source
    from morphable.data.source import MeshSource as MeshSource
    from morphable.errors import InputError as InputError
    from morphable.evaluate.mesh_table import mesh_errors as mesh_errors
    from morphable.evaluate.record import evaluate_model as evaluate_model
    from morphable.export.directions import latent_steps as latent_steps
    from morphable.export.directions import region_offsets as region_offsets
    from morphable.export.glb import export_glb as export_glb
    from morphable.export.linear import linearized as linearized
    from morphable.export.onnx import export_onnx as export_onnx
    from morphable.export.page import export_page as export_page
    from morphable.fitting.fit import fit as fit
    from morphable.fitting.result import Fit as Fit
    from morphable.mesh.hierarchy import Hierarchy as Hierarchy
    from morphable.mesh.hierarchy import build_hierarchy as build_hierarchy
    from morphable.mesh.io import read_mesh as read_mesh
    from morphable.mesh.io import write_mesh as write_mesh
    from morphable.mesh.io.linear_model import LinearModel as LinearModel
    from morphable.mesh.io.linear_model import read_linear_model as read_linear_model
    from morphable.mesh.io.linear_model import write_linear_model as write_linear_model
    from morphable.mesh.landmarks import Landmarks as Landmarks
    from morphable.mesh.mesh import Mesh as Mesh
    from morphable.mesh.scan import Scan as Scan
    from morphable.mesh.template import Template as Template
    from morphable.models.base import AdversarialModel as AdversarialModel
    from morphable.models.base import EstimatedModel as EstimatedModel
    from morphable.models.base import MorphableModel as MorphableModel
    from morphable.models.base import Origin as Origin
    from morphable.models.base import TrainableModel as TrainableModel
    from morphable.models.families import MODELS as MODELS
    from morphable.models.families import Family as Family
    from morphable.models.families import add_family as add_family
    from morphable.models.families import create as create
    from morphable.models.geometry import Geometry as Geometry
    from morphable.models.io import load as load
    from morphable.models.io import save as save
    from morphable.models.parts import Parts as Parts
    from morphable.models.recipes import Recipe as Recipe
    from morphable.models.training import Batch as Batch
    from morphable.models.training import Progress as Progress
    from morphable.models.training import TrainConfig as TrainConfig
    from morphable.train.from_python import train_model as train_model
else:

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module 'morphable' has no attribute {name!r}")
        return getattr(importlib.import_module(_PUBLIC[name]), name)


__all__ = ["__version__", *sorted(_PUBLIC)]


def __dir__() -> list[str]:
    return __all__
