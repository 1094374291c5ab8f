"""ConditionalModel: a trained model whose code may have a condition, a named expression at a level,
which labels state or which it searches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from morphable.models.base import Given, TrainableModel
from morphable.models.condition import CONDITION, Condition


class ConditionalModel(TrainableModel):
    """condition: the encoding of conditions, or None if the model has none. A subclass sets it."""

    condition: Condition | None

    def names_of(self, part: str) -> tuple[str, ...]:
        return self.condition.names if self.condition and part == CONDITION else ()

    @property
    def searched_size(self) -> int:
        return 0 if self.condition is None else self.condition.searched_size

    @property
    def label_classes(self) -> Mapping[str, Sequence[str]]:
        names = None if self.condition is None else self.condition.expressions
        return {"expression": names} if names else {}

    def given_by_labels(self, labels: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        return {} if self.condition is None else {CONDITION: self.condition.of(labels, count)}

    def with_condition(
        self,
        like: Tensor,
        given: Given | None,
        code_of: Callable[[Given], Tensor],
        error_of: Callable[[Tensor], Tensor],
    ) -> Given:
        """What is given, with the condition of least error if the model has one that is not given.

        like: (B, ...) any tensor of the B meshes. code_of: gives their codes (B, L) from values of
        pinned parts. error_of: maps codes to the errors (B,) of their shapes.
        """
        known = given or {}
        if self.condition is None or CONDITION in known:
            return known

        def error_with(condition: Tensor) -> Tensor:
            return error_of(code_of({**known, CONDITION: condition}))

        neutral = like.new_zeros(len(like), len(self.condition.names))
        return {**known, CONDITION: self.condition.search(error_with, neutral)}
