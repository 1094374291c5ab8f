"""The audit names every broken mesh with its cause, and nothing else; and the import leaves them out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import in_process
from morphable.data.audit import Finding, audit_dataset
from morphable.data.audit.finding import ADVICE
from morphable.data.audit.page import HEADINGS, audit_page
from morphable.data.dataset import MeshDataset, load_dataset, write_dataset
from morphable.data.labels import LabelTable
from morphable.data.makers import make_source
from morphable.data.source import MeshSource
from morphable.draw.html import render_page
from morphable.mesh.io import write_mesh
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template
from morphable.mesh.topology import hinges, inconsistent_edges
from test_unusual import BASE, CELLS, FACES, MODES, QUARTER, N, U, V, shuffled, swapped

COUNT, FRAMES = 500, 5
ORDER = np.random.default_rng(9).permutation(N * N)
Change = Callable[[np.ndarray], np.ndarray]
GRID = np.array(CELLS)
OTHER_DIAGONALS = np.concatenate([GRID[:, [0, 1, 2]], GRID[:, [0, 2, 3]]])


def healthy(count: int) -> np.ndarray:
    """(count, V, 3) mm, an open surface without symmetry, bent in four ways and a little rough."""
    random = np.random.default_rng(0)
    amounts = random.normal(size=(count, 4, 3)) * 4
    rough = 0.05 * random.normal(size=(count, *BASE.shape))
    return BASE + np.einsum("kv,nkc->nvc", MODES, amounts) + rough


def turned(degrees: float) -> Change:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return lambda mesh: mesh @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T


def spiked(mesh: np.ndarray) -> np.ndarray:
    mesh = mesh.copy()
    mesh[205] += [0, 0, 150]
    return mesh


def collapsed(mesh: np.ndarray) -> np.ndarray:
    """A vertex lies on its neighbor: two faces have no area."""
    mesh = mesh.copy()
    for row in (105, 205, 305):
        mesh[row] = mesh[row + 1]
    return mesh


def folded(mesh: np.ndarray) -> np.ndarray:
    """A patch of the surface is wrinkled: every other column changes places with the next."""
    mesh = mesh.copy()
    rows = np.array([i * N + j for i in range(5, 12) for j in (6, 9)])
    mesh[rows] += 1.6 * (mesh[rows + 1] - mesh[rows])
    return mesh


def rolled(mesh: np.ndarray) -> np.ndarray:
    """The end of the surface is rolled up and passes through itself."""
    mesh = mesh.copy()
    start = 0.3
    inside = U.ravel() > start
    angle = (U.ravel()[inside] - start) / (1 - start) * np.radians(430)
    radius = 80 * (1 - start) / np.radians(430)
    anchor = np.repeat(mesh.reshape(N, N, 3)[(U[:, 0] > start).argmax() - 1][None], N, 0)
    anchor = anchor.reshape(-1, 3)[inside]
    drift = 0.1 * V.ravel()[inside] * angle
    mesh[inside] = anchor + np.stack(
        [radius * np.sin(angle), 0 * angle, radius * (1 - np.cos(angle)) + drift], -1
    )
    return mesh


GEOMETRY: dict[str, tuple[Change, str]] = {
    "shuffled": (lambda m: shuffled(m, np.random.default_rng(1)), "vertices are not in the order"),
    "partly": (lambda m: shuffled(m, np.random.default_rng(2), 0.05), "vertices are not in the"),
    "swapped": (lambda m: swapped(m, np.random.default_rng(3)), "vertices are not in the order"),
    "mirrored": (lambda m: m * [-1, 1, 1], "is mirrored"),
    "quarter": (lambda m: m @ QUARTER, "turned by 90 degrees about -y"),
    "tilted": (turned(30), " degrees about z"),
    "doubled": (lambda m: 2 * m, "scaled by 1.9"),
    "shifted": (lambda m: m + np.array([0, 500, 0]), "shifted by ("),
    "spiked": (spiked, "has stretched faces"),
    "collapsed": (collapsed, "degenerate faces"),
    "folded": (folded, "has flipped faces"),
    "rolled": (rolled, "of its faces pass through others"),
}
FILES: dict[str, tuple[Change, np.ndarray, str]] = {
    "meters": (lambda m: m / 1000, FACES, "about 1,000 times more"),
    "diagonals": (lambda m: m, OTHER_DIAGONALS, "with other diagonals"),
    "missing": (lambda m: m, FACES[:-2], "2 of the template's 722 faces are missing"),
    "fewer": (lambda m: m[:-1], FACES[(FACES < N * N - 1).all(1)], "expected 400 vertices"),
    "renumbered": (lambda m: m[ORDER], np.argsort(ORDER)[FACES], "another vertex order"),
}
PLACE = {name: 7 + 23 * number for number, name in enumerate([*GEOMETRY, *FILES])}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 PLY files, 20 of them broken in 20 ways; five frames of each of a hundred subjects."""
    raw = tmp_path_factory.mktemp("broken") / "scans"
    for row, mesh in enumerate(healthy(COUNT)):
        name = next((name for name, place in PLACE.items() if place == row), "")
        faces = FACES
        if name in GEOMETRY:
            mesh = GEOMETRY[name][0](mesh)
        elif name:
            mesh, faces = FILES[name][0](mesh), FILES[name][1]
        write_mesh(raw / file(row), Mesh(mesh, faces))
    (raw / file(490)).write_bytes((raw / file(11)).read_bytes())
    near = np.round(healthy(COUNT)[21], 2)
    write_mesh(raw / file(480), Mesh(near, FACES))
    whole = (raw / file(470)).read_bytes()
    (raw / file(470)).write_bytes(whole[: len(whole) // 2])
    return raw


def file(row: int) -> str:
    return f"s{row // FRAMES:02d}_{row % FRAMES}.ply"


EXPECTED = {
    **{file(PLACE[name]): words for name, (_, words) in GEOMETRY.items()},
    **{file(PLACE[name]): words for name, (_, _, words) in FILES.items()},
    file(490): "repeats an earlier mesh exactly, mesh 11 (s02_1.ply)",
    file(480): "nearly repeats mesh 21 (s04_1.ply)",
    file(470): "may be truncated",
}


def test_twenty_of_five_hundred_are_left_out_each_with_its_cause(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "import", "folder", broken, "--unit", "mm", "--pattern", "{subject}_{frame}"]
    refused = in_process(capsys, *command, "--out", tmp_path / "none")
    assert refused.code == 2 and not (tmp_path / "none").exists()
    done = in_process(capsys, *command, "--skip-bad", "--out", tmp_path / "set")
    assert done.code == 0, done.err
    lines = [line for line in done.err.splitlines() if "left out: " in line]
    for name, words in EXPECTED.items():
        (line,) = [line for line in lines if f"/{name}:" in line]
        assert words.split(" mesh ")[0] in line, line
    assert len(lines) == len(EXPECTED) == 20
    assert "audit" not in done.out
    kept = load_dataset(tmp_path / "set")
    assert len(kept) == COUNT - 20 and len(kept.info["skipped"]) == 20
    assert not set(EXPECTED) & set(kept.labels["file"].tolist())
    sound = [row for row in range(COUNT) if file(row) not in EXPECTED]
    np.testing.assert_array_equal(kept.vertices[:], healthy(COUNT)[sound].astype(np.float32))
    assert list(tmp_path.iterdir()) == [tmp_path / "set"]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> MeshDataset:
    """500 meshes of which 12 are broken in ways that no file shows, one is a copy and one nearly."""
    shapes = healthy(COUNT)
    for name, (change, _) in GEOMETRY.items():
        shapes[PLACE[name]] = change(shapes[PLACE[name]])
    shapes[490], shapes[480] = shapes[11], np.round(shapes[21], 2)
    names = np.array([file(row) for row in range(COUNT)])
    subject = np.array([name.split("_")[0] for name in names])
    frame = np.arange(COUNT) % FRAMES
    labels = LabelTable({"file": names, "subject": subject, "frame": frame}, COUNT)
    path = tmp_path_factory.mktemp("imported") / "set"
    return stored(shapes, path, labels)


def stored(
    shapes: np.ndarray, path: Path, labels: LabelTable | None = None, faces: np.ndarray = FACES
) -> MeshDataset:
    blocks = np.asarray(shapes, np.float32)
    template = Template(Mesh(blocks[0], faces), "bent")
    table = labels or LabelTable({}, len(blocks))
    return write_dataset(MeshSource(template, table, lambda: iter([blocks]), {}), path)


@pytest.fixture(scope="module")
def findings(imported: MeshDataset) -> list[Finding]:
    return audit_dataset(imported)


def test_an_audit_names_each_broken_mesh_and_nothing_else(findings: list[Finding]) -> None:
    assert {finding.row for finding in findings} == {PLACE[name] for name in GEOMETRY} | {480, 490}
    assert len(findings) == 14 and all(finding.advice for finding in findings)
    for finding in findings:
        assert EXPECTED[finding.name.split("(")[1][:-1]] in finding.text
    (copy,) = [finding for finding in findings if finding.row == 490]
    assert "held out by split" in copy.text


@pytest.mark.parametrize("kind", ["hands", "bodies"])
def test_healthy_made_sets_have_no_finding(kind: str, tmp_path: Path) -> None:
    count = 200 if kind == "hands" else 60
    assert audit_dataset(write_dataset(make_source(kind, count=count), tmp_path / kind)) == []


@pytest.mark.skipif("MORPHABLE_ICT" not in os.environ, reason="not run: no ICT data")
def test_healthy_faces_have_no_finding(tmp_path: Path) -> None:
    source = make_source("faces", count=156, size="5k")
    assert audit_dataset(write_dataset(source, tmp_path / "faces")) == []


def kinds(dataset: MeshDataset) -> list[str]:
    return [finding.kind for finding in audit_dataset(dataset)]


def test_left_and_right_mixed_is_one_finding(tmp_path: Path) -> None:
    shapes = healthy(40)
    shapes[::2] *= [-1, 1, 1]
    (finding,) = audit_dataset(stored(shapes, tmp_path / "set"))
    assert finding.kind == "sides" and "50 % of the meshes" in finding.text


def test_label_holes_and_short_sequences(tmp_path: Path) -> None:
    subject = np.array([f"s{row // 20}" for row in range(120)])
    sequence = np.array([f"q{row % 20 // 10}" for row in range(120)])
    subject[[3, 50]] = ""
    subject[112:], sequence[112:] = "s6", "q0"
    labels = LabelTable({"subject": subject, "sequence": sequence}, 120)
    findings = audit_dataset(stored(healthy(120), tmp_path / "set", labels))
    assert [str(finding) for finding in findings] == [
        "mesh 3: has no label subject, which 118 meshes have",
        "mesh 50: has no label subject, which 118 meshes have",
        "sequence s5/q1 has 2 frames, the others have 10 (median)",
    ]


def test_frames_of_a_sequence_in_which_nothing_moves_are_no_copies(tmp_path: Path) -> None:
    shapes = healthy(60)
    shapes[7] = shapes[6]
    columns = {
        "subject": np.array([f"s{row // 10}" for row in range(60)]),
        "sequence": np.full(60, "smile"),
        "frame": np.arange(60) % 10,
    }
    assert kinds(stored(shapes, tmp_path / "a", LabelTable(columns, 60))) == []
    columns["subject"][7] = "s5"
    assert kinds(stored(shapes, tmp_path / "b", LabelTable(columns, 60))) == ["copy"]


FAULTS = {
    "non-manifold edges": np.concatenate([FACES, [[5 * N + 5, 6 * N + 5, 0]]]),
    "not oriented alike": np.concatenate([FACES[:1, ::-1], FACES[1:]]),
    "occur twice": np.concatenate([FACES, FACES[:1]]),
    "have a corner twice": np.concatenate([FACES, [[3, 3, 4]]]),
    "belong to no face": FACES[(FACES > 0).all(axis=1)],
}


@pytest.mark.parametrize("words", FAULTS)
def test_faults_of_the_template(words: str, tmp_path: Path) -> None:
    findings = audit_dataset(stored(healthy(12), tmp_path / "set", faces=FAULTS[words]))
    assert any(f.kind == "template" and words in f.text for f in findings), findings


def test_a_template_that_is_inside_out(ball: Template, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shapes = (ball.mesh.vertices * random.uniform(0.9, 1.1, (12, 1, 3))).astype(np.float32)
    table = LabelTable({}, 12)
    out = MeshSource(ball, table, lambda: iter([shapes]), {})
    assert kinds(write_dataset(out, tmp_path / "good")) == []
    flipped = replace(ball, mesh=Mesh(ball.mesh.vertices, ball.mesh.faces[:, ::-1]))
    found = audit_dataset(write_dataset(replace(out, template=flipped), tmp_path / "bad"))
    assert [f.kind for f in found] == ["template"] and "inside out" in found[0].text


def test_hinges_and_orientation_by_hand() -> None:
    faces = np.array([[0, 1, 2], [2, 1, 3], [2, 3, 4], [3, 2, 5]])
    assert hinges(faces).tolist() == [[0, 1]]  # the edge 2-3 has three faces
    assert inconsistent_edges(faces[:3]).tolist() == []
    assert inconsistent_edges(np.array([[0, 1, 2], [1, 2, 3]])).tolist() == [[1, 2]]


def test_the_page_shows_every_finding_with_advice_and_pictures(
    imported: MeshDataset, findings: list[Finding]
) -> None:
    findings = findings[:2]
    page = render_page(audit_page(imported, findings))
    assert page.count("<img") == 3 * len(findings)
    for finding in findings:
        assert finding.name in page and HEADINGS[finding.kind] in page
    assert HEADINGS.keys() == ADVICE.keys()


def test_the_command_writes_the_page_and_json(
    imported: MeshDataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("morphable.data.audit.page.MAX_PICTURES", 1)
    page = tmp_path / "audit.html"
    done = in_process(capsys, "data", "info", imported.path, "--page", page)
    assert done.code == 0 and "audit: mesh 7 (s01_2.ply): vertices are not in" in done.out
    assert "advice: leave copies out with --skip-bad" in done.out
    assert "--skip-bad" in page.read_text()
    done = in_process(capsys, "data", "info", imported.path, "--audit", "--json")
    found = json.loads(done.out)["audit"]
    assert {entry["mesh"] for entry in found} == {PLACE[name] for name in GEOMETRY} | {480, 490}
    assert all(entry["advice"] and entry["finding"] and entry["kind"] for entry in found)
