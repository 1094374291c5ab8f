"""How long the networks of a table will train, measured on the first steps of each."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from morphable.bench.runner import Options, Task, configuration
from morphable.data.dataset import SplitDataset
from morphable.errors import InputError
from morphable.train.distributed import Workers
from morphable.train.events import TrainingEvent
from morphable.train.run import RunConfig, run

STEPS = 4
"""Steps of each network that are timed, after the first one, which also sets up."""


class _EnoughError(Exception):
    """Raised out of a training that was only started to be timed."""


def training_seconds(
    tasks: Sequence[Task], data: SplitDataset, options: Options, workers: Workers
) -> float:
    """Seconds that the trainings of these tasks on one dataset will take, without validation and
    measuring; those that are finished take none. A network that trains with several seeds is timed
    once.
    """
    total = 0.0
    known: list[tuple[Task, float]] = []
    for task in tasks:
        if not task.trained or (task.folder / "model" / "model.json").exists():
            continue
        found = next((seconds for other, seconds in known if other.row == task.row), None)
        if found is None:
            found = _seconds(configuration(task, data, options), data, workers)
            known.append((task, found))
        total += found
    return total


def _seconds(config: RunConfig, data: SplitDataset, workers: Workers) -> float:
    if config.train is None:
        return 0.0
    clock: list[float] = []
    steps = 0

    def listen(event: TrainingEvent) -> None:
        nonlocal steps
        if not event.epoch_ended:
            clock.append(time.perf_counter())
            steps = event.total_steps
        if len(clock) > STEPS:
            raise _EnoughError

    with tempfile.TemporaryDirectory() as folder:
        try:
            run(config, data, Path(folder) / "run", workers, listener=listen)
        except _EnoughError:
            pass
        except InputError:  # the run itself will say what is wrong
            return 0.0
    return (clock[-1] - clock[0]) / max(len(clock) - 1, 1) * steps
