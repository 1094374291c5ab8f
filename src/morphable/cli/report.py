"""`morphable report`: one self-contained page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from morphable.cli.arguments import ModelData
from morphable.errors import InputError


def report(
    model: Annotated[Path, Parameter(help="a run folder")],
    /,
    *,
    data: ModelData = None,
) -> None:
    """Write report.html, one self-contained page, into the run folder.

    If the run has not been evaluated yet, this evaluates it first.
    """
    from morphable.evaluate.protocol import evaluate_on, open_dataset
    from morphable.files import read_json, write_json
    from morphable.models.io import load
    from morphable.report.page import write_report
    from morphable.train.checkpoint import read_metrics

    if not (model / "config.toml").exists():
        raise InputError(f"{model}: not a run folder, it has no config.toml")
    loaded = load(model)
    dataset = open_dataset(loaded, data)
    path = model / "evaluation.json"
    if not path.exists():
        write_json(path, evaluate_on(loaded, dataset, None))
    evaluation = read_json(path)
    if not (
        isinstance(evaluation, dict) and {"model", "baselines", "provenance"} <= evaluation.keys()
    ):
        raise InputError(
            f"{path}: not the evaluation of a model; "
            f"make it again with `morphable evaluate {model}`"
        )
    write_report(
        loaded, dataset, evaluation, read_metrics(model / "metrics.jsonl"), model / "report.html"
    )
    print(model / "report.html")
