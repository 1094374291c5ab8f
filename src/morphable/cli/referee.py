"""`morphable referee`: judge what a generative model draws, and what its decoder can represent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from morphable.cli.arguments import Model, ModelData

if TYPE_CHECKING:
    from morphable.models.base import MorphableModel

NONE = "-"


def referee(
    model: Model,
    /,
    *,
    data: ModelData = None,
    split: Annotated[
        str | None,
        Parameter(help="[NAME:]train|val|test; default: test, of the split the run was trained on"),
    ] = None,
    full: Annotated[
        bool,
        Parameter(
            help="the paper's numbers of samples, and ResNet-18 at 224 pixels as the embedding; "
            "hours on a CPU",
            negative="",
        ),
    ] = False,
    device: Annotated[
        Literal["cpu", "cuda"], Parameter(help="where embeddings are trained")
    ] = "cpu",
    json: Annotated[Path | None, Parameter(help="also write the measures to this file")] = None,
) -> None:
    """Judge a generative model: specificity, coverage, diversity, decoupling of identity and
    expression, and the error of fitted codes, beside the same measures of real meshes.

    Decoupling is judged by three embeddings per factor, which are trained on the training meshes of
    the dataset once, and kept in the cache.
    """
    from morphable.cli.output import progress
    from morphable.evaluate.protocol import chosen_subset, open_dataset
    from morphable.evaluate.referee import QUICK, full_settings, judge
    from morphable.files import require_writable, write_json
    from morphable.models.io import load

    if json is not None:
        require_writable(json)
    loaded = load(model)
    split_data, subset = chosen_subset(loaded, open_dataset(loaded, data), split)
    settings = full_settings(device) if full else QUICK
    with progress("judging") as advance:
        verdict = judge(
            loaded, split_data, subset, settings, say=lambda text: advance(0, None, text)
        )
    print_verdict(loaded, verdict)
    if json is not None:
        write_json(json, verdict)


def print_verdict(model: MorphableModel, verdict: Mapping[str, Any]) -> None:
    """Print a verdict as a table, and what is to be known beside it."""
    from morphable.cli.output import print_table

    title = f"{model.family}, {model.latent} latent dimensions"
    print_table(title, ["", "model", "real meshes"], verdict_rows(verdict))
    for note in notes(verdict):
        print(note)


def verdict_rows(verdict: Mapping[str, Any]) -> list[list[str]]:
    """Rows of measure, model and real meshes, as mean and standard deviation."""
    rows = [
        [
            "specificity, mm",
            _said(verdict["specificity_mm"]),
            _said(verdict["real_specificity_mm"]),
        ],
        ["coverage, mm", _said(verdict["coverage_mm"]), _said(verdict["real_coverage_mm"])],
        [
            "1-nearest-neighbor accuracy",
            _said(verdict["one_nn_accuracy"]),
            _said(verdict["real_one_nn_accuracy"]),
        ],
    ]
    for name, title in (("global", ""), ("identity", " of one identity"),
                        ("expression", " of one expression")):  # fmt: skip
        own, real = verdict["diversity_mm"][name], verdict["real_diversity_mm"][name]
        rows.append([f"diversity{title}, mm", _said(own), _said(real)])
    for name, found in verdict["decoupling"].items():
        right = [100 * (1 - own["false_rejection"]) for own in verdict["judges"].get(name, ())]
        real = f"{sum(right) / len(right):.1f}" if right else NONE
        rows.append([f"decoupling of the {name}, %", _said(found, 100, 1), real])
    rows.append(["error of fitted codes, mm", _said(verdict["generalization_mm"]), NONE])
    rows.append(["error of encoded ones, mm", _said(verdict["encoder_error_mm"]), NONE])
    return rows


def notes(verdict: Mapping[str, Any]) -> list[str]:
    """What is to be known beside the table: a collapse, how right the embeddings are, and how much
    the thresholds matter.
    """
    said = [verdict["collapsed"]] if verdict["collapsed"] else []
    for name, judges in verdict["judges"].items():
        right = ", ".join(f"{100 * own['accuracy']:.1f}" for own in judges)
        said.append(f"The embeddings of the {name} are right on {right} % of held-out pairs.")
        if found := verdict["decoupling"][name]:
            low, high = (100 * share for share in found["thresholds_moved_by_a_tenth"])
            said.append(
                f"With thresholds a tenth lower or higher, the decoupling of the {name} is "
                f"{low:.1f} or {high:.1f} %."
            )
    return said


def _said(found: Mapping[str, Any] | None, factor: float = 1, digits: int = 3) -> str:
    if found is None:
        return NONE
    return f"{factor * found['mean']:.{digits}f} ± {factor * found['std']:.{digits}f}"
