"""SynHand5M (Malik et al. 2018) and other sets of hands: a stack of vertices and a template."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from morphable.data.importers.files_source import stack_in_mm
from morphable.data.importers.labeling import completed
from morphable.data.importers.mesh_files import Placing, finished_source, read_template
from morphable.data.importers.reading import READ_AGAIN, Reading
from morphable.data.labels import LabelTable
from morphable.data.source import MeshSource
from morphable.data.splits import Split
from morphable.errors import InputError
from morphable.mesh.io import read_stack
from morphable.mesh.units import millimeters

LICENCE = "SynHand5M: non-commercial, by its authors' terms"


def synhand(
    raw: Path,
    reading: Reading = READ_AGAIN,
    *,
    template: Path,
    unit: str = "mm",
    name: str = "hand",
    licence: str = LICENCE,
    labels: Path | None = None,
    count: int | None = None,
    align: bool | str = False,
    align_on: str | None = None,
    mirror: bool = False,
    seed: int = 0,
) -> MeshSource:
    """An .npy or .npz stack (N, V, 3) of hands, and a template with their faces. The layout of the
    published archive could not be confirmed, so convert it to such a stack first.

    count: draw so many meshes, with `seed`, without replacement. The split `random` tests on a tenth
    of the meshes and validates on a tenth of the others: the papers use 100,000 random meshes,
    90,000 of them for training and validation, with a seed that they do not give.
    """
    shown = replace(read_template(template, millimeters(unit)), name=name)
    stack = read_stack(raw)
    if stack.shape[1] != shown.n_vertices:
        raise InputError(
            f"{raw}: expected {shown.n_vertices} vertices as in the template, got {stack.shape[1]}"
        )
    table = LabelTable.read(labels) if labels is not None else LabelTable({}, len(stack))
    if table.count != len(stack):
        raise InputError(f"{labels}: expected {len(stack)} lines, one per mesh, got {table.count}")
    random = np.random.default_rng(seed)
    meshes = stack_in_mm(stack, unit, "y", shown, str(raw))
    if count is not None:
        if not 1 <= count <= len(stack):
            raise InputError(f"`count` {count}: the stack has {len(stack)} meshes", "count")
        rows = np.sort(random.choice(len(stack), count, replace=False))
        meshes = meshes.select(rows)
        kept = {key: column for key, column in table.columns.items() if key != "neutral"}
        table = LabelTable(kept, table.count).take(rows)
        table = LabelTable({**table.columns, "row_in_file": rows}, count)
    info = {"licence": licence, "unit": unit, "source": f"the stack {raw.name}"}
    placing = Placing.of(align, align_on, mirror)
    source = finished_source(shown, completed(table), meshes, info, placing)
    if len(meshes) < 10 or mirror:
        return source
    order = random.permutation(len(meshes))
    test, rest = np.array_split(order, [len(order) // 10])
    val, train = np.array_split(rest, [max(1, len(rest) // 10)])
    split = Split(np.sort(train), np.sort(val), np.sort(test), seed)
    return replace(source, splits={"random": split})
