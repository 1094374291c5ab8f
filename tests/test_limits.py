"""Values that no one can mean, and files with other content than was written: a sentence, never a
traceback, and nothing left behind.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import ball_template
from helpers import Outcome, dataset, in_process, real, tree
from morphable.cli.main import main
from morphable.config import Configuration
from morphable.data.dataset import load_dataset
from morphable.data.mesh_stack import MeshStack
from morphable.data.registered_mesh import write_shape
from morphable.errors import InputError
from morphable.evaluate.record import evaluate_model
from morphable.models.families import MODELS, create
from morphable.models.io import load
from morphable.models.training import TrainConfig

Do = Callable[..., Outcome]
TEMPLATE = ball_template(60)


@pytest.fixture
def do(capsys: pytest.CaptureFixture[str]) -> Do:
    return lambda *arguments: in_process(capsys, *arguments)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset `set`, a pca run `pca`, a pca-mlp run `mlp` of two epochs."""
    root = tmp_path_factory.mktemp("place")
    dataset(TEMPLATE, root / "set", 60, subjects=20)
    train = ["train", "--data", str(root / "set"), "--out"]
    main([*train, str(root / "pca"), "pca", "--latent", "2"])
    for name in ("a.ply", "b.ply"):
        write_shape(root / name, TEMPLATE.mesh.vertices, TEMPLATE)
    main([*train, str(root / "mlp"), "pca-mlp", "--latent", "2", "--epochs", "2"])
    return root


# Settings


def sizes() -> list[tuple[str, str]]:
    """Every whole number that a family's model or training can be given."""
    found = []
    for family, row in MODELS.items():
        found += [(family, f"model.{key}") for key in whole_numbers(type(row.fast.model))]
    return found + [("pca-mlp", f"train.{key}") for key in whole_numbers(TrainConfig)]


def whole_numbers(kind: type[Configuration]) -> list[str]:
    hints = typing.get_type_hints(kind)
    return [field.name for field in dataclasses.fields(kind) if hints[field.name] is int]


@pytest.mark.parametrize(("family", "key"), sizes())
@pytest.mark.parametrize("value", ["100000000000", "9" * 50, "-1"])
def test_a_whole_number_that_cannot_be_meant(
    place: Path, tmp_path: Path, do: Do, family: str, key: str, value: str
) -> None:
    if key == "model.refresh_above" and value != "-1":
        return  # a threshold, which may be as high as it likes
    words = ("train", family, "--data", place / "set", "--out", tmp_path / "x")
    do(*words, "--set", f"{key}={value}").refuses(f"--set {key}: expected", "got", value)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("key", ["expansion", "channel_expansion"])
@pytest.mark.parametrize("value", ["1e5", "1e30", "nan", "-1"])
def test_a_factor_that_cannot_be_meant(
    place: Path, tmp_path: Path, do: Do, key: str, value: str
) -> None:
    words = ("train", "lamm-mixer", "--data", place / "set", "--out", tmp_path / "x")
    do(*words, "--set", f"model.{key}={value}").refuses(f"--set model.{key}: expected a")


def test_sizes_whose_product_cannot_be_meant() -> None:
    with pytest.raises(InputError, match="more than 500,000,000 trainable parameters"):
        create("pca-mlp", TEMPLATE, width=10_000, depth=10_000)
    assert create("pca-mlp", TEMPLATE, width=8).latent == 8


COUNTS = {
    "sample -n": ("sample P/pca -n 99999999999999999999 --out P/x", ("-n", "whole number")),
    "sample -n in range of int64": ("sample P/pca -n 1000000000 --out P/x", ("-n 1000000000", "at most 100,000")),
    "sample scale": ("sample P/pca -n 1 --scale 1e30 --out P/x", ("--scale 1e+30", "at most")),
    "hands": ("data make hands --count 1000000000 --out P/x", ("--count 1000000000", "at most 1,000,000")),
    "bodies": ("data make bodies --count 100000000000000000000 --out P/x", ("--count", "whole number")),
    "steps": ("edit interpolate P/pca P/a.ply P/b.ply --steps 1000000000 --out P/x", ("--steps 1000000000", "at most")),
    "from": ("edit extrapolate P/pca P/a.ply P/b.ply --from -1e308 --out P/x", ("--from -1e+308", "at most 1,000,000")),
    "epochs": ("train pca-mlp --data P/set --epochs 100000000000 --out P/x", ("train.epochs", "1 to 1,000,000")),
    "bench epochs": ("bench main --epochs 0 --out P/x", ("--epochs 0", "at least 1")),
    "bench negative epochs": ("bench main --epochs -1 --out P/x", ("--epochs -1", "at least 1")),
    "bench seeds": ("bench main --seeds 1000000 --out P/x", ("--seeds 1000000", "at most")),
    "bench source": ("bench main --source P/none --out P/x", ("--source P/none: no such",)),
    "long split": (f"train pca --data P/set --split {'n' * 5000} --out P/x", ("there is no split",)),
    "empty split to evaluate": ("evaluate P/pca --split=", ("--split",)),
    "empty split and a subset": ("evaluate P/pca --split=:test", ("there is no split ''",)),
    "empty split": ("train pca --data P/set --split= --out P/x", ("there is no split ''",)),
    "long name": (f"train pca --data P/set --out P/{'n' * 300}", ("names of at most 255",)),
    "long path": (f"train pca --data P/set --out P/{'n/' * 3000}", ("at most 4095 bytes",)),
    "long file": (f"reconstruct P/pca P/{'n' * 300}.ply --out P/x", ("names of at most 255",)),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_words_that_cannot_be_meant(place: Path, do: Do, name: str) -> None:
    words, told = COUNTS[name]
    before = tree(place)
    do(*words.replace("P/", f"{place}/").split()).refuses(
        *(word.replace("P/", f"{place}/") for word in told)
    )
    assert tree(place) == before


def test_a_path_that_is_not_utf8(place: Path, tmp_path: Path) -> None:
    strange = os.fsdecode(bytes(tmp_path) + b"/b\xff\xfe")
    real("train", "pca", "--data", place / "set", "--out", strange).refuses("a path in UTF-8")
    shutil.copytree(place / "set", strange)
    real("train", "pca", "--data", strange, "--out", tmp_path / "x").refuses("a path in UTF-8")
    assert not (tmp_path / "x").exists()


def test_a_path_with_a_nul(place: Path, do: Do) -> None:
    do("evaluate", f"{place}/pca\0").refuses("expected a path")


# Datasets


def test_meshes_that_are_not_finite_are_named_wherever_they_are_read(
    place: Path, tmp_path: Path, do: Do
) -> None:
    for value in (np.nan, np.inf, 3e38):
        folder = tmp_path / f"{value}"
        shutil.copytree(place / "set", folder)
        stored = np.load(folder / "vertices.npy")
        stored[17, 3, 1] = value
        np.save(folder / "vertices.npy", stored)
        info = json.loads((folder / "dataset.json").read_text())
        del info["sampled_hash"]  # a large set, of which the sample missed the change
        (folder / "dataset.json").write_text(json.dumps(info))
        told = f"{folder}: mesh 17 has a coordinate that is not finite or beyond 1e+09 mm"
        for family in ("pca", "pca-mlp"):
            do("train", family, "--data", folder, "--out", tmp_path / "x").refuses(told)
        assert not (tmp_path / "x").exists()
        data = load_dataset(folder).split("frames")
        with pytest.raises(InputError, match=r"mesh 17 has a coordinate"):
            evaluate_model(load(place / "pca"), data=data, subset="train")
        assert "mesh 17: holds" in do("data", "info", folder, "--audit").out


def test_a_stack_names_the_mesh_of_the_folder() -> None:
    shards = [np.zeros((3, 2, 3), np.float32), np.zeros((3, 2, 3), np.float32)]
    shards[1][2, 0, 0] = np.nan
    stack = MeshStack(shards, name="hands").select(np.array([1, 5, 2]))
    assert not stack[[0, 2]].any()
    for index in (1, slice(1, 2), [0, 1]):
        with pytest.raises(InputError, match="hands: mesh 5 has"):
            stack[index]


def test_a_template_without_faces_is_refused(place: Path, tmp_path: Path, do: Do) -> None:
    shutil.copytree(place / "set", tmp_path / "set")
    arrays = dict(np.load(tmp_path / "set" / "template.npz"))
    arrays["faces"] = np.zeros((0, 3), np.int32)
    np.savez(tmp_path / "set" / "template.npz", **arrays)
    for words in (("data", "info"), ("data", "regions")):
        do(*words, tmp_path / "set").refuses("template.npz: faces: expected at least one")


# Checkpoints and other files of a run

WRONG: list[Any] = ["x", -5, 1.5, None, float("nan"), [], {}, 10**9, ["x"], True, torch.zeros(3)]
KEYS = (
    "format_version",
    "model",
    "learner",
    "generators",
    "torch_random",
    "step",
    "best_mm",
    "start_mm",
    "sums",
)


NUMBERS = ("best_mm", "start_mm", "seconds")


@pytest.fixture
def resumable(place: Path, tmp_path: Path) -> Path:
    """A run that has trained two of three epochs."""
    shutil.copytree(place / "mlp", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace("epochs = 2", "epochs = 3"))
    return tmp_path / "run"


def resumed(do: Do, place: Path, run: Path) -> Outcome:
    return do("train", "pca-mlp", "--data", place / "set", "--out", run, "--resume")


@pytest.mark.parametrize("key", [*KEYS, "seconds", "world"])
def test_a_field_of_a_checkpoint_is_another(place: Path, resumable: Path, do: Do, key: str) -> None:
    path = resumable / "checkpoint" / "last.pt"
    state = torch.load(path, weights_only=True)
    for value in WRONG:
        # These are possible values: no term yet, the error of a validation, the time so far.
        number = type(value) in (int, float) and value >= 0
        if (key == "sums" and value == {}) or (key in NUMBERS and number):
            continue
        if key == "world" and value is True:
            continue
        torch.save(state | {key: value}, path)
        resumed(do, place, resumable).refuses(str(path))
    torch.save(state, path)
    assert resumed(do, place, resumable).code == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda learner: learner["model"].pop("state"), "last.pt"),
        (lambda learner: learner["model"].update(state=[]), "last.pt"),
        (lambda learner: learner["model"]["state"].update({99: {"x": torch.zeros(2)}}), "last.pt"),
        (lambda learner: learner["model"]["state"][0].update(exp_avg=torch.zeros(7)), "exp_avg of parameter 0"),
    ],
)  # fmt: skip
def test_the_optimizer_of_a_checkpoint_is_another(
    place: Path, resumable: Path, do: Do, change: Callable[[Any], Any], words: str
) -> None:
    path = resumable / "checkpoint" / "last.pt"
    state = torch.load(path, weights_only=True)
    change(state["learner"])
    torch.save(state, path)
    resumed(do, place, resumable).refuses(str(path), words)


def test_the_latent_size_of_config_toml_was_changed(place: Path, resumable: Path, do: Do) -> None:
    config = resumable / "config.toml"
    config.write_text(config.read_text().replace("latent = 2", "latent = 3"))
    ended = resumed(do, place, resumable)
    ended.refuses("last.pt: does not fit the model of config.toml", "expected the shape", "got")
    assert "loading state_dict" not in ended.err


@pytest.mark.parametrize("value", [5, {}, {"model": 5}, {"model": {}, "epoch": 1}])
def test_the_kept_weights_are_others(place: Path, resumable: Path, do: Do, value: Any) -> None:
    state = torch.load(resumable / "checkpoint" / "last.pt", weights_only=True)
    state["best_mm"] = 0.0  # so that no later epoch replaces the kept one
    torch.save(state, resumable / "checkpoint" / "last.pt")
    kept = value if isinstance(value, int) else {"format_version": 2, **value}
    torch.save(kept, resumable / "checkpoint" / "kept.pt")
    resumed(do, place, resumable).refuses("kept.pt")


def test_a_plain_pickle_is_refused_in_one_line(place: Path, resumable: Path, do: Do) -> None:
    import pickle

    (resumable / "checkpoint" / "last.pt").write_bytes(pickle.dumps({"step": 1}))
    resumed(do, place, resumable).refuses("last.pt: not a readable checkpoint")


@pytest.mark.parametrize(
    "line", ["5", "[]", "{}", '{"epoch": 1, "step": 2}', '{"epoch": "x", "step": 1, "seconds": 1}']
)
def test_metrics_that_are_others(place: Path, tmp_path: Path, do: Do, line: str) -> None:
    shutil.copytree(place / "mlp", tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text(path.read_text() + line + "\n")
    do("report", tmp_path / "run").refuses(f"{path}: not valid JSON lines")


def test_metrics_that_are_a_folder(place: Path, resumable: Path, do: Do) -> None:
    (resumable / "metrics.jsonl").unlink()
    (resumable / "metrics.jsonl").mkdir()
    resumed(do, place, resumable).refuses("metrics.jsonl: cannot be read")


def test_an_evaluation_that_was_changed_is_refused(place: Path, tmp_path: Path, do: Do) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "pca", run)
    assert do("evaluate", run).code == 0
    record = json.loads((run / "evaluation.json").read_text())
    for change in ({"model": {"vertex_error_mm": 5}}, {"baselines": {}}, {"pca_curve": {"x": 1}}):
        (run / "evaluation.json").write_text(json.dumps(record | change))
        do("report", run).refuses("evaluation.json, which was changed by hand")
    (run / "evaluation.json").write_text(json.dumps(record))
    assert do("report", run).code == 0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('family = "pca-mlp"', "family = 5", "family is not a text"),
        ("[model]", "[other]", "model is not a table"),
        ('split = "', 'split = 5 # "', "split is not a text"),
        ("[train]\n", "[train]\nepochs = [1]\n#", "config.toml"),
        ("latent = 2", "latent = []", "latent: expected a whole number"),
    ],
)
def test_config_toml_was_changed(
    place: Path, resumable: Path, do: Do, old: str, new: str, words: str
) -> None:
    config = resumable / "config.toml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    resumed(do, place, resumable).refuses(str(config), words)


NESTED = ("[" * 200_000, '{"a":' * 100_000, "1" * 5000)


@pytest.mark.parametrize("text", NESTED, ids=["lists", "objects", "digits"])
def test_json_of_any_depth(place: Path, tmp_path: Path, do: Do, text: str) -> None:
    shutil.copytree(place / "set", tmp_path / "set")
    (tmp_path / "set" / "dataset.json").write_text(text)
    do("data", "info", tmp_path / "set").refuses("dataset.json: not valid JSON")
    shutil.copytree(place / "pca", tmp_path / "run")
    (tmp_path / "run" / "model" / "model.json").write_text(text)
    do("sample", tmp_path / "run", "-n", 1, "--out", tmp_path / "x").refuses("model.json")
    (tmp_path / "c.toml").write_text(f"a={text}")
    words = ("train", "pca", "--data", place / "set", "--out", tmp_path / "x", "--config")
    do(*words, tmp_path / "c.toml").refuses("c.toml: cannot be read as TOML")


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors", "template.npz"])
def test_a_file_of_a_model_is_a_folder(place: Path, tmp_path: Path, do: Do, name: str) -> None:
    shutil.copytree(place / "pca", tmp_path / "run")
    (tmp_path / "run" / "model" / name).unlink()
    (tmp_path / "run" / "model" / name).mkdir()
    do("sample", tmp_path / "run", "-n", 1, "--out", tmp_path / "x").refuses(f"{name}: cannot be")


@pytest.mark.parametrize("key", ["dataset.json", "splits"])
@pytest.mark.parametrize("value", [None, 5, [], {}, [[1]], True])
def test_a_record_of_a_dataset_is_another(
    place: Path, tmp_path: Path, do: Do, key: str, value: Any
) -> None:
    shutil.copytree(place / "set", tmp_path / "set")
    path = tmp_path / "set" / key
    path = path if path.is_file() else path / "subject.json"
    record = json.loads(path.read_text())
    for field in record:
        path.write_text(json.dumps(record | {field: value}))
        words = ("train", "pca", "--data", tmp_path / "set", "--out", tmp_path / "x", "--latent", 2)
        ended = do(*words)
        assert ended.code in (0, 2), (field, ended.err)
        shutil.rmtree(tmp_path / "x", ignore_errors=True)
