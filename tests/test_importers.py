"""Each importer reads a miniature archive of the layout that users unpack, which the test writes."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from conftest import ball_template
from helpers import in_process, shapes, tree
from morphable.data.dataset import load_dataset
from morphable.data.importers import IMPORTERS, import_dataset
from morphable.data.importers.bu3dfe import FLORENCE, STABLE_VERTICES, YORK
from morphable.data.importers.coma import coma_labels
from morphable.data.splits import frame_split
from morphable.errors import InputError
from morphable.mesh.align import procrustes
from morphable.mesh.io import read_mesh, write_mesh
from morphable.mesh.io.foreign_linear_model import UHM_MM
from morphable.mesh.io.inert_pickle import read_pickle
from morphable.mesh.io.linear_model import LinearModel, write_linear_model
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template

h5py = pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def meshes(ball: Template) -> np.ndarray:
    return shapes(ball, 96)


def grid(count: int) -> np.ndarray:
    """Triangles of a strip over `count` vertices, for layouts that are told apart by their count."""
    row = np.arange(count - 2)
    return np.stack([row, row + 1, row + 2], axis=1)


def test_every_importer_is_tested_here() -> None:
    tested = set(IMPORTERS) - {"folder"}
    source = Path(__file__).read_text()
    assert all(f'"{name}"' in source for name in tested)


def coma_archive(root: Path, ball: Template, meshes: np.ndarray) -> Path:
    """Four people with three expressions of eight frames, in meters."""
    subjects = [f"FaceTalk_1707{number}_00137_TA" for number in (25, 28, 31, 33)]
    names = ("bareteeth", "mouth_open", "lips_up")
    row = iter(meshes)
    for subject in subjects:
        for name in names:
            for frame in range(1, 9):
                path = root / subject / name / f"{name}.{frame:06d}.ply"
                write_mesh(path, Mesh(next(row) / np.float32(1000), ball.mesh.faces))
    write_mesh(root / "template.obj", ball.mesh)
    return root


def test_coma(ball: Template, meshes: np.ndarray, tmp_path: Path) -> None:
    raw = coma_archive(tmp_path / "raw", ball, meshes)
    made = import_dataset("coma", raw, tmp_path / "set")
    np.testing.assert_allclose(made.vertices[[0, 95]], sorted_coma(meshes)[[0, 95]], atol=1e-3)
    assert made.labels["frame"].tolist()[:8] == list(range(1, 9))
    assert len(made.labels.classes("subject").names) == 4
    assert made.labels.classes("expression").names == ["bareteeth", "lips_up", "mouth_open"]
    split = made.split("frames").split
    assert len(split.test) == 10  # one of ten, in a set of fewer than 200 meshes
    assert {"expression-bareteeth", "frames-deep3dmm", "subject"} <= set(made.split_names)
    assert made.info["importer"]["name"] == "coma" and made.info["unit"] == "m"


def sorted_coma(meshes: np.ndarray) -> np.ndarray:
    """By subject, expression and frame, as the files sort."""
    return meshes.reshape(4, 3, 8, -1, 3)[:, [0, 2, 1]].reshape(meshes.shape)


def test_a_file_list_of_full_length_has_the_documented_counts() -> None:
    names = []
    for subject in range(12):
        for number in range(12):
            frames = 142 + (subject * 12 + number < 18)
            names += [
                f"s{subject:02d}/e{number:02d}/e{number:02d}.{f:06d}.ply" for f in range(frames)
            ]
    assert len(names) == 20_466
    labels = coma_labels(names)
    split = frame_split(labels)
    assert len(split.test) == 2050 and len(split.train) + len(split.val) == 18_416
    assert len(split.val) == 100
    other = frame_split(labels, deep3dmm=True)
    assert (len(other.test), len(other.val), len(other.train)) == (2255, 2050, 16_161)


@pytest.mark.parametrize("family", ["coma", "ib-vae", "cvae"])
def test_an_imported_archive_trains(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = ball_template(800)
    raw = coma_archive(tmp_path / "raw", large, shapes(large, 96))
    done = in_process(capsys, "data", "import", "coma", raw, "--out", tmp_path / "set")
    assert done.code == 0, done.err
    command = ["train", family, "--data", tmp_path / "set", "--out", tmp_path / "run"]
    done = in_process(capsys, *command, "--epochs", 1)
    assert done.code == 0, done.err


def dfaust_archive(root: Path, ball: Template, meshes: np.ndarray) -> Path:
    root.mkdir()
    files = {
        "m": ["50002_hips", "50009_punching"],
        "f": ["50004_running_on_spot_bugfix", "50020_personal_move"],
    }
    for file, keys in files.items():
        with h5py.File(root / f"registrations_{file}.hdf5", "w") as out:
            out["faces"] = ball.mesh.triangles.astype(np.uint32)
            for key in keys:
                start = 10 * int(key[3:5])
                out[key] = meshes[start % 60 : start % 60 + 12].transpose(1, 2, 0) / 1000
    return root


def test_dfaust(ball: Template, meshes: np.ndarray, tmp_path: Path) -> None:
    raw = dfaust_archive(tmp_path / "raw", ball, meshes)
    made = import_dataset("dfaust", raw, tmp_path / "set")
    assert len(made) == 48
    assert made.labels.classes("subject").names == ["50002", "50004", "50009", "50020"]
    np.testing.assert_allclose(made.vertices[:12], meshes[20:32], atol=1e-3)
    split = made.split("sequence").split
    sequences = [
        {(made.labels["subject"][r], made.labels["sequence"][r]) for r in split.subset(name)}
        for name in ("train", "val", "test")
    ]
    assert [len(part) for part in sequences] == [2, 1, 1] and len(set.union(*sequences)) == 4


def test_dfaust_pair_of_stacks(ball: Template, meshes: np.ndarray, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    np.save(raw / "train.npy", meshes[:80] / 1000)
    np.save(raw / "test.npy", meshes[80:] / 1000)
    with pytest.raises(InputError, match=r"train\.npy: has no faces, name a mesh file"):
        import_dataset("dfaust", raw, tmp_path / "none")
    write_mesh(tmp_path / "template.obj", Mesh(ball.mesh.vertices / 1000, ball.mesh.faces))
    made = import_dataset("dfaust", raw, tmp_path / "set", template=tmp_path / "template.obj")
    split = made.split("published").split
    assert split.test.tolist() == list(range(80, 96)) and split.val.tolist() == list(range(72, 80))


def test_synhand(ball: Template, meshes: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "hands.npy", meshes)
    write_mesh(tmp_path / "hand.obj", ball.mesh)
    made = import_dataset(
        "synhand",
        tmp_path / "hands.npy",
        tmp_path / "set",
        template=tmp_path / "hand.obj",
        count=50,
    )
    rows = made.labels["row_in_file"]
    np.testing.assert_array_equal(made.vertices[:], meshes[rows])
    split = made.split("random").split
    assert (len(split.train), len(split.val), len(split.test)) == (41, 4, 5)


def wrl(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    points = ",\n".join(" ".join(f"{x:.4f}" for x in row) for row in vertices)
    corners = ",\n".join(", ".join(map(str, [*face, -1])) for face in faces)
    path.write_text(
        "#VRML V2.0 utf8\nShape { geometry IndexedFaceSet {\n coord Coordinate { point [\n"
        f"{points}\n] }}\n coordIndex [\n{corners}\n] }} }}\n"
    )


def bu3dfe_archive(
    root: Path, rng: np.random.Generator, count: int = YORK
) -> dict[str, np.ndarray]:
    """Thirteen people with a neutral and two expressions, each mesh turned and shifted."""
    root.mkdir()
    base = rng.normal(size=(count, 3)) * [60, 80, 40]
    faces = grid(count)
    made = {}
    for person in range(13):
        own = base + rng.normal(size=3) * [5, 5, 5] * np.sin(base / 50)
        for name, amount in (("NE01", 0.0), ("HA02", 4.0), ("SU04", 8.0)):
            shape = own + amount * np.sin(base / 30)
            shape[list(STABLE_VERTICES)] = own[list(STABLE_VERTICES)]
            angle = rng.normal() * 0.1
            turn = np.array(
                [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
            )
            title = f"{'F' if person < 11 else 'M'}{person + 1:04d}_{name}WH_F3D"
            made[title] = shape @ turn.T + rng.normal(size=3) * 10
            wrl(root / f"{title}.wrl", made[title], faces)
    return made


def test_bu3dfe_of_york(tmp_path: Path, rng: np.random.Generator) -> None:
    made = bu3dfe_archive(tmp_path / "raw", rng)
    plain = import_dataset("bu3dfe", tmp_path / "raw", tmp_path / "plain")
    assert len(plain) == 39 and plain.labels.classes("expression").names == [
        "happy",
        "neutral",
        "surprise",
    ]
    assert plain.labels["level"].tolist()[:3] == [0.5, 0.0, 1.0]
    np.testing.assert_allclose(plain.vertices[1], made["F0001_NE01WH_F3D"], atol=1e-3)
    test = plain.split("first-ten").test
    assert set(test.labels["subject"]) == {f"F{number:04d}" for number in range(1, 11)}
    placed = import_dataset("bu3dfe", tmp_path / "raw", tmp_path / "placed", align="paper")
    stable = placed.vertices[:][:, list(STABLE_VERTICES)]
    np.testing.assert_allclose(stable[0], stable[1], atol=1e-2)  # an expression on its neutral
    turn = procrustes(placed.vertices[1], placed.template.mesh.vertices).rotation
    np.testing.assert_allclose(turn, np.eye(3), atol=1e-4)


def test_raw_scans_of_bu3dfe_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    bu3dfe_archive(tmp_path / "raw", rng, 7968)
    with pytest.raises(
        InputError, match=r"has 7,968 vertices, expected the 5,996 .* no correspondence"
    ):
        import_dataset("bu3dfe", tmp_path / "raw", tmp_path / "set")


def test_bu3dfe_of_florence(tmp_path: Path, rng: np.random.Generator) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    base = rng.normal(size=(FLORENCE, 3)) * 60
    write_mesh(raw / "template.obj", Mesh(base, grid(FLORENCE)))
    np.save(raw / "dataset.npy", base + rng.normal(size=(4, 1, 3)))
    names = ["F0001_AN01WH_F3D", "F0001_NE01WH_F3D", "M0002_NE01BL_F3D", "M0002_SA03BL_F3D"]
    (raw / "identities.txt").write_text("\n".join(names))
    made = import_dataset("bu3dfe", raw, tmp_path / "set")
    assert made.labels["file"].tolist() == names
    assert made.labels["neutral"].tolist() == [1, 1, 2, 2]
    assert "Florence" in made.info["source"]


def test_aflw2000(ball: Template, tmp_path: Path, rng: np.random.Generator) -> None:
    """ "aflw2000-3d": faces are evaluated on the model; Matlab counts from one."""
    raw, n = tmp_path / "raw", ball.n_vertices
    raw.mkdir()
    mean = ball.mesh.vertices.reshape(-1, 1) * 1000
    w, w_exp = rng.normal(size=(3 * n, 5)), rng.normal(size=(3 * n, 3))
    savemat(raw / "Model_Shape.mat", {"w": w, "mu_shape": mean, "tri": ball.mesh.triangles.T + 1})
    savemat(raw / "Model_Exp.mat", {"w_exp": w_exp, "mu_exp": mean * 0 + 500})
    codes = rng.normal(size=(4, 8)) * 1000
    for row, code in enumerate(codes):
        parameters = {
            "Shape_Para": code[:5, None],
            "Exp_Para": code[5:, None],
            "Pose_Para": np.zeros(7),
        }
        savemat(raw / f"image{row:05d}.mat", parameters)
    made = import_dataset("aflw2000-3d", raw, tmp_path / "set")
    expected = (mean[:, 0] + 500 + codes @ np.hstack([w, w_exp]).T).reshape(4, n, 3) / 1000
    np.testing.assert_allclose(made.vertices[:], expected, atol=1e-3)
    np.testing.assert_array_equal(made.template.mesh.faces, ball.mesh.triangles)
    assert "BFM-2009" in made.info["vertex_base"]


def test_facescape(ball: Template, meshes: np.ndarray, tmp_path: Path) -> None:
    row = iter(meshes)
    for person in (2, 10, 1):
        for number, name in ((1, "neutral"), (2, "smile"), (10, "mouth_left")):
            path = tmp_path / "raw" / str(person) / "models_reg" / f"{number}_{name}.obj"
            write_mesh(path, Mesh(next(row), ball.mesh.faces))
    made = import_dataset("facescape", tmp_path / "raw", tmp_path / "set")
    assert made.labels["subject"].tolist() == ["1"] * 3 + ["2"] * 3 + ["10"] * 3
    assert made.labels["expression"].tolist()[:3] == ["neutral", "smile", "mouth_left"]
    assert made.labels["neutral"].tolist() == [0] * 3 + [3] * 3 + [6] * 3
    np.testing.assert_allclose(made.vertices[3:6], meshes[:3], atol=1e-4)


def directions(ball: Template, rng: np.random.Generator, count: int = 4) -> np.ndarray:
    """(count, 3V) orthonormal."""
    return np.linalg.qr(rng.normal(size=(3 * ball.n_vertices, count)))[0].T


def test_uhm(ball: Template, tmp_path: Path, rng: np.random.Generator) -> None:
    vectors, values = directions(ball, rng), np.array([4.0, 2, 1, 0.5]) / UHM_MM
    content = {
        "Mean": ball.mesh.vertices.reshape(-1, 1) / UHM_MM,
        "Eigenvectors": vectors.T,
        "EigenValues": values,
    }
    (tmp_path / "head.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match="holds no faces; name a mesh with them by `template`"):
        import_dataset("uhm", tmp_path / "head.pkl", tmp_path / "none")
    write_mesh(tmp_path / "t.obj", ball.mesh)
    made = import_dataset(
        "uhm", tmp_path / "head.pkl", tmp_path / "set", template=tmp_path / "t.obj", count=200
    )
    codes = np.stack([made.labels[f"z/{k}"] for k in range(4)], 1)
    expected = ball.mesh.vertices + UHM_MM * (codes * np.sqrt(values) @ vectors).reshape(200, -1, 3)
    np.testing.assert_allclose(made.vertices[:], expected, atol=2e-3)
    split = made.split("by-hundreds").split
    assert (len(split.train), len(split.val), len(split.test)) == (178, 10, 12)


def test_handy(ball: Template, tmp_path: Path, rng: np.random.Generator) -> None:
    content = {
        "v_template": ball.mesh.vertices / 1000,
        "components": directions(ball, rng),
        "eigenvalues": np.array([4.0, 2, 1, 0.5]) / 1000,
        "f": ball.mesh.triangles.astype(np.uint32),
    }
    (tmp_path / "Right_Hand_Shape.pkl").write_bytes(pickle.dumps(content, protocol=2))
    made = import_dataset("handy", tmp_path / "Right_Hand_Shape.pkl", tmp_path / "set", count=30)
    assert len(made) == 30 and made.template.name == "hand"
    np.testing.assert_allclose(made.template.mesh.vertices, ball.mesh.vertices, atol=1e-3)


def statismo(ball: Template, rng: np.random.Generator) -> LinearModel:
    parts = directions(ball, rng).reshape(4, -1, 3)
    mesh = Mesh(ball.mesh.vertices, ball.mesh.triangles)
    mean = np.asarray(ball.mesh.vertices, np.float64)
    return LinearModel(mesh, mean, parts, np.array([9.0, 4, 1, 0.25]), 0.0, "ball")


def flame(ball: Template, rng: np.random.Generator) -> dict[str, Any]:
    slopes = (directions(ball, rng) * np.array([[9.0], [4], [2], [1]])).T.reshape(-1, 3, 4)
    return {
        "v_template": ball.mesh.vertices / 1000,
        "shapedirs": slopes / 1000,
        "f": ball.mesh.triangles.astype(np.uint32),
        "kintree_table": np.zeros((2, 5), np.int64),
    }


@pytest.mark.parametrize("kind", ["h5", "catalog.h5", "flame.pkl", "flame.npz"])
def test_linear_models_become_datasets_and_models(
    kind: str,
    ball: Template,
    tmp_path: Path,
    rng: np.random.Generator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """ "linear-model" and `import-model`: what the file means is what is decoded."""
    path = tmp_path / f"model.{kind}"
    group: list[str] = []
    if kind.endswith("h5"):
        write_linear_model(path, statismo(ball, rng))
        if kind == "catalog.h5":
            with h5py.File(path, "a") as file:
                for name in ("model", "representer"):
                    file.move(name, f"shape/{name}")
            group = ["--group", "/shape"]
    elif kind == "flame.pkl":
        path.write_bytes(pickle.dumps(flame(ball, rng)))
    else:
        np.savez(path, **flame(ball, rng))
    out = tmp_path / "model"
    done = in_process(capsys, "import-model", path, "--out", out, *group, "--licence", "CC0")
    assert done.code == 0, done.err
    assert "CC0" in (out / "README.md").read_text()
    command = ["data", "import", "linear-model", path, "--count", 40, "--out", tmp_path / "set"]
    done = in_process(capsys, *command, *group)
    assert done.code == 0, done.err
    made = load_dataset(tmp_path / "set")
    np.testing.assert_allclose(made.template.mesh.vertices, ball.mesh.vertices, atol=1e-3)
    spread = np.sqrt(made.vertices[:].var(axis=0).sum())
    expected = np.sqrt(14.25 if kind.endswith("h5") else 81 + 16 + 4 + 1)
    assert 0.7 * expected < spread < 1.4 * expected
    # A model of the file reconstructs its own samples.
    samples = tmp_path / "samples"
    done = in_process(capsys, "sample", out, "-n", 2, "--out", samples)
    assert done.code == 0, done.err
    done = in_process(
        capsys, "reconstruct", out, *sorted(samples.iterdir()), "--out", tmp_path / "again"
    )
    assert done.code == 0, done.err
    for name in ("sample-0000.ply", "sample-0001.ply"):
        first, second = (read_mesh(tmp_path / where / name).mesh for where in ("samples", "again"))
        np.testing.assert_allclose(first.vertices, second.vertices, atol=1e-2)


class Trap:
    """A pickle of this object writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.path}",))


class Ch:
    """Looks like an array of chumpy, whose package nobody has."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x


def test_pickles_are_never_executed(
    ball: Template, tmp_path: Path, rng: np.random.Generator
) -> None:
    mark = tmp_path / "executed"
    content = flame(ball, rng) | {"trap": Trap(mark)}
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(content, protocol))
        read = read_pickle(tmp_path / "model.pkl")
        np.testing.assert_array_equal(read["shapedirs"], content["shapedirs"])
        assert read["trap"] is None and not mark.exists()
    pickle.loads((tmp_path / "model.pkl").read_bytes())
    assert mark.exists()  # the trap does work


def test_arrays_of_chumpy_and_of_python_2(tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(4, 3)
    Ch.__module__ = "chumpy.ch"
    Ch.__qualname__ = "Ch"
    data = pickle.dumps({"v": 0, "f": np.asfortranarray(values)}, 2)
    state = pickle.dumps({"x": values}, 2)[2:-1]
    # ccopy_reg _reconstructor(chumpy.ch.Ch, object, None), then BUILD with the state
    record = b"ccopy_reg\n_reconstructor\n(cchumpy.ch\nCh\nc__builtin__\nobject\nNtR" + state + b"b"
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02}U\x01v" + record + b"s.")
    np.testing.assert_array_equal(read_pickle(tmp_path / "a.pkl")["v"], values)
    (tmp_path / "b.pkl").write_bytes(data)
    np.testing.assert_array_equal(read_pickle(tmp_path / "b.pkl")["f"], values)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a readable pickle"),
        (b"\x80\x04", "not a readable pickle"),
        (pickle.dumps([1, 2]), "expected a pickle of a dictionary"),
        (pickle.dumps({"a": np.array([object()])})[:-9], "not a readable pickle"),
    ],
)
def test_damaged_pickles_are_refused(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(InputError, match=words):
        read_pickle(tmp_path / "a.pkl")


def test_wrong_archives_are_refused_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.pkl").write_bytes(pickle.dumps({"a": 1}))
    cases: dict[str, tuple[Path, str]] = {
        "coma": (raw, "holds no mesh file"),
        "dfaust": (raw, "expected registrations_f.hdf5"),
        "bu3dfe": (raw, "holds no mesh file"),
        "facescape": (raw, "holds no mesh file"),
        "aflw2000-3d": (raw, "Model_Shape.mat: no such file"),
        "uhm": (raw / "a.pkl", "not a linear model of uhm; it holds a"),
        "handy": (raw / "b.pkl", "no such file"),
        "linear-model": (raw / "a.txt", "expected a linear model in"),
    }
    before = tree(tmp_path)
    for kind, (path, words) in cases.items():
        done = in_process(capsys, "data", "import", kind, path, "--out", tmp_path / "set")
        done.refuses(words)
        assert tree(tmp_path) == before
    done = in_process(capsys, "data", "import", "synhand", raw, "--out", tmp_path / "set")
    done.refuses("--template: missing, synhand needs it")
    done = in_process(capsys, "data", "import", "uhm", raw / "a.pkl", "--align", "--out", "x")
    done.refuses("--align: not an option of uhm")
