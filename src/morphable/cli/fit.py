"""`morphable fit`: find the code of what was seen of a shape."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from morphable.cli.arguments import MeshFormat, Model, OutFolder, OutUnit, Unit, _check_files
from morphable.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from morphable.fitting.result import Fit
    from morphable.mesh.landmarks import Landmarks
    from morphable.mesh.template import Template
    from morphable.report.fit_page import Fitted

FAR_OFF = 0.05
"""A fit whose mean residual is above this share of the model's size is worth a warning."""


def fit(
    model: Model,
    targets: Annotated[
        list[Path],
        Parameter(
            help="what was seen: mesh files in correspondence with the model's template; scans, "
            "with any number of points; landmark files (.csv .json .pp .fcsv .mrk.json); or stacks "
            "of registered shapes (.npy .npz)",
            negative="",
            validator=_check_files,
        ),
    ],
    /,
    *,
    out: OutFolder,
    landmarks: Annotated[
        Path | None,
        Parameter(help="landmark file of the scan, in its frame", validator=_check_files),
    ] = None,
    template_landmarks: Annotated[
        Path | None,
        Parameter(
            help="landmark file with the same names, picked on the template; needed if the other "
            "gives no vertex numbers",
            validator=_check_files,
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        Parameter(
            help="the known vertices of registered targets: .npy (V,) bool or numbers, .json or "
            ".txt numbers",
            validator=_check_files,
        ),
    ] = None,
    nan_is_missing: Annotated[
        bool, Parameter(help="vertices of a stack that are NaN are unknown", negative="")
    ] = False,
    points: Annotated[
        bool,
        Parameter(
            help="the meshes are scans, even those with as many vertices as the template",
            negative="",
        ),
    ] = False,
    pose: Annotated[
        Literal["none", "rigid", "similarity"] | None,
        Parameter(
            help="none: the targets lie in the model's frame; rigid: they are turned and shifted; "
            "similarity: scaled too; default: none for registered meshes, rigid for landmarks, "
            "similarity for scans"
        ),
    ] = None,
    prior_weight: Annotated[
        float, Parameter(help="multiplies the model's prior; 0: without it")
    ] = 1.0,
    noise: Annotated[
        float | None,
        Parameter(
            help="standard deviation in mm per coordinate of what was seen; default: estimated"
        ),
    ] = None,
    given: Annotated[
        list[str] | None,
        Parameter(
            help="a known condition: PART=V[,V...] or condition=NAME:LEVEL",
            negative="",
        ),
    ] = None,
    unit: Unit = None,
    out_unit: OutUnit = None,
    suffix: MeshFormat = None,
) -> None:
    """Fit the model to registered meshes, parts of them, landmarks or scans. Writes for each target
    the fitted mesh where the target lies, NAME.json and NAME.npz with code, pose, residuals and
    uncertainty, and the page fit.html.
    """
    from morphable.cli.output import print_table
    from morphable.cli.shapes import _conditions, _require_differ
    from morphable.data.picked import landmarks_of, read_mask
    from morphable.draw.html import render_page
    from morphable.files import atomic_folder, write_text
    from morphable.fitting.fit import check_settings
    from morphable.fitting.record import write_fit
    from morphable.models.io import load
    from morphable.report.fit_page import fit_page

    check_settings(pose, noise, prior_weight)
    _require_differ([_name(path) for path in targets])
    loaded = load(model)
    template = loaded.template
    known = None if mask is None else read_mask(mask, template.n_vertices)
    beside = None
    if landmarks is not None:
        beside = landmarks_of(landmarks, template, unit, template_landmarks)
    read = [
        _read(path, template, unit, points, template_landmarks, nan_is_missing) for path in targets
    ]
    _check_options(targets, read, known is not None, nan_is_missing, beside is not None)
    settings: dict[str, Any] = {
        "pose": pose,
        "noise": noise,
        "prior_weight": prior_weight,
        "given": _conditions(loaded, given or []),
    }
    fitted = []
    for path, target in zip(targets, read, strict=True):
        fitted += _fit(path, loaded, target, settings, known, nan_is_missing, beside)
    rows = []
    with atomic_folder(out) as folder:
        for item in fitted:
            name = _name(Path(item.name))
            ending = suffix or _suffix(Path(item.name))
            write_fit(folder, name, loaded, item.fit, item.row, ending, out_unit)
            rows.append(_row(item))
        write_text(folder / "fit.html", render_page(fit_page(loaded, fitted)))
    header = ["target", "what it is", "mean residual, mm", "max, mm", "90 % within, mm", "size"]
    print_table(f"{out}, a page in fit.html", header, rows)


def _name(path: Path) -> str:
    """The name of a target's files, without its suffix."""
    return path.stem.removesuffix(".mrk")


def _suffix(path: Path) -> str:
    own = path.suffix.lower().removeprefix(".")
    return own if own in ("ply", "obj", "off", "glb") else "ply"


def _read(
    path: Path,
    template: Template,
    unit: str | None,
    points: bool,
    on_template: Path | None,
    nan_is_missing: bool,
) -> Any:
    """A target as the library takes it: registered shapes, landmarks or a scan."""
    import numpy as np

    from morphable.data.picked import landmarks_of
    from morphable.data.registered_mesh import check_scale, read_registered, read_scan
    from morphable.mesh.io import read_stack, read_vertices
    from morphable.mesh.io.landmarks import is_landmark_file
    from morphable.mesh.units import millimeters

    if is_landmark_file(path):
        return landmarks_of(path, template, unit, on_template)
    if path.suffix.lower() in (".npy", ".npz"):
        shapes = np.asarray(read_stack(path), np.float32) * np.float32(millimeters(unit or "mm"))
        if shapes.shape[1] != template.n_vertices:
            raise InputError(
                f"{path}: expected {template.n_vertices} vertices as in the template "
                f"{template.name!r}, got {shapes.shape[1]}"
            )
        bad = ~np.isfinite(shapes).all(2)
        if bad.any() and not nan_is_missing:
            row, vertex = np.argwhere(bad)[0]
            raise InputError(
                f"{path}: vertex {vertex} of shape {row} is not finite; with `nan_is_missing` such "
                "vertices count as unknown",
                "nan_is_missing",
            )
        if not bad.any():
            check_scale(shapes[0], template, str(path), unit or "mm")
        return shapes
    if points or len(read_vertices(path)) != template.n_vertices:
        return read_scan(path, template, unit)
    return read_registered(path, template, unit)[None]


def _check_options(
    paths: list[Path], read: list[Any], mask: bool, nan_is_missing: bool, landmarks: bool
) -> None:
    """Refuse an option that none of the targets could use."""
    import numpy as np

    from morphable.mesh.scan import Scan

    if mask and not any(isinstance(target, np.ndarray) for target in read):
        raise InputError(f"`mask`: {paths[0]} is not a registered mesh", "mask")
    if nan_is_missing and not any(path.suffix.lower() in (".npy", ".npz") for path in paths):
        raise InputError(
            f"`nan_is_missing`: {paths[0]} is not a stack (.npy, .npz); mesh files hold no NaN",
            "nan_is_missing",
        )
    if landmarks and not any(isinstance(target, Scan) for target in read):
        raise InputError(
            f"`landmarks`: {paths[0]} is not a scan; a scan with as many vertices as the template "
            "needs `points`",
            "landmarks",
            "points",
        )


def _fit(
    path: Path,
    model: Any,
    target: Any,
    settings: dict[str, Any],
    mask: np.ndarray | None,
    nan_is_missing: bool,
    landmarks: Landmarks | None,
) -> list[Fitted]:
    from morphable.fitting.fit import fit
    from morphable.mesh.landmarks import Landmarks
    from morphable.mesh.scan import Scan
    from morphable.report.fit_page import Fitted

    try:
        if isinstance(target, Scan):
            found = fit(model, target, landmarks=landmarks, **settings)
            items = [
                Fitted(path.name, f"scan, {len(target.points):,} points", found, 0, target.points)
            ]
        elif isinstance(target, Landmarks):
            found = fit(model, target, **settings)
            kind = f"{len(target.vertices)} landmarks"
            items = [Fitted(path.name, kind, found, 0, target.positions)]
        else:
            found = fit(model, target, mask=mask, nan_is_missing=nan_is_missing, **settings)
            kind = "registered" if mask is None else f"{int(mask.sum()):,} known vertices"
            names = [
                path.name if len(target) == 1 else f"{path.stem}-{row:04d}"
                for row in range(len(target))
            ]
            items = [Fitted(name, kind, found, row, target[row]) for row, name in enumerate(names)]
    except InputError as error:
        raise InputError(f"{path}: {error}", *error.arguments) from error
    _check_nearness(path, found, isinstance(target, Landmarks))
    return items


def _check_nearness(path: Path, found: Fit, are_landmarks: bool) -> None:
    import numpy as np

    size = float(np.linalg.norm(np.ptp(found.vertices[0], axis=0)))
    error = float((found.error * found.map.scale).max())
    if error < FAR_OFF * size:
        return
    fault = f"{path}: the fitted shape is {error:.3g} mm from it on average"
    if are_landmarks:
        raise InputError(f"{fault}; do its landmarks have the vertices of this template?")
    warnings.warn(f"{fault}; with --pose similarity it may lie anywhere", stacklevel=2)


def _row(item: Fitted) -> list[str]:
    import numpy as np

    residuals = item.fit.residuals[item.row]
    return [
        item.name,
        item.kind,
        f"{np.nanmean(residuals):.3f}",
        f"{np.nanmax(residuals):.3f}",
        f"{item.fit.uncertainty[item.row].mean():.3f}",
        f"{1 / float(item.fit.map.scale[item.row]):.3f}",
    ]
