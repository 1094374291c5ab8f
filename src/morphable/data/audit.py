"""Audit a dataset: describe its content, and report what is so unusual that a person should look."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from morphable.data.dataset import MeshDataset
from morphable.data.mesh_stack import MAX_MM, within_limit
from morphable.data.unusual import unusual_meshes
from morphable.mesh.topology import boundary_edges, components, nonmanifold_edges


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


def audit_dataset(dataset: MeshDataset) -> list[str]:
    """Report changed, repeated or outlying meshes, vertices that never move, meshes in two subsets
    of a split and faults of the template, one sentence each.
    """
    template = dataset.template
    findings, usable = _content_faults(dataset)
    if not usable:
        return findings
    if len(nonmanifold_edges(template.mesh.faces)):
        findings.append(
            f"the template has {len(nonmanifold_edges(template.mesh.faces))} non-manifold edges"
        )
    unused = template.n_vertices - len(np.unique(template.mesh.faces[template.mesh.faces >= 0]))
    if unused:
        findings.append(f"{unused} vertices of the template belong to no face")
    first = dataset.vertices[0]
    moves, digests = np.zeros(template.n_vertices, bool), []
    for block in dataset.vertices.blocks():
        moves |= (block != first).any(axis=(0, 2))
        digests += [hashlib.sha256(np.ascontiguousarray(mesh).tobytes()).digest() for mesh in block]
    if len(dataset) > 1 and not moves.all():
        findings.append(f"{int((~moves).sum())} vertices never move")
    findings += unusual_meshes(dataset)
    return findings + _repeats(dataset, digests)


def _content_faults(dataset: MeshDataset) -> tuple[list[str], bool]:
    """Changed content and values that are not finite or absurd; and whether there are none of these,
    so that distances can be measured.
    """
    digest, bad, start = hashlib.sha256(), [], 0
    for block in dataset.vertices.unchecked_blocks():
        digest.update(block.tobytes())
        bad += (start + np.flatnonzero(~within_limit(block))).tolist()
        start += len(block)
    digest.update((dataset.path / "labels.csv").read_bytes())
    digest.update(dataset.template.fingerprint.encode())
    findings = []
    if (
        len(dataset) == dataset.info["meshes"]
        and digest.hexdigest() != dataset.info["content_hash"]
    ):
        findings.append(
            "the meshes or labels are not those that were written: the content hash differs"
        )
    if bad:
        findings.append(
            f"{len(bad)} meshes hold coordinates that are not finite or beyond {MAX_MM:g} mm, row "
            f"{bad[0]} is the first"
        )
    return findings, not bad


def _repeats(dataset: MeshDataset, digests: list[bytes]) -> list[str]:
    """Meshes that occur more than once, and splits that have such meshes both in training and in
    another subset.
    """
    unique, first, inverse = np.unique(
        np.array([d.hex() for d in digests]), return_index=True, return_inverse=True
    )
    if len(unique) == len(digests):
        return []
    repeats = np.flatnonzero(first[inverse] != np.arange(len(digests)))
    findings = [
        f"{len(repeats)} meshes repeat an earlier one exactly, mesh {repeats[0]} (equal to mesh "
        f"{first[inverse[repeats[0]]]}) is the first"
    ]
    for name in dataset.split_names:
        split = dataset.split(name).split
        leaked = np.isin(
            inverse[np.concatenate([split.val, split.test])], inverse[split.train]
        ).sum()
        if leaked:
            findings.append(
                f"split {name}: {leaked} validation or test meshes also occur in training"
            )
    return findings
