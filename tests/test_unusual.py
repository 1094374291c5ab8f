"""The meshes of a dataset that are not like the others are named with the cause, and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers import in_process
from morphable.data.audit import audit_dataset
from morphable.data.dataset import MeshDataset, load_dataset, write_dataset
from morphable.data.labels import LabelTable
from morphable.data.source import MeshSource
from morphable.mesh.io import write_mesh
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template

N = 20
U, V = np.meshgrid(np.linspace(-1, 1, N), np.linspace(-1, 1, N), indexing="ij")
BASE = np.stack([U * 80 + 9 * V**2, V * 100, 60 * (1 - U**2 - V**2) + 6 * U], -1).reshape(-1, 3)
MODES = np.stack([np.sin(2 * U), np.cos(3 * V), U * V, np.exp(-(U**2) - V**2)]).reshape(4, -1)
CELLS = [
    [i * N + j, i * N + j + N, i * N + j + N + 1, i * N + j + 1]
    for i in range(N - 1)
    for j in range(N - 1)
]
FACES = np.concatenate([np.array(CELLS)[:, [0, 1, 3]], np.array(CELLS)[:, [1, 2, 3]]])
QUARTER = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0.0]])


def unusual_meshes(dataset: MeshDataset) -> list[str]:
    return [str(finding) for finding in audit_dataset(dataset)]


Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def meshes(count: int = 12) -> np.ndarray:
    """(N, V, 3) mm, an open surface without symmetry, bent in four ways."""
    amounts = np.random.default_rng(0).normal(size=(count, 4, 3)) * 4
    return BASE + np.einsum("kv,nkc->nvc", MODES, amounts)


def stored(shapes: np.ndarray, path: Path) -> MeshDataset:
    blocks = np.asarray(shapes, np.float32)
    template = Template(Mesh(blocks[0], FACES), "bent")
    names = np.array([f"s{row:02d}.obj" for row in range(len(blocks))])
    table = LabelTable({"file": names}, len(blocks))
    return write_dataset(MeshSource(template, table, lambda: iter([blocks]), {}), path)


def shuffled(mesh: np.ndarray, random: np.random.Generator, share: float = 1.0) -> np.ndarray:
    chosen = random.permutation(len(mesh))[: int(share * len(mesh))]
    mesh = mesh.copy()
    mesh[chosen] = mesh[np.roll(chosen, 1)]
    return mesh


def swapped(mesh: np.ndarray, random: np.random.Generator) -> np.ndarray:
    mesh = mesh.copy()
    mesh[[3, 300]] = mesh[[300, 3]]
    return mesh


ONE: dict[str, tuple[Change, str]] = {
    "shuffled": (shuffled, "vertices are not in the order"),
    "a tenth shuffled": (lambda m, r: shuffled(m, r, 0.1), "vertices are not in the order"),
    "two vertices swapped": (swapped, "vertices are not in the order"),
    "backwards": (lambda m, r: m[::-1], "turned by 180 degrees"),
    "mirrored": (lambda m, r: m * [-1, 1, 1], "is mirrored"),
    "mirrored in z": (lambda m, r: m * [1, 1, -1], "is mirrored"),
    "turned": (lambda m, r: m @ QUARTER, "turned by 90 degrees about -y"),
    "turned about x": (lambda m, r: m[:, [0, 2, 1]] * [1, -1, 1], "turned by 90 degrees about x"),
    "scaled": (lambda m, r: m * 2, "is scaled by "),
    "shifted": (lambda m, r: m + np.array([0, 500, 0]), "is shifted by ("),
}


@pytest.mark.parametrize("row", [0, 3])
@pytest.mark.parametrize("name", ONE)
def test_one_mesh_is_named_with_its_cause(
    name: str, row: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    change, words = ONE[name]
    shapes = meshes()
    shapes[row] = change(shapes[row], rng)
    findings = unusual_meshes(stored(shapes, tmp_path / "set"))
    assert len(findings) == 1, findings
    assert findings[0].startswith(f"mesh {row} (s{row:02d}.obj): ") and words in findings[0]


ALL: dict[str, tuple[Change, str]] = {
    "shuffled": (shuffled, "the vertices of the meshes are not in the order"),
    "shuffled alike": (
        lambda m, r: m[np.random.default_rng(5).permutation(len(m))],
        "vertices of the meshes are not",
    ),
    "a tenth shuffled alike": (
        lambda m, r: shuffled(m, np.random.default_rng(5), 0.1),
        "vertices are not in the order",
    ),
    "a tenth shuffled": (lambda m, r: shuffled(m, r, 0.1), "24 of 24 meshes have vertices"),
    "a third shuffled": (lambda m, r: shuffled(m, r, 0.33), "24 of 24 meshes have vertices"),
    "half shuffled": (
        lambda m, r: shuffled(m, r, 0.5),
        "vertices of the meshes are not in the order",
    ),
    "copies": (lambda m, r: BASE, "the meshes are alike"),
    "nearly copies": (lambda m, r: BASE + 1e-4 * r.normal(size=BASE.shape), "the meshes are alike"),
    "shifted": (lambda m, r: m + r.normal(size=3) * 300, "lie "),
    "turned": (
        lambda m, r: m @ np.linalg.qr(r.normal(size=(3, 3)))[0],
        "turned against one another",
    ),
}


@pytest.mark.parametrize("name", ALL)
def test_what_all_meshes_have_is_said_once(
    name: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    change, words = ALL[name]
    shapes = np.stack([change(mesh, rng) for mesh in meshes(24)])
    findings = unusual_meshes(stored(shapes, tmp_path / "set"))
    assert len(findings) == 1 and words in findings[0], findings


def test_three_of_twelve_are_named_each(tmp_path: Path) -> None:
    shapes = meshes()
    shapes[[1, 4, 9]] *= [-1, 1, 1]
    findings = unusual_meshes(stored(shapes, tmp_path / "set"))
    assert [finding.split(":")[0] for finding in findings] == [
        "mesh 1 (s01.obj)",
        "mesh 4 (s04.obj)",
        "mesh 9 (s09.obj)",
    ]
    assert all("is mirrored" in finding for finding in findings)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_a_few_healthy_meshes_have_no_finding(count: int, tmp_path: Path) -> None:
    assert unusual_meshes(stored(meshes(count), tmp_path / "set")) == []


def test_a_healthy_set_has_no_finding(tmp_path: Path, gestures: MeshDataset) -> None:
    assert unusual_meshes(stored(meshes(), tmp_path / "set")) == []
    assert unusual_meshes(gestures) == []


def test_the_import_says_what_it_finds(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = meshes()
    shapes[3] = shuffled(shapes[3], rng)
    for row, shape in enumerate(shapes):
        write_mesh(tmp_path / "raw" / f"s{row:02d}.obj", Mesh(shape, FACES))
    ended = in_process(
        capsys,
        "data",
        "import",
        "folder",
        tmp_path / "raw",
        "--unit",
        "mm",
        "--out",
        tmp_path / "set",
    )
    assert ended.code == 0 and "mesh 3 (s03.obj): vertices are not in the order" in ended.out
    assert len(audit_dataset(load_dataset(tmp_path / "set"))) == 1
