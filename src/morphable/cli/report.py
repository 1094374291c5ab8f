"""`morphable report`: write one self-contained page about a run."""

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

    Evaluates the run first if that has not been done yet. If --data names another dataset than that
    of the training, the page is report-DATASET.html and the run's own evaluation is left alone.
    """
    from morphable.evaluate.evaluation import Evaluation
    from morphable.evaluate.protocol import chosen_subset, open_dataset, trained_on
    from morphable.evaluate.record import Measured
    from morphable.models.io import load
    from morphable.report.page import write_report
    from morphable.train.checkpoint import read_metrics

    if not (model / "config.toml").exists():
        raise InputError(f"{model}: not a run folder, it has no config.toml")
    loaded = load(model)
    dataset = open_dataset(loaded, data)
    own = trained_on(loaded, dataset)
    measured = Measured.read(model, loaded, dataset) if own else None
    if measured is None:
        measured = Measured.of(Evaluation.of(loaded, *chosen_subset(loaded, dataset)))
        if own:
            measured.write(model)
    page = model / ("report.html" if own else f"report-{dataset.path.resolve().name}.html")
    write_report(measured, read_metrics(model / "metrics.jsonl"), page)
    print(page)
