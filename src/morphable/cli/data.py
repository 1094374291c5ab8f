"""`morphable data`: make, import and look at datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from morphable.cli.messages import message
from morphable.cli.regions import regions
from morphable.errors import InputError

if TYPE_CHECKING:
    from morphable.data.dataset import MeshDataset
    from morphable.data.source import MeshSource

app = App(name="data", help="Make, import and look at datasets of registered meshes.")

app.command(regions)

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
    seed: Annotated[int | None, Parameter(help="seed of every random draw")] = None,
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
    kind: Annotated[Literal["folder"], Parameter(help="layout of the files")],
    raw: Annotated[
        Path,
        Parameter(
            help="folder: a folder of mesh files with one topology, or an .npy/.npz stack (N, V, 3)"
        ),
    ],
    /,
    *,
    out: Out,
    unit: Annotated[
        Literal["mm", "cm", "m"] | None, Parameter(help="the unit of the files; folder needs it")
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
    labels: Annotated[
        Path | None, Parameter(help="CSV with a `file` column and any label columns")
    ] = None,
    pattern: Annotated[
        str | None, Parameter(help="labels from paths, as in {subject}/{expression}/{frame}")
    ] = None,
    up: Annotated[
        Literal["y", "z"] | None,
        Parameter(help="which axis points up in the files; default: y"),
    ] = None,
    align: Annotated[
        bool,
        Parameter(
            help="align every mesh rigidly to the mean of up to 512, evenly spread", negative=""
        ),
    ] = False,
    skip_bad: Annotated[
        bool, Parameter(help="leave out files that do not fit instead of stopping", negative="")
    ] = False,
    faces: Annotated[
        Literal["same", "template"] | None,
        Parameter(
            help="same (default): refuse files whose faces are not the template's; template: use the "
            "template's, whatever the files hold"
        ),
    ] = None,
    seed: Annotated[int, Parameter(help="seed of the splits")] = 0,
) -> None:
    """Import registered meshes with one topology: vertex i of every file is the same point."""
    from morphable.data.audit import audit_dataset
    from morphable.data.importers import import_source

    if seed < 0:
        raise InputError(f"--seed {seed}: expected a whole number of at least 0")
    _require_free(out)
    source = import_source(
        kind,
        raw,
        unit=unit,
        template=template,
        name=name,
        licence=licence,
        labels=labels,
        pattern=pattern,
        up=up,
        align=align,
        skip_bad=skip_bad,
        faces=faces,
    )
    for finding in audit_dataset(_write(source, out, seed)):
        print(f"audit: {_shown(finding)}")


@app.command
def info(
    dataset: Annotated[Path, Parameter(help="a dataset folder")],
    /,
    *,
    audit: Annotated[
        bool, Parameter(help="read every mesh and look for what is unusual", negative="")
    ] = False,
    json: Annotated[bool, Parameter(help="print JSON", negative="")] = False,
) -> None:
    """Tell what a dataset holds: counts, template, labels, splits, source and licence."""
    from morphable.cli.output import print_json, print_table
    from morphable.data.audit import audit_dataset, describe
    from morphable.data.dataset import load_dataset

    loaded = load_dataset(dataset, changed=True)
    facts = describe(loaded)
    findings = list(map(_shown, audit_dataset(loaded))) if audit else []
    if json:
        print_json(facts | ({"audit": findings} if audit else {}))
        return
    print_table(str(dataset), ["", ""], [[name, str(value)] for name, value in facts.items()])
    for finding in findings or (["nothing unusual found"] if audit else []):
        print(f"audit: {finding}")


def _shown(finding: str) -> str:
    """A finding of the audit, with the flag in place of the argument that it advises."""
    return message(InputError(finding, "align"))


def _require_free(out: Path) -> None:
    from morphable.files import require_new

    require_new(out)


def _write(source: MeshSource, out: Path, seed: int) -> MeshDataset:
    from morphable.cli.output import progress
    from morphable.data.dataset import write_dataset

    with progress("meshes", source.labels.count) as advance:
        dataset = write_dataset(source, out, seed, advance)
    shape = " x ".join(map(str, dataset.vertices.shape))
    print(f"{out}: {shape}, splits {', '.join(dataset.split_names) or 'none'}")
    return dataset
