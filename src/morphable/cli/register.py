"""`morphable data register`: bring scans of other topology onto a template."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from morphable.cli.arguments import (
    Jobs,
    Labels,
    Pattern,
    Scheduler,
    SplitSeed,
    Unit,
    _check_files,
    _check_model,
    _check_new,
)
from morphable.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from morphable.mesh.template import Template
    from morphable.register.folder import Registered


def _check_prior(_: object, path: Path | None) -> None:
    if path is not None:
        _check_model(_, path)


def register(
    template: Annotated[
        Path,
        Parameter(
            help="mesh file with the faces and the reference shape, or template.npz of a dataset",
            validator=_check_files,
        ),
    ],
    scans: Annotated[
        Path, Parameter(help="folder of scans: meshes of any topology, or clouds of points")
    ],
    /,
    *,
    out: Annotated[
        Path,
        Parameter(help="the dataset folder to write; must not exist yet", validator=_check_new),
    ],
    prior: Annotated[
        Path | None,
        Parameter(
            help="a model of the template's topology, which is fitted to each scan first, then let "
            "go",
            validator=_check_prior,
        ),
    ] = None,
    pose: Annotated[
        Literal["rigid", "similarity"],
        Parameter(
            help="similarity: scans have any size and get the template's; rigid: sizes are kept"
        ),
    ] = "similarity",
    landmarks: Annotated[
        Path | None,
        Parameter(
            help="folder of landmark files (.csv .json .pp .fcsv .mrk.json), each named as its scan; "
            "default: the pose is searched"
        ),
    ] = None,
    template_landmarks: Annotated[
        Path | None,
        Parameter(
            help="landmark file with the same names, picked on the template; needed if the others "
            "give no vertex numbers",
            validator=_check_files,
        ),
    ] = None,
    unit: Unit = None,
    name: Annotated[
        str | None,
        Parameter(help="what the meshes show, such as hand; default: the template's name"),
    ] = None,
    licence: Annotated[str, Parameter(help="the licence of the scans")] = "unknown",
    labels: Labels = None,
    pattern: Pattern = None,
    seed: SplitSeed = 0,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
) -> None:
    """Register scans: each is brought onto the template and judged. The accepted ones become a
    dataset, with a report card per scan in registration.html, .json and .csv.

    A registration that was interrupted goes on with the same command.
    """
    from morphable.cli.output import progress
    from morphable.data.importers.labeling import check_descriptions, label_files
    from morphable.data.importers.mesh_files import mesh_files
    from morphable.register.folder import Settings, register_folder
    from morphable.report.registration_page import registration_page, write_cards
    from morphable.spread import check_spread

    check_descriptions(labels, pattern, name, licence)
    if template_landmarks is not None and landmarks is None:
        raise InputError("--template-landmarks: needs --landmarks, those of the scans")
    if landmarks is not None and not landmarks.is_dir():
        raise InputError(f"--landmarks {landmarks}: no such folder")
    check_spread(jobs, scheduler)
    files = mesh_files(scans)
    table = label_files(files, scans, labels, pattern)
    settings = Settings(template, prior, unit, pose, landmarks, template_landmarks, name)

    def cards(folder: Path, shown: Template, registered: Sequence[Registered]) -> None:
        write_cards(folder, registration_page(shown, registered, unit), registered)

    info: dict[str, Any] = {
        "source": f"scans of the folder {scans.resolve().name}, registered",
        "licence": licence,
        "unit": unit or "mm",
    }
    with progress("scans", len(files)) as advance:
        dataset = register_folder(
            settings,
            files,
            table,
            out,
            info=info,
            seed=seed,
            jobs=jobs,
            scheduler=scheduler,
            on_scan=advance,
            finish=cards,
        )
    for sentence in dataset.info["skipped"]:
        print(f"rejected: {sentence}")
    print(
        f"{out}: {len(dataset)} of {len(files)} scans registered, report cards in registration.html"
    )
