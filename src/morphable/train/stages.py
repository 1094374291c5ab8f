"""Stages: consecutive phases of a run, each with its own settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from morphable.config import suggestion
from morphable.errors import InputError
from morphable.models.training import TrainConfig
from morphable.train.batches import Batches


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage of a run. `first_epoch` and `first_step` are counted over the whole run."""

    name: str
    config: TrainConfig
    batches: Batches
    first_epoch: int
    first_step: int

    @property
    def end_epoch(self) -> int:
        """The first epoch after this stage."""
        return self.first_epoch + self.config.epochs

    @property
    def end_step(self) -> int:
        """The first step after this stage."""
        return self.step_of(self.end_epoch)

    def step_of(self, epoch: int) -> int:
        """The first step of an epoch, both counted over the whole run."""
        return self.first_step + (epoch - self.first_epoch) * self.batches.steps

    def epoch_at(self, step: int) -> tuple[int, int]:
        """The epoch of a step, both counted over the whole run, and the number of steps of that
        epoch before it.
        """
        epochs, done = divmod(step - self.first_step, self.batches.steps)
        return self.first_epoch + epochs, done


def plan_stages(config: TrainConfig, known: Sequence[str], batches: Batches) -> tuple[Stage, ...]:
    """The stages of a run, in order.

    known: names of the stages that the model has. If it has none, the run is one unnamed stage.
    """
    stages: list[Stage] = []
    epoch = step = 0
    for name in config.stages or known[:1] or ("",):
        own = config.for_stage(name)
        stage = Stage(name, own, batches.of_size(own.batch_size), epoch, step)
        stages.append(stage)
        epoch, step = stage.end_epoch, stage.end_step
    return tuple(stages)


def check_stages(family: str, config: TrainConfig, known: Sequence[str]) -> None:
    """Raise InputError if the chosen stages are not the leading stages of the model (`known`), or
    if there are settings for a stage that the model does not have.
    """
    chosen = ",".join(config.stages)
    if not known:
        if chosen:
            raise InputError(f"`stages` {chosen}: {family} is trained in one stage", "stages")
        for stage in config.stage_settings:
            raise InputError(
                f"train.{stage}: {family} is trained in one stage, "
                "whose settings are named train.KEY"
            )
    if config.stages != tuple(known[: len(config.stages)]):
        options = " or ".join(",".join(known[: n + 1]) for n in range(len(known)))
        raise InputError(f"`stages` {chosen}: {family} goes through {options}", "stages")
    for stage in config.stage_settings:
        if stage not in known:
            raise InputError(
                f"train.{stage}: {family} has no such stage; {suggestion(stage, known)}"
            )
