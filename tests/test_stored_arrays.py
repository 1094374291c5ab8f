"""Whatever a model file or the cache holds, nothing is read outside of an array: each array of each
family is altered in several ways, and the file is refused in a sentence or means the same as before.
"""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import ball_template
from helpers import environment, real, shapes
from morphable.errors import InputError
from morphable.mesh.hierarchy import build_hierarchy
from morphable.mesh.parameterize import parameterize
from morphable.mesh.regions import Regions, spread_controls
from morphable.mesh.stored_arrays import (
    stored_indices,
    stored_numbers,
    stored_sparse,
    stored_texts,
)
from morphable.mesh.template import Template
from morphable.models.base import EstimatedModel, LearnedModel, MorphableModel
from morphable.models.families import MODELS, create
from morphable.models.io import load, save

Change = Callable[[np.ndarray], np.ndarray]

CHANGES: dict[str, Change] = {
    "a million": lambda a: a * 0 + 10**6,
    "minus seven": lambda a: a * 0 - 7,
    "the largest": lambda a: np.full(a.shape, 2**64 - 1, np.uint64),
    "not a number": lambda a: np.full(a.shape, np.nan),
    "text": lambda a: np.full(a.shape, "7"),
    "one axis more": lambda a: a[None],
    "flat": lambda a: a.reshape(-1)[:1].reshape(()),
    "empty": lambda a: a[:0],
    "one less": lambda a: a[:-1],
    "twice": lambda a: np.concatenate([a, a]),
}


def alter_all(folder: Path) -> None:
    """Alter every array of the model in `folder` in every way; assert that it is refused or equal.

    Prints what it is about to try, so that a crash tells what caused it.
    """
    expected = outputs(load(folder))
    path = folder / "template.npz"
    with np.load(path) as file:
        arrays = dict(file)
    for name, array in arrays.items():
        for change, alter in CHANGES.items():
            # Positions and weights are numbers like those of a network, and a level may have any
            # number of triangles: another value is another model, not a fault.
            free = array.dtype.kind == "f" and change in ("a million", "minus seven")
            triangles = name.endswith("triangles") and change in ("empty", "one less", "twice")
            if free or triangles or (array.dtype.kind == "U" and change in tuple(CHANGES)[:2]):
                continue
            if array.ndim == 0 and change in ("empty", "one less", "twice"):
                continue
            print(f"{name}: {change}", flush=True)
            np.savez(path, **{**arrays, name: alter(array)})
            refused_or_equal(folder, expected, name)
        print(f"{name}: removed", flush=True)
        np.savez(path, **{key: value for key, value in arrays.items() if key != name})
        refused_or_equal(folder, expected, name)


def refused_or_equal(folder: Path, expected: list[torch.Tensor], what: str) -> None:
    try:
        found = outputs(load(folder))
    except InputError as error:
        assert str(folder) in str(error)
    else:
        assert all(map(torch.equal, found, expected)), what


@torch.no_grad()
def outputs(model: MorphableModel) -> list[torch.Tensor]:
    code = torch.linspace(-1, 1, model.parts.size)[None]
    shape = torch.linspace(-50, 50, 3 * model.template.n_vertices).view(1, -1, 3)
    return [model.decode(code), model.encode(shape)]


def full_template() -> Template:
    """640 vertices with everything that a template can hold."""
    ball = ball_template(640)
    labels = (ball.mesh.vertices[:, 0] > 0).astype(np.int64)
    controls = spread_controls(ball.mesh, labels)
    uv, uv_faces = parameterize(ball.mesh)
    return Template(
        ball.mesh,
        "ball",
        uv=uv.astype(np.float32),
        uv_faces=uv_faces,
        regions=Regions(labels, ("left", "right"), controls),
        landmarks=np.array([3, 4]),
        mirror=np.arange(640),
        masks={"face": labels == 1},
        rigid=np.array([5]),
    )


SMALLER: dict[str, dict[str, Any]] = {
    "rotation-mlp": {"triangles": 20, "rank": 8},
    "lamm": {"width": 16, "heads": 1},
    "lamm-mixer": {"width": 16, "heads": 1},
    "gan": {"resolution": 16, "search_steps": 2},
    "ac-gan": {"resolution": 16, "search_steps": 2},
}


def small(family: str) -> MorphableModel:
    torch.manual_seed(0)
    template = full_template()
    config = MODELS[family].fast.model
    made = create(family, template, config, **SMALLER.get(family, {}))
    if isinstance(made, LearnedModel):
        made.initialize(shapes(template, 8), {"neutral": np.array([0, 0, 0, 0, 4, 4, 4, 4])})
        return made.eval().for_inference()
    assert isinstance(made, EstimatedModel)
    return made.eval()


@pytest.mark.parametrize("family", list(MODELS))
def test_an_altered_array_is_refused_or_means_the_same(family: str, tmp_path: Path) -> None:
    save(small(family), tmp_path / "model")
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        env=environment(),
    )
    last = done.stdout.strip().splitlines()[-1:]
    assert done.returncode == 0, (family, last, done.returncode, done.stderr[-2000:])


def test_the_command_line_refuses_a_crafted_model(tmp_path: Path) -> None:
    save(small("spiralnet++"), tmp_path / "model")
    path = tmp_path / "model" / "template.npz"
    with np.load(path) as file:
        arrays = dict(file)
    columns = "geometry/hierarchy/0/up_columns"
    np.savez(path, **{**arrays, columns: arrays[columns] * 0 + 10**6})
    ended = real("sample", tmp_path / "model", "-n", 1, "--out", tmp_path / "o")
    ended.refuses(str(path), "0/up_columns: expected indices from 0 to")
    assert not (tmp_path / "o").exists()


def test_crafted_keys_of_a_learned_map_are_refused() -> None:
    made = create("deep3dmm", full_template(), latent=2)
    weights = made.state_dict()
    name = next(name for name in weights if name.endswith("selected"))
    weights[name] = weights[name] + 10**6
    with pytest.raises(RuntimeError, match="selected: expected keys from 0"):
        made.load_state_dict(weights)


def test_a_crafted_cache_is_built_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MORPHABLE_CACHE", str(tmp_path))
    mesh = ball_template(640).mesh
    good = build_hierarchy(mesh).to_arrays()
    (entry,) = tmp_path.iterdir()
    for name, change in (("0/up_columns", "a million"), ("1/kept", "minus seven")):
        np.savez(entry, **{**good, name: CHANGES[change](good[name])})
        again = build_hierarchy(mesh).to_arrays()
        assert all(np.array_equal(good[key], again[key]) for key in good)
    np.savez(entry, **build_hierarchy(mesh, (4, 4)).to_arrays())  # of another hierarchy
    assert len(build_hierarchy(mesh).levels) == 5


def test_arrays_are_named_with_what_was_expected() -> None:
    arrays = {
        "a": np.array([0, 5]),
        "x": np.array([1.0, np.inf]),
        "t": np.array(["m"]),
        "data": np.ones(2),
        "indices": np.array([0, 1]),
        "indptr": np.array([0, 2, 1]),
    }
    for words, attempt in (
        ("there is no array b", lambda: stored_indices(arrays, "b", (2,), 9)),
        ("a: expected indices from 0 to 4, got 0 to 5", lambda: stored_indices(arrays, "a", (2,), 5)),
        (r"a: expected whole numbers, 3, got int64 \(2,\)", lambda: stored_indices(arrays, "a", (3,), 9)),
        ("a: expected floats", lambda: stored_numbers(arrays, "a", (2,))),
        ("x: holds a number that is not finite", lambda: stored_numbers(arrays, "x", (None,))),
        ("x: expected text", lambda: stored_texts(arrays, "x")),
        ("indptr: expected rows that cover 2 entries", lambda: stored_sparse(arrays, (2, 2))),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            attempt()


# Zips


def bomb(path: Path, member: str, size: int) -> None:
    """A zip of a model in which one member inflates to `size` zeros."""
    chunk = bytes(1 << 24)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open(member, "w", force_zip64=True) as file,
    ):
        for _ in range(size // len(chunk)):
            file.write(chunk)


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("zips") / "model"
    save(small("pca"), folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_zip_that_inflates_too_far_is_refused_at_once(
    tmp_path: Path, model_files: dict[str, bytes]
) -> None:
    others = {k: v for k, v in model_files.items() if k != "weights.safetensors"}
    path = zipped(tmp_path / "m.zip", others)
    bomb(path, "weights.safetensors", 1 << 29)
    clock = time.monotonic()
    with pytest.raises(InputError, match=r"m\.zip: would inflate to 0\.5 GB; the limit .* 0\.3 GB"):
        load(path)
    assert time.monotonic() - clock < 1


def test_a_member_that_is_not_needed_is_not_read(
    tmp_path: Path, model_files: dict[str, bytes]
) -> None:
    path = zipped(tmp_path / "m.zip", model_files)
    bomb(path, "notes.bin", 1 << 29)
    clock = time.monotonic()
    assert load(path).family == "pca"
    assert time.monotonic() - clock < 1


def test_an_npz_inside_that_inflates_too_far_is_refused(
    tmp_path: Path, model_files: dict[str, bytes]
) -> None:
    inner = tmp_path / "template.npz"
    inner.write_bytes(model_files["template.npz"])
    bomb(inner, "large.npy", 1 << 29)
    files = model_files | {"template.npz": inner.read_bytes()}
    with pytest.raises(InputError, match=r"template\.npz: would inflate to"):
        load(zipped(tmp_path / "m.zip", files))
    with pytest.raises(InputError, match=r"template\.npz: would inflate to"):
        Template.load(inner)


if __name__ == "__main__":
    alter_all(Path(sys.argv[1]))
