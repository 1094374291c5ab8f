"""Evenly spread selections of rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphable.rows import evenly_spread


@given(count=st.integers(0, 3000), at_most=st.integers(1, 400))
def test_selected_rows_are_ascending_within_bounds_and_as_many_as_asked_for(
    count: int, at_most: int
) -> None:
    rows = evenly_spread(count, at_most)

    assert len(rows) == min(count, at_most)
    assert (np.diff(rows) > 0).all()
    assert np.isin(rows, np.arange(count)).all()


@given(count=st.integers(2, 3000), at_most=st.integers(2, 400))
def test_the_ends_are_selected_and_gaps_differ_by_at_most_one_row(count: int, at_most: int) -> None:
    rows = evenly_spread(count, at_most)

    assert rows[0] == 0
    assert rows[-1] == count - 1
    assert np.ptp(np.diff(rows)) <= 1


@pytest.mark.parametrize(
    ("count", "at_most", "rows"),
    [(5, 3, [0, 2, 4]), (1, 3, [0]), (4, 1, [0]), (3, 9, [0, 1, 2]), (0, 3, [])],
)
def test_by_hand(count: int, at_most: int, rows: list[int]) -> None:
    assert evenly_spread(count, at_most).tolist() == rows


def test_the_result_indexes_an_array_even_if_empty() -> None:
    assert np.zeros((0, 3))[evenly_spread(0, 5)].shape == (0, 3)
