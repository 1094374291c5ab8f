"""Registration of scans: the solver against a dense route, rules by hand, invariants; folders of scans
from the command line, resumed, over processes and over a cluster; and input that does not fit.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from conftest import ball_template
from helpers import in_process, shapes, source
from morphable.data.dataset import load_dataset, write_dataset
from morphable.data.labels import LabelTable
from morphable.mesh.align import Similarity
from morphable.mesh.distance import point_to_surface
from morphable.mesh.io import write_mesh
from morphable.mesh.landmarks import Landmarks
from morphable.mesh.mesh import Mesh
from morphable.mesh.nonrigid import Target, _System, deform, match_target
from morphable.mesh.scan import Scan
from morphable.mesh.template import Template
from morphable.mesh.topology import edges
from morphable.models.pca import Pca, PcaConfig
from morphable.register.card import Card, flipped_faces, judge, stretched_edges
from morphable.register.folder import Settings, register_folder
from morphable.register.scan import register_scan

NO_FACES = np.zeros((0, 3), np.int64)


def target_of(vertices: np.ndarray, triangles: np.ndarray) -> Target:
    return Target.of(Scan.of_mesh(vertices, triangles), triangles)


def shuffled(vertices: np.ndarray, triangles: np.ndarray, seed: int = 0) -> Mesh:
    """The same surface with its vertices in another order."""
    order = np.random.default_rng(seed).permutation(len(vertices))
    return Mesh(np.asarray(vertices, np.float64)[order], np.argsort(order)[triangles])


@pytest.fixture(scope="module")
def pca(ball: Template) -> Pca:
    return Pca.estimate(ball, shapes(ball, 40), {}, PcaConfig(5)).eval()


def test_the_sparse_solver_equals_the_formula_by_dense_least_squares() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0.2, 0.1, 1]])
    pairs = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]])
    random = np.random.default_rng(0)
    goals, weights, stiffness = random.normal(size=(4, 3)), np.array([1.0, 0.5, 0, 2]), 3.0
    rows = []
    for a, b in pairs:
        for column in range(4):
            row = np.zeros(16)
            row[4 * a + column], row[4 * b + column] = -1, 1
            rows.append(row * np.sqrt(stiffness * 4 / 1000))
    places = np.zeros((4, 16))
    for vertex in range(4):
        places[vertex, 4 * vertex : 4 * vertex + 4] = [*vertices[vertex], 1]
    ridge = np.sqrt(1e-9) * np.eye(16)
    design = np.concatenate([np.sqrt(weights)[:, None] * places, *map(np.atleast_2d, rows), ridge])
    right = np.zeros((len(design), 3))
    right[:4] = np.sqrt(weights)[:, None] * goals
    right[-16:] = np.sqrt(1e-9) * np.tile(np.eye(4, 3), (4, 1))
    expected = places @ np.linalg.lstsq(design, right, rcond=None)[0]
    found = _System.of(vertices, pairs).solve(weights, goals, stiffness)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_template_that_lies_on_its_target_stays(ball: Template) -> None:
    vertices, triangles = np.asarray(ball.mesh.vertices, np.float64), ball.mesh.triangles
    found = deform(vertices, ball.mesh.faces, triangles, target_of(vertices, triangles))
    np.testing.assert_allclose(found, vertices, atol=1e-3)


def test_deformation_reaches_the_surface_and_turns_with_it(ball: Template) -> None:
    start, triangles = np.asarray(ball.mesh.vertices, np.float64), ball.mesh.triangles
    goal = shapes(ball, 1, seed=5)[0].astype(np.float64)
    found = deform(start, ball.mesh.faces, triangles, target_of(goal, triangles))
    before = point_to_surface(start, goal, triangles).mean()
    after = point_to_surface(found, goal, triangles).mean()
    assert after < 0.2 * before
    turn = Rotation.from_rotvec([0.3, -1, 2]).as_matrix()
    again = deform(start @ turn.T, ball.mesh.faces, triangles, target_of(goal @ turn.T, triangles))
    np.testing.assert_allclose(again, found @ turn.T, atol=0.02)


def test_landmarks_stop_the_sliding(ball: Template) -> None:
    start, triangles = np.asarray(ball.mesh.vertices, np.float64), ball.mesh.triangles
    turn = Rotation.from_rotvec([0, 0.25, 0]).as_matrix()
    goal = start @ turn.T
    rows = np.arange(0, 320, 16)
    target = target_of(goal, triangles)
    free = deform(start, ball.mesh.faces, triangles, target)
    held = deform(start, ball.mesh.faces, triangles, target, landmarks=Landmarks(rows, goal[rows]))
    apart = [np.linalg.norm(found - goal, axis=1).mean() for found in (free, held)]
    assert apart[1] < 0.5 * apart[0]


def test_matches_on_the_border_and_with_another_normal_do_not_count(ball: Template) -> None:
    vertices, triangles = np.asarray(ball.mesh.vertices, np.float64), ball.mesh.triangles
    height = vertices[:, 1]
    half = target_of(vertices, triangles[(height[triangles] > 0).all(1)])
    found = match_target(half, vertices, triangles)
    low = height < np.quantile(height, 0.25)
    assert not found.usable[low].any()
    assert found.usable[height > np.quantile(height, 0.75)].all()
    inside_out = target_of(vertices, triangles[:, ::-1])
    assert not match_target(inside_out, vertices, triangles).usable.any()
    cloud = Target.of(Scan(vertices), NO_FACES)
    assert match_target(cloud, vertices, triangles).distance.max() == 0


def test_flipped_faces_and_stretched_edges_by_hand() -> None:
    side = np.linspace(0, 5, 6)
    grid = np.stack([*np.meshgrid(side, side), np.zeros((6, 6))], -1).reshape(-1, 3)
    corner = (np.arange(5)[:, None] * 6 + np.arange(5)).ravel()
    triangles = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + 7], 1),
            np.stack([corner, corner + 7, corner + 6], 1),
        ]
    )
    assert not flipped_faces(grid, grid, triangles).any()
    pushed = grid.copy()
    pushed[14, 0] += 1.5  # over its neighbor
    touched = (triangles == 14).any(1)
    flipped = flipped_faces(pushed, grid, triangles)
    assert flipped.any() and not flipped[~touched].any()
    pairs = edges(triangles)
    odd = stretched_edges(2 * pushed, grid, pairs)  # a change of size is no stretch
    assert odd.any() and (pairs[odd] == 14).any(1).all()


def test_a_card_survives_json_and_says_why(ball: Template) -> None:
    vertices, triangles = np.asarray(ball.mesh.vertices, np.float64), ball.mesh.triangles
    target = target_of(vertices, triangles)
    card = judge(ball, vertices, vertices, target, 1.0, "as it lies")
    assert card.accepted and card.coverage == 1 and card.scan_to_mesh.max < 1e-6
    assert Card.read(json.loads(json.dumps(card.record()))) == card
    far = judge(ball, vertices, 1.3 * vertices, target, 1.0, "as it lies")
    assert "from the mesh" in far.reason
    half = target_of(vertices, triangles[(vertices[triangles][:, :, 1] > 20).all(1)])
    kept = np.unique(half.triangles)
    few = target_of(vertices[kept], np.searchsorted(kept, half.triangles))
    assert "of the template" in judge(ball, vertices, vertices, few, 1.0, "").reason


@pytest.mark.parametrize("with_prior", [True, False])
def test_a_scan_that_lies_anywhere(ball: Template, pca: Pca, with_prior: bool) -> None:
    truth = shapes(ball, 1, seed=7)[0].astype(np.float64)
    move = Similarity(
        Rotation.from_rotvec([1, 2, -0.5]).as_matrix(), np.array([90.0, 5, -40]), np.array(1.2)
    )
    mesh = shuffled(move.apply(truth), ball.mesh.triangles)
    target = target_of(np.asarray(mesh.vertices), mesh.triangles)
    found = register_scan(ball, target, prior=pca if with_prior else None)
    assert found.card.accepted, found.card
    apart = np.linalg.norm(found.placed - move.apply(truth), axis=1).mean() / 1.2
    assert apart < (0.6 if with_prior else 4.0), apart
    np.testing.assert_allclose(found.card.size, 1.2, rtol=0.1)


@pytest.fixture(scope="module")
def folder(ball: Template, pca: Pca, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template, six scans near it, one that is something else, and landmarks."""
    root = tmp_path_factory.mktemp("scans")
    ball.save(root / "template.npz")
    write_mesh(root / "template.ply", ball.mesh)
    (root / "scans").mkdir()
    (root / "landmarks").mkdir()
    rows = np.arange(0, 320, 60)
    for number, shape in enumerate(shapes(ball, 6, seed=3)):
        place = root / "scans" / f"s{number}_a.ply"
        write_mesh(place, shuffled(shape + [40, 0, 10], ball.mesh.triangles, number))
        lines = ["vertex,x,y,z"]
        lines += [f"{row},{','.join(map(str, shape[row] + [40, 0, 10]))}" for row in rows]
        (root / "landmarks" / f"s{number}_a.csv").write_text("\n".join(lines) + "\n")
    return root


def registered(root: Path, out: Path, *, jobs: int = 1, scheduler: str | None = None) -> np.ndarray:
    files = sorted((root / "scans").glob("s*.ply"))
    table = LabelTable({"file": np.array([path.name for path in files])}, len(files))
    settings = Settings(root / "template.npz", landmarks=root / "landmarks")
    dataset = register_folder(settings, files, table, out, info={}, jobs=jobs, scheduler=scheduler)
    return np.asarray(dataset.vertices[:])


def test_a_folder_from_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for path in sorted((folder / "scans").glob("s[0-1]*.ply")):
        (scans / path.name).write_bytes(path.read_bytes())
    (scans / "x_broken.ply").write_bytes(b"ply\nnothing")
    out = tmp_path / "data"
    words = ["data", "register", str(folder / "template.ply"), str(scans), "--out", str(out)]
    outcome = in_process(capsys, *words, "--name", "ball", "--pattern", "{subject}_{expression}")
    assert outcome.code == 0, outcome.err
    assert "2 of 3 scans registered" in outcome.out and "rejected: " in outcome.out
    dataset = load_dataset(out)
    assert len(dataset) == 2 and dataset.template.name == "ball"
    assert dataset.labels["subject"].tolist() == ["s0", "s1"]
    assert "x_broken" in dataset.info["skipped"][0]
    cards = json.loads((out / "registration.json").read_text())
    assert [card["accepted"] for card in cards] == [True] * 2 + [False]
    assert (out / "registration.csv").read_text().count("\n") == 4
    assert "x_broken" in (out / "registration.html").read_text("utf-8")
    assert not list(tmp_path.glob("*.registering"))


def test_an_interrupted_registration_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from morphable.register import folder as module

    whole = registered(folder, tmp_path / "whole")
    done: list[str] = []
    original = module.register_file

    def counted(task: module.ScanTask) -> module.Registered:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task.path.name)
        return original(task)

    monkeypatch.setattr(module, "register_file", counted)
    with pytest.raises(KeyboardInterrupt):
        registered(folder, tmp_path / "part")
    first, done[:] = list(done), []
    monkeypatch.setattr(module, "register_file", original)
    monkeypatch.setattr(
        module, "register_file", lambda task: done.append(task.path.name) or original(task)
    )
    np.testing.assert_array_equal(registered(folder, tmp_path / "part"), whole)
    assert len(done) == 4 and not set(done) & set(first)


def test_processes_give_the_same(folder: Path, tmp_path: Path) -> None:
    alone = registered(folder, tmp_path / "alone")
    np.testing.assert_array_equal(registered(folder, tmp_path / "two", jobs=2), alone)


def test_a_cluster_whose_worker_is_killed_gives_the_same(folder: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    from morphable.register import folder as module

    alone = registered(folder, tmp_path / "alone")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    written: list[str] = []
    original = module._write

    def write(name: Path, result: module.Registered) -> None:
        original(name, result)
        written.append(result.path.name)
        if len(written) == 2:
            os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)

    module._write = write  # type: ignore[assignment]
    try:
        found = registered(folder, tmp_path / "cluster", scheduler=cluster.scheduler_address)
    finally:
        module._write = original  # type: ignore[assignment]
        cluster.close()
    np.testing.assert_array_equal(found, alone)
    assert sorted(written) == sorted(set(written)) and len(written) == 6


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--jobs", "0"], "--jobs 0: expected at least 1"),
        (["--jobs", "2", "--scheduler", "tcp://x:1"], "--jobs and --scheduler: give one"),
        (["--template-landmarks", "TEMPLATE"], "--template-landmarks: needs --landmarks"),
        (["--landmarks", "nowhere"], "--landmarks nowhere: no such folder"),
        (["--landmarks", "EMPTY"], "has no landmark file for s0_a.ply, such as s0_a.csv"),
        (["--name", " "], "--name: is empty"),
        (["--unit", "m"], "is the unit right?"),
        (["--prior", "nowhere"], "nowhere"),
        (["--seed", "-1"], "--seed -1"),
    ],
)
def test_input_that_does_not_fit(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    sentence: str,
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"TEMPLATE": str(folder / "template.ply"), "EMPTY": str(tmp_path / "empty")}
    words = [places.get(word, word) for word in words]
    start = ["data", "register", str(folder / "template.npz"), str(folder / "scans")]
    outcome = in_process(capsys, *start, "--out", str(tmp_path / "out"), *words)
    assert outcome.code == 2 and sentence in outcome.err, outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_a_prior_of_another_topology(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(source(ball_template(200), 12), tmp_path / "data")
    data = str(tmp_path / "data")
    model = str(tmp_path / "model")
    assert in_process(capsys, "train", "pca", "--data", data, "--out", model).code == 0
    words = ["data", "register", str(folder / "template.npz"), str(folder / "scans")]
    outcome = in_process(capsys, *words, "--prior", model, "--out", str(tmp_path / "out"))
    assert outcome.code == 2 and "is a model of 200 vertices" in outcome.err, outcome.err
    assert not list(tmp_path.glob("out*"))
