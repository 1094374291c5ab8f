"""The training loop: epochs, stages, validation, checkpoints, signals, and an exact resume.

The learner defines what a step does (`train/learner.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from morphable.data.unchanged import DataChanged
from morphable.errors import InputError
from morphable.files import reading, write_npz
from morphable.models.base import LearnedModel
from morphable.models.io import load_weights
from morphable.models.training import Progress, TrainConfig
from morphable.train.batches import Batches, TrainingData, whole_batch
from morphable.train.checkpoint import (
    ANOTHER_MODEL,
    append_metrics,
    cut_metrics,
    has_checkpoint,
    last_path,
    read_loop_state,
    read_weights,
    write_checkpoint,
)
from morphable.train.distributed import Workers
from morphable.train.events import Listener, TrainingEvent
from morphable.train.learner import learner_for
from morphable.train.signals import stop_signals
from morphable.train.stages import Stage, plan_stages


class Interrupted(Exception):
    """Training was stopped by a signal, after a checkpoint was written."""


class Loop:
    """One training run of `model`. Its state on disk is in `folder`/checkpoint and
    `folder`/metrics.jsonl.
    """

    def __init__(
        self,
        model: LearnedModel,
        batches: Batches,
        validation: TrainingData,
        config: TrainConfig,
        folder: Path,
        workers: Workers,
        check_data: Callable[[], None] = lambda: None,
        listener: Listener | None = None,
        caution: float = 1.0,
    ) -> None:
        self.model, self.batches, self.validation, self.config = model, batches, validation, config
        self.folder, self.workers, self.listener = folder, workers, listener
        self.check_data, self.caution = check_data, caution
        self.stages = plan_stages(config, model.stages, batches)
        self.learner = learner_for(model, self.stages[0].config, workers)
        seed = config.seed * 1_000_003 + workers.rank
        self.generator = torch.Generator(device="cpu").manual_seed(seed)
        self.step = 0
        self.best_mm = math.inf
        self.start_mm = math.inf
        self.sums: dict[str, tuple[float, int]] = {}
        self.seconds = 0.0
        self._last_write = time.monotonic()

    def run(self) -> None:
        """Train to the end of the last epoch. After Ctrl-C, save everything and raise Interrupted."""
        with stop_signals() as signals:
            self._last_write = time.monotonic()
            if self.step == 0:
                self._validate_start()
            while self.step < self.total_steps:
                stage = self._stage_at(self.step)
                epoch, done = stage.epoch_at(self.step)

                # Once per stage, except the first: continue from the weights that the previous
                # stage kept, which may not be those of its last step.
                if self.step and self.step == stage.first_step:
                    self._enter(stage)

                self.model.train()
                clock = time.monotonic()
                for batch in stage.batches.batches(epoch, skip=done):
                    # Every step: one update of one optimizer.
                    terms = self.learner.step(batch, self._progress(stage, epoch))
                    self.step += 1

                    # Every step: all processes decide together. If one stopped or wrote a
                    # checkpoint alone, the others would wait for it forever.
                    late = time.monotonic() - self._last_write > self.config.checkpoint_seconds
                    terms, stop, due = self._agree(terms, bool(signals), late)
                    self._check_finite(terms)
                    self._add(terms)
                    self._notify(stage, epoch, terms)
                    self.seconds += time.monotonic() - clock

                    # Once per minute and before stopping: write a checkpoint, so that a killed run
                    # loses little. After the last step of an epoch, its end writes one anyway.
                    epoch_ended = self.step == stage.step_of(epoch + 1)
                    if (stop or due) and not epoch_ended:
                        self.write()
                    if stop and not epoch_ended:
                        raise Interrupted
                    clock = time.monotonic()

                # Once per epoch: validate, keep the weights if they are the best, and record.
                self._finish_epoch(stage, epoch)

                # If the signal came during the last step of an epoch, stop here. After the very
                # last epoch there is nothing left to resume, so the run just finishes.
                if stop and self.step < self.total_steps:
                    raise Interrupted
                if self.step < self.total_steps:
                    self._check_data()

    @torch.no_grad()
    def finish(self) -> int:
        """Load the weights that the run keeps, and let a trained model choose what it chooses after
        training; returns the number of the epoch of the weights, 0 = untrained.
        """
        epoch = read_weights(self.kept_path(self.last_stage), self.model)
        self.model.eval()
        # Epoch 0 is a linear model and stays one: what untrained networks add is noise, although a
        # share of it can lower the validation error by chance.
        if epoch > 0:
            self.model.finish(whole_batch(self.validation, self.workers.device))
        return epoch

    @property
    def total_steps(self) -> int:
        return self.stages[-1].end_step

    @property
    def epochs(self) -> int:
        """Number of epochs of all stages together."""
        return self.stages[-1].end_epoch

    @property
    def last_stage(self) -> Stage:
        """The stage of the last step that was taken."""
        return self._stage_at(max(0, self.step - 1))

    def _validate_start(self) -> None:
        """Keep the untrained model as epoch 0 if it is a linear model, until an epoch improves on it
        enough.
        """
        stage = self.stages[0]
        if not self.model.starts_linear or stage.config.keep == "last":
            return
        error = self._validation_error(stage)
        if error is not None and math.isfinite(error):
            self.best_mm = self.start_mm = error
            if self.workers.rank == 0:
                self._keep(stage, 0, error)

    def _enough(self, stage: Stage) -> float:
        """The largest error in mm for which the linear start is left, inf without one."""
        if math.isinf(self.start_mm):
            return math.inf
        return max(0.0, 1 - self.caution * stage.config.least_gain) * self.start_mm

    def _check_data(self) -> None:
        """Raise DataChanged in all processes if one finds that the dataset changed."""
        found = None
        try:
            self.check_data()
        except DataChanged as error:
            found = error
        if self.workers.mean([found is not None])[0] > 0:
            raise found or DataChanged("another process found that the dataset was changed")

    def _stage_at(self, step: int) -> Stage:
        """The stage that a step belongs to. After the last step, it is the last stage."""
        return next((stage for stage in self.stages if step < stage.end_step), self.stages[-1])

    def kept_path(self, stage: Stage) -> Path:
        """Path of the checkpoint with the weights that a stage keeps. Those of the last stage are
        the result of the run.
        """
        name = "kept.pt" if stage is self.stages[-1] else f"kept-{stage.name}.pt"
        return self.folder / "checkpoint" / name

    def _enter(self, stage: Stage) -> None:
        """Begin a stage after another one."""
        previous = self.stages[self.stages.index(stage) - 1]
        read_weights(self.kept_path(previous), self.model)
        self.learner.restart(stage.config)
        self.best_mm = self.start_mm = math.inf

    def _progress(self, stage: Stage, epoch: int) -> Progress:
        return Progress(
            epoch - stage.first_epoch,
            stage.config.epochs,
            self.step - stage.first_step,
            stage.batches.steps,
            self.generator,
            stage.name,
        )

    def _agree(
        self, terms: dict[str, float], stop: bool, due: bool
    ) -> tuple[dict[str, float], bool, bool]:
        """The terms averaged over the processes; whether any process was asked to stop; and whether
        a checkpoint is due on any process.
        """
        *means, stops, dues = self.workers.mean([*terms.values(), stop, due])
        return dict(zip(terms, means, strict=True)), stops > 0, dues > 0

    def _check_finite(self, terms: dict[str, float]) -> None:
        if not all(map(math.isfinite, terms.values())):
            checkpoint = (
                "" if not has_checkpoint(self.folder) else "the last checkpoint is untouched, "
            )
            raise InputError(
                f"training diverged at step {self.step}: {terms}; {checkpoint}"
                f"try a smaller train.learning_rate (now {self.learner.rate:g}) or "
                "train.weight_decay"
            )

    def _add(self, terms: dict[str, float]) -> None:
        """Add the terms of a step to the sums of the epoch. Each term has its own count, because
        critic and generator have different terms.
        """
        for name, value in terms.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = total + value, count + 1

    def _notify(
        self,
        stage: Stage,
        epoch: int,
        terms: dict[str, float],
        validation: float | None = None,
        epoch_ended: bool = False,
    ) -> None:
        if self.listener is None:
            return
        best = None if math.isinf(self.best_mm) else self.best_mm
        of_stage = (stage.name, epoch - stage.first_epoch, stage.config.epochs)
        place = (*of_stage, self.step, self.total_steps)
        self.listener(TrainingEvent(*place, terms, validation, best, epoch_ended))

    def _finish_epoch(self, stage: Stage, epoch: int) -> None:
        error = self._validation_error(stage)
        if error is not None:
            self._check_finite({"validation_mm": error})
        better = error is not None and error < self.best_mm and error <= self._enough(stage)
        kept = error is None or better or stage.config.keep == "last"
        if error is not None and kept:
            self.best_mm = min(error, self.best_mm)
        terms = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}

        if self.workers.rank == 0:
            if kept:
                self._keep(stage, epoch + 1, error)
            snapshot = self.model.snapshot() if epoch in snapshot_epochs(self.epochs) else {}
            if snapshot:
                write_npz(self.folder / "snapshots" / f"epoch-{epoch + 1:05d}.npz", snapshot)
            row = self._metrics(stage, epoch, terms, error)
            if epoch == 0 and math.isfinite(self.start_mm):
                row |= {"start_mm": self.start_mm, "enough_mm": self._enough(stage)}
            append_metrics(self.folder / "metrics.jsonl", row)
        self.write()
        self._notify(stage, epoch, terms, error, epoch_ended=True)

    def _keep(self, stage: Stage, epoch: int, error: float | None) -> None:
        """Write the present weights as those that the stage keeps. epoch: 0 = untrained."""
        state = {"model": self.model.state_dict(), "epoch": epoch, "validation_mm": error}
        write_checkpoint(self.kept_path(stage), state)

    def _metrics(
        self, stage: Stage, epoch: int, terms: dict[str, float], error: float | None
    ) -> dict[str, Any]:
        """The line of an epoch in metrics.jsonl. It has no errors if the model has no validation."""
        row: dict[str, Any] = {"epoch": epoch + 1, "step": self.step}
        row |= {f"train/{name}": value for name, value in terms.items()}
        if error is not None:
            row |= {"validation_mm": error, "best_mm": self.best_mm}
        row |= {"seconds": round(self.seconds, 3), "learning_rate": self.learner.rate}
        return row | ({"stage": stage.name} if stage.name else {})

    @torch.no_grad()
    def _validation_error(self, stage: Stage) -> float | None:
        """Mean error in mm over the validation meshes; None if the model has no validation."""
        self.model.eval()
        size = stage.batches.batch_size
        total, count = 0.0, 0
        shapes = self.validation.vertices
        for start in range(0, len(shapes), size):
            vertices = torch.from_numpy(np.asarray(shapes[start : start + size]))
            errors = self.model.validate(vertices.to(self.workers.device), stage.name)
            if errors is None:
                return None
            total, count = total + float(errors.double().sum()), count + errors.numel()
        return total / count

    def write(self) -> None:
        """Write the checkpoint to resume from: model, optimizers, random states and position."""
        self._last_write = time.monotonic()
        generators = self.workers.gather(self.generator.get_state())
        if self.workers.rank != 0:
            return
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "learner": self.learner.state_dict(),
            "generators": generators,
            "torch_random": torch.get_rng_state(),
            "step": self.step,
            "best_mm": self.best_mm,
            "start_mm": self.start_mm,
            "sums": self.sums,
            "seconds": self.seconds,
            "world": self.workers.count,
        }
        write_checkpoint(last_path(self.folder), state)

    def resume(self) -> None:
        """Continue from the last checkpoint, or from the start if there is none.

        Raises InputError if the checkpoint is damaged, or was written by another model or another
        number of processes.
        """
        path = last_path(self.folder)
        if path.exists():
            self._restore(path, read_loop_state(path, self.total_steps))
        if self.workers.rank == 0:
            epochs_ended, _ = self._stage_at(self.step).epoch_at(self.step)
            cut_metrics(self.folder / "metrics.jsonl", epochs_ended)

    def _restore(self, path: Path, state: dict[str, Any]) -> None:
        world = state["world"]
        if world != self.workers.count:
            raise InputError(
                f"{path}: was written by {world} processes, cannot be resumed with "
                f"{self.workers.count}"
            )
        with reading(path, ANOTHER_MODEL):
            self.step, self.best_mm = state["step"], state["best_mm"]
            self.start_mm = state["start_mm"]
            self.sums, self.seconds = state["sums"], state["seconds"]
            load_weights(self.model, state["model"])
            # The saved optimizers are those of the last step. If the next step begins a stage,
            # `run` replaces them.
            self.learner.restart(self._stage_at(self.step - 1).config)
            self.learner.load_state_dict(state["learner"])
            self.generator.set_state(state["generators"][self.workers.rank])
            torch.set_rng_state(state["torch_random"])


def snapshot_epochs(epochs: int) -> set[int]:
    """The epochs, counted from 0, whose snapshots are saved: the first, and the last of each sixth
    of the run.
    """
    return {0} | {
        round(epochs * part / 6) - 1 for part in range(1, 7) if round(epochs * part / 6) >= 1
    }
