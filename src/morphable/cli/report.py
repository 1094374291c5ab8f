"""`morphable report`: write one self-contained page about a run."""

from __future__ import annotations

from morphable.cli.arguments import ModelData, Run


def report(
    model: Run,
    /,
    *,
    data: ModelData = None,
) -> None:
    """Write report.html, one self-contained page, into the run folder.

    Evaluates the run first if that has not been done yet. If --data names another dataset than that
    of the training, the page is report-DATASET.html and the run's own evaluation is left alone.
    """
    from morphable.cli.output import progress
    from morphable.evaluate.evaluation import Evaluation
    from morphable.evaluate.protocol import chosen_subset, open_dataset, trained_on
    from morphable.evaluate.record import Measured
    from morphable.models.io import load
    from morphable.report.page import write_report
    from morphable.train.checkpoint import read_metrics

    loaded = load(model)
    dataset = open_dataset(loaded, data)
    own = trained_on(loaded, dataset)
    page = model / ("report.html" if own else f"report-{dataset.path.resolve().name}.html")
    metrics = read_metrics(model / "metrics.jsonl")
    with progress("measuring") as advance:
        measured = Measured.read(model, loaded, dataset) if own else None
        if measured is None:
            measured = Measured.of(Evaluation.of(loaded, *chosen_subset(loaded, dataset)))
            if own:
                measured.write(model)
        write_report(measured, metrics, page, advance)
    print(page)
