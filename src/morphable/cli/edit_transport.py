"""`morphable edit transfer` without a model: the deformation is carried over triangle by triangle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from morphable.errors import InputError

if TYPE_CHECKING:
    from morphable.mesh.template import Template
    from morphable.mesh.transport import Method


def transport_files(
    s0: Path, s1: Path, t0: Path, method: Method, units: tuple[str | None, str | None], out: Path
) -> None:
    """Write T0 deformed as S0 was deformed into S1, with the faces and texture coordinates of T0.

    units: of the input files and of the file to write.
    """
    from morphable.data.registered_mesh import read_registered, write_shape
    from morphable.mesh.transport import transport
    from morphable.mesh.units import unit_of

    unit, out_unit = units
    template = _template_of(t0, unit)
    neutral, posed = (read_registered(path, template, unit) for path in (s0, s1))
    target = template.mesh.vertices.astype("float32")
    shape = transport(neutral, posed, target, template.mesh.triangles, method)
    write_shape(out, shape, template, out_unit)
    print(f"{out}: in {unit_of(out, out_unit)}")


def _template_of(path: Path, unit: str | None) -> Template:
    """A mesh file as the template of others."""
    from morphable.mesh.io import read_mesh
    from morphable.mesh.template import Template
    from morphable.mesh.units import millimeters, unit_of

    read = read_mesh(path)
    if not len(read.mesh.faces):
        raise InputError(f"{path}: has no faces, which a transfer without a model needs")
    mesh = read.mesh.moved(read.mesh.vertices * millimeters(unit_of(path, unit)))
    return Template(mesh, path.name, read.uv, read.uv_faces)
