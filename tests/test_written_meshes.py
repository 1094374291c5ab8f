"""What is written for other programs: glTF in meters, any unit on request, quads, and texture
coordinates with their seams, without a vertex out of its place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers import in_process, shapes
from morphable.data.registered_mesh import read_points, read_registered, write_shape
from morphable.errors import InputError
from morphable.mesh.io import MESH_SUFFIXES, MeshFile, read_mesh, write_mesh
from morphable.mesh.io.gltf import ORIGINAL
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template
from morphable.models.base import Origin
from morphable.models.io import save
from morphable.models.region_pca import RegionPca, RegionPcaConfig

ROUND, HIGH = 16, 20


def tube() -> Template:
    """A tube of quads with one triangle, 250 mm tall, unrolled, so that its uv has a seam."""
    turn = np.linspace(0, 2 * np.pi, ROUND, endpoint=False)
    y, angle = np.meshgrid(np.linspace(0, 250, HIGH), turn, indexing="ij")
    vertices = np.stack([50 * np.cos(angle), y, 40 * np.sin(angle)], -1).reshape(-1, 3)
    row, column = (part.ravel() for part in np.mgrid[: HIGH - 1, :ROUND])
    faces, uv_faces = (
        np.stack([row * n + column, row * n + right, (row + 1) * n + right, (row + 1) * n + column])
        .astype(np.int64)
        .T.copy()
        for n, right in ((ROUND, (column + 1) % ROUND), (ROUND + 1, column + 1))
    )
    faces[5, 3] = uv_faces[5, 3] = -1
    across, up = np.meshgrid(np.linspace(0, 1, ROUND + 1), np.linspace(0, 1, HIGH))
    uv = np.stack([across, up], -1).reshape(-1, 2).astype(np.float32)
    return Template(Mesh(vertices.astype(np.float32), faces), "tube", uv, uv_faces)


@pytest.fixture(scope="module")
def template() -> Template:
    return tube()


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb", ".gltf"])
def test_texture_seams_survive_and_no_vertex_moves(
    template: Template, tmp_path: Path, suffix: str
) -> None:
    path, mesh = tmp_path / f"a{suffix}", template.mesh
    write_mesh(path, mesh, template.uv, template.uv_faces, unit="mm")
    found = read_mesh(path)
    np.testing.assert_array_equal(found.mesh.vertices.astype(np.float32), mesh.vertices)
    if suffix in (".ply", ".obj"):
        np.testing.assert_array_equal(found.mesh.faces, mesh.faces)
    else:
        np.testing.assert_array_equal(found.mesh.faces, mesh.triangles)
    assert spots(found) == spots(MeshFile(mesh, template.uv, template.uv_faces))


def spots(file: MeshFile) -> set[tuple[int, float, float]]:
    """Every vertex with each of its texture coordinates."""
    assert file.uv is not None and file.uv_faces is not None
    real = file.mesh.faces >= 0
    uv = file.uv[file.uv_faces[real]].astype(np.float64).round(5) + 0.0
    vertices = file.mesh.faces[real].tolist()
    return {(vertex, *pair) for vertex, pair in zip(vertices, uv.tolist(), strict=True)}


def test_another_program_sees_meters_and_upright_pictures(
    template: Template, tmp_path: Path
) -> None:
    trimesh = pytest.importorskip("trimesh")
    write_mesh(tmp_path / "a.glb", template.mesh, template.uv, template.uv_faces)
    (seen,) = trimesh.load(tmp_path / "a.glb", process=False).geometry.values()
    assert np.ptp(seen.vertices, axis=0)[1] == pytest.approx(0.25)
    assert len(seen.vertices) == template.n_vertices + HIGH, "one more per vertex of the seam"
    np.testing.assert_allclose(
        seen.vertices[: template.n_vertices], template.mesh.vertices / 1000, atol=1e-6
    )
    np.testing.assert_allclose(seen.visual.uv[:, 1], seen.vertices[:, 1] / 0.25, atol=1e-6)


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
@pytest.mark.parametrize("unit", ["mm", "cm", "m", None])
def test_every_format_is_written_and_read_in_every_unit(
    template: Template, tmp_path: Path, suffix: str, unit: str | None
) -> None:
    path = tmp_path / f"a{suffix}"
    write_shape(path, template.mesh.vertices, template, unit)
    tall = {"mm": 250.0, "cm": 25.0, "m": 0.25, None: 0.25 if suffix[1] == "g" else 250.0}[unit]
    assert np.ptp(read_mesh(path).mesh.vertices, axis=0)[1] == pytest.approx(tall)
    for read in (read_registered, read_points):
        back = read(path, template, unit)
        np.testing.assert_allclose(back, template.mesh.vertices, rtol=1e-6, atol=1e-5)


def test_an_unknown_unit_is_refused(template: Template, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`unit` inch: expected one of mm, cm, m"):
        write_mesh(tmp_path / "a.ply", template.mesh, unit="inch")
    assert not list(tmp_path.iterdir())


def test_vertex_coordinates_of_a_ply_and_useless_ones(tmp_path: Path) -> None:
    text = (
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
        "property float z\nproperty float s\nproperty float t\nelement face 1\n"
        "property list uchar int vertex_indices\nend_header\n"
        "0 0 0 0 0\n1 0 0 1 0\n0 1 0 0 {t}\n3 0 1 2\n"
    )
    (tmp_path / "a.ply").write_text(text.format(t=1))
    assert spots(read_mesh(tmp_path / "a.ply")) == {(0, 0, 0), (1, 1, 0), (2, 0, 1)}
    (tmp_path / "b.ply").write_text(text.format(t="nan"))
    assert read_mesh(tmp_path / "b.ply").uv is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda v: v * 0, "gives one number to vertices that lie apart"),
        (lambda v: v + 1, "does not number its vertices"),
        (lambda v: v * 0.5, "does not number its vertices"),
        (lambda v: v * np.nan, "does not number its vertices"),
    ],
)
def test_damaged_numbers_of_repeated_vertices_are_refused(
    template: Template, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], fault: str
) -> None:
    path = tmp_path / "a.glb"
    write_mesh(path, template.mesh, template.uv, template.uv_faces)
    data = path.read_bytes()
    numbers = np.append(np.arange(template.n_vertices), np.arange(HIGH) * ROUND).astype("<f4")
    assert data.count(numbers.tobytes()) == 1
    path.write_bytes(data.replace(numbers.tobytes(), change(numbers).astype("<f4").tobytes()))
    with pytest.raises(InputError, match=f"a.glb: {ORIGINAL} {fault}"):
        read_mesh(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that edits regions, and two meshes as PLY and GLB."""
    from morphable.mesh.automatic_regions import automatic_regions

    place, plain = tmp_path_factory.mktemp("written"), tube()
    template = Template(
        plain.mesh, plain.name, plain.uv, plain.uv_faces, automatic_regions(plain.mesh, 4)
    )
    meshes = shapes(template, 30)
    model = RegionPca.estimate(template, meshes, {}, RegionPcaConfig(8)).eval()
    save(model.with_origin(Origin("region-pca")), place / "model")
    for row, name in enumerate("ab"):
        for suffix in ("ply", "glb"):
            write_shape(place / f"{name}.{suffix}", meshes[row], template)
    return place


COMMANDS = {
    "reconstruct": ["a.{}", "--out", "{out}"],
    "sample": ["-n", "1", "--format", "{}", "--out", "{out}"],
    "edit interpolate": ["a.{}", "b.{}", "--steps", "2", "--out", "{out}"],
    "edit extrapolate": ["a.{}", "b.{}", "--steps", "2", "--out", "{out}"],
    "edit transfer": ["a.{}", "b.{}", "a.{}", "--out", "{out}/x.{}"],
    "edit swap-region": ["a.{}", "b.{}", "--region", "r1", "--out", "{out}/x.{}"],
    "edit sample-region": ["a.{}", "--region", "r1", "-n", "1", "--out", "{out}"],
    "edit region": ["a.{}", "--region", "r1", "--target", "b.{}", "--out", "{out}/x.{}"],
}


@pytest.mark.parametrize("form", ["ply", "obj", "glb"])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_a_format(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, form: str
) -> None:
    """Whatever the format of the input; quads and uv are kept where the format has them."""
    animated = form == "glb" and name in ("edit interpolate", "edit extrapolate")
    place = f"{tmp_path}/out" + ".glb" * animated
    words = [
        word.replace("{out}/x.{}", "{out}/x").replace("{out}", place) for word in COMMANDS[name]
    ]
    words = [
        str(folder / word.format("ply")) if word in ("a.{}", "b.{}") else word for word in words
    ]
    words = [word.replace("{}", form) for word in words if word != "--format"]
    words = [word for word in words if word != form]
    (tmp_path / "out").mkdir()
    done = in_process(capsys, *name.split(), folder / "model", *words, "--format", form)
    assert done.code == 0, done.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {f".{form}"}
    written = read_mesh(files[0])
    assert written.uv is not None
    assert written.mesh.faces.shape[1] == (3 if form == "glb" else 4)
    assert len(written.targets) == animated


def test_an_animation_passes_through_every_step(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same shapes as files of their own: the first, and the first plus each target."""
    walk = [
        "edit",
        "interpolate",
        folder / "model",
        folder / "a.ply",
        folder / "b.ply",
        "--steps",
        5,
    ]
    for out, form in (("steps", "ply"), ("walk", "glb")):
        done = in_process(
            capsys, *walk, "--format", form, "--out", tmp_path / out, "--out-unit", "mm"
        )
        assert done.code == 0, done.err
    assert "walk.glb: 5 shapes as one animation, in mm" in done.out
    animation = read_mesh(tmp_path / "walk.glb")
    assert list(animation.targets) == ["step 1", "step 2", "step 3", "step 4"]
    steps = [read_mesh(file).mesh.vertices for file in sorted((tmp_path / "steps").iterdir())]
    shapes = [animation.mesh.vertices + offset for offset in (0, *animation.targets.values())]
    np.testing.assert_allclose(shapes, steps, atol=1e-4)


def test_a_name_that_contradicts_the_format_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, model = folder / "a.ply", folder / "model"
    swap = ["edit", "swap-region", model, a, a, "--region", "r1"]
    (tmp_path / "x.glb").touch()
    for words, fault in (
        ([*swap, "--format", "obj", "--out", tmp_path / "y.ply"], "a file that ends in .obj"),
        ([*swap, "--format", "glb", "--out", tmp_path / "x"], "x.glb: already exists"),
        ([*swap, "--format", "stl", "--out", tmp_path / "x"], "--format"),
        (
            ["edit", "interpolate", model, a, a, "--format", "glb", "--out", tmp_path / "z.d"],
            "a file that ends in .glb",
        ),
    ):
        in_process(capsys, *words).refuses(fault)
    assert [path.name for path in tmp_path.iterdir()] == ["x.glb"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_writes_gltf_in_meters_and_any_unit_on_request(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    tall = np.ptp(read_mesh(folder / "a.ply").mesh.vertices, axis=0)[1]
    for suffix, unit, size in (("glb", None, 1e-3), ("ply", None, 1), ("ply", "cm", 0.1)):
        out = tmp_path / f"{suffix}-{unit}"
        words = [word.replace("{}", suffix).replace("{out}", str(out)) for word in COMMANDS[name]]
        words = [
            str(folder / word) if word in (f"a.{suffix}", f"b.{suffix}") else word for word in words
        ]
        out.mkdir() if f"{out}/x.{suffix}" in words else None
        more = ["--out-unit", unit] if unit else []
        done = in_process(capsys, *name.split(), folder / "model", *words, *more)
        assert done.code == 0, done.err
        assert f" in {unit or ('m' if suffix == 'glb' else 'mm')}" in done.out
        written = read_mesh(next(iter(sorted(out.iterdir()))))
        assert np.ptp(written.mesh.vertices, axis=0)[1] == pytest.approx(tall * size, rel=0.2)
        assert written.uv is not None
        assert written.mesh.faces.shape[1] == (3 if suffix == "glb" else 4)
