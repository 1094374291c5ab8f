"""Charts: places by hand, edge cases of scales, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from morphable.draw.axes import Axis, ticks
from morphable.draw.camera import Camera
from morphable.draw.charts import Bar, Bars, Chart, Cloud, Scatter, Series
from morphable.draw.html import render_block
from parsed_page import ParsedPage


def test_a_chart_draws_what_it_is_given() -> None:
    series = [
        Series("a < b", [0, 1, 2], [0.0, np.nan, 4.0]),
        Series("m", [1], [2], "mark", 1, np.array([[1.0, 3.0]])),
    ]
    chart = Chart(series, Axis("x, mm", low=0, high=2), Axis("y", low=0, high=4), "two things")
    page = ParsedPage(render_block(chart))
    assert "62.0,280.0 544.0,34.0" in page.values("points"), (
        "from the lower left to the upper right corner, without the hole"
    )
    assert "a < b" in page.text and "x, mm" in page.text
    assert page.values("aria-label") == ["two things"]


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0], [1e-9, 1e9]])
@pytest.mark.parametrize("log", [False, True])
def test_scales_hold_whatever_comes(values: list[float], log: bool) -> None:
    chart = Chart([Series("s", values, values)], Axis("x", log), Axis("y", log), "edge cases")
    drawn = render_block(chart)
    assert "nan" not in drawn and "inf" not in drawn


def test_a_mark_keeps_its_own_error_bar_and_value() -> None:
    """Also after a mark that lies outside the scale."""
    bars = np.array([[1.0, 3.0], [2.0, 9.0]])
    series = Series("m", [5, 1], [2, 3], "mark", 0, bars)
    chart = Chart([series], Axis("x", low=0, high=2), Axis("y", low=0, high=4), "marks")
    (mark,) = chart.plot.series[0].marks
    assert mark.text == "m: 3.00" and mark.y == pytest.approx(280 - 246 * 3 / 4)
    assert mark.bar == (pytest.approx(280 - 246 / 2), 34), "cut off at the end of the scale"


def test_series_without_a_name_are_not_in_the_legend() -> None:
    series = [Series("first", [0], [0]), Series("", [0], [0]), Series("last", [0], [0])]
    shown = Chart(series, Axis("x"), Axis("y"), "three").plot.series
    assert [item.legend is not None for item in shown] == [True, False, True]
    assert shown[2].legend == pytest.approx((62 + 40 + 6.9 * len("first"), 20))


def test_a_long_legend_has_several_rows_above_the_plot() -> None:
    names = ["first", "x" * 40, "x" * 40, "last"]
    plot = Chart([Series(name, [0], [0]) for name in names], Axis("x"), Axis("y"), "four").plot
    places = [item.legend for item in plot.series]
    places = [item.legend for item in plot.series]
    row = [62, 62 + 40 + 6.9 * 5, 62, 62 + 40 + 6.9 * 40]
    assert places == [(pytest.approx(x), y) for x, y in zip(row, (2, 2, 20, 20), strict=True)]
    assert plot.top == -18, "one row more"


def test_the_diagonal_is_where_both_axes_agree() -> None:
    chart = Chart([], Axis("x", low=0, high=2), Axis("y", low=1, high=4), "line", diagonal=True)
    (ends,) = chart.plot.guides
    assert ends == [(303.0, 280.0), (544.0, pytest.approx(280 - 246 / 3))]


def test_ticks_are_round_and_inside() -> None:
    for low, high in ((0, 1), (-3.3, 7.1), (0.001, 0.0042), (950, 2100)):
        found = ticks(low, high)
        assert 3 <= len(found) <= 8 and found[0] >= low and found[-1] <= high * (1 + 1e-9)
        assert len({round(step, 9) for step in np.diff(found)}) == 1


def test_bars_leave_room_for_names_and_numbers() -> None:
    bars = Bars([Bar("a long name", 0, 1.0, "1 mm", (0.5, 4.0)), Bar("b", 1, 2.0, "")], "d")
    assert bars.left > 6 * len("a long name")
    assert bars.left + 4.0 * bars.per_unit == pytest.approx(410)
    assert Bars([Bar("none", 0, 0.0, "0 mm")], "d").per_unit > 0


def test_a_scatter_colors_classes_and_grays_the_unknown() -> None:
    points = np.array([[0.0, 0], [1, 1], [2, 0]])
    scatter = Scatter(points, np.array([0, 1, -1]), ["a", "b"], "codes")
    colors = [color for *_, color in scatter.dots]
    assert colors[2] == "rgb(150,150,150)" and len(set(colors)) == 3
    assert scatter.legend == [(colors[0], "a"), (colors[1], "b")]
    assert scatter.dots[1][:2] == (150.0, pytest.approx(300 - 288 + 69)), "equal units on both axes"


def test_the_nearest_points_of_a_cloud_are_drawn_last_and_darkest() -> None:
    camera = Camera(np.eye(3), np.zeros(3), np.array([10.0, 10.0]))
    points = np.array([[0.0, 0, 5], [5.0, 5, -5], [-5, -5, 0]])
    dots = Cloud(points, camera, 100, "three points").dots
    assert [dot[:2] for dot in dots] == [(100, 0), (0, 100), (50, 50)]
    assert [dot[2] for dot in dots] == pytest.approx([0.1, 0.5, 0.9])
