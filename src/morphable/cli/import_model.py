"""`morphable import-model`: a linear model of another program as a `pca` model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from morphable.errors import InputError


def import_model(
    file: Annotated[
        Path,
        Parameter(
            help="Basel or statismo .h5, FLAME or SMPL .pkl or .npz, UHM or Handy .pkl, .npz"
        ),
    ],
    /,
    *,
    out: Annotated[Path, Parameter(help="model folder to write, or a .zip; must not exist yet")],
    unit: Annotated[
        Literal["mm", "cm", "m"] | None,
        Parameter(help="the unit of the file; default: mm for .h5, m for FLAME, SMPL and Handy"),
    ] = None,
    template: Annotated[
        Path | None, Parameter(help="mesh file with the faces, if the model has none")
    ] = None,
    group: Annotated[
        str, Parameter(help="the model's place in an HDF5 file, such as /shape")
    ] = "/",
    components: Annotated[
        int | None, Parameter(help="keep the first so many components; default: all")
    ] = None,
    name: Annotated[str | None, Parameter(help="what the model shows, such as head")] = None,
    licence: Annotated[str, Parameter(help="the licence of the model")] = "unknown",
) -> None:
    """Read a linear model as a `pca` model, which every command accepts. Nothing in the file is
    executed.
    """
    from morphable.data.importers.mesh_files import read_template
    from morphable.files import require_new
    from morphable.mesh.io.foreign_linear_model import read_foreign_model
    from morphable.models.io import save
    from morphable.models.pca import Pca

    require_new(out)
    if components is not None and components < 1:
        raise InputError(f"--components {components}: expected at least 1")
    faces = None if template is None else read_template(template, 1.0).mesh
    found = read_foreign_model(file, unit, group, faces)
    model = Pca.of_linear_model(found, components, name, licence, file.name)
    save(model, out)
    if found.noise_variance > 0:
        print(f"{file}: its noise variance of {found.noise_variance:.3g} mm^2 is left out")
    print(
        f"{out}: a pca model of class {model.template.name!r}, {model.latent} components, "
        f"{model.template.n_vertices:,} vertices"
    )
