"""Section on point clouds: what an encoder that reads points in any order makes of a mesh's
scattered points.
"""

from __future__ import annotations

from html import escape

import numpy as np
import torch

from morphable.models.ib_vae import SCAN_NOISE_MM, IbVae
from morphable.report.context import ReportContext, middles
from morphable.report.gallery import HEIGHT, error_row, picture_row
from morphable.report.latent import decode
from morphable.report.section import Section, color_bar, paragraph, table

SHOWN = 4
SHARE = 0.25
"""Of the vertices, how many the cloud keeps."""


def point_clouds(context: ReportContext) -> Section | None:
    """A shuffled, thinned and noisy cloud of each mesh's vertices, and the shape that its code
    gives.
    """
    model = context.model
    if not isinstance(model, IbVae):
        return None
    rows = middles(len(context.test), SHOWN)
    vertices = context.test.vertices[rows]
    random = np.random.default_rng(0)
    kept = random.permutation(vertices.shape[1])[: max(64, round(SHARE * vertices.shape[1]))]
    clouds = (
        vertices[:, kept] + SCAN_NOISE_MM * random.standard_normal((len(rows), len(kept), 3))
    ).astype(np.float32)
    with torch.no_grad():
        meshes = context.codes[torch.from_numpy(rows)].to(model.device)
        given = {
            part.name: meshes[:, model.parts[part.name]]
            for part in model.parts.items_
            if part.pinned
        }
        codes = model.encode_points(torch.from_numpy(clouds).to(model.device), given or None)
    ordered, free = decode(model, meshes.cpu().numpy()), decode(model, codes.cpu().numpy())
    captions = [context.caption(row) for row in rows]
    limit = context.error_limit
    lines = [
        picture_row(context, "Mesh", vertices, captions),
        [
            "Its cloud",
            *(_dots(context, cloud, text) for cloud, text in zip(clouds, captions, strict=True)),
        ],
        error_row(context, "From the mesh, its error", ordered, vertices, captions, limit),
        error_row(context, "From the cloud, its error", free, vertices, captions, limit),
        error_row(context, "Between the two", free, ordered, captions, limit),
    ]
    lead = (
        f"The encoder reads points in any order. Each cloud is {len(kept):,} of the mesh's {vertices.shape[1]:,} "
        f"vertices, shuffled, each moved by {SCAN_NOISE_MM:g} mm of noise along every axis."
    )
    if not model.config.scan_share:
        lead += " This model was trained on whole meshes alone (model.scan_share is 0), so clouds are foreign to it."
    html = table(["", *map(escape, captions)], lines, "pictures") + color_bar(
        limit, "distance of vertices"
    )
    return Section("Point clouds", paragraph(lead, "lead") + html)


def _dots(context: ReportContext, cloud: np.ndarray, caption: str) -> str:
    """An SVG of the points (P, 3) mm in the report's view, the farther ones fainter."""
    width, height = context.camera.size(HEIGHT)
    x, y, depth = context.camera.project(cloud, (width, height)).T
    nearness = (depth - depth.min()) / max(float(np.ptp(depth)), 1e-9)
    dots = "".join(
        f'<circle cx="{x[i]:.1f}" cy="{y[i]:.1f}" r="1.1" fill-opacity="{0.1 + 0.8 * nearness[i]:.2f}"/>'
        for i in np.argsort(depth)
    )
    said = escape(f"cloud of {len(cloud):,} points of {caption}", quote=True)
    frame = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg {frame} role="img" aria-label="{said}">{dots}</svg>'
