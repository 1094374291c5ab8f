"""Any folder of meshes with one topology becomes a dataset: vertices in order and to float32, quads
and seams kept.
"""

from __future__ import annotations

import os
import shutil
import typing
from pathlib import Path

import numpy as np
import pytest

from helpers import in_process, shapes, tree
from morphable.cli.data import import_
from morphable.data.dataset import MeshDataset, load_dataset, write_dataset
from morphable.data.face_match import FaceMatch, match_faces
from morphable.data.importers import IMPORTERS, import_source
from morphable.data.importers.alignment import MAX_SAMPLE
from morphable.data.importers.folder import folder
from morphable.data.importers.mesh_files import Placing, finished_source
from morphable.data.labels import LabelTable
from morphable.data.mesh_stack import MeshStack
from morphable.data.registered_mesh import read_registered, write_shape, z_up_to_y_up
from morphable.data.source import MeshSource
from morphable.errors import InputError
from morphable.mesh.align import procrustes
from morphable.mesh.io import read_mesh, write_mesh
from morphable.mesh.mesh import Mesh
from morphable.mesh.regions import Regions
from morphable.mesh.template import Template
from morphable.mesh.topology import triangulate

ROUND, HIGH = 12, 9
COUNT = 200


def cylinder() -> Template:
    """An open cylinder of quads with one triangle, whose texture is cut along one seam."""
    angle, level = np.meshgrid(np.arange(ROUND) * 2 * np.pi / ROUND, np.arange(HIGH), indexing="xy")
    vertices = np.stack([40 * np.cos(angle), 15.0 * level, 40 * np.sin(angle)], -1).reshape(-1, 3)
    i, j = (
        grid.ravel() for grid in np.meshgrid(np.arange(ROUND), np.arange(HIGH - 1), indexing="xy")
    )

    def corners(width: int) -> np.ndarray:
        right = (i + 1) % width
        return np.stack(
            [j * width + i, (j + 1) * width + i, (j + 1) * width + right, j * width + right], -1
        )

    faces, uv_faces = corners(ROUND), corners(ROUND + 1)
    faces[5, 3] = uv_faces[5, 3] = -1
    across, up = np.meshgrid(np.linspace(0, 1, ROUND + 1), np.linspace(0, 1, HIGH), indexing="xy")
    return Template(
        Mesh(vertices, faces), "tube", np.stack([across, up], -1).reshape(-1, 2), uv_faces
    )


@pytest.fixture(scope="module")
def template() -> Template:
    return cylinder()


@pytest.fixture(scope="module")
def meshes(template: Template) -> np.ndarray:
    return shapes(template, COUNT)


def exported(
    root: Path, template: Template, meshes: np.ndarray, suffix: str = "obj", scale: float = 1.0
) -> Path:
    """Meshes written as SUBJECT/EXPRESSION/FRAME files: ten frames of two expressions of each
    subject.
    """
    for row, mesh in enumerate(meshes):
        subject, turn = divmod(row, 20)
        path = (
            root
            / f"s{subject}"
            / ("neutral" if turn < 10 else "smile")
            / f"{turn % 10 + 1}.{suffix}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mesh(
            path,
            Mesh(mesh * np.float32(scale), template.mesh.faces),
            template.uv,
            template.uv_faces,
        )
    return root


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, template: Template, meshes: np.ndarray) -> Path:
    """200 OBJ files; tests that change files copy it."""
    return exported(tmp_path_factory.mktemp("raw") / "meshes", template, meshes)


@pytest.fixture
def few(tmp_path: Path, template: Template, meshes: np.ndarray) -> Path:
    """Six PLY files to damage."""
    (tmp_path / "few").mkdir()
    for row in range(6):
        write_shape(tmp_path / "few" / f"{row}.ply", meshes[row], Template(template.mesh))
    return tmp_path / "few"


def imported(raw: Path, out: Path, **options: object) -> MeshDataset:
    return write_dataset(folder(raw, **{"unit": "mm", **options}), out)  # type: ignore[arg-type]


def test_two_hundred_files_come_back_in_order_and_to_the_last_bit(
    raw: Path, template: Template, meshes: np.ndarray, tmp_path: Path
) -> None:
    loaded = imported(raw, tmp_path / "set", pattern="{subject}/{expression}/{frame}")
    np.testing.assert_array_equal(loaded.vertices[:], meshes)
    np.testing.assert_array_equal(loaded.template.mesh.faces, template.mesh.faces)
    np.testing.assert_array_equal(loaded.template.uv_faces, template.uv_faces)
    np.testing.assert_allclose(loaded.template.uv, template.uv, atol=1e-7)
    assert loaded.template.fingerprint == template.fingerprint
    row = np.arange(COUNT)
    assert loaded.labels["subject"].tolist() == [f"s{r // 20}" for r in row]
    assert (
        loaded.labels["frame"].tolist() == (row % 10 + 1).tolist()
    )  # natural order: 10 is last, not after 1
    assert loaded.labels["neutral"].tolist() == (row // 20 * 20).tolist()
    assert {"subject", "frames", "expression-smile"} >= {
        "subject"
    } and "subject" in loaded.split_names
    assert loaded.info["unit"] == "mm" and loaded.info["skipped"] == []


@pytest.mark.parametrize("suffix", ["ply", "obj", "off"])
def test_what_goes_out_comes_in_again(
    template: Template, meshes: np.ndarray, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    write_shape(path, meshes[3], template)
    np.testing.assert_array_equal(read_registered(path, template), meshes[3])
    np.testing.assert_array_equal(read_mesh(path).mesh.faces, template.mesh.faces)


def test_a_triangulated_copy_is_the_same_topology(
    template: Template, meshes: np.ndarray, tmp_path: Path
) -> None:
    write_shape(tmp_path / "a.glb", meshes[3], template)
    assert read_mesh(tmp_path / "a.glb").mesh.faces.shape[1] == 3
    found = read_registered(tmp_path / "a.glb", template)
    np.testing.assert_allclose(found, meshes[3], rtol=1e-6)  # the file is in meters


def test_quads_may_be_split_either_way_but_nothing_else(template: Template) -> None:
    quads = template.mesh.faces
    for turn in range(4):
        turned = np.where(quads[:, 3:] >= 0, np.roll(quads, turn, axis=1), quads)
        assert match_faces(triangulate(turned), quads) == FaceMatch(True)
    triangles = triangulate(quads)
    assert match_faces(triangles[:, [1, 2, 0]], quads) == FaceMatch(True)
    wrong = triangles.copy()
    wrong[0] = quads[0, [1, 2, 3]]  # one triangle of either diagonal covers no quad
    for faces in (wrong, triangles[:-1], triangles % 100):
        assert not match_faces(faces, quads).fits


@pytest.mark.parametrize(("unit", "scale"), [("cm", 10.0), ("m", 1000.0)])
def test_units_are_converted_once(
    template: Template, meshes: np.ndarray, tmp_path: Path, unit: str, scale: float
) -> None:
    loaded = imported(
        exported(tmp_path / "raw", template, meshes[:6], "ply", 1 / scale),
        tmp_path / "set",
        unit=unit,
    )
    np.testing.assert_allclose(loaded.vertices[:], meshes[:6], rtol=1e-6, atol=1e-5)
    mean = meshes[:6].mean(0)
    np.testing.assert_allclose(loaded.template.mesh.vertices, mean, rtol=1e-6, atol=1e-5)


def test_z_up_is_turned_by_hand(template: Template, meshes: np.ndarray, tmp_path: Path) -> None:
    np.testing.assert_array_equal(z_up_to_y_up(np.array([[1.0, 2.0, 3.0]])), [[1, 3, -2]])
    turn = z_up_to_y_up(np.eye(3))
    np.testing.assert_allclose(np.linalg.det(turn), 1)
    tipped = np.stack([meshes[..., 0], -meshes[..., 2], meshes[..., 1]], -1)
    loaded = imported(exported(tmp_path / "raw", template, tipped[:6]), tmp_path / "set", up="z")
    np.testing.assert_array_equal(loaded.vertices[:], meshes[:6])
    np.testing.assert_allclose(loaded.template.mesh.vertices, meshes[:6].mean(0), atol=1e-4)


def test_the_template_is_the_mean_or_a_named_mesh(few: Path, tmp_path: Path) -> None:
    """Not the file that happens to sort first, which may be a fist."""
    vertices = [read_mesh(path).mesh.vertices for path in sorted(few.iterdir())]
    loaded = imported(few, tmp_path / "mean")
    np.testing.assert_allclose(loaded.template.mesh.vertices, np.mean(vertices, 0), atol=1e-4)
    assert loaded.template.name == "few" and loaded.info["licence"] == "unknown"
    named = imported(few, tmp_path / "named", template=few / "3.ply", name="tube", licence="CC0")
    np.testing.assert_array_equal(named.template.mesh.vertices, vertices[3])
    assert named.template.name == "tube" and named.info["licence"] == "CC0"
    assert named.info["source"] == "meshes of the folder few"


def test_an_aligned_template_lies_where_the_meshes_lie(
    few: Path, template: Template, tmp_path: Path
) -> None:
    for number, path in enumerate(sorted(few.iterdir())):
        moved = read_mesh(path).mesh.vertices @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]).T
        if number % 2:
            write_shape(path, moved + np.float32(90), template)
    plain = imported(few, tmp_path / "plain", align=True)
    named = imported(few, tmp_path / "named", align=True, template=few / "1.ply")
    meshes = plain.vertices[:]
    assert np.linalg.norm(plain.template.mesh.vertices - meshes.mean(0), axis=1).max() < 0.1
    np.testing.assert_allclose(named.template.mesh.vertices, named.vertices[1], atol=1e-3)


def test_a_mean_of_meshes_that_lie_anyhow_is_warned_of(
    few: Path, template: Template, tmp_path: Path
) -> None:
    for number, path in enumerate(sorted(few.iterdir())):
        if number % 2:
            tube = read_mesh(path).mesh.vertices - [0, 60, 0]
            write_shape(path, (tube * [-1, -1, 1] + [0, 60, 0]).astype(np.float32), template)
    with pytest.warns(UserWarning, match="the mean of the meshes, .* has only .* % of their size"):
        folder(few, unit="mm")


def test_names_and_licences_reach_the_dataset_and_the_model(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "import", "folder", few, "--unit", "mm", "--out", tmp_path / "set"]
    done = in_process(capsys, *command, "--name", "hand", "--licence", "CC BY 4.0")
    assert done.code == 0, done.err
    done = in_process(capsys, "data", "info", tmp_path / "set")
    assert "hand " in done.out and "CC BY 4.0" in done.out
    run = tmp_path / "run"
    done = in_process(
        capsys, "train", "pca", "--data", tmp_path / "set", "--latent", 2, "--out", run
    )
    assert done.code == 0, done.err
    assert "model of class `hand`" in (run / "model" / "README.md").read_text()
    assert "CC BY 4.0" in (run / "model" / "README.md").read_text()
    for flag in ("--name", "--licence"):
        command[-1] = tmp_path / "none"
        done = in_process(capsys, *command, flag, " ")
        done.refuses(f"{flag}: is empty")
        assert not (tmp_path / "none").exists()


def test_the_name_of_a_saved_template_stays(few: Path, tmp_path: Path) -> None:
    Template(read_mesh(few / "0.ply").mesh, "hand").save(tmp_path / "hand.npz")
    assert folder(few, unit="mm", template=tmp_path / "hand.npz").template.name == "hand"
    made = folder(few, unit="mm", template=tmp_path / "hand.npz", name="left hand")
    assert made.template.name == "left hand"


def test_alignment_takes_rigid_motion_out_and_nothing_else(
    template: Template, meshes: np.ndarray, tmp_path: Path, rng: np.random.Generator
) -> None:
    moved = []
    for mesh in meshes[:12].astype(np.float64):
        rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        rotation[:, 0] *= np.linalg.det(rotation)
        moved.append(mesh @ rotation.T + 500 * rng.standard_normal(3))
    loaded = imported(
        exported(tmp_path / "raw", template, np.array(moved, np.float32)),
        tmp_path / "set",
        align=True,
    )
    aligned = loaded.vertices[:].astype(np.float64)
    assert loaded.info["aligned"] == "rigid"
    np.testing.assert_allclose(aligned.mean((0, 1)), 0, atol=1e-3)
    for before, after in zip(meshes[:12].astype(np.float64), aligned, strict=True):
        edges = [np.linalg.norm(mesh[1:] - mesh[:-1], axis=1) for mesh in (before, after)]
        np.testing.assert_allclose(*edges, atol=1e-3)
    straight = [procrustes(mesh, aligned.mean(0)).apply(mesh) for mesh in aligned]
    np.testing.assert_allclose(straight, aligned, atol=0.05)


def test_meshes_are_aligned_to_a_mean_over_all_files(
    template: Template, rng: np.random.Generator
) -> None:
    """As many files of one person come first as are averaged; the other people count as much."""
    people = template.mesh.vertices @ (np.eye(3) + 0.5 * rng.standard_normal((3, 3, 3)))
    meshes = np.repeat(people.astype(np.float32), MAX_SAMPLE, axis=0)
    source = finished_source(
        template, LabelTable({}, len(meshes)), MeshStack([meshes]), {"unit": "mm"}, Placing("rigid")
    )
    aligned = np.concatenate(list(source.blocks())).astype(np.float64)
    turn = procrustes(aligned[-1], aligned.mean(0)).rotation
    np.testing.assert_allclose(turn, np.eye(3), atol=1e-3)


def test_a_stack_of_vertices(template: Template, meshes: np.ndarray, tmp_path: Path) -> None:
    write_shape(tmp_path / "template.obj", meshes[0] / 1000, template)
    np.save(tmp_path / "stack.npy", meshes / np.float32(1000))
    loaded = imported(
        tmp_path / "stack.npy", tmp_path / "set", template=tmp_path / "template.obj", unit="m"
    )
    np.testing.assert_allclose(loaded.vertices[:], meshes, rtol=1e-6, atol=1e-5)
    with pytest.raises(InputError, match="name a mesh file with `template`"):
        folder(tmp_path / "stack.npy", unit="mm")
    with pytest.raises(InputError, match="for a folder of files"):
        folder(tmp_path / "stack.npy", unit="mm", template=tmp_path / "template.obj", skip_bad=True)


@pytest.mark.parametrize(
    ("factor", "words"), [(np.nan, "mesh 7 has a coordinate"), (1000.0, "stack.npy: mesh 7: is")]
)
def test_one_bad_mesh_of_a_stack(
    template: Template, meshes: np.ndarray, tmp_path: Path, factor: float, words: str
) -> None:
    write_shape(tmp_path / "template.obj", meshes[0], template)
    bad = meshes.copy()
    bad[7] *= factor
    np.save(tmp_path / "stack.npy", bad)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=words):
        imported(tmp_path / "stack.npy", tmp_path / "set", template=tmp_path / "template.obj")
    assert tree(tmp_path) == before


def write_labels(path: Path, raw: Path, header: str = "file,mood,subject") -> list[str]:
    names = sorted(file.relative_to(raw).as_posix() for file in raw.rglob("*.ply"))
    rows = [f"{name},{number % 3},p{number % 2}" for number, name in enumerate(reversed(names))]
    path.write_text("\n".join([header, *rows]) + "\n")
    return rows


def test_labels_by_csv_whatever_their_order(few: Path, tmp_path: Path) -> None:
    write_labels(tmp_path / "l.csv", few)
    loaded = imported(few, tmp_path / "set", labels=tmp_path / "l.csv")
    assert loaded.labels["file"].tolist() == [f"{i}.ply" for i in range(6)]
    assert loaded.labels["mood"].tolist() == [2, 1, 0, 2, 1, 0]
    assert loaded.labels["subject"].tolist() == ["p1", "p0"] * 3
    write_labels(tmp_path / "w.csv", few)
    (tmp_path / "w.csv").write_text((tmp_path / "w.csv").read_text().replace("3.ply", "./3.ply"))
    assert imported(few, tmp_path / "set2", labels=tmp_path / "w.csv").labels["mood"].tolist() == [
        2,
        1,
        0,
        2,
        1,
        0,
    ]


def test_labels_that_do_not_fit(few: Path, tmp_path: Path) -> None:
    rows = write_labels(tmp_path / "l.csv", few)
    cases = {
        "\n".join(
            ["file,mood,subject", *rows[:-1]]
        ): "has no line for 0.ply (1 of 6 meshes are missing)",
        "\n".join(["file,mood,subject", *rows, rows[0]]): "has two lines for 5.ply",
        "\n".join(["name,mood,subject", *rows]): "has no `file` column",
        "\n".join(["file,mood", *rows]): "line 2: expected 2 values, got 3",
        "": "is empty",
    }
    before = tree(few)
    for text, words in cases.items():
        (tmp_path / "l.csv").write_text(text)
        with pytest.raises(InputError) as caught:
            imported(few, tmp_path / "set", labels=tmp_path / "l.csv")
        assert str(tmp_path / "l.csv") in str(caught.value) and words in str(caught.value)
    assert tree(few) == before and not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        (
            "{subject}/{expression}/{frame}",
            "a/b/007.ply",
            {"subject": "a", "expression": "b", "frame": 7},
        ),
        (
            "{subject}_{expression}",
            "deep/1_mouth_open.ply",
            {"subject": "1", "expression": "mouth_open"},
        ),
        (
            "{subject}.{sequence}.{frame}",
            "1.2.30.ply",
            {"subject": "1", "sequence": "2", "frame": 30},
        ),
        ("scan-{subject}", "scan-1 x.ply", {"subject": "1 x"}),
        (
            "{subject}/{sequence}/{frame}",
            "FaceTalk_170725_00137_TA/bareteeth/bareteeth.000012.ply",
            {"subject": "FaceTalk_170725_00137_TA", "sequence": "bareteeth", "frame": 12},
        ),
        (
            "{subject}/{name}.{frame}",
            "a/bareteeth.000012.ply",
            {"subject": "a", "name": "bareteeth", "frame": 12},
        ),
    ],
)
def test_labels_by_pattern(
    template: Template,
    meshes: np.ndarray,
    tmp_path: Path,
    pattern: str,
    name: str,
    expected: dict[str, object],
) -> None:
    path = tmp_path / "raw" / name
    path.parent.mkdir(parents=True)
    write_shape(path, meshes[0], Template(template.mesh))
    table = folder(tmp_path / "raw", unit="mm", pattern=pattern).labels
    assert {key: table[key].tolist()[0] for key in expected} == expected


@pytest.mark.parametrize("pattern", ["", "subject", "{a}/{a}", "{a b}", "{a}{b}"])
def test_patterns_that_are_none(few: Path, pattern: str) -> None:
    with pytest.raises(InputError, match="`pattern`"):
        folder(few, unit="mm", pattern=pattern)


@pytest.mark.parametrize("name", ["row", "neutral", "file"])
def test_a_pattern_names_no_column_of_the_import_itself(few: Path, name: str) -> None:
    with pytest.raises(
        InputError, match=f"`pattern` .*{name}}} is a column that the import writes"
    ):
        folder(few, unit="mm", pattern=f"{{{name}}}")


def test_a_name_in_a_pattern_may_begin_with_a_digit(few: Path) -> None:
    assert folder(few, unit="mm", pattern="{1a}").labels["1a"].tolist() == list(range(6))


def test_names_that_are_not_unicode_or_very_long(few: Path, tmp_path: Path) -> None:
    for file in few.iterdir():
        file.rename(few / f"{'面' * 75}.{file.name}")
    loaded = imported(few, tmp_path / "set", pattern="{expression}.{frame}")
    (tmp_path / "l.csv").write_text(
        "file,expression\n"
        + "".join(f"{name},{'面' * 200}{i % 2}\n" for i, name in enumerate(loaded.labels["file"]))
    )
    labelled = imported(few, tmp_path / "labelled", labels=tmp_path / "l.csv")
    assert len(labelled.split_names) == 3  # frames and one per expression
    next(few.iterdir()).rename(few / os.fsdecode(b"\xff.ply"))
    with pytest.raises(InputError, match=r"few: the name of the file '.udcff.ply' is not valid"):
        folder(few, unit="mm")


@pytest.mark.parametrize("value", ["a", "9", "0.5", ""])
def test_neutral_rows_that_are_none_leave_no_dataset(
    template: Template, meshes: np.ndarray, tmp_path: Path, value: str
) -> None:
    write_shape(tmp_path / "template.obj", meshes[0], template)
    np.save(tmp_path / "stack.npy", meshes[:6])
    (tmp_path / "l.csv").write_text("row,neutral\n" + f"0,{value}\n" * 6)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"l\.csv: neutral: expected row numbers from -1 to 5"):
        imported(
            tmp_path / "stack.npy",
            tmp_path / "set",
            template=tmp_path / "template.obj",
            labels=tmp_path / "l.csv",
        )
    assert tree(tmp_path) == before


def test_what_could_not_be_opened_is_not_written(
    template: Template, meshes: np.ndarray, tmp_path: Path
) -> None:
    table = LabelTable({"row": np.arange(6)}, 6)
    source = MeshSource(template, table, lambda: iter([meshes[:6]]), {})
    with pytest.raises(InputError, match=r"set/labels\.csv: two columns are called 'row'"):
        write_dataset(source, tmp_path / "set")
    assert tree(tmp_path) == {}


def test_a_path_that_does_not_match(few: Path) -> None:
    with pytest.raises(
        InputError, match=r"0\.ply: its path does not match the pattern \{subject\}/\{frame\}"
    ):
        folder(few / ".." / "few", unit="mm", pattern="{subject}/{frame}")
    with pytest.raises(InputError, match="give one of the two"):
        folder(few, unit="mm", pattern="{subject}", labels=few / "l.csv")


def test_a_frame_without_a_number_is_named_with_its_file(few: Path) -> None:
    (few / "0.ply").rename(few / "last.ply")
    with pytest.raises(InputError, match=r"last\.ply: its frame 'last' contains no number"):
        folder(few, unit="mm", pattern="{frame}")


def other_count(path: Path, template: Template) -> None:
    mesh = template.mesh
    write_mesh(path, Mesh(np.concatenate([mesh.vertices, mesh.vertices[:2]]), mesh.faces))


def with_nan(path: Path, template: Template) -> None:
    content = bytearray(path.read_bytes())
    start = content.index(b"end_header\n") + 11
    content[start + 24 : start + 28] = np.float32(np.nan).tobytes()
    path.write_bytes(content)


def reordered(path: Path, template: Template) -> None:
    order = np.random.default_rng(0).permutation(template.n_vertices)
    place = np.append(np.argsort(order), -1)
    write_mesh(path, Mesh(template.mesh.vertices[order], place[template.mesh.faces]))


def cut_short(path: Path, template: Template) -> None:
    path.write_bytes(path.read_bytes()[:900])


def other_unit(path: Path, template: Template) -> None:
    write_mesh(path, Mesh(template.mesh.vertices / 1000, template.mesh.faces))


def two_quads_merged(path: Path, template: Template) -> None:
    faces = template.mesh.faces.copy()
    faces[faces == 3] = 4
    write_mesh(path, Mesh(template.mesh.vertices, faces))


BAD = {
    "another vertex count": (other_count, "expected 108 vertices as in the template '0', got 110"),
    "not a number": (with_nan, "not finite"),
    "vertices in another order": (reordered, "another vertex order"),
    "merged vertices": (two_quads_merged, "its faces are not the template's"),
    "cut short": (cut_short, "3.ply"),
    "meters among millimeters": (other_unit, "is the unit right?"),
    "empty": (lambda path, template: path.write_bytes(b""), "the file is empty"),
    "no mesh at all": (lambda path, template: path.write_bytes(b"hello"), "3.ply"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_one_bad_file_stops_the_import_or_is_left_out(
    few: Path, template: Template, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    change, words = BAD[name]
    change(few / "3.ply", template)
    before = tree(tmp_path)
    ended = in_process(
        capsys, "data", "import", "folder", few, "--out", tmp_path / "set", "--unit", "mm"
    )
    ended.refuses(str(few / "3.ply"), words)
    assert tree(tmp_path) == before
    ended = in_process(
        capsys,
        "data",
        "import",
        "folder",
        few,
        "--out",
        tmp_path / "set",
        "--unit",
        "mm",
        "--skip-bad",
    )
    assert ended.code == 0 and "note: left out:" in ended.err and words in ended.err
    loaded = load_dataset(tmp_path / "set")
    assert loaded.labels["file"].tolist() == [f"{i}.ply" for i in (0, 1, 2, 4, 5)]
    assert len(loaded.info["skipped"]) == 1 and words in loaded.info["skipped"][0]


@pytest.mark.filterwarnings("ignore:left out")
@pytest.mark.parametrize("change", [with_nan, cut_short])
def test_an_unreadable_first_file_does_not_become_the_template(
    few: Path, template: Template, change: object
) -> None:
    change(few / "0.ply", template)  # type: ignore[operator]
    assert folder(few, unit="mm", skip_bad=True).labels.count == 5


@pytest.mark.filterwarnings("ignore:left out")
def test_a_first_file_unlike_the_others_is_not_taken_for_the_template(
    few: Path, template: Template
) -> None:
    other_count(few / "0.ply", template)
    with pytest.raises(
        InputError,
        match=r"5 of 6 files do not fit the first, 0; name the right one with `template`",
    ):
        folder(few, unit="mm", skip_bad=True)
    assert folder(few, unit="mm", skip_bad=True, template=few / "1.ply").labels.count == 5


@pytest.mark.filterwarnings("ignore:left out")
def test_nothing_usable(few: Path, template: Template) -> None:
    for file in few.iterdir():
        cut_short(file, template)
    with pytest.raises(InputError, match="none of the 6 mesh files can be read"):
        folder(few, unit="mm", skip_bad=True)


def test_what_is_no_mesh_is_passed_over(few: Path, tmp_path: Path) -> None:
    (few / "._0.ply").write_bytes(b"\0\5\26\7 macOS leaves these")
    (few / ".hidden.obj").write_bytes(b"x")
    (few / "notes.txt").write_text("hello")
    (few / "folder.ply").mkdir()
    assert folder(few, unit="mm").labels["file"].tolist() == [f"{i}.ply" for i in range(6)]


def test_files_that_count_the_same_keep_one_order(few: Path) -> None:
    shutil.copy(few / "1.ply", few / "01.ply")
    names = folder(few, unit="mm").labels["file"].tolist()
    assert names == ["0.ply", "01.ply", "1.ply", "2.ply", "3.ply", "4.ply", "5.ply"]
    shutil.move(few / "1.ply", few / "x1².ply")  # a digit that int() does not take
    assert folder(few, unit="mm").labels.count == 7


def test_empty_missing_and_wrong_places(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    arguments = ("--out", tmp_path / "set", "--unit", "mm")
    in_process(capsys, "data", "import", "folder", tmp_path / "empty", *arguments).refuses(
        "empty: holds no mesh file"
    )
    in_process(capsys, "data", "import", "folder", tmp_path / "none", *arguments).refuses(
        "none: no such folder"
    )
    in_process(capsys, "data", "import", "folder", few, "--out", few, "--unit", "mm").refuses(
        "few: already exists"
    )
    in_process(capsys, "data", "import", "folder", few, "--out", tmp_path / "set").refuses("--unit")
    in_process(
        capsys, "data", "import", "folder", few, "--out", tmp_path / "set", "--unit", "inch"
    ).refuses("inch")
    in_process(
        capsys, "data", "import", "folder", few, *arguments, "--template", few / "9.ply"
    ).refuses("9.ply")
    in_process(
        capsys, "data", "import", "folder", few, *arguments, "--labels", few / "l.csv"
    ).refuses("l.csv")
    in_process(capsys, "data", "import", "folder", few, *arguments, "--seed", "-1").refuses(
        "--seed -1"
    )
    assert tree(tmp_path) == before


def test_a_template_of_another_topology(few: Path, tmp_path: Path, template: Template) -> None:
    other_count(tmp_path / "other.ply", template)
    with pytest.raises(
        InputError, match="expected 110 vertices as in the template 'other', got 108"
    ):
        folder(few, unit="mm", template=tmp_path / "other.ply")
    (tmp_path / "points.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
        "0 0 0\n"
    )
    with pytest.raises(InputError, match="has no faces"):
        folder(few, unit="mm", template=tmp_path / "points.ply")


def test_a_saved_template_keeps_what_is_known_of_it(
    few: Path, tmp_path: Path, template: Template
) -> None:
    regions = Regions(np.repeat([0, 1], [50, 58]), ("low", "high"))
    Template(template.mesh, "tube", regions=regions).save(tmp_path / "template.npz")
    loaded = imported(few, tmp_path / "set", template=tmp_path / "template.npz")
    assert loaded.template.regions is not None
    assert loaded.template.regions.names == ("low", "high")


def test_a_template_of_an_unlikely_size_is_pointed_out(few: Path) -> None:
    with pytest.warns(
        UserWarning, match="read in m, the template is .* mm across; is the unit right"
    ):
        folder(few, unit="m")


def test_a_set_records_its_importer(few: Path, tmp_path: Path) -> None:
    source = import_source("folder", few, unit="mm", pattern=None, align=False)
    made = write_dataset(source, tmp_path / "set")
    assert made.info["importer"]["name"] == "folder"
    assert made.info["importer"]["options"]["unit"] == "mm"
    with pytest.raises(InputError, match="`unit`: missing, folder needs it"):
        import_source("folder", few)
    with pytest.raises(InputError, match="`edges`: not an option of folder, which takes `unit`"):
        import_source("folder", few, unit="mm", edges=3)
    with pytest.raises(InputError, match="importer 'comma': expected one of folder"):
        import_source("comma", few)


def test_the_command_offers_every_importer() -> None:
    hint = typing.get_type_hints(import_, include_extras=True)["kind"]
    assert typing.get_args(typing.get_args(hint)[0]) == tuple(IMPORTERS)
