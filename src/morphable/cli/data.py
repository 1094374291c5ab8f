"""`morphable data`: make, import and look at datasets."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from morphable.cli.arguments import Labels, Pattern, SplitSeed
from morphable.cli.messages import flag, message
from morphable.cli.regions import regions
from morphable.cli.register import register
from morphable.cli.split import split
from morphable.errors import InputError

if TYPE_CHECKING:
    from morphable.data.audit import Finding
    from morphable.data.dataset import MeshDataset
    from morphable.data.source import MeshSource

app = App(name="data", help="Make, import, split and look at datasets of registered meshes.")

app.command(regions)
app.command(register)
app.command(split)

Out = Annotated[Path, Parameter(help="the folder to write; must not exist yet")]


@app.command
def make(
    kind: Annotated[
        Literal["hands", "faces", "face-population", "bodies"], Parameter(help="what to make")
    ],
    /,
    *,
    out: Out,
    count: Annotated[
        int | None, Parameter(help="number of meshes in all, spread evenly over the subjects")
    ] = None,
    seed: Annotated[
        int | None,
        Parameter(
            help="seed of every random draw; default: the set's own for meshes, 0 for splits"
        ),
    ] = None,
    source: Annotated[
        Path | None,
        Parameter(
            help="faces: an ICT-FaceKit clone or packed .npz (else the variable MORPHABLE_ICT)"
        ),
    ] = None,
    linear: Annotated[
        bool, Parameter(help="faces: the linear twin of the generator", negative="")
    ] = False,
    size: Annotated[
        Literal["5k", "12k", "70k"] | None, Parameter(help="faces: vertices of the template")
    ] = None,
    part: Annotated[
        Literal["head", "face"] | None, Parameter(help="faces: whole head or the face alone")
    ] = None,
    neutral_only: Annotated[
        bool, Parameter(help="face-population: neutral meshes only", negative="")
    ] = False,
    labelled: Annotated[
        float | None, Parameter(help="face-population: share of meshes that keep their labels")
    ] = None,
) -> None:
    """Make an open dataset: posed hands or bodies from the embedded CC0 rigs, or faces from
    ICT-FaceKit.
    """
    from morphable.data.makers import make_source

    given: dict[str, Any] = {
        "count": count,
        "seed": seed,
        "source": source,
        "size": size,
        "part": part,
    }
    given |= {"labelled": labelled, "linear": linear or None, "neutral_only": neutral_only or None}
    _require_free(out)
    _write(make_source(kind, **given), out, seed or 0)


@app.command(name="import")
def import_(
    kind: Annotated[
        Literal[
            "folder",
            "coma",
            "dfaust",
            "synhand",
            "bu3dfe",
            "aflw2000-3d",
            "facescape",
            "uhm",
            "handy",
            "linear-model",
        ],
        Parameter(help="what to import: any folder, or a dataset as it is unpacked; see below"),
    ],
    raw: Annotated[
        Path,
        Parameter(
            help="folder: a folder of mesh files with one topology, or an .npy/.npz stack (N, V, "
            "3); of a dataset its folder; of a linear model its file"
        ),
    ],
    /,
    *,
    out: Out,
    unit: Annotated[
        Literal["mm", "cm", "m"] | None,
        Parameter(help="the unit of the files; folder needs it, datasets have their own"),
    ] = None,
    template: Annotated[
        Path | None,
        Parameter(
            help="mesh file with the faces and the reference shape; default: the faces of the first "
            "file and the mean of all meshes"
        ),
    ] = None,
    name: Annotated[
        str | None,
        Parameter(help="what the meshes show, such as hand; default: the name of the folder"),
    ] = None,
    licence: Annotated[
        str | None, Parameter(help="the licence of the meshes, written into models of them")
    ] = None,
    labels: Labels = None,
    pattern: Pattern = None,
    up: Annotated[
        Literal["y", "z"] | None,
        Parameter(help="which axis points up in the files; default: y"),
    ] = None,
    align: Annotated[
        bool | Literal["rigid", "similarity", "translation", "paper"],
        Parameter(
            help="align every mesh to the mean of all: rigid (also without a word), similarity, "
            "which gives all the same size, or translation; never a reflection; bu3dfe: paper, "
            "in two steps",
            negative="",
        ),
    ] = False,
    align_on: Annotated[
        str | None,
        Parameter(
            help="the vertices that count for --align: all (default), stable (found from the "
            "meshes: those that move least), template (its rigid ones), or a file of indices"
        ),
    ] = None,
    mirror: Annotated[
        bool,
        Parameter(
            help="add the mirror image of every mesh, through a mirror map found from the "
            "template; only the images of training meshes are trained on",
            negative="",
        ),
    ] = False,
    skip_bad: Annotated[
        bool,
        Parameter(
            help="leave out files that do not fit, and meshes that the audit finds broken, instead "
            "of stopping",
            negative="",
        ),
    ] = False,
    faces: Annotated[
        Literal["same", "template"] | None,
        Parameter(
            help="same (default): refuse files whose faces are not the template's; template: use the "
            "template's, whatever the files hold"
        ),
    ] = None,
    mesh: Annotated[
        str | None, Parameter(help="name of the mesh to read from glTF files that hold several")
    ] = None,
    count: Annotated[
        int | None,
        Parameter(help="linear-model, uhm, handy: samples to draw; synhand: meshes to draw"),
    ] = None,
    components: Annotated[
        int | None, Parameter(help="linear-model, uhm, handy: use the first so many components")
    ] = None,
    group: Annotated[
        str | None,
        Parameter(
            help="linear-model: the model's place in an HDF5 file, such as /shape, or its catalog name"
        ),
    ] = None,
    model: Annotated[
        Path | None,
        Parameter(help="aflw2000-3d: the folder of Model_Shape.mat and Model_Exp.mat"),
    ] = None,
    page: Annotated[
        Path | None,
        Parameter(help="write what the audit finds as this HTML page, with pictures"),
    ] = None,
    seed: Annotated[SplitSeed, Parameter(help="seed of the splits, and of samples")] = 0,
) -> None:
    """Import registered meshes with one topology: vertex i of every file is the same point. An
    import that was interrupted resumes with the same command.

    **coma**: SUBJECT/EXPRESSION/EXPRESSION.NNNNNN.ply in meters; no neutral scans, the first frames
    count as neutral; split `frames` is the interpolation split of a sorted list.

    **dfaust**: registrations_f.hdf5 and registrations_m.hdf5 in meters, split `sequence`; or
    train.npy and test.npy with --template, split `published`. Which meshes the published pair holds
    out is unknown.

    **synhand**: a stack (N, V, 3) with --template. The layout of the archive, its number of vertices
    and the seed of the published split are unknown.

    **bu3dfe**: registered .wrl files (5,996 vertices) or template.obj, dataset.npy and
    identities.txt (6,704), in mm; raw scans are refused; split `first-ten`.

    **aflw2000-3d**: the images' .mat files and 3DDFA's model; faces without pose.

    **facescape**: PERSON/models_reg/NUMBER_NAME.obj in mm.

    **uhm**, **handy**, **linear-model**: samples of a linear model: UHM and Handy pickles, FLAME and
    SMPL .pkl or .npz, Basel and statismo .h5. Files are read without executing them. The unit of
    Handy files is not documented; m is assumed, --unit says otherwise.
    """
    from morphable.cli.output import progress
    from morphable.data.audit import audit_dataset
    from morphable.data.importers import import_dataset
    from morphable.files import require_writable

    if page is not None:
        require_writable(page)
    with progress("files") as advance:
        dataset = import_dataset(
            kind,
            raw,
            out,
            seed=seed,
            on_file=advance,
            on_block=lambda done: advance(done, what="meshes"),
            unit=unit,
            template=template,
            name=name,
            licence=licence,
            labels=labels,
            pattern=pattern,
            up=up,
            align=align,
            align_on=align_on,
            mirror=mirror,
            skip_bad=skip_bad,
            faces=faces,
            mesh=mesh,
            count=count,
            components=components,
            group=group,
            model=model,
        )
    _print_written(dataset, out)
    findings = audit_dataset(dataset)
    _print_findings(findings)
    if page is not None:
        _write_page(page, dataset, findings)


@app.command
def info(
    dataset: Annotated[Path, Parameter(help="a dataset folder")],
    /,
    *,
    audit: Annotated[
        bool, Parameter(help="read every mesh and look for what is unusual", negative="")
    ] = False,
    page: Annotated[
        Path | None,
        Parameter(help="audit, and write this HTML page with pictures of the meshes named"),
    ] = None,
    json: Annotated[bool, Parameter(help="print JSON", negative="")] = False,
) -> None:
    """Tell what a dataset holds: counts, template, labels, splits, source and licence."""
    from morphable.cli.output import print_json, print_table
    from morphable.data.audit import audit_dataset, describe
    from morphable.data.dataset import load_dataset
    from morphable.files import require_writable

    if page is not None:
        require_writable(page)
    loaded = load_dataset(dataset, changed=True)
    facts = describe(loaded)
    findings = audit_dataset(loaded) if audit or page is not None else []
    if page is not None:
        _write_page(page, loaded, findings)
    if json:
        found = [finding.to_json() | {"advice": _advice(finding)} for finding in findings]
        print_json(facts | ({"audit": found} if audit else {}))
        return
    print_table(str(dataset), ["", ""], [[name, str(value)] for name, value in facts.items()])
    if audit or page is not None:
        _print_findings(findings)
        if not findings:
            print("audit: nothing unusual found")


def _write_page(page: Path, dataset: MeshDataset, findings: list[Finding]) -> None:
    from morphable.data.audit.page import audit_page
    from morphable.draw.html import render_page
    from morphable.files import write_text

    write_text(page, render_page(audit_page(dataset, findings, flag)))


@app.command
def merge(
    datasets: Annotated[list[Path], Parameter(help="two or more dataset folders")],
    /,
    *,
    out: Out,
    rename: Annotated[
        bool,
        Parameter(
            help="put the name of its set in front of each subject, sequence and file; otherwise "
            "subjects of the same name are one person",
            negative="",
        ),
    ] = False,
    seed: SplitSeed = 0,
) -> None:
    """Merge datasets of one template into a new one, with a label `dataset` that says which."""
    from morphable.data.dataset import load_dataset
    from morphable.data.merge import merged, shared_subjects

    _require_free(out)
    opened = [load_dataset(path) for path in datasets]
    source = merged(opened, rename)
    shared = [] if rename else shared_subjects(opened)
    if shared:
        warnings.warn(
            f"{len(shared)} subjects, such as {shared[0]}, are in several sets and count as the same "
            "person; --rename tells them apart",
            stacklevel=2,
        )
    _write(source, out, seed)


def _print_findings(findings: Sequence[Finding]) -> None:
    """Print the findings, those of a kind together, and what to do about each kind."""
    for kind in dict.fromkeys(finding.kind for finding in findings):
        same = [finding for finding in findings if finding.kind == kind]
        for finding in same:
            print(f"audit: {finding}")
        print(f"       advice: {_advice(same[0])}")


def _advice(finding: Finding) -> str:
    """The advice, with flags in place of the arguments that it names."""
    from morphable.data.audit.finding import ARGUMENTS

    return message(InputError(finding.advice, *ARGUMENTS))


def _require_free(out: Path) -> None:
    from morphable.files import require_new

    require_new(out)


def _write(source: MeshSource, out: Path, seed: int) -> MeshDataset:
    from morphable.cli.output import progress
    from morphable.data.dataset import write_dataset

    with progress("meshes", source.labels.count) as advance:
        dataset = write_dataset(source, out, seed, advance)
    _print_written(dataset, out)
    return dataset


def _print_written(dataset: MeshDataset, out: Path) -> None:
    shape = " x ".join(map(str, dataset.vertices.shape))
    print(f"{out}: {shape}, splits {', '.join(dataset.split_names) or 'none'}")
