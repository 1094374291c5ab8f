"""Finding: one fault that the audit found, what to do about it, and the mesh that has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from morphable.data.labels import LabelTable
from morphable.data.mesh_stack import MeshStack
from morphable.mesh.template import Template

MAX_NAMED = 20
"""Meshes that are named for one kind of fault; how many more there are is said in a sentence."""

ADVICE = {
    "changed": "import the meshes again; for other labels name a table with `labels`",
    "not finite": "export these meshes again, or leave them out with `skip_bad`",
    "order": "export the meshes without merging or sorting vertices (trimesh: process=False; "
    "Blender: keep the vertex order)",
    "alike": "check that the files are different meshes; nothing can be learned from one shape",
    "shifted": "bring them together with `align`",
    "turned": "bring them together with `align`",
    "scaled": "check the unit of this mesh; `align` similarity takes the size out of all",
    "mirrored": "mirror it back, or leave it out with `skip_bad`",
    "sides": "mirror one side onto the other, or make a dataset of each",
    "far": "look at it; leave it out with `skip_bad` if it is another shape",
    "stretched": "repair the mesh or leave it out with `skip_bad`",
    "degenerate": "repair the mesh or leave it out with `skip_bad`",
    "flipped": "repair the mesh or leave it out with `skip_bad`",
    "intersecting": "look at it: parts of the surface pass through each other",
    "copy": "leave copies out with `skip_bad`, or give them labels of one sequence",
    "rest": "harmless if the subject is at rest in both; split by subject to keep them together",
    "near copy": "leave it out with `skip_bad`, or keep both in one subset with `morphable data split`",
    "label hole": "fill the label in and import again with `labels`",
    "short sequence": "check that the sequence was downloaded and unpacked completely",
    "template": "repair the template and import again with `template`",
    "static": "harmless unless the vertices should move, such as eyeballs that lost their rig",
}
"""What to do, by kind of finding."""
ARGUMENTS = ("align", "skip_bad", "labels", "template")
"""Arguments of the import that advice names."""
BROKEN = frozenset(
    (
        "order",
        "scaled",
        "mirrored",
        "shifted",
        "turned",
        "far",
        "stretched",
        "degenerate",
        "flipped",
        "intersecting",
        "copy",
        "near copy",
    )
)
"""Kinds for which an import with `skip_bad` leaves a mesh out."""


@dataclass(frozen=True)
class Finding:
    """One fault. kind: a key of ADVICE. text: a sentence, without the mesh's name. row: the mesh;
    None if the fault concerns all. name: of that mesh. other: a second mesh that it is about.
    """

    kind: str
    text: str
    row: int | None = None
    name: str = ""
    other: int | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.text}" if self.name else self.text

    @property
    def advice(self) -> str:
        return ADVICE[self.kind]

    @property
    def is_broken(self) -> bool:
        """Whether one mesh has a fault for which it is better left out."""
        return self.row is not None and self.kind in BROKEN

    def to_json(self) -> dict[str, Any]:
        row = {} if self.row is None else {"mesh": self.row, "name": self.name}
        return {"kind": self.kind, **row, "finding": self.text, "advice": self.advice}


@dataclass(frozen=True, eq=False)
class Audited:
    """What is audited: meshes (N, V, 3) mm on a template, with labels. splits: by name, the rows
    of training and those that are held out.
    """

    vertices: MeshStack
    template: Template
    labels: LabelTable
    splits: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.vertices)

    def name(self, row: int) -> str:
        file = f" ({self.labels['file'][row]})" if "file" in self.labels else ""
        return f"mesh {row}{file}"

    def finding(self, kind: str, row: int, text: str, other: int | None = None) -> Finding:
        return Finding(kind, text, row, self.name(row), other)


def shortened(findings: Sequence[Finding], at_most: int = MAX_NAMED) -> list[Finding]:
    """The findings, with at most so many meshes of each kind and a sentence on the others."""
    kept: list[Finding] = []
    for kind in dict.fromkeys(finding.kind for finding in findings):
        same = [finding for finding in findings if finding.kind == kind]
        named = [finding for finding in same if finding.row is not None]
        kept += [finding for finding in same if finding.row is None] + named[:at_most]
        if len(named) > at_most:
            kept.append(Finding(kind, f"and {len(named) - at_most} more meshes: {kind}"))
    return kept
