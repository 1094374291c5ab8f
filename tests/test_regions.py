"""Regions: disjoint, connected, covering, mirrored; label files that say which vertex is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from conftest import ball_template
from morphable.cli.main import main
from morphable.data.dataset import MeshDataset, load_dataset, write_dataset
from morphable.data.makers.bodies import bodies
from morphable.data.makers.hands import hands as make_hands
from morphable.errors import InputError
from morphable.mesh.mesh import Mesh
from morphable.mesh.region_files import disjoint, read_regions
from morphable.mesh.regions import (
    Regions,
    automatic_regions,
    border_vertices,
    spread_controls,
    template_regions,
)
from morphable.mesh.template import Template
from morphable.mesh.topology import adjacency


def grid(columns: int, rows: int, quads: bool = True) -> Mesh:
    """A flat grid, symmetric in x, with vertex r * columns + c."""
    x, y = np.meshgrid(np.arange(columns) - (columns - 1) / 2, np.arange(rows))
    points = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1) * 10.0
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    faces = np.stack([corner, corner + 1, corner + columns + 1, corner + columns], 1)
    return Mesh(points, faces if quads else np.concatenate([faces[:, :3], faces[:, [0, 2, 3]]]))


def flip(columns: int, rows: int) -> np.ndarray:
    return (np.arange(rows)[:, None] * columns + np.arange(columns)[::-1]).ravel()


def fragments(mesh: Mesh, labels: np.ndarray) -> int:
    """Connected pieces that the regions fall into, counted by another route than the code's."""
    graph = adjacency(mesh.faces, len(labels)).tocsr()
    return sum(
        connected_components(graph[cell][:, cell])[0]
        for r in np.unique(labels)
        for cell in [labels == r]
    )


@pytest.mark.parametrize("count", [1, 2, 6, 11, 29])
def test_hands_fall_into_connected_covering_regions(hands: MeshDataset, count: int) -> None:
    mesh = hands.template.mesh
    made = automatic_regions(mesh, count)
    assert np.array_equal(np.unique(made.labels), np.arange(count))
    assert len(set(made.names)) == count
    assert fragments(mesh, made.labels) == count
    for region, controls in enumerate(made.controls):
        assert len(set(controls)) == len(controls) <= 10
        assert (made.labels[controls] == region).all()


def test_bodies_with_many_pieces_are_covered() -> None:
    template = bodies(count=10, seed=1).template
    made = automatic_regions(template.mesh, 11, template.mirror)
    islands = fragments(template.mesh, np.zeros(template.n_vertices, np.int64))
    assert np.array_equal(np.unique(made.labels), np.arange(11))
    assert fragments(template.mesh, made.labels) <= 11 + islands - 1


@pytest.mark.parametrize("count", [2, 3, 6, 7])
@pytest.mark.parametrize("columns", [13, 14])
def test_a_mirror_map_gives_mirrored_regions(columns: int, count: int) -> None:
    mesh, mirror = grid(columns, 20), flip(columns, 20)
    made = automatic_regions(mesh, count, mirror)
    image = made.labels[mirror]
    partner = {int(r): set(image[made.labels == r].tolist()) for r in range(count)}
    off_middle = mirror != np.arange(len(mirror))
    for region in range(count):
        cell = (made.labels == region) & off_middle
        name = made.names[region]
        goal = name.replace("left", "?").replace("right", "left").replace("?", "right")
        if name.endswith(("left", "right")):
            assert set(image[cell].tolist()) == {made.names.index(goal)}, partner
    assert fragments(mesh, made.labels) == count


def test_coarser_sets_nest_in_finer_ones(hands: MeshDataset) -> None:
    mesh = hands.template.mesh
    finest = automatic_regions(mesh, 29).labels
    for count in (17, 13, 11):
        coarse = automatic_regions(mesh, count, merged_from=29).labels
        assert len(np.unique(coarse)) == count
        assert all(len(np.unique(coarse[finest == r])) == 1 for r in range(29))


def test_the_same_template_gives_the_same_regions() -> None:
    mesh = ball_template(500).mesh
    assert np.array_equal(automatic_regions(mesh, 7).labels, automatic_regions(mesh, 7).labels)


def test_two_regions_of_a_strip_by_hand() -> None:
    """A strip much longer than wide splits across, near its middle."""
    labels = automatic_regions(grid(20, 4), 2).labels
    column = np.tile(np.arange(20), 4)
    assert len(set(labels[column < 8])) == len(set(labels[column > 11])) == 1
    assert labels[0] != labels[19]


def test_border_by_hand() -> None:
    """Two columns of a grid of four: the border of each half is its inner column."""
    labels = np.tile([0, 0, 1, 1], 3)
    assert border_vertices(grid(4, 3).faces, labels, 0).tolist() == [1, 5, 9]
    assert border_vertices(grid(4, 3).faces, labels, 1).tolist() == [2, 6, 10]


def test_controls_lie_inside_and_on_the_border(hands: MeshDataset) -> None:
    mesh, labels = hands.template.mesh, hands.template.regions
    assert labels is not None
    for region, controls in enumerate(spread_controls(mesh, labels)):
        on_border = np.isin(controls, border_vertices(mesh.faces, labels, region))
        assert on_border.sum() == 4
        assert (~on_border).sum() == 6


def test_regions_of_a_template_are_its_own_unless_a_count_is_asked(hands: MeshDataset) -> None:
    own = template_regions(hands.template)
    assert own.names == hands.template.region_names
    assert own.controls is hands.template.control_vertices
    assert len(template_regions(hands.template, 4).names) == 4
    assert len(template_regions(ball_template(320)).names) == 11


@pytest.mark.parametrize(("count", "merged"), [(0, 0), (-1, 0), (321, 0), (5, 4)])
def test_impossible_counts(ball: Template, count: int, merged: int) -> None:
    with pytest.raises(InputError, match="regions:"):
        automatic_regions(ball.mesh, count, merged_from=merged)


def written(path: Path, mesh: Mesh, labels: np.ndarray, names: list[str]) -> Path:
    """The same regions in the format of the suffix."""
    members = {name: np.flatnonzero(labels == n).tolist() for n, name in enumerate(names)}
    if path.suffix == ".json":
        path.write_text(json.dumps(members))
    elif path.suffix == ".csv":
        path.write_text(
            "vertex,region\n" + "".join(f"{v},{names[r]}\n" for v, r in enumerate(labels))
        )
    elif path.suffix == ".npy":
        np.save(path, labels)
    else:
        np.savez(path, regions=labels, region_names=np.array(names))
    return path


@pytest.mark.parametrize("suffix", [".json", ".csv", ".npy", ".npz"])
def test_every_format_gives_the_same_regions(
    hands: MeshDataset, tmp_path: Path, suffix: str
) -> None:
    template = hands.template
    assert template.regions is not None
    names = list(template.region_names)
    read = read_regions(
        written(tmp_path / f"l{suffix}", template.mesh, template.regions, names), template.mesh
    )
    by_name = {name: np.flatnonzero(read.labels == n).tolist() for n, name in enumerate(read.names)}
    expected = [np.flatnonzero(template.regions == n).tolist() for n in range(len(names))]
    assert [
        by_name[name if suffix != ".npy" else f"r{n}"] for n, name in enumerate(names)
    ] == expected


def test_obj_groups_give_a_border_vertex_to_the_group_of_most_faces(tmp_path: Path) -> None:
    mesh = grid(4, 2)
    lines = ["v 0 0 0"] * 8 + ["g a", "f 1 2 6 5", "f 2 3 7 6", "g b", "f 3 4 8 7"]
    path = tmp_path / "g.obj"
    path.write_text("\n".join(lines))
    assert read_regions(path, mesh).labels.tolist() == [0, 0, 0, 1, 0, 0, 0, 1]


def test_given_controls_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "l.json"
    path.write_text(
        json.dumps({"a": {"vertices": [0, 1, 4, 5], "controls": [5]}, "b": [2, 3, 6, 7]})
    )
    assert read_regions(path, grid(4, 2)).controls[0].tolist() == [5]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a": [0, 1], "b": [2]}, "1 of 4 vertices are in no region, the first is vertex 3"),
        ({"a": [0, 1, 2], "b": [2, 3]}, "vertex 2 is listed twice, in 'a' and in 'b'"),
        ({"a": [0, 0, 1, 2, 3]}, "vertex 0 is listed twice in region 'a'"),
        ({"a": [0, 1, 2, 4]}, "vertex 4 does not exist, expected 0..3"),
        ({"a": [0, 1, 2, 3], "b": []}, "region 'b' has no vertex"),
        ({"a": [0.5]}, "expected a list of vertex numbers"),
        ({}, "holds no region"),
    ],
)
def test_labels_that_do_not_cover_disjointly(members: dict[str, list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        disjoint(members, 4, "labels")


def test_unreadable_label_files(tmp_path: Path) -> None:
    mesh = grid(4, 2)
    cases = {
        "a.txt": ("", "are read from"),
        "a.csv": ("x,y\n1,2\n", "expected the columns vertex,region"),
        "b.csv": ("vertex,region\nq,a\n", "line 2: 'q' is not a vertex number"),
        "a.json": ("[1]", "expected an object"),
        "a.npy": ("junk", "not a readable .npy"),
        "a.obj": ("f 1 2 3\n", "no polygon groups"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=message):
            read_regions(tmp_path / name, mesh)
    (tmp_path / "binary.csv").write_bytes(b"vertex,region\n\xff\x00,a\n")
    with pytest.raises(InputError, match=r"binary\.csv: cannot be read as CSV"):
        read_regions(tmp_path / "binary.csv", mesh)
    for suffix in (".json", ".csv", ".npy", ".npz", ".obj"):
        with pytest.raises(InputError, match="no such file"):
            read_regions(tmp_path / f"missing{suffix}", mesh)


def test_the_command_saves_draws_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "hands"
    before = write_dataset(make_hands(count=10, seed=3), data, 3).template.fingerprint
    main(["data", "regions", str(data), "--count", "5"])
    template = load_dataset(data).template
    assert template.fingerprint == before
    assert len(template.region_names) == len(template.control_vertices) == 5
    assert (data / "regions.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "bad.json").write_text('{"a": [1, 1]}')
    for arguments in (
        ["--labels", str(tmp_path / "bad.json")],
        ["--labels", "x.json", "--count", "3"],
        ["--count", "0"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(["data", "regions", str(data), *arguments])
        assert stop.value.code == 2
    assert len(load_dataset(data).template.region_names) == 5


def test_regions_on_a_template_are_checked(ball: Template) -> None:
    with pytest.raises(InputError, match="template regions"):
        Regions(np.zeros(320, np.int64), ("a", "b"), ()).on(ball)
