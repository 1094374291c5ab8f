"""`morphable evaluate`: measure a model on held-out meshes and compare it with baselines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from morphable.cli.arguments import Model, ModelData
from morphable.errors import InputError


def evaluate(
    model: Model,
    /,
    *,
    data: ModelData = None,
    split: Annotated[
        str | None,
        Parameter(help="[NAME:]train|val|test; default: test, of the split the run was trained on"),
    ] = None,
    referee: Annotated[
        bool,
        Parameter(
            help="also what `morphable referee` measures of samples and fitted codes; minutes",
            negative="",
        ),
    ] = False,
    json: Annotated[Path | None, Parameter(help="also write the measures to this file")] = None,
    csv: Annotated[
        Path | None,
        Parameter(help="also write the errors of each mesh, overall and by region, to this file"),
    ] = None,
) -> None:
    """Measure a model on held-out meshes and compare it with the mean shape and a PCA of the same
    latent size.

    If MODEL is a run folder and neither --data nor --split is given, the result is also written
    there as evaluation.json.
    """
    from morphable.cli.output import print_table, progress
    from morphable.cli.referee import print_verdict
    from morphable.evaluate.evaluation import Evaluation
    from morphable.evaluate.mesh_table import csv_text, mesh_table
    from morphable.evaluate.protocol import chosen_subset, open_dataset
    from morphable.evaluate.record import Measured
    from morphable.evaluate.referee import QUICK, judge
    from morphable.files import require_writable, write_json, write_text
    from morphable.models.io import load

    for path in (json, csv):
        if path is not None:
            require_writable(path)  # before the measuring, which can take minutes
    if json is not None and csv is not None and json.resolve() == csv.resolve():
        raise InputError(f"--json and --csv: both name {csv}")
    loaded = load(model)
    split_data, subset = chosen_subset(loaded, open_dataset(loaded, data), split)
    verdict = None
    with progress(f"measuring on {len(split_data.subset(subset))} meshes") as advance:
        measured = Measured.of(Evaluation.of(loaded, split_data, subset))
        if referee:
            verdict = judge(
                loaded, split_data, subset, QUICK, say=lambda text: advance(0, None, text)
            )
            measured = measured.judged(verdict)
    # Printed first, so that a folder that cannot be written to does not cost the result.
    print_table(*evaluation_table(loaded.family, measured.measures))
    print(measured.measures["provenance"]["intervals"])
    if note := _little_learned(measured.measures):
        print(note)
    if verdict is not None:
        print_verdict(loaded, verdict)
    # A run folder's evaluation is the one that `report` and `bench` read: on its own test subset.
    if (model / "config.toml").exists() and split is None and data is None:
        measured.write(model)
    if json is not None:
        write_json(json, measured.measures)
    if csv is not None:
        write_text(csv, csv_text(mesh_table(measured.evaluation)))


def _little_learned(result: Mapping[str, Any]) -> str:
    from morphable.evaluate.errors import little_learned

    own, mean_shape = (
        measures["vertex_error_mm"]["mean"]
        for measures in (result["model"], result["baselines"]["mean_shape"])
    )
    return little_learned(own, mean_shape, result["provenance"]["part"])


def evaluation_table(
    family: str, result: Mapping[str, Any]
) -> tuple[str, list[str], list[list[str]]]:
    """Return the title, the header and the rows of the summary that `evaluate` prints."""
    from morphable.evaluate.measure_table import MEASURES

    measure, provenance = MEASURES["vertex_error_mm"], result["provenance"]
    title = (
        f"{measure.title} in {measure.unit} on {provenance['meshes']} {provenance['part']} meshes, "
        f"split {provenance['split']}"
    )
    latent, pca = provenance["latent"], result["baselines"]["pca"]
    errors = {
        "mean shape": result["baselines"]["mean_shape"][measure.name],
        f"PCA, {provenance['pca_latent']}": pca[measure.name],
        f"{family}, {latent}{_conditions(provenance)}": result["model"][measure.name],
    }
    if found := result["model"].get("searched_vertex_error_mm"):
        searched = provenance["searched_numbers"]
        errors[f"PCA, {latent} + {searched}"] = pca["searched_vertex_error_mm"]
        errors[f"{family}, {latent} + {searched}, conditions searched"] = found
    rows = []
    for name, error in errors.items():
        statistics = [error[key] for key in ("mean", "std", "median", "p95", "max")]
        numbers = [f"{number:.{measure.digits}f}" for number in statistics]
        ends = [f"{end:.{measure.digits}f}" for end in error["ci95"] or ()]
        rows.append([name, *numbers, " .. ".join(ends) or "none"])
    if family == "pca":
        rows = _one_pca(rows)
    header = ["model, latent size", "mean", "std", "median", "95 %", "max", "mean, 95 % interval"]
    return title, header, rows


def _one_pca(rows: list[list[str]]) -> list[list[str]]:
    """The rows of a PCA without its twin: the baseline is the same PCA, unless the model was trained
    on other meshes than those of the dataset. Then the names say which is which.
    """
    mean_shape, (_, *baseline), (name, *own) = rows
    size = name.partition(", ")[2]
    if baseline == own:
        return [mean_shape, [f"PCA, {size}", *own]]
    this, other = f"PCA, {size}, this model", f"{rows[1][0]}, of this split's training meshes"
    return [mean_shape, [other, *baseline], [this, *own]]


def _conditions(provenance: Mapping[str, Any]) -> str:
    """How the conditions of the measured meshes were found, for the name of a row."""
    labelled, searched = (provenance.get(f"{how}_meshes") for how in ("labelled", "searched"))
    if labelled and searched:
        return f", conditions of {labelled} meshes from labels, of {searched} searched"
    if labelled:
        return ", conditions from labels"
    return f" + {provenance['searched_numbers']}, conditions searched" if searched else ""
