"""Describe a dataset: counts, template, labels, sequences, splits and origin as values to print."""

from __future__ import annotations

from typing import Any

import numpy as np

from morphable.data.audit.label_faults import sequence_lengths
from morphable.data.dataset import MeshDataset
from morphable.mesh.topology import boundary_edges, components

MAX_LISTED = 150
"""Sequences that are listed with their lengths; COMA has 144, DFAUST 130."""


def describe(dataset: MeshDataset) -> dict[str, Any]:
    """Collect counts, template, labels, splits and origin as values to print."""
    template, labels = dataset.template, dataset.labels
    faces = template.mesh.faces
    corners = (faces >= 0).sum(axis=1)
    quads, larger = int((corners == 4).sum()), int((corners > 4).sum())
    size = np.ptp(template.mesh.vertices, axis=0)
    facts: dict[str, Any] = {
        "meshes": len(dataset),
        "vertices": template.n_vertices,
        "faces": f"{len(faces)} ({quads} quads{f', {larger} larger' if larger else ''})",
        "size_mm": " x ".join(f"{extent:.0f}" for extent in size),
        "components": int(components(faces, template.n_vertices).max()) + 1,
        "boundary_edges": len(boundary_edges(faces)),
        "template": f"{template.name} {template.fingerprint}",
        "regions": ", ".join(template.regions.names) if template.regions else "none",
        "uv": "yes" if template.uv is not None else "no",
    }
    for name in ("subject", "expression", "sequence"):
        if name in labels:
            facts[f"{name}s"] = len(labels.classes(name).names)
    lengths = sequence_lengths(labels)
    if lengths:
        facts["frames per sequence"] = _lengths(lengths)
    facts["labels"] = ", ".join(list(labels.columns)[:12]) + (
        ", ..." if len(labels.columns) > 12 else ""
    )
    for name in dataset.split_names:
        split = dataset.split(name).split
        facts[f"split {name}"] = (
            f"{len(split.train)} train, {len(split.val)} val, {len(split.test)} test"
        )
    for name in ("source", "licence", "unit", "content_hash"):
        facts[name] = dataset.info.get(name, "unknown")
    return facts


def _lengths(lengths: dict[str, int]) -> str:
    """Range and median, and each sequence of a small set."""
    counts = np.array(list(lengths.values()))
    text = f"{counts.min()} to {counts.max()}, median {np.median(counts):.0f}"
    each = [f"{name} {count}" for name, count in lengths.items()]
    more = f", ... ({len(each)} in all)" if len(each) > MAX_LISTED else ""
    return f"{text}: {', '.join(each[:MAX_LISTED])}{more}"
