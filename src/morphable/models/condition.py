"""Condition: the pinned part of a conditional model. It has one dimension per named expression,
whose value is the expression's level from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

CONDITION = "condition"
"""The name of the part."""
NEUTRAL = "neutral"
UNNAMED = ("expression",)
"""The names of the conditions if the data has no named expressions."""
LEVELS = (0.25, 0.5, 0.75, 1.0)
"""Levels at which `search` tries every expression."""
REFINEMENTS = (0.125, 0.0625, 0.03125)
"""Steps in level, down and up, by which `search` then refines the best condition."""


class Condition(nn.Module):
    """Encodes a named expression at a level as the one-hot vector of the name times the level.
    Zeros mean the neutral face.

    expressions: the class names in the order of their numbers in the training labels; one may be
    `neutral`. If empty, there is one condition, `expression`, whose value is the level.
    """

    def __init__(self, expressions: Sequence[str]) -> None:
        super().__init__()
        self.expressions = tuple(expressions)
        self.named = bool(expressions)
        named = tuple(name for name in expressions if name.lower() != NEUTRAL)
        self.names = named or UNNAMED

        # Row n is the one-hot vector of class n. The row of the neutral class stays zero.
        rows = torch.zeros(len(expressions) + 1, len(self.names))
        for number, name in enumerate(expressions):
            if name in self.names:
                rows[number, self.names.index(name)] = 1
        # The last row, which index -1 reads, is for meshes without a name. It is neutral, unless no
        # mesh has a name: then the level alone is the condition.
        if self.names == UNNAMED:
            rows[-1, 0] = 1
        self.one_hot = nn.Buffer(rows, persistent=False)

    @property
    def searched_size(self) -> int:
        """How many numbers `search` chooses: the level, and which expression if there are several."""
        return 1 if len(self.names) == 1 else 2

    def of(self, labels: Mapping[str, Tensor], count: int) -> Tensor:
        """(B, n) conditions by the labels `expression` and `level` of B = `count` meshes. A mesh
        without a level counts as fully expressed, level 1.
        """
        like = self.one_hot
        unnamed = torch.full((count,), -1, device=like.device)
        number = labels.get("expression", unnamed) if self.named else unnamed
        level = labels.get("level", torch.ones(count, device=like.device)).to(like)
        return self.one_hot[number.to(like.device)] * level.nan_to_num(1.0)[:, None]

    @torch.no_grad()
    def search(self, error_of: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
        """(B, n) the condition with the smallest error for each mesh: tries every expression at a
        few levels, then refines the level of the best.

        error_of: maps (B, n) conditions to (B,) errors. start: (B, n) zeros, the neutral face.
        """
        best, error = start, error_of(start)

        def attempt(condition: Tensor) -> None:
            nonlocal best, error
            new_error = error_of(condition)
            better = new_error < error
            best = torch.where(better[:, None], condition, best)
            error = torch.where(better, new_error, error)

        for expression in torch.eye(len(self.names)).to(start):
            for level in LEVELS:
                attempt((level * expression).expand_as(start))

        for step in REFINEMENTS:
            for sign in (-1, 1):
                # Only the expression that is present changes, so the condition stays one-hot.
                attempt(torch.where(best > 0, (best + sign * step).clamp(0, 1), best))

        return best
