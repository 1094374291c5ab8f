"""Alignment, mirror images, one mesh of several, and imports that resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers import dataset, in_process, tree
from morphable.data.dataset import MeshDataset, load_dataset
from morphable.data.importers import import_dataset
from morphable.data.importers.alignment import KINDS, Alignment, counted_rows, stable_rows
from morphable.data.importers.reading import Reading
from morphable.data.makers.hands import hand_template
from morphable.data.mesh_stack import MeshStack
from morphable.errors import InputError
from morphable.mesh.io import read_mesh, write_mesh
from morphable.mesh.mesh import Mesh
from morphable.mesh.mirror import mirror_map
from morphable.mesh.template import Template
from test_unusual import BASE, FACES, N, meshes


def moved(shapes: np.ndarray, rng: np.random.Generator, scale: bool) -> np.ndarray:
    """Each shape turned, shifted and, if asked, scaled."""
    out = []
    for shape in shapes:
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        rotation[:, 0] *= np.linalg.det(rotation)
        size = rng.uniform(0.5, 2) if scale else 1.0
        out.append(size * shape @ rotation.T + 100 * rng.normal(size=3))
    return np.stack(out)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_done_to_meshes_is_undone(kind: str, rng: np.random.Generator) -> None:
    shapes = np.repeat(BASE[None], 8, axis=0)
    if kind == "translation":
        given = shapes + 100 * rng.normal(size=(8, 1, 3))
    else:
        given = moved(shapes, rng, kind == "similarity")
    stack = MeshStack([given.astype(np.float32)])
    aligned = Alignment.of(kind, None, stack).apply(given)
    np.testing.assert_allclose(aligned, np.repeat(aligned[:1], 8, axis=0), atol=1e-2)
    np.testing.assert_allclose(aligned.mean(axis=(0, 1)), 0, atol=1e-3)


def test_an_alignment_never_reflects(rng: np.random.Generator) -> None:
    given = np.stack([*meshes(6), BASE * [-1, 1, 1]]).astype(np.float32)
    for kind in KINDS:
        alignment = Alignment.of(kind, None, MeshStack([given]))
        assert (np.linalg.det(alignment.maps(given).rotation) > 0).all()


def test_the_vertices_that_never_move_are_found(rng: np.random.Generator) -> None:
    """The upper half is rigid, the lower half waves."""
    shapes = np.repeat(BASE[None], 20, axis=0)
    lower = np.flatnonzero(np.arange(N * N) // N >= N // 2)
    shapes[:, lower, 2] += 40 * rng.normal(size=(20, 1)) * np.sin(BASE[lower, 1] / 20)
    given = moved(shapes, rng, False)
    stack = MeshStack([given.astype(np.float32)])
    rows = stable_rows(stack)
    assert not set(rows) & set(lower) and len(rows) == N * N // 3
    aligned = Alignment.of("rigid", rows, stack).apply(given)
    upper = np.setdiff1d(np.arange(N * N), lower)
    np.testing.assert_allclose(aligned[:, upper], aligned[:1, upper].repeat(20, 0), atol=0.05)


def test_rows_of_a_file(tmp_path: Path) -> None:
    template, stack = Template(Mesh(BASE, FACES)), MeshStack([meshes(3).astype(np.float32)])
    (tmp_path / "rows.txt").write_text("3, 1\n7 1\n")
    (tmp_path / "rows.json").write_text("[1, 3, 7]")
    np.save(tmp_path / "rows.npy", [7, 3, 1])
    for name in ("rows.txt", "rows.json", "rows.npy"):
        found = counted_rows(str(tmp_path / name), template, stack)
        assert found is not None and found.tolist() == [1, 3, 7]
    (tmp_path / "rows.txt").write_text("1 2 400")
    for choice, words in (
        (str(tmp_path / "rows.txt"), r"must lie in 0\.\.399"),
        (str(tmp_path / "none.txt"), "no such file"),
        ("template", "names no rigid vertices"),
    ):
        with pytest.raises(InputError, match=words):
            counted_rows(choice, template, stack)


def symmetric() -> np.ndarray:
    """BASE without its asymmetry, off the plane x = 0."""
    u = np.linspace(-1, 1, N)[:, None] * np.ones(N)
    v = np.ones(N)[:, None] * np.linspace(-1, 1, N)
    return np.stack([u * 80 + 30, v * 100, 60 * (1 - u**2 - v**2) + 9 * v**3], -1).reshape(-1, 3)


def test_a_mirror_map_is_found_from_the_shape(rng: np.random.Generator) -> None:
    expected = np.arange(N * N).reshape(N, N)[::-1].ravel()
    np.testing.assert_array_equal(mirror_map(symmetric(), FACES), expected)
    rough = symmetric() + 0.3 * rng.normal(size=(N * N, 3))
    np.testing.assert_array_equal(mirror_map(rough, FACES), expected)
    with pytest.raises(InputError, match="not symmetric about a plane x = const"):
        mirror_map(hand_template().mesh.vertices, hand_template().mesh.faces)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Forty symmetric PLY files, ten of each subject, bent to one side."""
    for row in range(40):
        mesh = symmetric() + [0, 0, 1] * (row + symmetric()[:, :1] * row / 100)
        path = tmp_path / "raw" / f"s{row // 10}" / f"{row % 10}.ply"
        write_mesh(path, Mesh(mesh.astype(np.float32), FACES))
    return tmp_path / "raw"


def test_mirror_images_are_trained_on_only_with_their_originals(raw: Path, tmp_path: Path) -> None:
    write_mesh(tmp_path / "t.obj", Mesh(symmetric(), FACES))
    made = import_dataset(
        "folder",
        raw,
        tmp_path / "set",
        unit="mm",
        pattern="{subject}/{frame}",
        mirror=True,
        template=tmp_path / "t.obj",
    )
    assert len(made) == 80 and made.info["mirrored"] is True
    np.testing.assert_array_equal(made.labels["mirror_of"][40:], np.arange(40))
    twice = np.arange(N * N).reshape(N, N)[::-1].ravel()
    np.testing.assert_allclose(
        made.vertices[45], made.vertices[5][twice] * [-1, 1, 1] + [60, 0, 0], atol=1e-3
    )
    for name in ("frames", "subject"):
        split = made.split(name).split
        assert max(*split.val, *split.test) < 40
        held_out = np.concatenate([split.val, split.test])
        assert len(split.train) == 2 * (40 - len(held_out))
        assert not np.isin(held_out + 40, split.train).any()


def test_an_interrupted_import_resumes(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from morphable.data.importers import files_source

    read = files_source.registered
    calls: list[str] = []

    def failing(path: Path, *rest: object) -> object:
        calls.append(path.name)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return read(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(files_source, "registered", failing)
    options = {"unit": "mm", "pattern": "{subject}/{frame}"}
    with pytest.raises(KeyboardInterrupt):
        import_dataset("folder", raw, tmp_path / "set", **options)
    assert not (tmp_path / "set").exists() and (tmp_path / ".set.importing").exists()
    with pytest.warns(UserWarning, match="resuming: 24 of 40 files were read before"):
        resumed = import_dataset("folder", raw, tmp_path / "set", **options)
    assert len(calls) == 25 + 16
    assert not (tmp_path / ".set.importing").exists()
    whole = import_dataset("folder", raw, tmp_path / "whole", **options)
    assert resumed.info["content_hash"] == whole.info["content_hash"]
    assert tree(tmp_path / "set") == tree(tmp_path / "whole")


def test_nothing_is_resumed_of_other_settings_or_changed_files(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from morphable.data.importers import files_source

    read = files_source.registered
    calls: list[Path] = []

    def failing(path: Path, *rest: object) -> object:
        calls.append(path)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return read(path, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(files_source, "registered", failing)
        with pytest.raises(KeyboardInterrupt):
            import_dataset("folder", raw, tmp_path / "set", unit="mm")
    changed = calls[4]
    write_mesh(changed, Mesh(read_mesh(changed).mesh.vertices + 1, FACES))
    with pytest.warns(UserWarning, match="resuming: 4 of 40 files"):
        made = import_dataset("folder", raw, tmp_path / "set", unit="mm")
    whole = import_dataset("folder", raw, tmp_path / "whole", unit="mm")
    assert made.info["content_hash"] == whole.info["content_hash"]


def test_a_failed_import_leaves_nothing(raw: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    (raw / "s3" / "9.ply").write_bytes(b"ply")
    with pytest.raises(InputError):
        import_dataset("folder", raw, tmp_path / "set", unit="mm")
    assert tree(tmp_path).keys() == before.keys()


def test_two_imports_into_one_place_are_refused(raw: Path, tmp_path: Path) -> None:
    with (
        Reading.beside(tmp_path / "set"),
        pytest.raises(InputError, match="wait until it ends"),
    ):
        import_dataset("folder", raw, tmp_path / "set", unit="mm")


def test_the_command_aligns_in_each_way(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "import", "folder", raw, "--unit", "mm", "--out"]
    for words, kind in (
        (["--align"], "rigid"),
        (["--align", "similarity", "--align-on", "stable"], "similarity"),
        (["--align", "translation"], "translation"),
    ):
        done = in_process(capsys, *command, tmp_path / kind, *words)
        assert done.code == 0, done.err
        assert load_dataset(tmp_path / kind).info["aligned"] == kind
    in_process(capsys, *command, tmp_path / "a", "--align-on", "all").refuses("--align-on: needs")
    in_process(capsys, *command, tmp_path / "a", "--align", "paper").refuses(
        "expected one of rigid"
    )


def test_one_mesh_of_several_is_chosen_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import trimesh

    for row, mesh in enumerate(meshes(5)):
        scene = trimesh.Scene()
        both = (("face", mesh / 1000), ("eyes", mesh[: 2 * N] / 2000))
        for name, vertices in both:
            faces = FACES[(len(vertices) > FACES).all(axis=1)]
            scene.add_geometry(
                trimesh.Trimesh(vertices, faces, process=False), node_name=name, geom_name=name
            )
        (tmp_path / "raw").mkdir(exist_ok=True)
        scene.export(tmp_path / "raw" / f"{row}.glb")
    command = [
        "data",
        "import",
        "folder",
        tmp_path / "raw",
        "--unit",
        "m",
        "--out",
        tmp_path / "set",
    ]
    in_process(capsys, *command).refuses("found 2", "face", "eyes", "--mesh")
    in_process(capsys, *command, "--mesh", "nose").refuses("--mesh nose", "face", "eyes")
    done = in_process(capsys, *command, "--mesh", "face")
    assert done.code == 0, done.err
    np.testing.assert_allclose(load_dataset(tmp_path / "set").vertices[:], meshes(5), atol=1e-2)


@pytest.fixture
def two(ball: Template, tmp_path: Path) -> tuple[MeshDataset, MeshDataset]:
    return dataset(ball, tmp_path / "a", 60), dataset(ball, tmp_path / "b", 40, seed=1)


def test_merged_sets_keep_meshes_labels_and_splits(
    two: tuple[MeshDataset, MeshDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = two
    done = in_process(capsys, "data", "merge", a.path, b.path, "--out", tmp_path / "both")
    assert done.code == 0 and "10 subjects, such as s00" in done.err
    both = load_dataset(tmp_path / "both")
    np.testing.assert_array_equal(both.vertices[:60], a.vertices[:])
    np.testing.assert_array_equal(both.vertices[60:], b.vertices[:])
    assert both.labels["dataset"].tolist() == ["a"] * 60 + ["b"] * 40
    np.testing.assert_array_equal(both.labels["neutral"][60:], b.labels["neutral"] + 60)
    test = both.split("subject").split.test
    expected = [*a.split("subject").split.test, *(b.split("subject").split.test + 60)]
    assert test.tolist() == sorted(expected)
    named = in_process(
        capsys, "data", "merge", a.path, b.path, "--rename", "--out", tmp_path / "named"
    )
    assert named.code == 0 and "same person" not in named.err
    assert len(load_dataset(tmp_path / "named").labels.classes("subject").names) == 20


def test_sets_of_other_templates_are_not_merged(
    two: tuple[MeshDataset, MeshDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from conftest import ball_template

    other = dataset(ball_template(40), tmp_path / "c", 20)
    command = ["data", "merge", two[0].path]
    in_process(capsys, *command, other.path, "--out", tmp_path / "d").refuses("is not that of")
    in_process(capsys, *command, "--out", tmp_path / "d").refuses("at least two")
    assert not (tmp_path / "d").exists()
