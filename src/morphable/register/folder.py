"""register_folder: register many scans, one task each, and write those that are accepted as a
dataset.

What a scan gave is kept in the folder OUT.registering until the dataset is whole, so a registration
that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from morphable.data.dataset import MeshDataset, load_dataset, write_dataset
from morphable.data.importers.labeling import completed
from morphable.data.importers.mesh_files import read_template
from morphable.data.labels import LabelTable
from morphable.data.picked import landmarks_of
from morphable.data.registered_mesh import check_scale
from morphable.data.source import MeshSource
from morphable.errors import InputError
from morphable.files import (
    content_hash,
    read_json,
    read_npz,
    require_new,
    write_json,
    write_npz,
    writing,
)
from morphable.mesh.align import Similarity
from morphable.mesh.io import read_mesh
from morphable.mesh.io.landmarks import LANDMARK_SUFFIXES
from morphable.mesh.nonrigid import Target
from morphable.mesh.scan import Scan
from morphable.mesh.template import Template
from morphable.mesh.units import millimeters, unit_of
from morphable.models.base import MorphableModel
from morphable.models.io import load
from morphable.register.card import Card
from morphable.register.scan import Registration, register_scan
from morphable.spread import spread

Pose = Literal["rigid", "similarity"]


@dataclass(frozen=True)
class Settings:
    """How scans are registered.

    template: a mesh file, or a template's .npz. prior: a model folder of its topology. unit: of
    template, scans and landmarks; None: mm, or m for glTF. pose: rigid keeps the scans' sizes,
    similarity brings them to the template's. landmarks: a folder with a landmark file per scan,
    named as the scan is. on_template: a landmark file picked on the template. name:
    of the class; None: the template's.
    """

    template: Path
    prior: Path | None = None
    unit: str | None = None
    pose: Pose = "similarity"
    landmarks: Path | None = None
    on_template: Path | None = None
    name: str | None = None

    def absolute(self) -> Settings:
        """The same settings for processes that run elsewhere."""
        paths: dict[str, Any] = {
            name: value.absolute() for name, value in vars(self).items() if isinstance(value, Path)
        }
        return replace(self, **paths)

    def record(self) -> dict[str, Any]:
        """The settings as JSON has them."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class ScanTask:
    """One scan to register. Each task reads what it needs, so it can be sent anywhere."""

    path: Path
    settings: Settings
    landmarks: Path | None


@dataclass(frozen=True, eq=False)
class Registered:
    """What became of a scan. registration: None if it could not even be read or placed; its card
    then says why.
    """

    path: Path
    card: Card
    registration: Registration | None


def register_file(task: ScanTask) -> Registered:
    """Register the scan of a file. It runs on one thread, so that it gives the same numbers
    wherever it runs.
    """
    settings = task.settings
    with _one_thread():
        template, prior = _loaded(settings)
        try:
            target = read_target(task.path, template, settings.unit)
            seen = None
            if task.landmarks is not None:
                seen = landmarks_of(task.landmarks, template, settings.unit, settings.on_template)
            found = register_scan(template, target, prior=prior, landmarks=seen, pose=settings.pose)
        except InputError as error:
            reason = str(error).removeprefix(f"{task.path}: ")
            return Registered(task.path, Card.failed(reason), None)
    return Registered(task.path, found.card, found)


def read_target(path: Path, template: Template, unit: str | None = None) -> Target:
    """Read a scan of any topology, a mesh or a cloud of points.

    Raises InputError, naming the file, if it cannot be read or its size shows another unit.
    """
    unit = unit_of(path, unit)
    mesh = read_mesh(path).mesh
    points = np.asarray(mesh.vertices, np.float64) * millimeters(unit)
    check_scale(points, template, str(path), unit)
    try:
        scan = Scan.of_mesh(points, mesh.faces)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    triangles = mesh.triangles if len(mesh.faces) else np.zeros((0, 3), np.int64)
    return Target.of(scan, triangles)


def register_folder(
    settings: Settings,
    files: Sequence[Path],
    table: LabelTable,
    out: Path,
    *,
    info: dict[str, Any],
    seed: int = 0,
    jobs: int = 1,
    scheduler: str | None = None,
    on_scan: Callable[[int], None] | None = None,
    finish: Callable[[Path, Template, Sequence[Registered]], None] | None = None,
) -> MeshDataset:
    """Register scans and write the accepted ones as the dataset folder `out`.

    files: the scans; table: their labels, a row each. info: `source` and `licence`. seed: of the
    splits. jobs, scheduler: see `spread`. on_scan: called with the number of scans done. finish:
    called with the folder, before it gets its name, to add files to it.

    Raises InputError if the settings do not fit together, `out` exists, or no scan is accepted.
    """
    require_new(out)
    template, _ = _loaded(settings)
    places = table["file"].tolist()
    known = settings.absolute()
    tasks = [
        ScanTask(path.absolute(), known, _landmark_file(place, known))
        for path, place in zip(files, places, strict=True)
    ]
    work = out.parent / f"{out.name}.registering"
    _open_work(work, settings, template)
    names = [work / _key(path, place) for path, place in zip(files, places, strict=True)]
    left = [row for row, name in enumerate(names) if not name.with_suffix(".json").exists()]
    done = len(tasks) - len(left)
    results = spread(register_file, [tasks[row] for row in left], jobs=jobs, scheduler=scheduler)
    for number, result in results:
        _write(names[left[number]], result)
        done += 1
        if on_scan is not None:
            on_scan(done)
    registered = [_read(name, path) for name, path in zip(names, files, strict=True)]
    kept = np.array([row for row, one in enumerate(registered) if one.card.accepted], np.int64)
    if not len(kept):
        shutil.rmtree(work, ignore_errors=True)
        raise InputError(
            f"none of {len(files)} scans could be registered; {files[0]}: "
            f"{registered[0].card.reason}"
        )

    def blocks() -> Iterator[np.ndarray]:
        for row in kept:
            registration = registered[row].registration
            assert registration is not None
            yield registration.vertices[None]

    record = {
        "importer": {"name": "register", "options": settings.record()},
        "skipped": [
            f"{one.path}: {one.card.reason}" for one in registered if not one.card.accepted
        ],
    }
    # `neutral` counts rows, which rejected scans change.
    columns = {name: table[name] for name in table.columns if name != "neutral"}
    labels = completed(LabelTable(columns, table.count).take(kept))
    source = MeshSource(template, labels, blocks, {**info, **record})
    whole = work / "dataset"
    shutil.rmtree(whole, ignore_errors=True)
    write_dataset(source, whole, seed)
    if finish is not None:
        finish(whole, template, registered)
    with writing(out):
        if out.exists():
            out.rmdir()
        whole.replace(out)
        shutil.rmtree(work)
    return load_dataset(out)


@lru_cache(maxsize=2)
def _loaded(settings: Settings) -> tuple[Template, MorphableModel | None]:
    path = settings.template
    unit = "mm" if path.suffix == ".npz" else unit_of(path, settings.unit)
    template = read_template(path, millimeters(unit), "y")
    template = replace(template, name=settings.name or template.name)
    if settings.prior is None:
        return template, None
    prior = load(settings.prior)
    own = prior.template.mesh.faces
    if own.shape != template.mesh.faces.shape or (own != template.mesh.faces).any():
        raise InputError(
            f"`prior` {settings.prior}: is a model of {prior.template.n_vertices:,} vertices in "
            f"another topology than the template {path}",
            "prior",
        )
    return template, prior


def _landmark_file(place: str, settings: Settings) -> Path | None:
    """The landmark file that lies in its folder as the scan does in the folder of scans."""
    folder = settings.landmarks
    if folder is None:
        return None
    stem = Path(place).with_suffix("")
    for suffix in LANDMARK_SUFFIXES:
        candidate = folder / f"{stem}{suffix}"
        if candidate.exists():
            return candidate
    raise InputError(
        f"`landmarks` {folder}: has no landmark file for {place}, such as {stem}.csv "
        f"({' '.join(LANDMARK_SUFFIXES)})",
        "landmarks",
    )


def _open_work(work: Path, settings: Settings, template: Template) -> None:
    """Start the folder of an unfinished registration, or go on with it."""
    path = work / "settings.json"
    record = {**settings.record(), "fingerprint": template.fingerprint}
    if path.exists() and read_json(path) != record:
        raise InputError(
            f"{work}: holds a registration with other settings that was interrupted; remove it or "
            "choose another `out`",
            "out",
        )
    if not path.exists():
        require_new(work)
        write_json(path, record)


def _key(path: Path, place: str) -> str:
    """The name of a scan's files, which changes if the scan does."""
    state = path.stat()
    return content_hash(f"{place} {state.st_size} {state.st_mtime_ns}")[:24]


def _write(name: Path, result: Registered) -> None:
    """The card comes last: where it is, the scan is done."""
    found = result.registration
    if found is not None:
        arrays = {
            "vertices": found.vertices,
            "distance": found.distance.astype(np.float32),
            "rotation": found.map.rotation,
            "translation": found.map.translation,
            "scale": np.asarray(found.map.scale),
        }
        write_npz(name.with_suffix(".npz"), arrays)
    write_json(name.with_suffix(".json"), result.card.record())


def _read(name: Path, path: Path) -> Registered:
    card = Card.read(read_json(name.with_suffix(".json")))
    if not name.with_suffix(".npz").exists():
        return Registered(path, card, None)
    arrays = read_npz(name.with_suffix(".npz"))
    map = Similarity(arrays["rotation"], arrays["translation"], arrays["scale"])
    return Registered(path, card, Registration(arrays["vertices"], map, arrays["distance"], card))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
