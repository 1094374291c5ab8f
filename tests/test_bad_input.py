"""Bad input: one clear sentence that names the file and the fault, exit code 2, and nothing
written.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from conftest import ball_template
from helpers import Outcome, command, dataset, environment, in_process, real, tree
from morphable.cli.main import main
from morphable.data.registered_mesh import write_shape
from morphable.errors import InputError
from morphable.mesh.io import write_mesh
from morphable.mesh.mesh import Mesh
from morphable.models.io import load, save

Do = Callable[..., Outcome]


@pytest.fixture
def do(capsys: pytest.CaptureFixture[str]) -> Do:
    return lambda *arguments: in_process(capsys, *arguments)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, a finished PCA run, a zip of its model, a mesh, and a dataset of another template."""
    root = tmp_path_factory.mktemp("place")
    made = dataset(ball_template(600), root / "set", 60, subjects=20)
    dataset(ball_template(50), root / "other", 60, subjects=20)
    dataset(ball_template(600), root / "three", 3, subjects=3)
    dataset(ball_template(600), root / "two", 2, subjects=2)
    write_shape(root / "a.ply", made.vertices[0], made.template)
    write_shape(root / "b.ply", made.vertices[1], made.template)
    main(["train", "pca", "--data", str(root / "set"), "--out", str(root / "run"), "--latent", "3"])
    save(load(root / "run"), root / "model.zip")
    (root / "full").mkdir()
    (root / "full" / "mine.txt").write_text("mine")
    (root / "notes.txt").write_text("notes")
    return root


# Arguments with P for the folder above, and words that the sentence must hold.
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    # the command line itself
    "unknown command": ("trian coma", ("trian",)),
    "unknown option": ("train coma --data P/set --out P/x --epoch 3", ("--epoch", "--epochs")),
    "missing option": ("train coma --out P/x", ("train: --data is missing: dataset folder",)),
    "missing argument": ("train --data P/set --out P/x", ("train: FAMILY is missing: model family",)),
    "missing value": ("train coma --data P/set --out P/x --epochs", ("--epochs requires an argument",)),
    "missing unit": ("data import folder P/full --out P/x", ("--unit", "missing")),
    "a word for a number": ("train coma --data P/set --out P/x --epochs many", ("--epochs", "many")),
    "a choice that is none": ("train coma --data P/set --out P/x --recipe slow", ("slow",)),
    # making data
    "make what": ("data make feet --out P/x", ("feet",)),
    "make none": ("data make hands --count 0 --out P/x", ("--count 0",)),
    "make with a foreign option": ("data make hands --size 5k --out P/x", ("--size", "not an option of hands")),
    "make with a bad seed": ("data make hands --seed -1 --out P/x", ("seed",)),
    "make where something is": ("data make hands --out P/full", ("P/full: already exists",)),
    "make where a file is": ("data make hands --out P/notes.txt", ("P/notes.txt: already exists",)),
    "make under a file": ("data make hands --count 5 --out P/notes.txt/x", ("P/notes.txt/x: cannot be written",)),
    "faces from nowhere": ("data make faces --out P/x --source P/none", ("P/none",)),
    # looking at data
    "no dataset": ("data info P/none", ("P/none: no such dataset folder",)),
    "not a dataset": ("data info P/full", ("P/full", "no dataset.json")),
    "a file for a dataset": ("data info P/notes.txt", ("P/notes.txt",)),
    # training
    "unknown family": ("train comma --data P/set --out P/x", ("'comma'", "did you mean 'coma'")),
    "no data": ("train coma --data P/none --out P/x", ("P/none: no such dataset folder",)),
    "latent 0": ("train coma --data P/set --out P/x --latent 0", ("--latent 0", "at least 1")),
    "latent of PCA 0": ("train pca --data P/set --out P/x --latent 0", ("--latent 0",)),
    "latent by --set": ("train coma --data P/set --out P/x --set model.latent=0", ("latent", "1 to 1,000,000")),
    "latent of no part": ("train coma --data P/set --out P/x --latent nose=4", ("nose",)),
    "huge latent": ("train coma --data P/set --out P/x --latent 99999999999", ("--latent 99999999999",)),
    "no epochs": ("train coma --data P/set --out P/x --epochs 0", ("train.epochs", "1 to 1,000,000, got 0")),
    "negative seed": ("train coma --data P/set --out P/x --seed -1", ("train.seed",)),
    "unknown setting": ("train coma --data P/set --out P/x --set train.epoch=3", ("train.epoch", "'epochs'")),
    "unknown table": ("train coma --data P/set --out P/x --set epochs=3", ("--set epochs=3", "train.KEY=VALUE")),
    "a bad value": ("train coma --data P/set --out P/x --set train.precision=half", ("train.precision", "bfloat16")),
    "unknown split": ("train coma --data P/set --out P/x --split sbject", ("'sbject'", "subject")),
    "one training mesh": ("train coma --data P/three --out P/x", ("P/three", "1 training mesh")),
    "no split at all": ("train coma --data P/two --out P/x", ("P/two", "at least three meshes")),
    "a run that exists": ("train pca --data P/set --out P/run", ("P/run: already exists",)),
    "training on what is not trained": ("train pca --data P/set --out P/x --epochs 3", ("--epochs", "closed form")),
    "nothing to resume": ("train coma --data P/set --out P/x --resume", ("P/x: nothing to resume",)),
    "no config": ("train coma --data P/set --out P/x --config P/none.toml", ("P/none.toml: no such file",)),
    "a config of another kind": ("train coma --data P/set --out P/x --config P/notes.txt", ("P/notes.txt",)),
    "a config of another family": (
        "train coma --data P/set --out P/x --config P/run/config.toml", ("P/run/config.toml", "pca, not coma"),
    ),
    # using a model
    "no model": ("evaluate P/none", ("P/none: no such model",)),
    "not a model": ("evaluate P/full", ("P/full: not a model",)),
    "a text for a model": ("sample P/notes.txt -n 1 --out P/x", ("P/notes.txt: not a model",)),
    "a mesh for a model": ("sample P/a.ply -n 1 --out P/x", ("P/a.ply: not a model",)),
    "a template that is not the dataset's": ("evaluate P/run --data P/other", ("P/other: its template", "the model's")),
    "a split without a part": ("evaluate P/run --split subject", ("--split subject", "subject:test")),
    "a part that is none": ("evaluate P/run --split subject:dev", ("subject:dev",)),
    "a split that is none": ("evaluate P/run --split nope:test", ("'nope'",)),
    "results into a folder": ("evaluate P/run --json P/full", ("P/full: is a folder",)),
    "results under a file": ("evaluate P/run --json P/notes.txt/e.json", ("P/notes.txt/e.json: cannot be written",)),
    "reconstruct nothing": ("reconstruct P/run P/none.ply --out P/x", ("P/none.ply: no such file",)),
    "reconstruct no input": ("reconstruct P/run --out P/x", ("MESHES",)),
    "reconstruct a text": ("reconstruct P/run P/notes.txt --out P/x", ("P/notes.txt: unknown mesh suffix",)),
    "reconstruct where something is": ("reconstruct P/run P/a.ply --out P/full", ("P/full: already exists",)),
    "reconstruct one twice": ("reconstruct P/run P/a.ply P/set/../a.ply --out P/x", ("a.ply", "overwrite")),
    "reconstruct a cloud": ("reconstruct P/run P/a.ply --points --out P/x", ("encodes registered meshes",)),
    "reconstruct with what is inferred": (
        "reconstruct P/run P/a.ply --given shape=1,2,3 --out P/x", ("--given shape", "infers")
    ),
    "reconstruct in another unit": ("reconstruct P/run P/a.ply --unit m --out P/x", ("P/a.ply", "is the unit right")),
    "sample none": ("sample P/run -n 0 --out P/x", ("-n 0",)),
    "sample fewer than none": ("sample P/run -n -1 --out P/x", ("-n",)),
    "sample half": ("sample P/run -n 1.5 --out P/x", ("whole number, got '1.5'",)),
    "sample with a bad seed": ("sample P/run -n 1 --seed -1 --out P/x", ("--seed",)),
    "sample at no scale": ("sample P/run -n 1 --scale nan --out P/x", ("--scale nan",)),
    "sample a part that is none": ("sample P/run -n 1 --part nose --out P/x", ("'nose'", "shape")),
    "sample given nothing": ("sample P/run -n 1 --given shape=1 --out P/x", ("--given shape=1", "3 numbers")),
    "sample where something is": ("sample P/run -n 1 --out P/full", ("P/full: already exists",)),
    "sample into no format": ("sample P/run -n 1 --format stl --out P/x", ("stl",)),
    "interpolate one step": ("edit interpolate P/run P/a.ply P/b.ply --steps 1 --out P/x", ("--steps 1",)),
    "interpolate to nothing": ("edit interpolate P/run P/a.ply P/c.ply --out P/x", ("P/c.ply: no such file",)),
    "interpolate a part that is none": (
        "edit interpolate P/run P/a.ply P/b.ply --part nose --out P/x", ("'nose'",),
    ),
    "report of no run": ("report P/model.zip", ("P/model.zip: not a run folder",)),
    "report on other data": ("report P/run --data P/other", ("P/other: its template",)),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_bad_arguments(place: Path, do: Do, name: str) -> None:
    text, words = CASES[name]
    before = tree(place)
    do(*text.replace("P/", f"{place}/").split()).refuses(
        *(word.replace("P/", f"{place}/") for word in words)
    )
    assert tree(place) == before


@pytest.mark.parametrize(
    "name",
    [
        "unknown family",
        "latent 0",
        "no dataset",
        "a run that exists",
        "a template that is not the dataset's",
    ],
)
def test_as_a_user_sees_it(place: Path, name: str) -> None:
    text, words = CASES[name]
    before = tree(place)
    ended = real(*text.replace("P/", f"{place}/").split())
    ended.refuses(*(word.replace("P/", f"{place}/") for word in words))
    assert ended.out == "" and tree(place) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train = 3\n", "'train'"),
        ("[model]\nlatent = 3\n[trian]\nepochs = 3\n", "'trian'"),
        ("[train]\nepoch = 3\n", "train.epoch: there is no such setting; did you mean 'epochs'"),
        ("[train]\nepochs = 'x'\n", "train.epochs: expected a whole number"),
        ("[train]\nepochs = [3]\n", "train.epochs"),
        ("[train]\nlearning_rate = nan\n", "train.learning_rate: expected a number"),
        ("[model]\nfilters = 3\n", "model.filters: expected one of"),
        ("[train\n", "cannot be read as TOML"),
    ],
)
def test_config_files(place: Path, tmp_path: Path, do: Do, text: str, words: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    ended = do(
        "train",
        "coma",
        "--data",
        place / "set",
        "--out",
        tmp_path / "x",
        "--config",
        tmp_path / "c.toml",
    )
    ended.refuses(str(tmp_path / "c.toml"), words)
    assert set(tree(tmp_path)) == {"c.toml"}


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_split_with_an_empty_part(place: Path, tmp_path: Path, do: Do, part: str) -> None:
    from morphable.data.splits import Split

    shutil.copytree(place / "set", tmp_path / "set")
    rows = {"train": np.arange(0, 40), "val": np.arange(40, 50), "test": np.arange(50, 60)}
    Split(**(rows | {part: np.zeros(0, np.int64)})).write(tmp_path / "set" / "splits" / "odd.json")
    words = f"split 'odd' has no {part} mesh"
    if part == "test":
        do("evaluate", place / "run", "--data", tmp_path / "set", "--split", "odd:test").refuses(
            words
        )
    else:
        do(
            "train", "coma", "--data", tmp_path / "set", "--out", tmp_path / "x", "--split", "odd"
        ).refuses(words)
    assert not (tmp_path / "x").exists()


# Meshes that do not fit the model


def test_meshes_that_do_not_fit_the_model(place: Path, tmp_path: Path, do: Do) -> None:
    template = load(place / "run").template
    write_shape(tmp_path / "few.ply", ball_template(50).mesh.vertices, ball_template(50))
    order = np.roll(np.arange(600), 1)
    write_mesh(
        tmp_path / "order.ply", Mesh(template.mesh.vertices[order], (template.mesh.faces + 1) % 600)
    )
    content = (place / "a.ply").read_bytes()
    (tmp_path / "cut.ply").write_bytes(content[: len(content) // 2])
    before = tree(tmp_path)
    for name, words in (
        ("few.ply", "expected 600 vertices as in the template 'ball', got 50"),
        ("order.ply", "another vertex order"),
        ("cut.ply", "cut.ply"),
    ):
        path, out = tmp_path / name, tmp_path / "x"
        do("reconstruct", place / "run", place / "a.ply", path, "--out", out).refuses(
            str(path), words
        )
        do("edit", "interpolate", place / "run", place / "a.ply", path, "--out", out).refuses(
            str(path), words
        )
    assert tree(tmp_path) == before


# Templates that are odd


def test_a_template_in_pieces_and_one_with_fins_still_train_or_say_why(
    tmp_path: Path, do: Do
) -> None:
    from helpers import source
    from morphable.data.dataset import write_dataset
    from morphable.mesh.template import Template

    ball = ball_template(600).mesh
    away = ball.vertices + np.array([200, 0, 0])
    pieces = Mesh(
        np.concatenate([ball.vertices, away]), np.concatenate([ball.faces, ball.faces + 600])
    )
    fins = Mesh(
        ball.vertices,
        np.concatenate([ball.faces, ball.faces[:5, [0, 1, 2]][:, ::-1] * [1, 1, 0] + [0, 0, 599]]),
    )
    for name, mesh in (("pieces", pieces), ("fins", fins)):
        write_dataset(source(Template(mesh, name), 30), tmp_path / name)
        ended = do(
            "train",
            "coma",
            "--data",
            tmp_path / name,
            "--out",
            tmp_path / f"{name}-run",
            "--epochs",
            1,
        )
        assert ended.code in (0, 2) and "Traceback" not in ended.err, ended.err
        if ended.code == 0:
            assert (tmp_path / f"{name}-run" / "model" / "model.json").exists()
        else:
            ended.refuses()
            assert not (tmp_path / f"{name}-run").exists()


# Model files


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def described(**changes: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = json.loads(path.read_text()) | changes
        path.write_text(
            json.dumps({key: value for key, value in content.items() if value != "gone"})
        )

    return change


MODEL_DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "weights cut short": ("weights.safetensors", cut_in_half, "weights.safetensors: does not hold this model"),
    "weights empty": ("weights.safetensors", lambda p: p.write_bytes(b""), "weights.safetensors: does not hold"),
    "weights gone": ("weights.safetensors", Path.unlink, "has no weights.safetensors"),
    "template cut short": ("template.npz", cut_in_half, "template.npz: not a readable .npz file"),
    "template gone": ("template.npz", Path.unlink, "has no template.npz"),
    "another template": (
        "template.npz", lambda p: ball_template(50).save(p), "template.npz: is not the template that model.json names",
    ),
    "description cut short": ("model.json", cut_in_half, "model.json: not valid JSON"),
    "description is a list": ("model.json", lambda p: p.write_text("[]"), "model.json: expected a JSON object"),
    "no configuration": ("model.json", described(config="gone"), "model.json: config: expected an object"),
    "configuration is a number": ("model.json", described(config=3), "model.json: config: expected an object"),
    "unknown configuration": ("model.json", described(config={"lament": 3}), "model.json.lament"),
    "other configuration": ("model.json", described(config={"latent": 4}), "weights.safetensors: does not hold"),
    "no provenance": ("model.json", described(provenance=None), "model.json: provenance: expected an object"),
    "a later version": ("model.json", described(format_version=3), "expected format version 2"),
    "unknown family": ("model.json", described(family="nose"), "family 'nose'"),
    "family is a list": ("model.json", described(family=["pca"]), "model.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(MODEL_DAMAGE))
@pytest.mark.parametrize("zipped", [False, True])
def test_a_damaged_model_is_named(
    place: Path, tmp_path: Path, do: Do, name: str, zipped: bool
) -> None:
    member, change, words = MODEL_DAMAGE[name]
    model = tmp_path / "model"
    shutil.copytree(place / "run" / "model", model)
    change(model / member)
    if zipped:
        shutil.make_archive(str(model), "zip", model)
        shutil.rmtree(model)
        model = tmp_path / "model.zip"
    before = tree(tmp_path)
    do("sample", model, "-n", 1, "--out", tmp_path / "x").refuses(
        str(model), words.rpartition(".json.")[2]
    )
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/evil.txt", "..\\evil.txt", "a/../../evil.txt", "C:evil.txt"]
)
def test_a_zip_whose_paths_escape(place: Path, tmp_path: Path, do: Do, name: str) -> None:
    shutil.copy(place / "model.zip", tmp_path / "evil.zip")
    with zipfile.ZipFile(tmp_path / "evil.zip", "a") as archive:
        archive.writestr(name, "evil")
    before = tree(tmp_path.parent)
    do("sample", tmp_path / "evil.zip", "-n", 1, "--out", tmp_path / "x").refuses(
        "evil.zip", "would escape the folder"
    )
    assert tree(tmp_path.parent) == before and not Path("/evil.txt").exists()


def test_a_zip_damaged_anywhere_is_refused_or_whole(
    place: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    content = (place / "model.zip").read_bytes()
    path = tmp_path / "model.zip"
    damaged = [content[:length] for length in rng.integers(0, len(content), 15)]
    for position in rng.integers(0, len(content), 60):
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(flipped))
    expected = load(place / "model.zip").state_dict()
    for number, data in enumerate(damaged):
        path.write_bytes(data)
        try:
            found = load(path).state_dict()
        except InputError as error:
            assert str(path) in str(error), number
        else:
            assert all((found[key] == expected[key]).all() for key in expected), number


# A full disk


@pytest.fixture
def tight_disk() -> Iterator[None]:
    """No file may grow past 600 bytes: every write that matters fails with a real system error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "text",
    [
        "data make hands --count 5 --out P/x",
        "data import folder P/meshes --unit mm --out P/x",
        "train pca --data P/set --out P/x --latent 4",
        "evaluate P/run --json P/x.json",
        "reconstruct P/run P/a.ply --out P/x",
        "sample P/run -n 2 --out P/x",
        "edit interpolate P/run P/a.ply P/b.ply --out P/x",
        "report P/run",
    ],
)
def test_a_full_disk_is_named_and_leaves_nothing(
    place: Path, do: Do, tight_disk: None, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "meshes").mkdir(exist_ok=True)
    for name in "ab":
        if not (place / "meshes" / f"{name}.ply").exists():
            os.link(place / f"{name}.ply", place / "meshes" / f"{name}.ply")
    before = tree(place)
    do(*text.replace("P/", f"{place}/").split()).refuses("cannot be written: File too large")
    assert tree(place) == before


def test_a_place_that_may_not_be_written(place: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write anywhere")
    real("sample", place / "run", "-n", 1, "--out", locked / "x").refuses("cannot be written")


# Ctrl-C and closed pipes


def test_ctrl_c_while_making_data_leaves_nothing(tmp_path: Path) -> None:
    """Even where the tests themselves run in the background of a shell, which lets children ignore
    the signal.
    """
    process = subprocess.Popen(
        command("data", "make", "hands", "--count", 20000, "--out", tmp_path / "hands"),
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    end = time.monotonic() + 60
    while not list(tmp_path.glob(".hands.*/vertices.npy")) and time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.strip() == "morphable: stopped" and out == ""
    assert tree(tmp_path) == {}


def test_a_reader_that_stops_reading_is_no_error(place: Path) -> None:
    process = subprocess.Popen(
        command("data", "info", place / "set", "--json"), env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0 and err == ""
