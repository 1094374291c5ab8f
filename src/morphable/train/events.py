"""TrainingEvent: what the loop says of its progress, to a progress bar and to TensorBoard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingEvent:
    """A step was taken, or an epoch has ended (`epoch_ended`).

    epoch: the one at work, counted from 0 over the whole run. step: how many are done. terms: the
    loss terms of the step, or their means over the epoch. validation_mm: None after a step, and if
    the model has no validation. best_mm: the best of the stage so far.
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
    """A listener that also writes TensorBoard's event files; the same one if the `tensorboard`
    extra is not installed.
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
