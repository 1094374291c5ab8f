"""Regions: disjoint, connected, covering, mirrored; label files that say which vertex is wrong."""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.sparse.csgraph import connected_components

from conftest import ball_template
from morphable.cli.main import main
from morphable.data.dataset import MeshDataset, load_dataset, write_dataset
from morphable.data.makers.bodies import bodies
from morphable.data.makers.hands import hands as make_hands
from morphable.draw.region_map import region_picture
from morphable.errors import InputError
from morphable.mesh.automatic_regions import automatic_regions, template_regions
from morphable.mesh.mesh import Mesh
from morphable.mesh.region_files import disjoint, read_regions
from morphable.mesh.regions import Regions, border_vertices, spread_controls
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
    counts = (29, 17, 13, 11)
    sets = [automatic_regions(mesh, n, merged_from=counts[:i]).labels for i, n in enumerate(counts)]
    assert [len(np.unique(labels)) for labels in sets] == list(counts)
    for finer, coarser in itertools.combinations(sets, 2):
        assert all(len(np.unique(coarser[finer == r])) == 1 for r in np.unique(finer))


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
    mesh, regions = hands.template.mesh, hands.template.regions
    assert regions is not None
    labels = regions.labels
    for region, controls in enumerate(spread_controls(mesh, labels)):
        on_border = np.isin(controls, border_vertices(mesh.faces, labels, region))
        assert on_border.sum() == 4
        assert (~on_border).sum() == 6


def test_regions_of_a_template_are_its_own_unless_a_count_is_asked(hands: MeshDataset) -> None:
    assert template_regions(hands.template) is hands.template.regions
    assert len(template_regions(hands.template, 4).names) == 4
    assert len(template_regions(ball_template(320)).names) == 11


@pytest.mark.parametrize(
    ("count", "merged"), [(0, ()), (-1, ()), (321, ()), (5, (4,)), (5, (9, 4)), (5, (321,))]
)
def test_impossible_counts(ball: Template, count: int, merged: tuple[int, ...]) -> None:
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
    labels, names = template.regions.labels, list(template.regions.names)
    read = read_regions(
        written(tmp_path / f"l{suffix}", template.mesh, labels, names), template.mesh
    )
    by_name = {name: np.flatnonzero(read.labels == n).tolist() for n, name in enumerate(read.names)}
    expected = [np.flatnonzero(labels == n).tolist() for n in range(len(names))]
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
    assert template.regions is not None
    assert len(template.regions.names) == len(template.regions.controls) == 5
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
    kept = load_dataset(data).template.regions
    assert kept is not None and np.array_equal(kept.labels, template.regions.labels)


def test_the_command_prints_the_handles_that_models_have_and_keeps_regions_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "hands"
    regions = write_dataset(make_hands(count=10, seed=3), data, 3).template.regions
    assert regions is not None
    before = (data / "template.npz").read_bytes()
    main(["data", "regions", str(data)])
    said = capsys.readouterr().out
    assert (data / "template.npz").read_bytes() == before
    for name, controls in zip(regions.names, regions.controls, strict=True):
        assert name in said
        for number, vertex in enumerate(controls):
            assert f"h{number}={vertex}" in said.split(), (name, number)


def test_the_picture_shows_each_handle_with_its_number(ball: Template) -> None:
    """A picture of the same regions with and without handles differs next to the handle."""
    labels = np.repeat([0, 1], 160)
    front = int(ball.mesh.vertices[:160, 2].argmax())
    plain = replace(ball, regions=Regions(labels, ("a", "b")))
    numbered = replace(
        ball, regions=Regions(labels, ("a", "b"), (np.array([front]), np.zeros(0, np.int64)))
    )
    pictures = [
        np.asarray(Image.open(io.BytesIO(region_picture(template, 200))), int)
        for template in (plain, numbered)
    ]
    changed = np.abs(pictures[0] - pictures[1]).sum(-1) > 0
    assert 40 < changed.sum() < 2000  # a dot and a digit in the views from which it is seen


def test_regions_without_controls_get_spread_ones(ball: Template) -> None:
    halves = Regions(np.repeat([0, 1], 160), ("a", "b"))
    found = template_regions(replace(ball, regions=halves))
    assert found.labels is halves.labels and found.names == halves.names
    for region, controls in enumerate(found.controls):
        assert 0 < len(controls) <= 10 and set(controls) <= set(halves.vertices(region))


@pytest.mark.parametrize(
    ("labels", "names", "controls", "message"),
    [
        ([0, 0, 0], "ab", (), r"expected the numbers 0..1, each used, got \[0\]"),
        ([0, 1, 2], "ab", (), r"expected the numbers 0..1, each used, got \[0 1 2\]"),
        ([0, 1, 1], "ab", ([0], [0]), "control vertices of 'b' must lie in that region"),
        ([0, 1, 1], "ab", ([0],), "control vertices for each of 2 regions, got 1"),
    ],
)
def test_regions_that_contradict_themselves(
    labels: list[int], names: str, controls: tuple[list[int], ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Regions(np.array(labels), tuple(names), tuple(map(np.array, controls)))


def test_regions_of_another_mesh_do_not_fit_the_template(ball: Template) -> None:
    with pytest.raises(InputError, match=r"one number per vertex \(320\), got \(3,\)"):
        replace(ball, regions=Regions(np.zeros(3, np.int64), ("a",)))


def test_regions_come_back_from_their_arrays(hands: MeshDataset) -> None:
    regions = hands.template.regions
    assert regions is not None
    back = Regions.from_arrays(regions.to_arrays())
    assert back is not None and back.names == regions.names
    assert np.array_equal(back.labels, regions.labels)
    for own, stored in zip(regions.controls, back.controls, strict=True):
        assert np.array_equal(own, stored)
    assert Regions.from_arrays({}) is None


def test_a_template_of_format_1_is_read(ball: Template, tmp_path: Path) -> None:
    """The arrays as datasets have held them from the beginning; other code depends on these keys."""
    np.savez(
        tmp_path / "template.npz",
        name="ball",
        vertices=ball.mesh.vertices,
        faces=ball.mesh.faces,
        landmarks=np.zeros(0, np.int32),
        regions=np.repeat([0, 1], 160),
        region_names=np.array(["low", "high"]),
        **{"control_vertices/0": np.array([3, 4]), "control_vertices/1": np.array([200])},
    )
    template = Template.load(tmp_path / "template.npz")
    assert template.regions is not None and template.regions.names == ("low", "high")
    assert [controls.tolist() for controls in template.regions.controls] == [[3, 4], [200]]
    assert template.fingerprint == ball.fingerprint
    assert np.array_equal(template.region("high"), np.arange(160, 320))
    with pytest.raises(InputError, match="not in this template, which has low, high"):
        template.region("middle")
    with pytest.raises(InputError, match="this template has no regions"):
        ball.region("low")
