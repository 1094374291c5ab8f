"""Learner: takes one training step, and owns the optimizers for it.

The loop decides when to take a step; the learner defines what a step is. `Descent` minimizes the
single objective of a TrainableModel. `Adversarial` updates the critic or the generator of an
AdversarialModel in turn.

In both, a step is one update of one optimizer on one batch. So a run can stop and write a
checkpoint between any two updates, even between two critic steps. The number of the step determines
whose turn is next, so a resumed run has no other counter to restore. An epoch is still one pass
over the training meshes; critic and generator share its batches.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from morphable.errors import InputError
from morphable.models.base import AdversarialModel, LearnedModel, TrainableModel
from morphable.models.training import Batch, Progress, TrainConfig
from morphable.train.distributed import Workers
from morphable.train.optimizer import KEPT, make_optimizer, rate_at

Terms = dict[str, Tensor]


class Learner(ABC):
    """Takes training steps with the settings of one stage.

    `rate` is the learning rate of the last step.
    """

    def __init__(
        self, model: LearnedModel, players: Mapping[str, Player], config: TrainConfig
    ) -> None:
        self._model, self._players = model, players
        self.config, self.rate = config, config.learning_rate

    def restart(self, config: TrainConfig) -> None:
        """Begin a stage with fresh optimizers, because the moments of the old ones belong to
        another objective.
        """
        self.config, self.rate = config, config.learning_rate
        for player in self._players.values():
            player.restart(config)

    @abstractmethod
    def step(self, batch: Batch, progress: Progress) -> dict[str, float]:
        """Take one training step; returns the loss terms of this process by name."""

    def _move(self, player: str, batch: Batch, progress: Progress) -> dict[str, float]:
        self.rate = rate_at(progress.step, progress.steps_per_epoch, self.config)
        terms = self._players[player].step(batch, progress, self.rate, self.config)
        self._model.after_step(progress)
        return terms

    def state_dict(self) -> dict[str, Any]:
        """The state of each optimizer."""
        return {name: player.optimizer.state_dict() for name, player in self._players.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the optimizers. Raises ValueError, KeyError or TypeError if the state is not one
        of theirs.
        """
        for name, player in self._players.items():
            player.restore(state[name])


class Descent(Learner):
    """Every step updates the whole model by the gradient of its one objective."""

    def __init__(self, model: TrainableModel, config: TrainConfig, workers: Workers) -> None:
        player = Player(model, model.loss, model.parameters(), config, workers)
        super().__init__(model, {"model": player}, config)

    def step(self, batch: Batch, progress: Progress) -> dict[str, float]:
        return self._move("model", batch, progress)


class Adversarial(Learner):
    """Alternates between `critic_steps` steps of the critic and one step of the generator.

    The names of loss terms begin with the name of the player, `critic/...` or `generator/...`.
    """

    def __init__(self, model: AdversarialModel, config: TrainConfig, workers: Workers) -> None:
        _check_players(model)
        critic = Player(model, model.critic_loss, model.critic_parameters(), config, workers)
        generator = Player(
            model, model.generator_loss, model.generator_parameters(), config, workers
        )
        super().__init__(model, {"critic": critic, "generator": generator}, config)
        self._critic_steps = model.critic_steps

    def step(self, batch: Batch, progress: Progress) -> dict[str, float]:
        turn = progress.step % (self._critic_steps + 1)
        player = "generator" if turn == self._critic_steps else "critic"
        terms = self._move(player, batch, progress)
        return {f"{player}/{name}": value for name, value in terms.items()}


def learner_for(model: LearnedModel, config: TrainConfig, workers: Workers) -> Learner:
    """The learner for a model, chosen by its kind."""
    match model:
        case TrainableModel():
            return Descent(model, config, workers)
        case AdversarialModel():
            return Adversarial(model, config, workers)


class Player:
    """Some parameters of a model, the objective that they minimize, and their optimizer.

    During a player's step, the other parameters of the model are frozen. So a step of the generator
    does not compute gradients of the critic's parameters, which nobody uses.
    """

    def __init__(
        self,
        model: LearnedModel,
        loss: Callable[[Batch, Progress], Terms],
        parameters: Iterable[nn.Parameter],
        config: TrainConfig,
        workers: Workers,
    ) -> None:
        self._parameters = list(parameters)
        self.optimizer = make_optimizer(self._parameters, config)
        own = set(self._parameters)
        self._others = [parameter for parameter in model.parameters() if parameter not in own]
        self._objective: nn.Module = _Objective(model, loss)
        if workers.count > 1:
            # DistributedDataParallel waits for the gradients of all parameters that are not frozen
            # at its construction.
            with self._others_frozen():
                self._objective = DistributedDataParallel(self._objective)

    def restart(self, config: TrainConfig) -> None:
        """Replace the optimizer by a fresh one."""
        self.optimizer = make_optimizer(self._parameters, config)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what the optimizer keeps per parameter. Its settings stay those of the stage.

        Fused kernels trust the shape of what they are given, so it is checked here.
        """
        moments = state["state"]
        for number, kept in moments.items():
            shape = self._parameters[number].shape
            if kept.keys() != KEPT[type(self.optimizer)]:
                raise ValueError(f"the optimizer keeps {sorted(kept)} of parameter {number}")
            for name, value in kept.items():
                expected = torch.Size() if name == "step" else shape
                if value is not None and (
                    not isinstance(value, Tensor)
                    or value.shape != expected
                    or not value.is_floating_point()
                    or not torch.isfinite(value).all()
                ):
                    raise ValueError(f"the optimizer's {name} of parameter {number} is another")
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})

    def step(
        self, batch: Batch, progress: Progress, rate: float, config: TrainConfig
    ) -> dict[str, float]:
        """Take one step at this learning rate; returns the loss terms by name."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

        with self._others_frozen():
            device = batch.vertices.device.type
            enabled = config.precision == "bfloat16"
            with torch.autocast(device, torch.bfloat16, enabled=enabled):
                loss, terms = self._objective(batch, progress)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()

        if config.gradient_clip:
            nn.utils.clip_grad_norm_(self._parameters, config.gradient_clip)
        self.optimizer.step()
        return {name: float(value) for name, value in terms.items()}

    @contextlib.contextmanager
    def _others_frozen(self) -> Iterator[None]:
        before = [parameter.requires_grad for parameter in self._others]
        for parameter in self._others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter, required in zip(self._others, before, strict=True):
                parameter.requires_grad_(required)


class _Objective(nn.Module):
    """Computes the sum of the loss terms in `forward`, because DistributedDataParallel can only
    wrap a module's `forward`.
    """

    def __init__(self, model: nn.Module, loss: Callable[[Batch, Progress], Terms]) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: Batch, progress: Progress) -> tuple[Tensor, Terms]:
        terms = self._loss(batch, progress)
        total = torch.stack(list(terms.values())).sum()
        return total, {name: term.detach() for name, term in terms.items()}


def _check_players(model: AdversarialModel) -> None:
    """Raise InputError if a trainable parameter belongs to both critic and generator, or to
    neither.
    """
    critic, generator = set(model.critic_parameters()), set(model.generator_parameters())
    for name, parameter in model.named_parameters():
        owners = (parameter in critic) + (parameter in generator)
        if owners != 1 and parameter.requires_grad:
            both = "both the critic and the generator" if owners else "neither critic nor generator"
            raise InputError(f"{model.family or type(model).__name__}: {name} belongs to {both}")
    if model.critic_steps < 1:
        raise InputError(
            f"{model.family or type(model).__name__}: critic_steps: expected at least 1, "
            f"got {model.critic_steps}"
        )
