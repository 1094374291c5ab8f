"""Conditional form of the information-bottlenecked VAE: the expression's name times its level is
given, not inferred.

Sun, Pears and Gu, WACV 2022. The label joins the encoder before its last layer and the full decoder
beside both codes, so a named expression can be made at any level on any identity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.base import NO_ORIGIN, Given, Origin
from morphable.models.ib_vae import IbVae, IbVaeConfig, PointGeometry
from morphable.models.training import Batch

CONDITION = "condition"
LEVELS = (0.25, 0.5, 0.75, 1.0)
"""Levels at which every expression is tried where none is given."""
REFINEMENTS = (0.125, 0.0625, 0.03125)
"""Steps up and down in level that are then tried on the best."""


@dataclass(frozen=True)
class CvaeConfig(IbVaeConfig):
    """expressions: class names as the training labels number them; one called neutral is the zero
    condition. Data without named expressions has one condition, `expression`, whose value is the
    level.
    """

    expressions: tuple[str, ...] = ()

    @property
    def conditions(self) -> tuple[str, ...]:
        return tuple(name for name in self.expressions if name.lower() != "neutral") or (
            "expression",
        )


class Cvae(IbVae):
    """An IB-VAE with a pinned part `condition`: one number per named expression, its level from 0
    to 1.
    """

    labels_used = ("expression", "level")

    def __init__(
        self,
        template: Template,
        config: CvaeConfig,
        geometry: PointGeometry,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        super().__init__(template, config, geometry, origin)
        names = config.conditions
        one_hot = torch.eye(len(names))
        nothing = torch.zeros(len(names))
        rows = [
            one_hot[names.index(name)] if name in names else nothing for name in config.expressions
        ]
        # The last row is for meshes without a name, class -1: neutral, unless no mesh has one.
        rows.append(one_hot[0] if names == ("expression",) else nothing)
        self.one_hot = nn.Buffer(torch.stack(rows), persistent=False)

    @classmethod
    def pinned_sizes(cls, config: CvaeConfig) -> dict[str, int]:
        return {CONDITION: len(config.conditions)}

    @classmethod
    def config_for(cls, config: CvaeConfig, classes: Mapping[str, Sequence[str]]) -> CvaeConfig:
        return dataclasses.replace(config, expressions=tuple(classes.get("expression", ())))

    def names_of(self, part: str) -> tuple[str, ...]:
        return self.config.conditions if part == CONDITION else ()

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        """(B, V, 3) mm -> (B, L). Without a condition, each mesh gets the expression and level of
        least error.
        """
        self.check_vertices(vertices)
        features = self.features(vertices, registered=True)
        if given is None or CONDITION not in given:
            given = {**(given or {}), CONDITION: self._best_condition(features, vertices)}
        return self.code_of(features, given)

    def encode_points(self, points: Tensor, given: Given | None = None) -> Tensor:
        """As the base class; the condition must be given, since unordered points have no error to
        choose one by.
        """
        if given is None or CONDITION not in given:
            raise InputError(
                "encode_points: this family needs given={'condition': ...}, e.g. zeros for a neutral face"
            )
        return super().encode_points(points, given)

    def given_by(self, batch: Batch) -> Given:
        """One-hot expression times level; a mesh without a level counts as fully expressed."""
        count = len(batch.vertices)
        unknown = torch.full((count,), -1, device=self.one_hot.device)
        number = batch.labels.get("expression", unknown) if self.config.expressions else unknown
        level = batch.labels.get("level", torch.ones(count, device=self.one_hot.device)).to(
            self.one_hot
        )
        return {CONDITION: self.one_hot[number] * level.nan_to_num(1.0)[:, None]}

    @torch.no_grad()
    def _best_condition(self, features: Tensor, vertices: Tensor) -> Tensor:
        """(B, conditions): of all expressions at some levels, then at finer ones, what reconstructs
        each mesh best.
        """
        names = len(self.config.conditions)
        best = features.new_zeros(len(features), names)
        error = self._error(features, vertices, best)
        tried = [level * row for row in torch.eye(names).to(best) for level in LEVELS]
        for condition in tried:
            best, error = self._better(features, vertices, condition.expand_as(best), best, error)
        for step in REFINEMENTS:
            for sign in (-1, 1):
                moved = torch.where(best > 0, (best + sign * step).clamp(0, 1), best)
                best, error = self._better(features, vertices, moved, best, error)
        return best

    def _better(
        self, features: Tensor, vertices: Tensor, condition: Tensor, best: Tensor, error: Tensor
    ) -> tuple[Tensor, Tensor]:
        found = self._error(features, vertices, condition)
        wins = found < error
        return torch.where(wins[:, None], condition, best), torch.where(wins, found, error)

    def _error(self, features: Tensor, vertices: Tensor, condition: Tensor) -> Tensor:
        """(B,) mean vertex distance in mm."""
        shape = self.decode(self.code_of(features, {CONDITION: condition}))
        return (shape - vertices).norm(dim=-1).mean(-1)
