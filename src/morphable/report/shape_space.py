"""Section on the model's shapes in 3D: the mean shape to turn, with a slider per latent walk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from morphable.draw.blocks import Section, Text
from morphable.draw.turntable import Slider, Turntable
from morphable.mesh.capped import decimate_capped
from morphable.report.context import ReportContext
from morphable.report.latent import STEPS, Walk

BUDGET = 40_000
"""The view holds about this many vertices times directions. A finer mesh is shown decimated, so
that the page stays small.
"""


def shape_space(context: ReportContext) -> Section | None:
    """Let the reader turn the mean shape and move it along the principal directions of the prior.
    A template without faces has no such section.
    """
    scene, triangles = context.scene, context.model.template.mesh.triangles
    if not len(triangles):
        return None
    walks = scene.walks
    mean = walks[0].shapes[len(STEPS) // 2] if walks else scene.evaluation.mean_shape
    kept = np.arange(len(mean))
    most = BUDGET // max(1, len(walks))
    if len(mean) > most:
        coarse = decimate_capped(mean, triangles, most)
        kept, triangles = coarse.kept, coarse.triangles
    ends = [walk.shapes[[0, -1]][:, kept] for walk in walks]
    table = Turntable.of_ends(
        mean[kept],
        np.stack(ends) if ends else np.zeros((0, 2, len(kept), 3)),
        triangles,
        [Slider(walk.title, STEPS[0], STEPS[-1], "sd") for walk in walks],
        scene.view.camera.rotation,
        f"The mean shape of {scene.name} in 3D",
    )
    return Section("Shapes in 3D", [Text(_lead(walks, len(kept), len(mean)), "lead"), table])


def _lead(walks: Sequence[Walk], shown: int, vertices: int) -> str:
    lead = "Drag the shape to turn it, or select it and use the arrow keys."
    if walks:
        lead += (
            " Each slider follows one of the latent walks below, in standard deviations (sd) of the "
            "prior. In the middle and at both ends of a slider the shapes are the model's own; in "
            "between, and with several sliders moved, the page interpolates and adds them."
        )
    if shown < vertices:
        lead += f" Shown with {shown:,} of {vertices:,} vertices."
    return lead
