"""choose_gates: against a search over all combinations, ties, and scores that are not finite."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from morphable.models.gates import LEVELS, choose_gates


def opened(count: int) -> list[Tensor]:
    return [torch.ones(()) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_finds_the_least_of_all_combinations_of_a_convex_score(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    goal = torch.rand(3, generator=random)
    gates = opened(3)

    def score() -> float:
        return float((torch.stack(gates) - goal).square().sum())

    least = choose_gates(gates, score)
    combinations = torch.tensor(list(itertools.product(LEVELS, repeat=3)))
    expected = combinations[(combinations - goal).square().sum(1).argmin()]
    assert torch.equal(torch.stack(gates), expected)
    assert least == score()


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (lambda a, b: 0.0, (0, 0)),  # nothing helps: closed
        (lambda a, b: abs(a - 0.5), (0.5, 0)),  # b is of no use
        (lambda a, b: -a * b, (1, 1)),  # they help only together
        (lambda a, b: 0.0 if a == b == 0 else 1.0 - a * b / 2, (0, 0)),  # the linear model is best
        (lambda a, b: math.nan if a or b else 7.0, (0, 0)),  # a network that diverged
    ],
)
def test_by_hand(score: Callable[[float, float], float], expected: tuple[float, float]) -> None:
    a, b = opened(2)
    choose_gates([a, b], lambda: score(float(a), float(b)))
    assert (float(a), float(b)) == expected


def test_never_worse_than_closed_gates() -> None:
    gates = opened(4)
    for seed in range(20):
        table: dict[tuple[float, ...], float] = {}
        random = torch.Generator().manual_seed(seed)

        def score(
            table: dict[tuple[float, ...], float] = table, random: torch.Generator = random
        ) -> float:
            values = tuple(float(gate) for gate in gates)
            return table.setdefault(values, float(torch.rand(1, generator=random)))

        assert choose_gates(gates, score) <= table[(0.0,) * 4]


def test_without_gates_the_score_is_returned() -> None:
    assert choose_gates([], lambda: 3.0) == 3.0
