"""TrainingEvent: the progress that the loop reports to a progress bar and to TensorBoard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingEvent:
    """Sent after every step, and once more at the end of every epoch (`epoch_ended`).

    epoch: the current epoch, counted from 0 over the whole run. step: number of steps done so far.
    terms: the loss terms of the step; at the end of an epoch, their means over the epoch.
    validation_mm: None after a step, and if the model has no validation. best_mm: the smallest
    validation error of the stage so far.
    """

    epoch: int
    epochs: int
    step: int
    total_steps: int
    terms: dict[str, float]
    validation_mm: float | None
    best_mm: float | None
    epoch_ended: bool


Listener = Callable[[TrainingEvent], None]


def with_event_files(listener: Listener | None, folder: Path) -> Listener | None:
    """Return a listener that also writes TensorBoard event files to `folder`. If the `tensorboard`
    extra is not installed, return `listener` itself.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return listener
    writer = SummaryWriter(str(folder))

    def listen(event: TrainingEvent) -> None:
        if listener is not None:
            listener(event)
        if not event.epoch_ended:
            return
        for name, value in event.terms.items():
            writer.add_scalar(f"train/{name}", value, event.step)
        if event.validation_mm is not None:
            writer.add_scalar("validation_mm", event.validation_mm, event.step)
        writer.flush()

    return listen
