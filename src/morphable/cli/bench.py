"""`morphable bench`: reproduce a paper's table on open data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from morphable.cli.arguments import Jobs, Scheduler
from morphable.errors import InputError

if TYPE_CHECKING:
    from morphable.bench.runner import Options, Outcome, Task
    from morphable.bench.table import Table
    from morphable.data.dataset import SplitDataset
    from morphable.train.distributed import Workers
    from morphable.train.events import Listener, TrainingEvent


def bench(
    table: Annotated[str, Parameter(help="which table; an unknown name lists them")],
    /,
    *,
    out: Annotated[
        Path, Parameter(help="folder for data, runs and tables; repeat the command to continue")
    ],
    data: Annotated[
        list[Path] | None,
        Parameter(
            help="dataset folders to use instead of the table's own",
            negative="",
            consume_multiple=True,
        ),
    ] = None,
    source: Annotated[
        Path | None,
        Parameter(help="ICT-FaceKit, for face sets; default: the variable MORPHABLE_ICT"),
    ] = None,
    only: Annotated[
        list[str] | None,
        Parameter(help="only these of the table's datasets", negative="", consume_multiple=True),
    ] = None,
    rows: Annotated[
        list[str] | None,
        Parameter(
            help="only these of the table's rows, by name", negative="", consume_multiple=True
        ),
    ] = None,
    quick: Annotated[
        bool,
        Parameter(
            help="the small size, for a CPU (the default); prints how long it will train",
            negative="",
        ),
    ] = False,
    full: Annotated[bool, Parameter(help="the whole table, for a GPU", negative="")] = False,
    seeds: Annotated[int, Parameter(help="number of seeds that each network is trained with")] = 1,
    epochs: Annotated[
        int | None, Parameter(help="epochs of every network; default: what the table sets")
    ] = None,
    recipe: Annotated[
        Literal["fast", "paper"] | None, Parameter(help="train all rows with this recipe")
    ] = None,
    split: Annotated[
        str | None, Parameter(help="a split of the datasets; default: what the table sets")
    ] = None,
    referee: Annotated[
        bool,
        Parameter(
            help="the referee judges each model too, in columns of their own; minutes a model",
            negative="",
        ),
    ] = False,
    folds: Annotated[
        str | None,
        Parameter(
            help="a cross-validation of --data, made by `data split --folds`: every row is trained "
            "on each of its splits, and the table is over all of them"
        ),
    ] = None,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    device: Annotated[Literal["cpu", "cuda"], Parameter(help="where to train")] = "cpu",
) -> None:
    """Train and measure every model of a published table, and compare them with PCA, pca-mlp and
    the mean shape.
    """
    from morphable.bench import find_table
    from morphable.bench.runner import Options
    from morphable.bench.table import with_judge
    from morphable.spread import check_spread

    if quick and full:
        raise InputError("--quick and --full: choose one")
    options = Options(
        out, seeds, source, data or (), only or (), rows or (), epochs, recipe, split, folds
    )
    chosen = find_table(table, not full)
    check_spread(jobs, scheduler)
    if jobs > 1 or scheduler is not None:
        options = options.absolute()
    _run(with_judge(chosen) if referee else chosen, options, device, jobs, scheduler)


def _run(table: Table, options: Options, device: str, jobs: int, scheduler: str | None) -> None:
    from morphable.bench.document import read_table_name, write_results
    from morphable.bench.pictures import pictures
    from morphable.bench.quality import time_to_quality
    from morphable.bench.runner import NO_ICT, perform, prepare, tasks
    from morphable.bench.sweep import sweep_charts
    from morphable.ops.allocator import keep_freed_memory
    from morphable.spread import spread
    from morphable.train.distributed import workers
    from morphable.train.loop import Interrupted

    other = read_table_name(options.out)
    if other not in (None, table.name):
        raise InputError(f"{options.out}: holds the table {other}; choose another --out")
    planned = tasks(table, options)
    # Datasets of the user are opened at once, to refuse a wrong name before any training.
    datasets = {
        place: prepare(task.data, options)
        for place, task in {(task.data.name, task.data.split): task for task in planned}.items()
        if options.data
    }
    found: dict[int, Outcome] = {}
    skipped: dict[str, str] = {}
    estimated: set[str] = set()
    keep_freed_memory()
    with workers(device) as here, _bar(len(planned)) as listen:
        if here.count > 1 and (jobs > 1 or scheduler is not None):
            raise InputError("--jobs and --scheduler: torchrun starts the processes already")

        def opened(task: Task) -> SplitDataset | None:
            name, place = task.data.name, (task.data.name, task.data.split)
            # Datasets are made when their first run starts, so that the first result comes early.
            if place not in datasets:
                datasets[place] = prepare(task.data, options)
                if datasets[place] is None:
                    skipped[name] = NO_ICT
                    print(f"{name}: {NO_ICT}", flush=True)
            data = datasets[place]
            if data is not None and name not in estimated:
                estimated.add(name)
                _print_estimate([t for t in planned if t.data.name == name], data, options, here)
            return data

        def performed(number: int) -> Outcome | None:
            task = planned[number]
            data = opened(task)
            if data is None:
                return None
            return perform(task, data, options, here, listen(number, task))

        try:
            if jobs == 1 and scheduler is None:
                results = spread(performed, range(len(planned)))
            else:
                numbers = [number for number, task in enumerate(planned) if opened(task)]
                results = _elsewhere(planned, numbers, options, device, jobs, scheduler)
            for number, outcome in results:
                if outcome is None:
                    continue
                found[number] = outcome
                done = f"[{len(found)}/{len(planned)}] {planned[number].title}"
                print(f"{done}: {_result(outcome)}", flush=True)
                # Written after each run, so that a bench that is stopped leaves its results so far.
                write_results(table, options, planned, _in_order(found), skipped)
        except Interrupted:
            raise KeyboardInterrupt(
                "stopped, everything is saved; run the same command again to continue"
            ) from None
        outcomes = _in_order(found)
        shown = {
            name: [
                *sweep_charts(table.sweep, own),
                *time_to_quality(own),
                *pictures(own, data.whole),
            ]
            for name, data in {name: data for (name, _), data in datasets.items()}.items()
            if data is not None and (own := [o for o in outcomes if o.task.data.name == name])
        }
        if outcomes:
            write_results(table, options, planned, outcomes, skipped, shown)
    if not outcomes:
        raise InputError(
            f"{table.name}: none of its datasets could be made; give --source or --data"
        )
    print((options.out / "table.md").read_text(encoding="utf-8"))


def _in_order(found: Mapping[int, Outcome]) -> list[Outcome]:
    """Outcomes by the numbers of their runs, in the order of the plan."""
    return [found[number] for number in sorted(found)]


def _elsewhere(
    planned: Sequence[Task],
    numbers: Sequence[int],
    options: Options,
    device: str,
    jobs: int,
    scheduler: str | None,
) -> Iterator[tuple[int, Outcome]]:
    """Perform the runs of these numbers in other processes; yield each with its number."""
    import os

    from morphable.bench.runner import Elsewhere, perform_elsewhere
    from morphable.spread import spread

    # Processes of one machine share its cores; a worker of a cluster is started with its own.
    threads = None if scheduler is not None else max(1, (os.cpu_count() or 1) // jobs)
    runs = [Elsewhere(planned[number], options, device, threads) for number in numbers]
    for row, outcome in spread(perform_elsewhere, runs, jobs=jobs, scheduler=scheduler):
        yield numbers[row], outcome


def _print_estimate(
    planned: Sequence[Task], data: SplitDataset, options: Options, workers: Workers
) -> None:
    """Print how long the networks of one dataset will train, unless that is no time at all."""
    from morphable.bench.document import duration
    from morphable.bench.estimate import STEPS, training_seconds

    if workers.count > 1:
        return
    seconds = training_seconds(planned, data, options, workers)
    if seconds:
        print(
            f"{data.whole.path.name}: about {duration(seconds)} of training, measured on {STEPS} "
            "steps of each network",
            flush=True,
        )


def _result(outcome: Outcome) -> str:
    """What the line about a finished run says."""
    if outcome.measures is None:
        return f"failed: {outcome.failure}"
    if not outcome.task.trained:
        return f"{outcome.measures['decode_ms']:.1f} ms"
    return f"{outcome.measures['vertex_error_mm']['mean']:.3f} mm"


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[int, Task], Listener]]:
    """A progress bar over all runs, with the best error of the current run and the time left."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("", total=total)

        def listener(number: int, task: Task) -> Listener:
            def listen(event: TrainingEvent) -> None:
                best = "" if event.best_mm is None else f", {event.best_mm:.3f} mm"
                text = f"{task.title}: {event.place}{best}"
                bars.update(
                    bar, description=text, completed=number + event.step / event.total_steps
                )

            return listen

        yield listener
