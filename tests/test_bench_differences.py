"""Differences paired by seed, charts of a swept setting, and the tables that show them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from morphable.bench import find_table
from morphable.bench.document import html, markdown
from morphable.bench.exports import csv_text
from morphable.bench.ibvae import KEPT, NEUTRAL, PAIRED, SPREAD
from morphable.bench.paired import difference, paired_grid
from morphable.bench.runner import Outcome, Task
from morphable.bench.sweep import sweep_charts
from morphable.bench.table import Column, Row, with_baselines
from morphable.data.labels import LabelTable
from morphable.data.splits import first_ten
from morphable.draw.blocks import Columns, Page, Section
from morphable.draw.charts import Chart
from morphable.draw.html import render_page

TABLE = find_table("ibvae-ablation", True)


def outcome(row: Row, seed: int, values: dict[Column, float]) -> Outcome:
    """A finished run that measured these means."""
    task = Task(TABLE.datasets[0], row, seed, Path(f"{row.name}-{seed}"))
    return Outcome(task, {column.measure: {"mean": value} for column, value in values.items()})


def runs(row: Row, values: list[float]) -> list[Outcome]:
    return [outcome(row, seed, {NEUTRAL: value}) for seed, value in enumerate(values)]


def test_a_difference_is_the_paired_t_interval_over_seeds() -> None:
    plain, other = TABLE.rows[0], TABLE.rows[3]
    first, second = [0.5, 0.7, 0.6], [0.4, 0.65, 0.5]
    found = difference(runs(other, second), runs(plain, first), NEUTRAL)
    assert found is not None
    known = ttest_rel(second, first).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    assert found.mean == pytest.approx(-0.25 / 3) and found.certain
    # By hand: two pairs, -1 and -1.2; t = 12.706 at one degree of freedom, standard error 0.1.
    two = difference(runs(other, [1.0, 0.8]), runs(plain, [2.0, 2.0]), NEUTRAL)
    assert two is not None and two.low == pytest.approx(-1.1 - 12.7062 * 0.1, abs=1e-4)
    # Seeds without a partner do not count, and one pair has no interval.
    assert difference(runs(other, [1.0, 0.8, 9.0]), runs(plain, [2.0, 2.0]), NEUTRAL) == two
    assert difference(runs(other, [1.0]), runs(plain, [2.0]), NEUTRAL) is None
    assert difference(runs(other, second), runs(plain, first), KEPT) is None


def test_differences_have_a_table_of_their_own() -> None:
    plain, other = TABLE.rows[0], TABLE.rows[3]
    outcomes = [*runs(plain, [0.5, 0.7]), *runs(other, [0.4, 0.6])]
    name = TABLE.datasets[0].name
    found = paired_grid(TABLE, outcomes, name, TABLE.rows)
    assert found is not None and len(found.rows) == 1
    assert found.rows[0][:2] == [other.name, plain.name]
    at = found.header.index(NEUTRAL.title)
    assert found.rows[0][at] == "-0.100 [-0.100, -0.100]" and (0, at) in found.best
    assert f"**{found.rows[0][at]}**" in markdown(TABLE, [found], [])
    assert f"{NEUTRAL.title}, low end" in csv_text([found])
    assert found.title in html(TABLE, [found], [], {})
    assert paired_grid(TABLE, runs(plain, [0.5, 0.7]), name, TABLE.rows) is None
    assert paired_grid(replace(TABLE, paired=()), outcomes, name, TABLE.rows) is None


def test_charts_have_a_line_for_each_weight_of_the_identity() -> None:
    rng = np.random.default_rng(0)
    outcomes = [
        outcome(row, seed, {SPREAD: float(rng.uniform(0.1, 0.2)), NEUTRAL: 1.0})
        for row in TABLE.rows
        for seed in range(2)
    ]
    blocks = sweep_charts(TABLE.sweep, outcomes)
    charts = [
        chart
        for block in blocks
        if isinstance(block, Columns)
        for column in block.columns
        for chart in column
    ]
    assert len(charts) == 2 and all(isinstance(chart, Chart) for chart in charts)
    spread = charts[0]
    assert isinstance(spread, Chart)
    named = {series.name: series for series in spread.series if series.name}
    assert list(named) == ["identity 10", "identity 1", "identity 0"]
    line = named["identity 10"]
    assert list(line.x) == [0, 10, 25, 50, 75, 100] and line.spread is not None
    own = [o.measures[SPREAD.measure]["mean"] for o in outcomes[:2] if o.measures]
    assert line.y[0] == pytest.approx(np.mean(own)) and line.spread[0].tolist() == sorted(own)
    page = render_page(Page("t", "t", [Section("charts", blocks)]))
    assert page.count("<svg") >= 2 and "weight of the information term" in page
    # One step is no chart, and tables without a sweep have none.
    assert sweep_charts(TABLE.sweep, outcomes[:2]) == []
    assert sweep_charts(None, outcomes) == []


def test_the_information_term_is_compared_with_all_else_equal() -> None:
    rows = {row.name: row for row in find_table("ibvae-disentanglement", True).rows}
    for name, reference in (
        ("IB-VAE", "no information term"),
        ("information term alone", "no bottleneck"),
    ):
        row = rows[name]
        assert row.against == reference
        other = rows[reference].model
        assert {**other, "information_weight": 50} == {"information_weight": 50, **row.model}
    assert find_table("ibvae-disentanglement", True).paired == PAIRED
    for row in TABLE.rows:
        against = next((r for r in TABLE.rows if r.name == row.against), None)
        if against is not None:
            assert against.model["identity_weight"] == row.model["identity_weight"]


def test_first_ten_tests_on_the_first_ten_people() -> None:
    subject = np.repeat([f"face{number:02d}" for number in range(1, 31)], 2)
    split = first_ten(LabelTable({"subject": subject}, 60))["first-ten"]
    assert sorted(set(subject[split.test])) == [f"face{number:02d}" for number in range(1, 11)]
    assert sorted(set(subject[split.val])) == ["face29", "face30"]
    assert len(split.train) == 36
    assert first_ten(LabelTable({"subject": subject[:22]}, 22)) == {}


def test_latent_sizes_have_a_line_for_each_family() -> None:
    table = find_table("latent-sizes", True)
    outcomes = [
        Outcome(
            Task(table.datasets[0], row, 0, Path("run")),
            {"vertex_error_mm": {"mean": 8.0 / row.size, "median": 4.0 / row.size}},
        )
        for row in table.rows
    ]
    blocks = sweep_charts(table.sweep, outcomes)
    columns = next(block for block in blocks if isinstance(block, Columns))
    mean = columns.columns[0][0]
    assert isinstance(mean, Chart) and mean.y.log and mean.x.log
    lines = {series.name: series for series in mean.series if series.name}
    assert set(lines) == {"pca", "pca-mlp", "rotation-mlp", "spiralnet++"}
    assert list(lines["pca"].x) == [4, 8, 16, 32, 64, 128, 256]
    assert lines["pca"].y[1] == pytest.approx(1.0)


def test_sizes_of_two_space_have_a_line_for_each_size_of_the_identity() -> None:
    table = with_baselines(find_table("two-space-sizes", True))
    outcomes = [
        Outcome(
            Task(table.datasets[0], row, 0, Path("run")),
            {"vertex_error_mm": {"mean": 1.0}, "swap_error_mm": {"mean": 8.0 / row.size}},
        )
        for row in table.rows
    ]
    blocks = sweep_charts(table.sweep, outcomes)
    charts = [c[0] for block in blocks if isinstance(block, Columns) for c in block.columns]
    swap = next(c for c in charts if isinstance(c, Chart) and c.y.label == "swap, mm")
    lines = {series.name: series for series in swap.series if series.name}
    assert set(lines) == {"identity 4", "identity 8"}, "PCA and pca-mlp are of no size of it"
    assert list(lines["identity 8"].x) == [4, 8, 16, 32]
    assert lines["identity 8"].y[2] == pytest.approx(8 / 24)


@pytest.mark.parametrize(
    "name", ["defaults", "transported", "two-space-sizes", "latent-sizes", "linear-start"]
)
def test_rows_are_compared_with_one_of_their_own_size(name: str) -> None:
    for quick in (True, False):
        table = with_baselines(find_table(name, quick))
        for row in table.rows:
            if row.against:
                other = [r for r in table.rows if r.name == row.against and r.size == row.size]
                assert len(other) == 1


def test_transported_rows_differ_in_transport_alone() -> None:
    rows = {row.name: row for row in find_table("transported", True).rows}
    changed = [row for row in rows.values() if row.against]
    assert len(changed) == len(rows) / 2
    for row in changed:
        assert row.train == {"transport": 0.8}
        assert replace(row, name=row.family, train={}, against=None) == rows[row.family]
