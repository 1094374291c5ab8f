"""Benches: the tables as published, means and paired changes, runs that are done once, and what is
told of failures.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from morphable.bench import TABLES, find_table
from morphable.bench.colors import COLORS
from morphable.bench.complexity import decoder_parameters, sphere_template
from morphable.bench.document import _facts, record, still_linear, worse_than_pca
from morphable.bench.estimate import training_seconds
from morphable.bench.exports import csv_text, latex
from morphable.bench.grid import grid
from morphable.bench.quality import time_to_quality
from morphable.bench.results import cell, change
from morphable.bench.runner import (
    Options,
    Outcome,
    Task,
    configuration,
    perform,
    tasks,
    with_verdict,
)
from morphable.bench.table import (
    DIVERSITY,
    ERROR,
    EXPRESSION,
    IDENTITY,
    PARAMETERS,
    SPECIFICITY,
    Data,
    Row,
    Table,
    with_baselines,
    with_judge,
)
from morphable.cli.main import main
from morphable.data.dataset import MeshDataset
from morphable.draw.blocks import Columns, Text
from morphable.draw.charts import Chart
from morphable.draw.numbers import DASH
from morphable.errors import InputError
from morphable.evaluate.referee import JUDGED
from morphable.models.families import create
from morphable.train.distributed import Workers, workers

SMALL = {"width": 8, "rank": 16}
ANY_GAIN = {"least_gain": 0.0}
TINY = Table(
    "tiny", "Tiny", [Data("hands", "hands", {"count": 60}, epochs=1)],
    [
        Row("plain", "pca-mlp", SMALL, ANY_GAIN, latent=4, paper={ERROR.title: 1.5}),
        Row("deeper", "pca-mlp", SMALL | {"depth": 3}, ANY_GAIN, latent=4, paper={ERROR.title: None}, against="plain"),
    ],
    [ERROR, PARAMETERS],
)  # fmt: skip


def outcome(row: Row, seed: int, errors: np.ndarray, subjects: np.ndarray | None = None) -> Outcome:
    """A finished run with these (N,) mesh errors, one subject a mesh unless told."""
    task = Task(TINY.datasets[0], row, seed, Path(f"{row.name}-{seed}"))
    measures = {"vertex_error_mm": {"mean": float(errors.mean())}, "parameters": 10}
    where = {
        "split": "subject",
        "train_meshes": 5,
        "meshes": len(errors),
        "subjects": len(errors),
        "model": {},
    }
    subjects = np.arange(len(errors)) if subjects is None else subjects
    return Outcome(
        task, measures, {"mean_shape": {"vertex_error_mm": {"mean": 9.0}}}, where, errors, subjects
    )


def printed(result: list[list[str]], name: str) -> list[str]:
    return next(row for row in result if row[0] == name)


@pytest.mark.filterwarnings("ignore:.* carry only", "ignore:the factor .* no classifier")
@pytest.mark.parametrize("name", list(TABLES))
@pytest.mark.parametrize("quick", [True, False])
def test_every_row_is_a_model_that_exists(name: str, quick: bool, hands: MeshDataset) -> None:
    table, data = with_baselines(find_table(name, quick)), hands.split("subject")
    assert len({(row.name, row.size) for row in table.rows}) == len(table.rows)
    for row in table.rows:
        task = Task(table.datasets[0], row, 1, Path("x"))
        config = configuration(task, data, Options(Path("x")))
        parts = getattr(config.model, "proportions", None) or {"latent": 0}
        most = {"pca-mlp": len(data.train) - 1, "rotation-mlp": len(data.train) - 1}
        carried = most.get(row.family, row.size)
        if row.family in ("mae", "deepflame"):  # as many identities as people, less one
            people = len(set(data.train.labels["subject"].tolist()))
            carried = row.size - max(0, row.latent["identity"] - (people - 1))
        sizes = [getattr(config.model, part, size) for part, size in parts.items()]
        assert sum(sizes) == min(row.size, carried)
        assert row.against is None or (row.against, row.size) in {
            (r.name, r.size) for r in table.rows
        }
    titles = {column.title for column in table.columns}
    assert all(set(row.paper) <= titles for row in table.rows)


def test_the_papers_numbers() -> None:
    """Tables 1 to 3 of Deep3DMM: their order, and what learned maps gain in them."""
    rows = {
        name: {row.name: row.paper.get(ERROR.title) for row in find_table(name, True).rows}
        for name in TABLES
        if "-" in name
    }
    one, two, three = (rows[f"deep3dmm-{name}"] for name in ("aggregation", "filters", "ablation"))
    assert sorted(one, key=lambda name: -(one[name] or 0)) == [
        "full mapping", "DiffPool", "average", "precomputed (QEM)", "variant weights", "learned attention",
    ]  # fmt: skip
    assert round(100 * (1 - two["simple, learned maps"] / two["simple, precomputed maps"])) == 45
    assert round(100 * (1 - two["wider, learned maps"] / two["wider, precomputed maps"])) == 35
    assert (
        three["neither"]
        > three["encoder alone"]
        > three["decoder alone"]
        > three["encoder and decoder"]
    )


def test_pca_and_pca_mlp_stand_in_every_table_at_every_size() -> None:
    for name in TABLES:
        table = with_baselines(find_table(name, False))
        for size in {row.size for row in table.rows}:
            families = {row.family for row in table.rows if row.size == size}
            assert {"pca", "pca-mlp"} <= families
    assert with_baselines(with_baselines(TINY)) == with_baselines(TINY)


def test_a_cell_by_hand() -> None:
    found = cell(
        [outcome(TINY.rows[0], seed, np.full(4, mm)) for seed, mm in enumerate((1.0, 2.0, 3.0))],
        ERROR,
    )
    assert found is not None
    assert (found.mean, found.spread, found.count) == (2.0, 1.0, 3)
    assert cell([], ERROR) is None


def test_a_change_that_is_the_same_for_every_mesh_is_certain(rng: np.random.Generator) -> None:
    """Paired: however much meshes and seeds differ, a tenth less on each is a tenth less."""
    errors = rng.uniform(1, 5, 40)
    subjects = np.repeat(np.arange(8), 5)
    reference = [outcome(TINY.rows[0], 0, errors, subjects)]
    own = [outcome(TINY.rows[1], 0, 0.9 * errors, subjects)]
    found = change(own, reference)
    assert found is not None
    np.testing.assert_allclose([found.mean, found.low, found.high], -0.1, rtol=1e-12)


def test_changes_redraw_subjects(rng: np.random.Generator) -> None:
    """The interval is about that of a plain bootstrap of the ratio, and wider if whole subjects
    agree.
    """
    errors, other = rng.uniform(1, 5, 200), rng.uniform(1, 5, 200)
    alone = change([outcome(TINY.rows[1], 0, errors)], [outcome(TINY.rows[0], 0, other)])
    assert alone is not None
    rows = rng.integers(200, size=(4000, 200))
    expected = np.percentile(errors[rows].mean(1) / other[rows].mean(1) - 1, [2.5, 97.5])
    np.testing.assert_allclose([alone.low, alone.high], expected, atol=0.015)
    assert alone.low < alone.mean < alone.high

    few = np.repeat(np.arange(10), 20)
    by_subject = [
        outcome(row, 0, e[few], few)
        for row, e in zip(TINY.rows, (errors[:10], other[:10]), strict=True)
    ]
    wide, narrow = (
        change(by_subject[:1], by_subject[1:]),
        change([replace(by_subject[0], groups=np.arange(200))], by_subject[1:]),
    )
    assert wide is not None
    assert narrow is not None
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_a_change_of_few_subjects_has_no_interval_and_says_why(rng: np.random.Generator) -> None:
    subjects = np.repeat(np.arange(7), 5)
    done = [
        outcome(row, 0, errors, subjects)
        for row, errors in zip(TINY.rows, rng.uniform(1, 5, (2, 35)), strict=True)
    ]
    found = change(done[1:], done[:1])
    assert found is not None and not found.certain
    assert (found.low, found.high) == (None, None)

    text = printed(grid(TINY, done, "hands").rows, "deeper")[4]
    assert text.endswith(" %") and "[" not in text
    facts = " ".join(_facts(TINY, Options(Path("out")), [o.task for o in done], done, {}))
    assert "hands: no confidence interval: at least 8 measured subjects are needed" in facts
    assert record(TINY, Options(Path()), done, {})["changes"][0]["low"] is None


def test_change_does_not_depend_on_the_order_of_meshes(rng: np.random.Generator) -> None:
    errors, order = rng.uniform(1, 5, (2, 40)), rng.permutation(40)
    subjects = np.repeat(np.arange(8), 5)
    one, two = (
        change(
            [outcome(TINY.rows[1], 0, errors[0][o], subjects[o])],
            [outcome(TINY.rows[0], 0, errors[1][o], subjects[o])],
        )
        for o in (np.arange(40), order)
    )
    assert one is not None
    assert two is not None
    assert one.low is not None
    np.testing.assert_allclose([one.mean, one.low, one.high], [two.mean, two.low, two.high])


def test_the_printed_grid() -> None:
    done = [outcome(TINY.rows[0], s, np.full(8, 2.0 + s)) for s in (0, 1)] + [
        outcome(TINY.rows[1], 0, np.full(8, 2.0))
    ]
    found = grid(TINY, done, "hands")
    assert found.header[-2:] == ["change of the vertex error", "paper: mean, mm"]
    plain = ["plain", "4", "2.500 ± 0.707", "10", "–", "1.500"]
    assert printed(found.rows, "plain") == plain
    assert printed(found.rows, "deeper")[2] == "2.000"
    assert printed(found.rows, "deeper")[4].startswith("-20.0 % [")
    assert printed(found.rows, "deeper")[5] == "not published"
    assert printed(found.rows, "mean shape")[2] == "9.000"
    assert printed(found.rows, "PCA")[2:] == ["–"] * 4
    assert found.best == {(1, 2)}


def test_the_plan_trains_what_has_chance_with_every_seed() -> None:
    """Seed by seed, so that a bench that was stopped has whole rows of fewer seeds."""
    planned = tasks(TINY, Options(Path("out"), seeds=3))
    assert [(t.row.name, t.seed) for t in planned] == [
        ("plain", 0), ("deeper", 0), ("PCA", 0), ("plain", 1), ("deeper", 1), ("plain", 2), ("deeper", 2),
    ]  # fmt: skip
    assert len({t.folder for t in planned}) == len(planned)


def test_chosen_rows_keep_their_baselines() -> None:
    planned = tasks(TINY, Options(Path("out"), rows=["deeper"]))
    assert [t.row.name for t in planned] == ["deeper", "PCA"]
    with pytest.raises(
        InputError, match="`rows` deep: the table has no such row, it has plain; deeper"
    ):
        tasks(TINY, Options(Path("out"), rows=["deep"]))


def test_rows_not_asked_for_do_not_appear(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", "tiny", "--out", str(tmp_path), "--rows", "deeper"]) == 0
    written = (tmp_path / "table.md").read_text()
    assert "| deeper" in written and "| PCA" in written and "| mean shape" in written
    assert "| plain" not in written
    assert "hange of the vertex error" not in written, "what deeper is compared with was not asked"


def test_baselines_stand_at_the_latent_sizes_of_the_chosen_rows_only() -> None:
    table = replace(TINY, rows=[*TINY.rows, Row("large", "coma", latent=16)])
    planned = tasks(table, Options(Path("out"), rows=["deeper"]))
    assert {t.row.size for t in planned} == {4}
    lamm = find_table("lamm-reconstruction", True)
    planned = tasks(lamm, Options(Path("out"), rows=["CoMA"]))
    assert [t.row.name for t in planned] == ["PCA", "CoMA", "pca-mlp"]
    spaces = tasks(find_table("two-space", True), Options(Path("out"), rows=["two-space 4 + 8"]))
    assert [t.row.name for t in spaces if t.data.name == "hands"] == [
        "two-space 4 + 8",
        "PCA",
        "pca-mlp",
    ], "rows of their own epochs are no baselines"


def test_a_row_of_its_own_epochs_says_so() -> None:
    """`pca-mlp` has 150 epochs in a table whose networks have 8, and may win."""
    baseline = Row("pca-mlp", "pca-mlp", latent=4, own_epochs=True)
    table = replace(TINY, rows=[Row("coma", "coma", latent=4)])

    def trained(row: Row, epochs: int) -> Outcome:
        done = outcome(row, 0, np.full(8, 2.0))
        return replace(done, provenance={**done.provenance, "model": {"train": {"epochs": epochs}}})

    found = grid(table, [trained(table.rows[0], 8), trained(baseline, 150)], "hands")
    assert [row[0] for row in found.rows[:3]] == ["coma", "PCA", "pca-mlp, 150 epochs of its own"]
    found = grid(table, [trained(table.rows[0], 150), trained(baseline, 150)], "hands")
    assert found.rows[2][0] == "pca-mlp"


def test_rows_worse_than_pca_are_named(rng: np.random.Generator) -> None:
    good, bad = TINY.rows[:2]
    done = [outcome(good, 0, np.full(9, 1.0)), outcome(bad, 0, np.full(9, 3.0))]
    done = [
        replace(o, baselines={"pca": {"vertex_error_mm": {"mean": pca}}})
        for o, pca in zip(done, (1.0, 2.5), strict=True)
    ]
    said = "hands: worse than PCA of the same latent size, by mean vertex error: "
    assert worse_than_pca(done) == [f"{said}deeper (4)."]
    assert worse_than_pca(done[:1]) == [f"{said}none."]


def test_rows_that_kept_their_linear_start_are_named(rng: np.random.Generator) -> None:
    plain, deeper = TINY.rows
    done = [outcome(row, seed, rng.uniform(1, 2, 9)) for row in (plain, deeper) for seed in (0, 1)]
    for made, epoch in zip(done, (0, 3, 5, 7), strict=True):
        made.provenance["model"]["kept_epoch"] = epoch
    (fact,) = still_linear(done)
    assert fact.startswith("hands: no epoch was enough better than the linear start")
    assert fact.endswith("kept: plain (4), 1 of 2 trainings.")
    assert still_linear(done[1:]) == []


def test_csv_holds_every_number_and_latex_escapes(rng: np.random.Generator) -> None:
    rows = [replace(TINY.rows[0], name="50 % of a_b"), replace(TINY.rows[1], against="50 % of a_b")]
    table = replace(TINY, rows=rows)
    done = [outcome(rows[0], s, rng.uniform(1, 2, 9)) for s in (0, 1)]
    done += [outcome(rows[1], 0, rng.uniform(1, 2, 9))]
    part = grid(table, done, "hands")
    lines = list(csv.DictReader(csv_text([part]).splitlines()))
    means = [o.measures["vertex_error_mm"]["mean"] for o in done if o.measures]
    assert float(lines[0]["mean, mm"]) == np.mean(means[:2])
    assert float(lines[0]["mean, mm, deviation over seeds"]) == pytest.approx(
        np.std(means[:2], ddof=1)
    )
    assert (lines[0]["seeds"], lines[1]["seeds"], lines[0]["paper: mean, mm"]) == ("2", "1", "1.5")
    found = change(done[2:], done[:2])
    assert found is not None and found.low is not None
    assert float(lines[1]["change, low end"]) == found.low
    assert lines[-1]["model"] == "mean shape" and float(lines[-1]["mean, mm"]) == 9.0
    text = latex([part])
    assert r"50 \% of a\_b & 4 &" in text and r" $\pm$ " in text and "±" not in text
    assert text.count(r"\begin{tabular}{lrrrrr}") == 1 == text.count(r"\end{tabular}")
    assert all(line.count(" & ") == 5 for line in text.splitlines() if line.endswith(r"\\"))


def test_another_split(
    tmp_path: Path, hands: MeshDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "bench",
        "tiny",
        "--out",
        str(tmp_path / "b"),
        "--data",
        str(hands.path),
        "--rows",
        "plain",
    ]
    assert run([*command, "--split", "frames"]) == 0
    assert "split `frames`" in (tmp_path / "b" / "table.md").read_text()
    assert (tmp_path / "b" / "table.csv").exists() and (tmp_path / "b" / "table.tex").exists()
    assert "Training took " in (tmp_path / "b" / "table.md").read_text()
    capsys.readouterr()
    assert run([*command, "--split", "subject"]) == 2
    assert "holds a run with other settings" in capsys.readouterr().err
    command[3] = str(tmp_path / "c")
    assert run([*command, "--split", "nothing"]) == 2
    assert "no split 'nothing'" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_the_time_of_training_is_measured(
    tmp_path: Path, hands: MeshDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what will train, once per network, near to what it takes, and without a trace."""
    data, options = hands.split("subject"), Options(tmp_path, seeds=2, epochs=20)
    with workers("cpu") as here:
        planned = [task for task in tasks(TINY, options) if task.row.name != "deeper"]
        estimate = training_seconds(planned, data, options, here)
        assert not list(tmp_path.iterdir())
        took = [perform(task, data, options, here).seconds for task in planned]
        assert took[-1] > 0 and took[1] == 0, "PCA does not train"
        assert sum(took) / 10 < estimate < 10 * sum(took)
        assert training_seconds(planned, data, options, here) == 0, "all is done"
    command = ["bench", "tiny", "--data", str(hands.path), "--rows", "plain", "--epochs", "20"]
    assert run([*command, "--out", str(tmp_path / "other")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r": about \S+ (s|min) of training, measured on 4 steps of each", printed)


def run(arguments: list[str]) -> int:
    """Exit code of the command."""
    try:
        main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of two tiny models; measures that cost seconds are left out, and tested elsewhere."""
    monkeypatch.setitem(TABLES, "tiny", lambda quick: TINY)
    monkeypatch.setattr("morphable.evaluate.measures.shape_measures", lambda *_: {})
    monkeypatch.setattr("morphable.draw.view.HEIGHT", 24)


def test_a_bench_from_the_command_line_is_done_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["bench", "tiny", "--out", str(tmp_path / "b"), "--seeds", "2"]
    monkeypatch.setattr("sys.argv", ["morphable", *command])
    assert run(command) == 0
    text = capsys.readouterr().out
    assert "[3/5] hands, PCA" in text
    result = json.loads((tmp_path / "b" / "results.json").read_text())
    runs = {(r["row"], r["seed"]): r for r in result["runs"]}
    assert len(runs) == 5
    assert (
        runs["plain", 0]["measures"]["vertex_error_mm"]
        != runs["plain", 1]["measures"]["vertex_error_mm"]
    )
    assert runs["plain", 1]["provenance"]["model"]["train"]["seed"] == 1
    assert [c["row"] for c in result["changes"]] == ["deeper"]
    written = (tmp_path / "b" / "table.md").read_text()
    assert "| plain | 4 |" in written
    assert f"`morphable bench tiny --out {tmp_path / 'b'} --seeds 2`" in written
    page = (tmp_path / "b" / "table.html").read_text()
    assert "<b>" in page and "Where the errors are" in page
    assert page.index("deeper: mean error") > page.index("plain: mean error") > 0
    assert "deeper, beyond, at 2" in page and "PCA: T1" in page
    assert "Validation error against training time of plain, deeper, PCA" in page

    folder = tmp_path / "b" / runs["deeper", 0]["folder"]
    weights = tmp_path / "b" / runs["plain", 0]["folder"] / "model" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    for path in [
        *(folder / "model").iterdir(),
        folder / "evaluation.json",
        folder / "evaluation.npz",
    ]:
        path.unlink()
    (folder / "model").rmdir()
    capsys.readouterr()
    assert run(command) == 0
    assert weights.stat().st_mtime_ns == before
    again = {
        (r["row"], r["seed"]): r
        for r in json.loads((tmp_path / "b" / "results.json").read_text())["runs"]
    }
    assert again["deeper", 0]["measures"] == runs["deeper", 0]["measures"]

    capsys.readouterr()
    assert run([*command, "--epochs", "2"]) == 2
    assert "holds a run with other settings" in capsys.readouterr().err
    assert run(["bench", "main", "--out", str(tmp_path / "b")]) == 2
    assert "holds the table tiny" in capsys.readouterr().err


def test_rows_run_side_by_side_give_the_same_table(
    tmp_path: Path,
    cluster: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, in two and on a cluster: the same errors in the same order, from relative paths."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TABLES, "tiny", lambda quick: replace(TINY, rows=TINY.rows[:1]))
    errors = []
    ways = (("a", []), ("b", ["--jobs", "2"]), ("c", ["--scheduler", cluster]))
    for name, words in ways:
        assert run(["bench", "tiny", "--out", name, *words]) == 0
        assert "[2/2] hands, " in capsys.readouterr().out
        result = json.loads((tmp_path / name / "results.json").read_text())
        errors.append([(r["row"], r["measures"]["vertex_error_mm"]) for r in result["runs"]])
    assert errors[0] == errors[1] == errors[2]
    assert run(["bench", "tiny", "--out", "d", "--jobs", "2", "--scheduler", "tcp://x:1"]) == 2
    assert "--jobs and --scheduler: give one of the two" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_a_model_that_cannot_be_trained_is_a_cell_that_says_so(
    tmp_path: Path,
    hands: MeshDataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wild = Row(
        "wild",
        "pca-mlp",
        SMALL,
        {"learning_rate": 1e30, "epochs": 2, "optimizer": "sgd"},
        latent=4,
    )
    monkeypatch.setitem(TABLES, "tiny", lambda quick: replace(TINY, rows=[TINY.rows[0], wild]))
    assert run(["bench", "tiny", "--out", str(tmp_path / "b"), "--data", str(hands.path)]) == 0
    assert "failed: training diverged at step" in capsys.readouterr().out
    assert "failed: training diverged" in (tmp_path / "b" / "table.md").read_text()


def test_face_sets_are_left_out_without_the_ict_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MORPHABLE_ICT", raising=False)
    sets = [Data("faces", "faces", {"count": 200}), TINY.datasets[0]]
    monkeypatch.setitem(
        TABLES, "tiny", lambda quick: replace(TINY, datasets=sets, rows=TINY.rows[:1])
    )
    assert run(["bench", "tiny", "--out", str(tmp_path / "b")]) == 0
    assert "faces: not run: no ICT data" in capsys.readouterr().out
    assert "faces: not run: no ICT data" in (tmp_path / "b" / "table.md").read_text()
    assert run(["bench", "tiny", "--out", str(tmp_path / "c"), "--only", "faces"]) == 2
    assert "none of its datasets could be made" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "deep3dmm-aggregaton"], "did you mean 'deep3dmm-aggregation'?"),
        (["bench", "main", "--quick", "--full"], "--quick and --full: choose one"),
        (["bench", "main", "--seeds", "0"], "--seeds 0: expected at least 1"),
        (["bench", "main", "--only", "feet"], "the table has no such dataset, it has hands"),
    ],
)
def test_wrong_words(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--out", str(tmp_path / "b")]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "b").exists()


def test_unknown_table_is_named() -> None:
    with pytest.raises(InputError, match="there is no such table"):
        find_table("nothing", True)


def test_lamms_rivals_have_the_decoders_of_its_paper() -> None:
    """The paper's 3.88 and 4.27 million parameters are cut off, not rounded."""
    table = find_table("lamm-complexity", True)
    template = sphere_template(11_916)
    for name, millions in (("CoMA", 3.88), ("SpiralNet++", 4.27)):
        row = next(row for row in table.rows if row.name == name)
        model = create(row.family, template, recipe="paper", latent=row.size, **row.model)
        assert row.paper["decoder parameters"] == millions * 1e6
        assert decoder_parameters(model) // 10_000 == round(100 * millions)
    for title in ("lamm-reconstruction", "lamm-expressions", "lamm-hands", "lamm-70k"):
        for row in find_table(title, True).rows:
            convolves = row.family in ("coma", "spiralnet", "spiralnet++")
            assert row.model.get("filters") == ("lamm" if convolves else None)


def test_the_regions_of_lamms_ablation_nest() -> None:
    chains = {
        (*row.model["merged_from"], row.model["regions"])
        for row in find_table("lamm-ablation", True).rows
    }
    assert chains == {(29,), (29, 17), (29, 17, 13), (29, 17, 13, 11)}


def test_a_table_of_costs_measures_models_as_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained, PCA stands beside, and a second run reads what was measured."""
    costs = replace(
        find_table("lamm-complexity", True), datasets=[Data("ball", "sphere", {"vertices": 300})]
    )
    monkeypatch.setitem(TABLES, "tiny", lambda quick: costs)
    command = ["bench", "tiny", "--out", str(tmp_path / "b"), "--rows", "LAMM, mixer"]
    assert run(command) == 0
    found = {
        r["row"]: r["measures"]
        for r in json.loads((tmp_path / "b" / "results.json").read_text())["runs"]
    }
    assert list(found) == ["LAMM, mixer", "PCA", "pca-mlp"]
    # 3 mixer layers, norm, from_code, 11 learned tokens, an inverse tokenizer of all vertices, and
    # no control nets, whose regions of a plain template have handles all the same: at rest they
    # pass a gradient.
    mixer = found["LAMM, mixer"]["decoder_parameters"]
    assert mixer > 799_540 + 256 * 512 + 512 + 11 * 512 + 3 * 300 * 513
    assert all(cost["decode_ms"] > 0 for cost in found.values())
    assert "300 vertices, one mesh at a time" in (tmp_path / "b" / "table.md").read_text()
    assert run(command) == 0
    again = {
        r["row"]: r["measures"]
        for r in json.loads((tmp_path / "b" / "results.json").read_text())["runs"]
    }
    assert again == found
    assert run([*command, "--recipe", "fast"]) == 2, (
        "what was measured of one recipe is not shown as another's"
    )


def verdict(identity: float | None) -> dict[str, Any]:
    """A referee's verdict, of a model with or without parts."""
    number, none = {"mean": 4.0, "std": 1.0}, {"identity": None, "expression": None}
    shares = none | {"identity": None if identity is None else {"mean": identity, "std": 0.01}}
    return {
        **dict.fromkeys(JUDGED, number),
        "diversity_mm": {"global": number, **none},
        "decoupling": shares,
        "real_specificity_mm": {"mean": 3.5, "std": 0.5},
        "real_coverage_mm": number,
        "real_one_nn_accuracy": {"mean": 0.6, "std": 0.1},
        "real_diversity_mm": {"global": {"mean": 8.0, "std": 1.0}, **none},
    }


def test_the_referee_joins_the_measures_of_a_run() -> None:
    row = Row("plain", "pca-mlp", latent=4)
    judged = with_verdict(outcome(row, 0, np.ones(9)), verdict(0.9))
    assert judged.measures is not None
    assert judged.measures["decoupling/identity"]["mean"] == 0.9
    assert judged.measures["specificity_mm"]["mean"] == 4.0
    assert "decoupling/expression" not in judged.measures
    assert "vertex_error_mm" in judged.measures
    columns = [ERROR, SPECIFICITY, IDENTITY, DIVERSITY, EXPRESSION]
    table = replace(TINY, rows=[row], columns=columns)
    lines = grid(table, [judged], "hands", rows=[row]).rows
    assert printed(lines, "plain")[2:7] == ["1.000", "4.000", "0.900", "4.00", DASH]
    assert printed(lines, "real meshes")[2:7] == [DASH, "3.500", DASH, "8.00", DASH]
    assert printed(lines, "mean shape")[2] == "9.000"


def test_a_judged_table_keeps_its_verdicts(
    hands: MeshDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def judge(model: Any, data: Any) -> dict[str, Any]:
        done.append(model.family)
        return verdict(None)

    monkeypatch.setattr("morphable.bench.runner.judge", judge)
    task = Task(TINY.datasets[0], Row("PCA", "pca", latent=4), 0, tmp_path / "run", judged=True)
    workers = Workers(0, 1, torch.device("cpu"))
    for _ in range(2):
        found = perform(task, hands.split("subject"), Options(tmp_path), workers)
        assert found.measures is not None and found.measures["coverage_mm"]["mean"] == 4.0
    assert done == ["pca"]


def test_any_table_can_have_the_columns_of_the_referee() -> None:
    judged = with_judge(TINY)
    assert judged.judged and judged.columns[: len(TINY.columns)] == list(TINY.columns)
    assert {SPECIFICITY, IDENTITY, DIVERSITY} <= set(judged.columns)
    assert with_judge(judged).columns == judged.columns
    assert all(task.judged for task in tasks(judged, Options(Path("out"))))
    with pytest.raises(InputError, match="not trained"):
        with_judge(replace(TINY, trained=False))


def test_the_chart_of_time_leaves_out_the_worst_of_too_many_models(tmp_path: Path) -> None:
    """It shows each model's error so far against its own seconds."""
    outcomes = []
    for number in range(len(COLORS) + 3):
        folder = tmp_path / str(number)
        folder.mkdir()
        rows = [
            {"epoch": e, "step": e, "seconds": 10.0 * e, "best_mm": 20.0 - number - e}
            for e in (1, 2)
        ]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        row = Row(f"model {number}", "coma", latent=8)
        outcomes.append(Outcome(Task(TINY.datasets[0], row, 0, folder), {}))
    assert time_to_quality(outcomes[:1]) == []
    _, columns = time_to_quality(outcomes)
    assert isinstance(columns, Columns)
    (chart,), (note,) = columns.columns
    assert isinstance(chart, Chart) and isinstance(note, Text)
    assert [series.name for series in chart.series] == [f"model {n}" for n in range(3, 14)]
    assert list(chart.series[0].x) == [10, 20] and list(chart.series[0].y) == [16, 15]
    assert len({series.color for series in chart.series}) == len(COLORS)
    assert "The 3 with the largest errors are left out." in str(note)
