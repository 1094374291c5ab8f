"""Audit a dataset: describe its content, and report what is so unusual that a person should look,
mesh by mesh and with the cause.
"""

from __future__ import annotations

import hashlib

import numpy as np

from morphable.data.audit.describe import describe
from morphable.data.audit.finding import MAX_NAMED, Audited, Finding, shortened
from morphable.data.audit.label_faults import label_holes, short_sequences
from morphable.data.audit.measures import Measures
from morphable.data.audit.meshes import unusual_meshes
from morphable.data.audit.repeats import copies, near_copies
from morphable.data.audit.template_faults import template_faults
from morphable.data.audit.together import faults_of_all, order_of_all
from morphable.data.audit.usual import Usual
from morphable.data.dataset import MeshDataset
from morphable.data.mesh_stack import MAX_MM, within_limit

__all__ = ["Audited", "Finding", "audit_dataset", "audit_meshes", "describe"]


def audit_dataset(dataset: MeshDataset) -> list[Finding]:
    """Report changed content, faults of the template and the labels, and the meshes that are not
    like the others, each with its cause.
    """
    findings, usable = _content_faults(dataset)
    if not usable:
        return findings
    splits = {name: dataset.split(name).split for name in dataset.split_names}
    sides = {
        name: (split.train, np.concatenate([split.val, split.test]))
        for name, split in splits.items()
    }
    audited = Audited(dataset.vertices, dataset.template, dataset.labels, sides)
    return findings + template_faults(dataset.template) + audit_meshes(audited)


def audit_meshes(audited: Audited, at_most: int = MAX_NAMED) -> list[Finding]:
    """The part of the audit that needs no dataset folder. Every coordinate must be finite. at_most:
    meshes that are named for one kind of fault.
    """
    labels = shortened([*label_holes(audited), *short_sequences(audited)])
    if not len(audited.template.mesh.faces):
        return labels
    usual = Usual.of(audited)
    everywhere = order_of_all(usual, audited.template.n_vertices)
    if everywhere:
        return everywhere + labels
    measures = Measures.of(audited, usual)
    findings = faults_of_all(audited, usual, measures)
    if not findings:
        findings = unusual_meshes(audited, usual, measures)
        named = {finding.row for finding in findings}
        repeated = [*copies(audited, measures), *near_copies(audited, usual, measures)]
        findings += [finding for finding in repeated if finding.row not in named]
    still = int((~measures.moves).sum())
    if len(audited) > 1 and 0 < still < len(measures.moves):
        findings.append(Finding("static", f"{still} vertices never move"))
    return shortened(findings, at_most) + labels


def _content_faults(dataset: MeshDataset) -> tuple[list[Finding], bool]:
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
            Finding(
                "changed",
                "the meshes or labels are not those that were written: the content hash differs",
            )
        )
    audited = Audited(dataset.vertices, dataset.template, dataset.labels)
    text = f"holds coordinates that are not finite or beyond {MAX_MM:g} mm"
    broken = [audited.finding("not finite", row, text) for row in bad]
    return findings + shortened(broken), not bad
