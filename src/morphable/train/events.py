"""TrainingEvent: the progress that the loop reports to a progress bar and to TensorBoard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingEvent:
    """Sent after every step, and once more at the end of every epoch (`epoch_ended`).

    stage: the name of the current stage, "" if the model is trained in one stage. epoch, epochs:
    the current epoch of that stage, counted from 0, and how many it has. step, total_steps: the
    number of steps done so far, and of all steps, over the whole run. terms: the loss terms of the
    step; at the end of an epoch, their means over the epoch. validation_mm: None after a step, and
    if the model has no validation. best_mm: the smallest validation error of the stage so far,
    to which a gain over a linear start that is too small does not count.
    """

    stage: str
    epoch: int
    epochs: int
    step: int
    total_steps: int
    terms: dict[str, float]
    validation_mm: float | None
    best_mm: float | None
    epoch_ended: bool

    @property
    def place(self) -> str:
        """Where the training is, such as "epoch 3/10" or "manipulate, epoch 3/40"."""
        stage = f"{self.stage}, " if self.stage else ""
        return f"{stage}epoch {self.epoch + 1}/{self.epochs}"


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
