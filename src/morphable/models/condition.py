"""Condition: the pinned part of a conditional model, one number per named expression, its level
from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from morphable.models.training import Batch

CONDITION = "condition"
"""The name of the part."""
NEUTRAL = "neutral"
UNNAMED = ("expression",)
"""The one condition of data without named expressions."""
LEVELS = (0.25, 0.5, 0.75, 1.0)
"""Levels at which every expression is tried if no condition is given."""
REFINEMENTS = (0.125, 0.0625, 0.03125)
"""Steps up and down in level that are then tried on the best."""


class Condition(nn.Module):
    """A named expression at a level, as one-hot name times level; zeros are the neutral face.

    expressions: class names as the training labels number them, of which one may be `neutral`. Data
    without named expressions has one condition, `expression`, whose value is the level.
    """

    def __init__(self, expressions: Sequence[str]) -> None:
        super().__init__()
        self.named = bool(expressions)
        named = tuple(name for name in expressions if name.lower() != NEUTRAL)
        self.names = named or UNNAMED

        rows = torch.zeros(len(expressions) + 1, len(self.names))
        for number, name in enumerate(expressions):
            if name in self.names:
                rows[number, self.names.index(name)] = 1
        # The last row is for meshes without a name, class -1: neutral, unless no mesh has a name.
        if self.names == UNNAMED:
            rows[-1, 0] = 1
        self.one_hot = nn.Buffer(rows, persistent=False)

    def of(self, batch: Batch) -> Tensor:
        """(B, n) what the labels say; a mesh without a level counts as fully expressed."""
        count, like = len(batch.vertices), self.one_hot
        unnamed = torch.full((count,), -1, device=like.device)
        number = batch.labels.get("expression", unnamed) if self.named else unnamed
        level = batch.labels.get("level", torch.ones(count, device=like.device)).to(like)
        return self.one_hot[number] * level.nan_to_num(1.0)[:, None]

    @torch.no_grad()
    def search(self, error_of: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
        """(B, n) the condition of least error for each mesh: first every expression at a few
        levels, then the best at finer ones.

        error_of: (B, n) conditions -> (B,) errors. start: (B, n) zeros, the neutral face.
        """
        best, error = start, error_of(start)

        def attempt(condition: Tensor) -> None:
            nonlocal best, error
            found = error_of(condition)
            wins = found < error
            best = torch.where(wins[:, None], condition, best)
            error = torch.where(wins, found, error)

        for expression in torch.eye(len(self.names)).to(start):
            for level in LEVELS:
                attempt((level * expression).expand_as(start))

        for step in REFINEMENTS:
            for sign in (-1, 1):
                attempt(torch.where(best > 0, (best + sign * step).clamp(0, 1), best))

        return best
