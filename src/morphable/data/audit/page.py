"""The audit as a page: what the dataset holds, each finding with advice, and pictures of the meshes
that are named next to the usual shape.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from morphable.data.audit.describe import describe
from morphable.data.audit.finding import ADVICE, ARGUMENTS, Finding
from morphable.data.audit.label_faults import sequence_lengths
from morphable.data.audit.usual import SAMPLE
from morphable.data.dataset import MeshDataset
from morphable.draw.blocks import Bullets, Cell, Facts, Page, Section, Table, Text
from morphable.draw.camera import view_for
from morphable.draw.colors import heat_colors
from morphable.draw.view import View
from morphable.mesh.align import procrustes
from morphable.rows import evenly_spread

MAX_PICTURES = 24
"""Meshes that are drawn; the others are named only."""
FRAME = 4.0
"""The frame grows by at most this factor to hold a mesh that lies elsewhere."""
HEADINGS = {
    "changed": "Changed content",
    "not finite": "Coordinates that are no numbers",
    "order": "Vertices in another order",
    "alike": "Meshes that do not vary",
    "shifted": "Shifted",
    "turned": "Turned",
    "scaled": "Scaled",
    "mirrored": "Mirrored",
    "sides": "Left and right",
    "far": "Far from the others",
    "stretched": "Stretched faces",
    "degenerate": "Degenerate faces",
    "flipped": "Flipped faces",
    "intersecting": "Self-intersections",
    "copy": "Copies",
    "rest": "Copies of one subject",
    "near copy": "Near-duplicates",
    "label hole": "Missing labels",
    "short sequence": "Short sequences",
    "template": "Template",
    "static": "Vertices that never move",
}


def audit_page(
    dataset: MeshDataset,
    findings: list[Finding],
    name_of: Callable[[str], str] = lambda argument: argument,
) -> Page:
    """The page of an audit. name_of: how the program at hand calls an argument of the import."""
    facts = {name: str(value) for name, value in describe(dataset).items()}
    facts.pop("frames per sequence", None)
    kinds = dict.fromkeys(finding.kind for finding in findings)
    drawing = _Drawing(dataset) if kinds and "not finite" not in kinds else None
    sections = [
        _section(kind, [f for f in findings if f.kind == kind], drawing, name_of) for kind in kinds
    ]
    sections += [*_sequences(dataset), Section("The dataset", [Facts(facts)])]
    count = f"{len(findings)} finding{'s' if len(findings) != 1 else ''}"
    opening = Text(f"{count} in {len(dataset):,} meshes." if findings else "Nothing unusual found.")
    title = f"Audit of {dataset.path.name}"
    return Page(title, title, sections, above="morphable", opening=[opening])


class _Drawing:
    """Draws meshes of one dataset next to its usual shape, as long as there is room."""

    def __init__(self, dataset: MeshDataset) -> None:
        sample = dataset.vertices[evenly_spread(len(dataset), SAMPLE)]
        self.dataset, self.usual = dataset, np.median(sample, axis=0)
        camera = view_for(dataset.template, [self.usual])
        self.view = View(camera, dataset.template.mesh.triangles)
        self.room = MAX_PICTURES

    def row(self, finding: Finding) -> list[Cell]:
        """The usual shape, the mesh where it lies, and the mesh aligned, in colors of its distance
        from the usual shape.
        """
        assert finding.row is not None
        self.room -= 1
        mesh = self.dataset.vertices[finding.row]
        view = self.view.widened([mesh], FRAME)
        aligned = procrustes(mesh, self.usual, scale=finding.kind == "scaled").apply(mesh)
        distance = np.linalg.norm(aligned - self.usual, axis=1)
        limit = max(float(np.quantile(distance, 0.98)), 1e-6)
        return [
            str(finding),
            view.picture(self.usual, "the usual shape"),
            view.picture(mesh, f"{finding.name} where it lies"),
            self.view.picture(
                aligned,
                f"{finding.name} aligned, in colors of its distance",
                heat_colors(distance, limit),
                f"darkest: {limit:.1f} mm",
            ),
        ]


def _section(
    kind: str, findings: list[Finding], drawing: _Drawing | None, name_of: Callable[[str], str]
) -> Section:
    advice = ADVICE[kind]
    for argument in ARGUMENTS:
        advice = advice.replace(f"`{argument}`", f"`{name_of(argument)}`")
    drawn = [f for f in findings if f.row is not None][: drawing.room if drawing else 0]
    others = [str(finding) for finding in findings if finding not in drawn]
    blocks: list[Text | Bullets | Table] = [Text(advice, strong="Advice:")]
    if others:
        blocks.append(Bullets(others))
    if drawing and drawn:
        header = ["", "usual shape", "where it lies", "aligned"]
        blocks.append(Table(header, [drawing.row(finding) for finding in drawn], "pictures"))
    return Section(HEADINGS[kind], blocks)


def _sequences(dataset: MeshDataset) -> list[Section]:
    lengths = sequence_lengths(dataset.labels)
    rows = [[name, f"{count:,}"] for name, count in lengths.items()]
    return [Section("Frames per sequence", [Table(["sequence", "frames"], rows)])] if rows else []
