"""A few hundred damaged files of every kind that the program reads: each is read, or refused in one
sentence that names it. What is read is also used, because damage that reading lets through fails
later. A failure names the seed that repeats it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ball_template
from damage import (
    Damage,
    damaged_bytes,
    damaged_checkpoint,
    damaged_json,
    damaged_npy,
    damaged_npz,
    damaged_text,
)
from helpers import dataset, shapes
from morphable.data.audit import audit_dataset, describe
from morphable.data.dataset import MeshDataset, load_dataset
from morphable.data.importers.folder import folder
from morphable.data.source import MeshSource
from morphable.errors import MAX_MESSAGE, InputError
from morphable.evaluate.record import Measured, evaluate_model
from morphable.mesh.hierarchy import build_hierarchy
from morphable.mesh.io import read_mesh, read_stack, read_vertices, write_mesh
from morphable.mesh.io.linear_model import LinearModel, read_linear_model, write_linear_model
from morphable.mesh.mesh import Mesh
from morphable.mesh.region_files import read_regions
from morphable.mesh.regions import Regions, spread_controls
from morphable.mesh.template import Template
from morphable.models.families import create
from morphable.models.io import load, save
from morphable.train.checkpoint import read_metrics, read_weights
from morphable.train.distributed import Workers
from morphable.train.from_python import train_model
from morphable.train.run import RecordedRun, run
from test_gltf_reader import Document

TRIES = 200
BALL = ball_template(12)
HERE = Workers(0, 1, torch.device("cpu"))


@dataclass(frozen=True)
class Kind:
    """A kind of file. file: its path in the workshop, where good files lie. use: what reads it and
    uses what it read. damages: drawn from in turn. others: what a message may name instead of it.
    """

    file: str
    use: Callable[[Path], object]
    damages: tuple[Damage, ...]
    others: tuple[str, ...] = ()
    tries: int = TRIES


def use_mesh(path: Path) -> None:
    found = read_mesh(path)
    count = len(found.mesh.vertices)
    assert np.isfinite(found.mesh.vertices).all() and np.isfinite(read_vertices(path)).all()
    faces = found.mesh.faces
    assert not faces.size or (faces.max() < count and faces[:, :3].min() >= 0)
    assert all(np.isfinite(offset).all() for offset in found.targets.values())
    use_source(folder(path.parent, unit="mm"))


def use_source(source: MeshSource) -> None:
    for block in source.blocks():
        assert np.isfinite(block).all()


def use_stack(path: Path) -> None:
    assert read_stack(path).ndim == 3
    use_source(folder(path, unit="mm", template=path.parent / "meshes" / "0.ply"))


def use_labels(path: Path) -> None:
    use_source(folder(path.parent / "meshes", unit="mm", labels=path))


def use_template(path: Path) -> None:
    template = Template.load(path)
    template.mesh.triangles  # noqa: B018
    build_hierarchy(template.mesh, (2,))


def use_dataset(path: Path) -> None:
    """Look at it, then train with it."""
    where = path.parent if path.parent.name == "set" else path.parents[1]
    changed = load_dataset(where, changed=True)
    describe(changed)
    audit_dataset(changed)
    found = load_dataset(where)
    for name in found.split_names:
        assert np.isfinite(found.split(name).train.vertices[:]).all()


@torch.no_grad()
def use_model(path: Path) -> None:
    model = load(path if path.suffix == ".zip" else path.parent)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    model.decode(torch.zeros(1, model.parts.size))
    model.encode(torch.zeros(1, model.template.n_vertices, 3))
    if model.prior is not None:
        model.sample(2, torch.Generator().manual_seed(0))


def use_linear_model(path: Path) -> None:
    model = read_linear_model(path)
    assert np.isfinite(model.shapes(np.zeros((1, len(model.variances))))).all()
    model.reference.triangles  # noqa: B018


def use_regions(path: Path) -> None:
    assert read_regions(path, BALL.mesh).labels.shape == (12,)


def use_cache(path: Path) -> None:
    """A damaged entry is built again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MORPHABLE_CACHE", str(path.parent))
        assert build_hierarchy(BALL.mesh, (2,)).sizes == (12, 6)


def use_config(path: Path) -> None:
    recorded = RecordedRun.read(path.parent)
    load_dataset(recorded.path).split(recorded.split)
    create(recorded.config.family, BALL, recorded.config.model)


def use_run(path: Path) -> None:
    """Resume the run for its second epoch, in a copy."""
    copy = path.parents[2] / "resumed" / "run"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(
        path.parents[1], copy, ignore=shutil.ignore_patterns("model", "events", "evaluation.*")
    )
    recorded = RecordedRun.read(copy)
    run(recorded.config, load_dataset(recorded.path).split(recorded.split), copy, HERE, resume=True)


def use_weights(path: Path) -> None:
    read_weights(path, load(path.parents[1] / "model"))


def use_metrics(path: Path) -> None:
    for row in read_metrics(path):
        assert isinstance(row, dict)


def use_evaluation(path: Path) -> None:
    where = path.parent
    assert Measured.read(where, load(where), load_dataset(where.parent / "set"))


TEXT, BYTES = (damaged_text, damaged_text, damaged_bytes), (damaged_bytes,)
MESH_FILES = {
    "binary.ply": BYTES + TEXT,
    "text.ply": TEXT,
    "mesh.obj": TEXT,
    "text.off": TEXT,
    "binary.off": BYTES,
    "mesh.glb": BYTES,
    "mesh.gltf": (damaged_json, *TEXT),
}
KINDS = [
    *(Kind(f"{name}/{name}", use_mesh, damages, tries=300) for name, damages in MESH_FILES.items()),
    Kind("stack.npy", use_stack, (damaged_npy, damaged_bytes)),
    Kind("stack.npz", use_stack, (damaged_npz, damaged_bytes)),
    Kind("labels.csv", use_labels, TEXT, ("meshes",)),
    Kind("template.npz", use_template, (damaged_npz, damaged_bytes)),
    Kind("set/dataset.json", use_dataset, (damaged_json, *TEXT), ("set",)),
    Kind("set/labels.csv", use_dataset, TEXT, ("set",)),
    Kind("set/vertices.npy", use_dataset, (damaged_npy, damaged_bytes), ("set",)),
    Kind("set/template.npz", use_dataset, (damaged_npz, damaged_bytes), ("set",)),
    Kind("set/splits/frames.json", use_dataset, (damaged_json, *TEXT), ("set",)),
    Kind("model/model.json", use_model, (damaged_json, *TEXT), ("model",)),
    Kind("model/weights.safetensors", use_model, BYTES, ("model",)),
    Kind("model/template.npz", use_model, (damaged_npz, damaged_bytes), ("model",)),
    Kind("model.zip", use_model, BYTES),
    Kind("linear.npz", use_linear_model, (damaged_npz, damaged_bytes)),
    Kind("linear.h5", use_linear_model, BYTES),
    Kind("regions.json", use_regions, (damaged_json, *TEXT)),
    Kind("regions.csv", use_regions, TEXT),
    Kind("regions.npy", use_regions, (damaged_npy, damaged_bytes)),
    Kind("regions.npz", use_regions, (damaged_npz, damaged_bytes)),
    Kind("regions.obj", use_regions, TEXT),
    Kind("cache/*.npz", use_cache, (damaged_npz, damaged_bytes)),
    Kind("run/config.toml", use_config, TEXT, ("run", "set")),
    Kind(
        "run/checkpoint/last.pt",
        use_run,
        (damaged_checkpoint, damaged_checkpoint, damaged_bytes),
        ("run", "training diverged"),
        tries=80,
    ),
    Kind("run/checkpoint/kept.pt", use_weights, (damaged_checkpoint, damaged_bytes)),
    Kind("run/metrics.jsonl", use_metrics, TEXT),
    Kind("run/evaluation.json", use_evaluation, (damaged_json, *TEXT), ("run",)),
    Kind("run/evaluation.npz", use_evaluation, (damaged_npz, damaged_bytes), ("run",)),
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good file of every kind."""
    root = tmp_path_factory.mktemp("workshop")
    data = dataset(BALL, root / "set", 12, subjects=4)
    write_meshes(root)
    write_arrays(root, data)
    settings = {"batch_size": 4, "epochs": 1}
    model = train_model(
        "pca-mlp",
        data=data.split("frames"),
        folder=root / "run",
        latent=2,
        train=settings,
        model={"width": 4, "depth": 1},
    )
    evaluate_model(model, data=data.split("frames")).write(root / "run")
    config = root / "run" / "config.toml"
    config.write_text(config.read_text().replace("epochs = 1", "epochs = 2"))
    shutil.copytree(root / "run" / "model", root / "model")
    save(model, root / "model.zip")
    use_cache(root / "cache" / "new")
    return root


def write_meshes(root: Path) -> None:
    """Each in a folder of its own, and a folder of three."""
    for name in MESH_FILES:
        (root / name).mkdir()
    mesh = Mesh(BALL.mesh.vertices, np.c_[BALL.mesh.triangles, np.full(20, -1)])
    uv = np.random.default_rng(0).random((12, 2)).astype(np.float32)
    write_mesh(root / "binary.ply" / "binary.ply", mesh)
    write_mesh(root / "mesh.obj" / "mesh.obj", mesh, uv, mesh.faces)
    write_mesh(root / "text.off" / "text.off", mesh)
    vertices, faces = mesh.vertices, mesh.triangles
    rows = ["ply", "format ascii 1.0", "comment by hand", "element vertex 12"]
    rows += [f"property double {axis}" for axis in "xyz"]
    rows += ["element face 20", "property list uchar int vertex_indices", "end_header"]
    rows += [" ".join(map(str, row)) for row in vertices.tolist()]
    rows += [f"3 {a} {b} {c}" for a, b, c in faces.tolist()]
    (root / "text.ply" / "text.ply").write_text("\n".join(rows) + "\n")
    body = np.array([12, 20, 0], ">i4").tobytes() + vertices.astype(">f4").tobytes()
    body += np.c_[np.full(20, 3), faces, np.zeros(20)].astype(">i4").tobytes()
    (root / "binary.off" / "binary.off").write_bytes(b"OFF BINARY\n" + body)
    document = Document()
    document.primitive["targets"] = [{"POSITION": document.add(np.eye(4, 3, dtype=np.float32))}]
    document.json["meshes"][0]["weights"] = [0.5]
    document.node["translation"] = [10, 20, 30]
    document.positions["sparse"] = {
        "count": 1,
        "indices": {"bufferView": document.view(np.array([3], np.uint16)), "componentType": 5123},
        "values": {"bufferView": document.view(np.ones((1, 3), np.float32))},
    }
    document.write(root / "mesh.glb" / "mesh.glb")
    document.write(root / "mesh.gltf" / "mesh.gltf")
    for row, shape in enumerate(shapes(BALL, 3)):
        write_mesh(root / "meshes" / f"{row}.ply", BALL.mesh.moved(shape))


def write_arrays(root: Path, data: MeshDataset) -> None:
    """Stacks, labels, a template and regions."""
    np.save(root / "stack.npy", data.vertices[:])
    np.savez(root / "stack.npz", vertices=data.vertices[:])
    rows = ["file,subject,expression,frame"]
    rows += [f"{row}.ply,s{row},neutral,{row}" for row in range(3)]
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    numbers = (BALL.mesh.vertices[:, 0] > 0).astype(np.int64)
    regions = Regions(numbers, ("left", "right"), spread_controls(BALL.mesh, numbers))
    template = dataclasses.replace(
        BALL,
        uv=np.zeros((12, 2), np.float32),
        uv_faces=BALL.mesh.faces,
        regions=regions,
        landmarks=np.array([3, 4]),
        mirror=np.arange(12),
        masks={"face": numbers == 1},
        rigid=np.array([5]),
    )
    np.savez(root / "template.npz", **template.to_arrays())  # type: ignore[arg-type]
    basis = np.eye(2, 36).reshape(2, 12, 3)
    linear = LinearModel(BALL.mesh, BALL.mesh.vertices, basis, np.array([2.0, 1.0]))
    for name in ("linear.npz", "linear.h5"):
        write_linear_model(root / name, linear)
    members = {name: np.flatnonzero(numbers == n).tolist() for n, name in enumerate(regions.names)}
    controlled = {"left": {"vertices": members["left"], "controls": members["left"][:1]}}
    (root / "regions.json").write_text(json.dumps(members | controlled))
    lines = [f"{vertex},{regions.names[number]}" for vertex, number in enumerate(numbers)]
    (root / "regions.csv").write_text("\n".join(["vertex,region", *lines]) + "\n")
    np.save(root / "regions.npy", numbers)
    np.savez(
        root / "regions.npz",
        regions=numbers,
        region_names=np.array(regions.names),
        **{f"control_vertices/{n}": chosen for n, chosen in enumerate(regions.controls)},
    )
    faces = [" ".join(map(str, face)) for face in (BALL.mesh.triangles + 1).tolist()]
    groups = ["g left", *(f"f {face}" for face in faces[:10]), "g right"]
    groups += [f"f {face}" for face in faces[10:]]
    (root / "regions.obj").write_text("\n".join(groups) + "\n")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.file)
def test_damaged_files_are_read_or_refused(kind: Kind, workshop: Path) -> None:
    (path,) = workshop.glob(kind.file)
    good = path.read_bytes()
    attempt(kind, path, "undamaged")
    refused = 0
    try:
        for seed in range(kind.tries):
            path.write_bytes(damaged(kind, good, seed))
            refused += attempt(kind, path, f"seed {seed}")
    finally:
        path.write_bytes(good)
    assert kind.use is use_cache or refused > kind.tries / 10


def damaged(kind: Kind, good: bytes, seed: int) -> bytes:
    random = np.random.default_rng([seed, zlib.crc32(kind.file.encode())])
    return kind.damages[seed % len(kind.damages)](good, random)


def attempt(kind: Kind, path: Path, which: str) -> bool:
    """Use a file; whether it was refused. Fails on any other end, and on a warning of a library."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        try:
            kind.use(path)
            refused = False
        except InputError as error:
            text, refused = str(error), which != "undamaged"
            named = any(name in text for name in (path.name, *kind.others))
            assert named and "\n" not in text and len(text) <= MAX_MESSAGE, (which, text[:2000])
            assert refused, text
        except Exception as error:
            error.add_note(f"{path.name}, {which}")
            raise
    odd = [str(note) for note in notes if note.category is not UserWarning]
    assert not odd, (which, odd)
    return refused
