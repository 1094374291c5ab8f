"""Section on point clouds: reconstructions of a mesh from points in random order."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from morphable.draw import view
from morphable.draw.blocks import Cell, ColorBar, Section, Table, Text
from morphable.draw.charts import Cloud
from morphable.models.batched import decode_all
from morphable.models.ib_vae import IbVae
from morphable.models.point_encoder import SCAN_NOISE_MM
from morphable.report.context import ReportContext
from morphable.report.scene import Scene, middles

SHOWN = 4
SHARE = 0.25
"""The share of the vertices that a cloud keeps."""
MIN_POINTS = 64


def point_clouds(context: ReportContext) -> Section | None:
    """Show a shuffled, thinned and noisy cloud of each mesh's vertices, and the shape that the
    model reconstructs from it.
    """
    model, scene = context.model, context.scene
    if not isinstance(model, IbVae):
        return None
    rows = middles(len(scene.meshes), SHOWN)
    vertices, codes = scene.meshes.vertices[rows], scene.codes[torch.from_numpy(rows)]
    clouds = scattered(vertices)
    ordered = decode_all(model, codes)
    free = decode_all(model, _encoded(model, clouds, codes))
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
    lead = Text(_lead(model, clouds.shape[1], vertices.shape[1]), "lead")
    return Section("Point clouds", [lead, Table(["", *names], lines, "pictures"), bar])


def _lead(model: IbVae, points: int, vertices: int) -> str:
    lead = (
        f"The encoder reads points in any order. Each cloud is {points:,} of the mesh's "
        f"{vertices:,} vertices, shuffled, each moved by {SCAN_NOISE_MM:g} mm of noise along every "
        "axis."
    )
    if not model.config.scan_share:
        lead += (
            " This model was trained on whole meshes only (model.scan_share is 0), so it has never "
            "met such a cloud."
        )
    return lead


def _compared(
    scene: Scene, title: str, shapes: np.ndarray, truth: np.ndarray, names: list[str]
) -> list[Cell]:
    distances = np.linalg.norm(shapes - truth, axis=-1)
    return scene.view.distance_row(title, shapes, distances, names, scene.error_limit)


def scattered(vertices: np.ndarray) -> np.ndarray:
    """Return a random quarter (n, P, 3) float32 mm of vertices (n, V, 3), shuffled, with noise."""
    random = np.random.default_rng(0)
    count = max(MIN_POINTS, round(SHARE * vertices.shape[1]))
    kept = random.permutation(vertices.shape[1])[:count]
    noise = random.standard_normal((len(vertices), len(kept), 3))
    return (vertices[:, kept] + SCAN_NOISE_MM * noise).astype(np.float32)


@torch.no_grad()
def _encoded(model: IbVae, clouds: np.ndarray, codes: Tensor) -> Tensor:
    """Encode clouds into codes (n, L), given the pinned parts of the codes of their meshes."""
    given = {
        name: codes[:, model.parts[name]].to(model.device) for name in model.parts.pinned_names
    }
    return model.encode_points(torch.from_numpy(clouds).to(model.device), given or None)


def _drawn(scene: Scene, cloud: np.ndarray, name: str) -> Cloud:
    described = f"cloud of {len(cloud):,} points of {name}"
    return Cloud(cloud, scene.view.camera, view.HEIGHT, described)
