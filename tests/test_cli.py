"""The command line from end to end on a small set of hands, and a help that documents every flag."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cyclopts import App

from helpers import Outcome, in_process, real, tree
from morphable.cli.main import app
from morphable.data.dataset import load_dataset
from morphable.mesh.io import read_mesh
from morphable.models.io import load, save
from morphable.train.checkpoint import read_metrics
from morphable.train.run import RecordedRun

Do = Callable[..., Outcome]


@pytest.fixture
def do(capsys: pytest.CaptureFixture[str]) -> Do:
    """Run a command that must succeed."""

    def run(*arguments: object) -> Outcome:
        ended = in_process(capsys, *arguments)
        assert ended.code == 0, ended.err
        return ended

    return run


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 hands, a PCA run and a short CoMA run, each by its command."""
    root = tmp_path_factory.mktemp("work")
    ended = real("data", "make", "hands", "--out", "hands", "--count", 200, "--seed", 3, cwd=root)
    assert ended.code == 0 and "200 x 1609 x 3" in ended.out and ended.err == "", ended.err
    ended = real("train", "pca", "--data", "hands", "--out", "pca", "--latent", 4, cwd=root)
    assert ended.code == 0 and "next: morphable evaluate pca" in ended.out, ended.err
    assert "latent size 4 (shape 4)" in ended.out
    (root / "few.toml").write_text(
        '[train]\nepochs = 7\nbatch_size = 32\n[model]\nlatent = 9\nfilters = "wider"\n'
    )
    ended = real(
        "train", "coma", "--data", "hands", "--out", "coma", "--config", "few.toml", "--latent", 4, "--epochs", 9,
        "--set", "train.epochs=2", "--set", "model.filters=simple", "--split", "subject", "--seed", 7, cwd=root,
    )  # fmt: skip
    assert ended.code == 0 and ended.out.count("  validation ") == 2, ended.err
    return root


# data


def test_what_was_made(work: Path) -> None:
    hands = load_dataset(work / "hands")
    assert hands.vertices.shape == (200, 1609, 3)
    assert {"subject", "frames", "frames-deep3dmm"} <= set(hands.split_names)
    assert hands.info["licence"] == "CC0-1.0" and hands.template.regions


def test_the_same_command_makes_the_same_bytes(work: Path, do: Do, tmp_path: Path) -> None:
    do("data", "make", "hands", "--out", tmp_path / "again", "--count", 200, "--seed", 3)
    again, first = tree(tmp_path / "again"), tree(work / "hands")
    assert again.keys() == first.keys()
    assert all(
        again[name] == first[name] for name in first if name != "template.npz"
    )  # a zip holds the time


def test_data_info(work: Path, do: Do) -> None:
    facts = json.loads(do("data", "info", work / "hands", "--json", "--audit").out)
    assert (facts["meshes"], facts["vertices"], facts["subjects"]) == (200, 1609, 40)
    assert isinstance(facts["audit"], list) and "split subject" in facts
    shown = do("data", "info", work / "hands").out
    assert "1609" in shown and "audit" not in shown
    assert "audit:" in do("data", "info", work / "hands", "--audit").out


# train


def test_flags_go_over_the_config_file_and_set_over_flags(work: Path) -> None:
    recorded = RecordedRun.read(work / "coma")
    config = recorded.config
    assert config.train is not None
    assert (config.train.epochs, config.train.batch_size, config.train.seed) == (2, 32, 7)
    assert (config.model.latent, config.model.filters, recorded.split) == (4, "simple", "subject")
    metrics = read_metrics(work / "coma" / "metrics.jsonl")
    assert [row["epoch"] for row in metrics] == [1, 2] and metrics[1]["validation_mm"] < metrics[0][
        "validation_mm"
    ]
    assert "train coma" in load(work / "coma").provenance["command"]


def test_another_runs_config_makes_the_same_run(work: Path, do: Do, tmp_path: Path) -> None:
    arguments = (
        "--data",
        work / "hands",
        "--config",
        work / "coma" / "config.toml",
        "--out",
        tmp_path / "again",
    )
    do("train", "coma", *arguments)
    weights = [
        (run / "model" / "weights.safetensors").read_bytes()
        for run in (work / "coma", tmp_path / "again")
    ]
    assert weights[0] == weights[1]


def test_the_paper_recipe_is_another(work: Path, do: Do, tmp_path: Path) -> None:
    arguments = ("--data", work / "hands", "--out", tmp_path / "run", "--epochs", 1)
    do("train", "coma", *arguments, "--recipe", "paper")
    config = RecordedRun.read(tmp_path / "run").config
    assert config.train is not None and config.recipe == "paper"
    assert (config.train.optimizer, config.train.learning_rate, config.train.epochs) == (
        "sgd",
        8e-3,
        1,
    )


def test_a_training_that_learned_nothing_is_named(work: Path, do: Do, tmp_path: Path) -> None:
    arguments = ("--out", tmp_path / "flat", "--epochs", 1, "--set", "train.learning_rate=1e-9")
    arguments += ("--set", "model.start=random")
    out = do("train", "coma", "--data", work / "hands", *arguments).out
    assert "\nEpoch 1 is kept, the best on the validation meshes.\n" in out
    said = (
        r"The model has learned almost nothing: its error on the {} meshes is \d+\.\d+ mm, that of"
    )
    assert re.search(said.format("validation"), out)
    assert re.search(said.format("test"), do("evaluate", tmp_path / "flat").out)
    assert "learned almost nothing" not in do("evaluate", work / "pca").out


def test_the_last_epoch_is_not_called_the_best(work: Path, do: Do, tmp_path: Path) -> None:
    arguments = ("--data", work / "hands", "--out", tmp_path / "run", "--epochs", 2)
    out = do("train", "pca-mlp", *arguments, "--set", "train.keep=last").out
    assert "\nThe last epoch, 2, is kept.\n" in out and "best" not in out


# evaluate


@pytest.fixture(scope="module")
def evaluated(work: Path) -> dict[str, typing.Any]:
    ended = real("evaluate", "coma", "--json", "deep/e.json", cwd=work)
    assert ended.code == 0 and "mean shape" in ended.out and "PCA, 4" in ended.out, ended.err
    result: dict[str, typing.Any] = json.loads((work / "deep" / "e.json").read_text())
    return result


def test_evaluation_json_is_as_designed(work: Path, evaluated: dict[str, typing.Any]) -> None:
    assert json.loads((work / "coma" / "evaluation.json").read_text()) == evaluated
    assert {"model", "baselines", "provenance"} <= evaluated.keys()
    assert {"mean_shape", "pca"} <= evaluated["baselines"].keys()
    for record in (evaluated["model"], *evaluated["baselines"].values()):
        for name in ("vertex_error_mm", "mesh_error_mm"):
            error = record[name]
            assert error.keys() == {"mean", "std", "median", "p95", "max", "ci95", "groups"}
            assert error["ci95"] is None and error["groups"] < 8
            assert error["median"] <= error["p95"] <= error["max"]
            assert error["mean"] <= error["max"]
    regions = [name for name in evaluated["model"] if name.startswith("vertex_error_mm/")]
    assert set(regions) >= {
        f"vertex_error_mm/{name}" for name in load_dataset(work / "hands").template.regions.names
    }
    provenance = evaluated["provenance"]
    assert (provenance["split"], provenance["part"], provenance["meshes"]) == (
        "subject",
        "test",
        20,
    )


def test_the_baselines_are_the_models_own_training_meshes(evaluated: dict[str, typing.Any]) -> None:
    means = [
        evaluated["baselines"][name]["vertex_error_mm"]["mean"] for name in ("pca", "mean_shape")
    ]
    assert means[0] < means[1]


def test_another_split_does_not_overwrite_the_runs_evaluation(
    work: Path, evaluated: dict[str, typing.Any], do: Do, tmp_path: Path
) -> None:
    before = tree(work)
    do("evaluate", work / "pca" / "model", "--split", "frames:val", "--json", tmp_path / "e.json")
    own = do("evaluate", work / "pca", "--split", "train").out
    assert tree(work) == before
    # The baseline is the model itself, unless it was fitted to the meshes of another split.
    assert own.count("PCA, 4") == 1 and "pca, 4" not in own
    other = do("evaluate", work / "pca", "--split", "frames:val").out
    assert "PCA, 4, this model" in other and "PCA, 4, of this split's" in other
    assert json.loads((tmp_path / "e.json").read_text())["provenance"]["split"] == "frames"


# reconstruct, sample, edit


def test_samples_are_repeatable_meshes(work: Path, do: Do, tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        do("sample", work / "coma", "-n", 3, "--seed", seed, "--out", tmp_path / name)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") != tree(tmp_path / "c")
    assert list(tree(tmp_path / "a")) == [f"sample-{number:04d}.ply" for number in range(3)]
    template = load_dataset(work / "hands").template
    mesh = read_mesh(tmp_path / "a" / "sample-0000.ply").mesh
    np.testing.assert_array_equal(mesh.faces, template.mesh.faces)
    size = np.ptp(mesh.vertices, axis=0)
    assert (size > 20).all() and (size < 400).all()
    zero = tmp_path / "zero"
    do("sample", work / "coma", "-n", 1, "--scale", 1e-6, "--out", zero)
    model = load(work / "coma")
    with torch.no_grad():
        middle = model.decode(model.prior.mean[None])[0].numpy()
    np.testing.assert_allclose(read_mesh(zero / "sample-0000.ply").mesh.vertices, middle, atol=1e-2)


@pytest.mark.parametrize("suffix", ["obj", "off", "glb"])
def test_every_format_is_read_back_by_reconstruct(
    work: Path, do: Do, tmp_path: Path, suffix: str
) -> None:
    do("sample", work / "pca", "-n", 2, "--out", tmp_path / "in", "--format", suffix)
    files = sorted((tmp_path / "in").iterdir())
    do("reconstruct", work / "pca", *files, "--out", tmp_path / "out")
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        path.name for path in files
    ]
    for path in files:  # what PCA drew lies in its space, so it comes back
        back = read_mesh(tmp_path / "out" / path.name).mesh.vertices
        np.testing.assert_allclose(back, read_mesh(path).mesh.vertices, atol=1e-3)


def test_reconstruct_is_the_models_reconstruction_in_any_unit(
    work: Path, do: Do, tmp_path: Path
) -> None:
    from morphable.data.registered_mesh import write_shape

    hands = load_dataset(work / "hands")
    mesh = hands.vertices[17]
    write_shape(tmp_path / "mm.ply", mesh, hands.template)
    write_shape(tmp_path / "m.ply", mesh / 1000, hands.template)
    shown = do("reconstruct", work / "coma", tmp_path / "mm.ply", "--out", tmp_path / "a").out
    do("reconstruct", work / "coma", tmp_path / "m.ply", "--unit", "m", "--out", tmp_path / "b")
    with torch.no_grad():
        expected = load(work / "coma")(torch.from_numpy(mesh)[None])[0].numpy()
    found = read_mesh(tmp_path / "a" / "mm.ply").mesh.vertices
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(
        read_mesh(tmp_path / "b" / "m.ply").mesh.vertices, expected, atol=1e-2
    )
    assert f"{np.linalg.norm(expected - mesh, axis=1).mean():.3f}" in shown


def test_interpolation_ends_at_the_reconstructions_and_is_even_in_pca(
    work: Path, do: Do, tmp_path: Path
) -> None:
    do("sample", work / "pca", "-n", 2, "--out", tmp_path / "ends")
    a, b = (tmp_path / "ends" / f"sample-000{number}.ply" for number in (0, 1))
    do("edit", "interpolate", work / "pca", a, b, "--steps", 5, "--out", tmp_path / "way")
    meshes = np.array(
        [read_mesh(path).mesh.vertices for path in sorted((tmp_path / "way").iterdir())]
    )
    assert len(meshes) == 5
    ends = np.array([read_mesh(path).mesh.vertices for path in (a, b)])
    positions = np.linspace(0, 1, 5)[:, None, None]
    np.testing.assert_allclose(meshes, ends[0] + positions * (ends[1] - ends[0]), atol=1e-2)


def test_a_model_zip_and_a_model_folder_serve_as_well_as_the_run(
    work: Path, do: Do, tmp_path: Path
) -> None:
    save(load(work / "coma"), tmp_path / "m.zip")
    for name, model in (
        ("a", work / "coma"),
        ("b", work / "coma" / "model"),
        ("c", tmp_path / "m.zip"),
    ):
        do("sample", model, "-n", 1, "--out", tmp_path / name)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") == tree(tmp_path / "c")


# report


def test_the_report_is_one_page(work: Path, evaluated: dict[str, typing.Any], do: Do) -> None:
    assert str(work / "coma" / "report.html") in do("report", work / "coma").out
    page = (work / "coma" / "report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html") and len(page) > 20_000
    for outside in ('src="http', 'href="http', "url(http", "@import"):
        assert outside not in page
    assert f"{evaluated['model']['vertex_error_mm']['mean']:.3g}" in page


@pytest.mark.parametrize("content", ["{}", "[1]", "null", '{"model": '])
def test_a_damaged_evaluation_is_named(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    shutil.copytree(work / "pca", tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").write_text(content)
    before = tree(tmp_path)
    arguments = ("report", tmp_path / "run", "--data", work / "hands")
    in_process(capsys, *arguments).refuses(str(tmp_path / "run" / "evaluation.json"))
    assert tree(tmp_path) == before


# help


def commands(of: App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command with a function behind it, by the words that call it."""
    for name in of:
        if not name.startswith("-"):
            child = of[name]
            if child.default_command is not None:
                yield (*path, name), child
            yield from commands(child, (*path, name))


COMMANDS = dict(commands(app))


def test_the_commands_are_those_of_the_design() -> None:
    assert {" ".join(words) for words in COMMANDS} >= {
        "data make", "data import", "data info", "train", "evaluate", "reconstruct", "sample",
        "edit interpolate", "report",
    }  # fmt: skip


@pytest.mark.parametrize("words", list(COMMANDS), ids=" ".join)
def test_help_says_what_it_does_and_documents_every_flag(words: tuple[str, ...], do: Do) -> None:
    shown = do(*words, "--help").out
    flat = " ".join(shown.replace("│", " ").split())
    function = COMMANDS[words].default_command
    assert function is not None and inspect.getdoc(function), words
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        told = [
            extra
            for extra in getattr(hints[name], "__metadata__", ())
            if getattr(extra, "help", None)
        ]
        assert told, f"{' '.join(words)}: {name} has no help"
        assert told[0].help.replace("`", "").split()[0] in flat
        plain = name.replace("_", "-")
        own = (plain.upper(),) if parameter.kind is parameter.POSITIONAL_ONLY else (f"--{plain}",)
        for label in told[0].name or own:
            assert label in flat, f"{' '.join(words)}: {label} is not shown"
    flat = flat.replace("--no-browser", "")  # asked for; others come from the parser by itself
    assert "--empty-" not in flat and "--no-" not in flat


def test_version_and_a_bare_call(do: Do) -> None:
    import morphable

    assert do("--version").out.strip() == morphable.__version__
    assert "Usage: morphable" in do().out
