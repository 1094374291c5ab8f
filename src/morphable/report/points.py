"""Section on point clouds: reconstructions of a mesh from points in random order."""

from __future__ import annotations

import numpy as np
import torch

from morphable.draw import view
from morphable.draw.blocks import Cell, ColorBar, Section, Table, Text
from morphable.draw.charts import Cloud
from morphable.evaluate.scans import codes_of_scans, scattered
from morphable.models.base import MorphableModel
from morphable.models.batched import decode_all
from morphable.models.ib_vae import IbVae
from morphable.models.point_encoder import SCAN_NOISE_MM
from morphable.report.context import ReportContext
from morphable.report.scene import Scene, middles

SHOWN = 4


def point_clouds(context: ReportContext) -> Section | None:
    """Show a shuffled, thinned and noisy cloud of each mesh's vertices, and the shape that the
    model reconstructs from it.
    """
    model, scene = context.model, context.scene
    if not model.encodes_points:
        return None
    rows = middles(len(scene.meshes), SHOWN)
    vertices, codes = scene.meshes.vertices[rows], scene.codes[torch.from_numpy(rows)]
    clouds = scattered(vertices)
    ordered = decode_all(model, codes)
    free = decode_all(model, codes_of_scans(scene.evaluation, clouds, scene.rows[rows]))
    names = [scene.caption(row) for row in rows]
    drawn = [_drawn(scene, *pair) for pair in zip(clouds, names, strict=True)]
    lines: list[list[Cell]] = [
        scene.view.row("Mesh", vertices, names),
        ["Its cloud", *drawn],
        _compared(scene, "From the mesh, its error", ordered, vertices, names),
        _compared(scene, "From the cloud, its error", free, vertices, names),
        _compared(scene, "Between the two", free, ordered, names),
    ]
    bar = ColorBar(scene.error_limit, "distance of vertices")
    known = scene.evaluation.known[scene.rows[rows]]
    lead = _lead(model, clouds.shape[1], vertices.shape[1]) + _conditions(model, known)
    table = Table(["", *names], lines, "pictures")
    return Section("Point clouds", [Text(lead, "lead"), table, bar])


def _lead(model: MorphableModel, points: int, vertices: int) -> str:
    lead = (
        f"The model encodes points in any order. Each cloud is {points:,} of the mesh's "
        f"{vertices:,} vertices, shuffled, each moved by {SCAN_NOISE_MM:g} mm of noise along every "
        "axis."
    )
    if isinstance(model, IbVae) and not model.config.scan_share:
        lead += (
            " This model was trained on whole meshes only (model.scan_share is 0), so it has never "
            "met such a cloud."
        )
    return lead


def _conditions(model: MorphableModel, known: np.ndarray) -> str:
    """A sentence on where the conditions of the clouds come from; empty if the model has none."""
    if not model.searched_size:
        return ""
    if known.all():
        return " Each cloud has the condition that its mesh's labels state."
    searched = "the one whose shape is closest to the points"
    if known.any():
        return f" The condition is that of the mesh's labels, and without them {searched}."
    return f" The condition of each cloud is {searched}."


def _compared(
    scene: Scene, title: str, shapes: np.ndarray, truth: np.ndarray, names: list[str]
) -> list[Cell]:
    distances = np.linalg.norm(shapes - truth, axis=-1)
    return scene.view.distance_row(title, shapes, distances, names, scene.error_limit)


def _drawn(scene: Scene, cloud: np.ndarray, name: str) -> Cloud:
    described = f"cloud of {len(cloud):,} points of {name}"
    return Cloud(cloud, scene.view.camera, view.HEIGHT, described)
