"""The training loop: descends a model's objective, validates each epoch, checkpoints, stops and
resumes exactly.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from morphable.errors import InputError
from morphable.files import write_npz
from morphable.models.base import Shapes, TrainableModel
from morphable.models.training import Batch, Progress, TrainConfig
from morphable.train.batches import Batches
from morphable.train.checkpoint import (
    append_metrics,
    cut_metrics,
    read_checkpoint,
    write_checkpoint,
)
from morphable.train.distributed import Workers
from morphable.train.optimizer import make_optimizer, rate_at


class Interrupted(Exception):
    """Training was stopped by a signal, after a checkpoint was written."""


@dataclass(frozen=True)
class Report:
    """What the loop tells a listener: after every step (`validation_mm` None) and after every
    epoch.
    """

    epoch: int
    epochs: int
    step: int
    total_steps: int
    terms: dict[str, float]
    validation_mm: float | None
    best_mm: float | None


Listener = Callable[[Report], None]


class _Objective(nn.Module):
    """The sum of a model's loss terms as a forward pass, which is what DistributedDataParallel can
    wrap.
    """

    def __init__(self, model: TrainableModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        terms = self.model.loss(batch, progress)
        total = torch.stack(list(terms.values())).sum()
        return total, {name: term.detach() for name, term in terms.items()}


class Loop:
    """One training run of `model`; its state lives in `folder`/checkpoint and
    `folder`/metrics.jsonl.
    """

    def __init__(
        self,
        model: TrainableModel,
        batches: Batches,
        validation: Shapes,
        config: TrainConfig,
        folder: Path,
        workers: Workers,
        listener: Listener | None = None,
    ) -> None:
        self.model, self.batches, self.validation, self.config, self.folder = (
            model,
            batches,
            validation,
            config,
            folder,
        )
        self.workers, self.listener = workers, listener
        self.optimizer = make_optimizer(model.parameters(), config)
        self.stages = config.stages or model.stages[:1] or ("",)
        self.generator = torch.Generator(device="cpu").manual_seed(
            config.seed * 1_000_003 + workers.rank
        )
        self.step = 0
        self.best_mm = math.inf
        self.sums: dict[str, float] = {}
        self.seconds = 0.0

    def run(self) -> None:
        """Train to the end of the last epoch. Raises Interrupted after Ctrl-C, with everything
        saved.
        """
        objective: nn.Module = _Objective(self.model)
        if self.workers.count > 1:
            objective = DistributedDataParallel(objective)
        total = self.stage_steps * len(self.stages)
        with _stop_signals() as stopping:
            last_write = time.monotonic()
            while self.step < total:
                if self.step and self.step % self.stage_steps == 0:
                    self._next_stage()
                epoch, done = divmod(self.step, self.batches.steps)
                started = time.monotonic()
                self.model.train()
                for batch in self.batches.batches(epoch, skip=done):
                    terms = self._step(objective, batch, epoch)
                    late = time.monotonic() - last_write > self.config.checkpoint_seconds
                    stop, due = self._agree(epoch, terms, bool(stopping), late)
                    last_of_epoch = self.step % self.batches.steps == 0
                    if (stop or due) and not last_of_epoch:
                        self.seconds += time.monotonic() - started
                        self.write()
                        started = last_write = time.monotonic()
                    if stop and not last_of_epoch:
                        raise Interrupted
                self.seconds += time.monotonic() - started
                self._finish_epoch(epoch)
                last_write = time.monotonic()
                if stop and self.step < total:
                    raise Interrupted

    @property
    def stage_steps(self) -> int:
        """Steps of one stage."""
        return self.config.epochs * self.batches.steps

    @property
    def stage(self) -> str:
        """The stage that the next step belongs to."""
        return self.stages[min(self.step // self.stage_steps, len(self.stages) - 1)]

    def best_path(self, stage: str) -> Path:
        """Where a stage's best weights are kept; the last stage's are those of the run."""
        return (
            self.folder
            / "checkpoint"
            / ("best.pt" if stage == self.stages[-1] else f"best-{stage}.pt")
        )

    def _next_stage(self) -> None:
        """Start the stage at this step: from the best weights of the one before, with a fresh
        optimizer.
        """
        before = self.stages[self.step // self.stage_steps - 1]
        self.model.load_state_dict(read_checkpoint(self.best_path(before))["model"])
        self.optimizer = make_optimizer(self.model.parameters(), self.config)
        self.best_mm = math.inf

    def _step(self, objective: nn.Module, batch: Batch, epoch: int) -> dict[str, float]:
        """One step of the optimizer; returns the loss terms of this process."""
        config = self.config
        step = self.step % self.stage_steps
        rate = rate_at(step, self.batches.steps, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        progress = Progress(
            epoch % config.epochs,
            config.epochs,
            step,
            self.batches.steps,
            len(self.batches.data),
            self.generator,
            self.stage,
        )
        with torch.autocast(
            self.batches.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"
        ):
            loss, terms = objective(batch, progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.gradient_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
        self.optimizer.step()
        self.step += 1
        return {name: float(value) for name, value in terms.items()}

    def _agree(
        self, epoch: int, terms: dict[str, float], stop: bool, due: bool
    ) -> tuple[bool, bool]:
        """Tell all processes of a step's terms; whether any was asked to stop, or finds a
        checkpoint due.

        Processes must decide alike: one that stops or writes alone leaves the others waiting for it
        for ever.
        """
        *means, stops, dues = self.workers.mean([*terms.values(), stop, due])
        values = dict(zip(terms, means, strict=True))
        if not all(map(math.isfinite, values.values())):
            raise InputError(
                f"training diverged at step {self.step}: {values}; the last checkpoint is untouched, "
                f"try a smaller train.learning_rate (now {self.optimizer.param_groups[0]['lr']:g})"
            )
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self._tell(epoch, values, None)
        return stops > 0, dues > 0

    def _finish_epoch(self, epoch: int) -> None:
        stage = self.stages[epoch // self.config.epochs]
        error = self._validation_error(stage)
        kept = error < self.best_mm or self.config.keep == "last"
        self.best_mm = min(error, self.best_mm)
        terms = {name: value / self.batches.steps for name, value in self.sums.items()}
        self.sums = {}
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": self.step,
            **{f"train/{name}": value for name, value in terms.items()},
        }
        row |= {"validation_mm": error, "best_mm": self.best_mm, "seconds": round(self.seconds, 3)}
        row["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        if stage:
            row["stage"] = stage
        if self.workers.rank == 0:
            if kept:
                state = {
                    "model": self.model.state_dict(),
                    "epoch": epoch + 1,
                    "validation_mm": error,
                }
                write_checkpoint(self.best_path(stage), state)
            snapshot = self.model.snapshot() if epoch in snapshot_epochs(self.epochs) else {}
            if snapshot:
                write_npz(self.folder / "snapshots" / f"epoch-{epoch + 1:05d}.npz", snapshot)
            append_metrics(self.folder / "metrics.jsonl", row)
        self.write()
        self._tell(epoch, terms, error)

    @torch.no_grad()
    def _validation_error(self, stage: str) -> float:
        self.model.eval()
        total, count = 0.0, 0
        for start in range(0, len(self.validation), self.batches.batch_size):
            vertices = torch.from_numpy(
                np.asarray(self.validation[start : start + self.batches.batch_size])
            )
            errors = self.model.validate(vertices.to(self.batches.device), stage)
            total, count = total + float(errors.double().sum()), count + errors.numel()
        return total / count

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return self.config.epochs * len(self.stages)

    def _tell(self, epoch: int, terms: dict[str, float], validation: float | None) -> None:
        if self.listener is not None:
            total = self.stage_steps * len(self.stages)
            best = None if math.isinf(self.best_mm) else self.best_mm
            self.listener(Report(epoch, self.epochs, self.step, total, terms, validation, best))

    def write(self) -> None:
        """Write the last checkpoint: model, optimizer, random states and position."""
        generators = self.workers.gather(self.generator.get_state())
        if self.workers.rank != 0:
            return
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": generators,
            "torch_random": torch.get_rng_state(),
            "step": self.step,
            "best_mm": self.best_mm,
            "sums": self.sums,
            "seconds": self.seconds,
            "world": self.workers.count,
        }
        write_checkpoint(self.folder / "checkpoint" / "last.pt", state)

    def resume(self) -> None:
        """Go back to the last checkpoint, or to the start where there is none.

        Raises InputError where the checkpoint is damaged, of another model or of another number of
        processes.
        """
        path = self.folder / "checkpoint" / "last.pt"
        if path.exists():
            self._restore(path, read_checkpoint(path))
        if self.workers.rank == 0:
            cut_metrics(self.folder / "metrics.jsonl", self.step // self.batches.steps)

    def _restore(self, path: Path, state: dict[str, Any]) -> None:
        world = state.get("world")
        if world != self.workers.count:
            raise InputError(
                f"{path}: was written by {world} processes, cannot go on with {self.workers.count}"
            )
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generators"][self.workers.rank])
            torch.set_rng_state(state["torch_random"])
            self.step, self.best_mm = state["step"], state["best_mm"]
            self.sums, self.seconds = state["sums"], state["seconds"]
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path}: does not fit the model of config.toml ({reason})") from error


def snapshot_epochs(epochs: int) -> set[int]:
    """The first epoch and the end of every sixth of the run, counted from 0."""
    return {0} | {
        round(epochs * part / 6) - 1 for part in range(1, 7) if round(epochs * part / 6) >= 1
    }


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Ctrl-C and a polite kill ask the loop to stop after the current step; a second one stops at
    once.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread, where signals cannot be handled
        before = {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
