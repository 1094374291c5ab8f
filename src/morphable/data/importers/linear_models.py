"""Samples of linear models: Basel and statismo HDF5, FLAME and SMPL, UHM, Handy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from morphable.data.importers.mesh_files import read_template
from morphable.data.importers.reading import READ_AGAIN, Reading
from morphable.data.labels import LabelTable
from morphable.data.source import MeshSource
from morphable.data.splits import Split
from morphable.errors import InputError
from morphable.mesh.io.foreign_linear_model import read_foreign_model
from morphable.mesh.io.linear_model import LinearModel
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template

BLOCK = 64
COUNT = 1000
MAX_COUNT = 10_000_000


def linear_model(
    raw: Path,
    reading: Reading = READ_AGAIN,
    *,
    unit: str | None = None,
    template: Path | None = None,
    group: str = "/",
    count: int = COUNT,
    components: int | None = None,
    seed: int = 0,
    name: str | None = None,
    licence: str = "unknown",
) -> MeshSource:
    """`count` samples of a linear model with codes from N(0, I), drawn with `seed`; the codes are
    label columns. template: a mesh whose faces and name are used if the file has none. group: the
    place of the model in an HDF5 file, such as /shape. components: use only the first so many.
    """
    return _sampled(raw, unit, template, group, count, components, seed, name, licence, None)


def uhm(
    raw: Path,
    reading: Reading = READ_AGAIN,
    *,
    unit: str | None = None,
    template: Path | None = None,
    count: int = COUNT,
    components: int | None = None,
    seed: int = 0,
    name: str = "head",
    licence: str = "UHM: research only, by agreement",
) -> MeshSource:
    """Samples of the universal head model, a pickle with Mean, Eigenvectors and EigenValues. One unit
    is 156.28 mm, by a later loader. The registrations that LAMM trains on are not public. The split
    `by-hundreds` is that of the loader: of each hundred, 0 to 5 for testing, 6 to 10 for validation.
    """
    source = _sampled(raw, unit, template, "/", count, components, seed, name, licence, "uhm")
    phase = np.arange(count) % 100
    train, val = np.flatnonzero(phase > 10), np.flatnonzero((phase > 5) & (phase <= 10))
    if not len(train):
        return source
    split = Split(train, val, np.flatnonzero(phase <= 5))
    return replace(source, splits={"by-hundreds": split})


def handy(
    raw: Path,
    reading: Reading = READ_AGAIN,
    *,
    unit: str = "m",
    template: Path | None = None,
    count: int = COUNT,
    components: int | None = None,
    seed: int = 0,
    name: str = "hand",
    licence: str = "Handy: non-commercial, by signed agreement",
) -> MeshSource:
    """Samples of a Handy model, a pickle with v_template, components and eigenvalues. Codes are drawn
    from N(0, I); the sample code of its authors draws uniform numbers. The unit is not documented.
    """
    return _sampled(raw, unit, template, "/", count, components, seed, name, licence, "handy")


def _sampled(
    raw: Path,
    unit: str | None,
    template: Path | None,
    group: str,
    count: int,
    components: int | None,
    seed: int,
    name: str | None,
    licence: str,
    kind: str | None,
) -> MeshSource:
    if not 1 <= count <= MAX_COUNT:
        raise InputError(f"`count` {count}: expected 1 to {MAX_COUNT:,}", "count")
    if components is not None and components < 1:
        raise InputError(f"`components` {components}: expected at least 1", "components")
    shown = read_template(template, 1.0) if template is not None else None
    faces = shown.mesh if shown is not None else None
    model = read_foreign_model(raw, unit, group, faces, kind)
    rank = min(components or len(model.components), len(model.components))
    codes = np.random.default_rng(seed).standard_normal((count, rank)).astype(np.float32)
    used = _truncated(model, rank)

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, count, BLOCK):
            yield used.shapes(codes[start : start + BLOCK].astype(np.float64))

    reference = Template(Mesh(model.mean.astype(np.float32), model.reference.faces))
    if shown is not None:
        reference = replace(reference, uv=shown.uv, uv_faces=shown.uv_faces)
    reference = replace(reference, name=name or model.name)
    subject = np.array([f"sample-{row:06d}" for row in range(count)])
    labels = {"subject": subject} | {f"z/{k}": codes[:, k].astype(np.float64) for k in range(rank)}
    info = {
        "licence": licence,
        "unit": unit or "as the format defines it",
        "source": f"samples of the linear model {raw.name}, codes from N(0, I)",
        "components": rank,
    }
    return MeshSource(reference, LabelTable(labels, count), blocks, info)


def _truncated(model: LinearModel, rank: int) -> LinearModel:
    return replace(model, components=model.components[:rank], variances=model.variances[:rank])
