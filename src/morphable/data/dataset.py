"""MeshDataset: shapes (N, V, 3) mm on one template, with a label table, memory-mapped from a
dataset folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from morphable.data.labels import LabelTable
from morphable.data.mesh_stack import MAX_MM, MeshStack, within_limit
from morphable.data.source import MeshSource
from morphable.data.splits import Split, make_splits
from morphable.data.unchanged import FolderState, require_unchanged, sampled_hash
from morphable.errors import InputError
from morphable.files import atomic_folder, map_npy, read_json, write_json
from morphable.mesh.template import Template

FORMAT_VERSION = 1
MAX_NAME = 64
"""Characters of the longest name of a vertex file; ours are shorter."""
SHARD_BYTES = 4 * 1024**3
"""Maximum size of a vertex file; larger datasets are written as several files."""


@dataclass(frozen=True, eq=False)
class MeshDataset:
    """Registered meshes on one template.

    template: the shared topology. vertices: (N, V, 3) mm. labels: N rows. info: the content of
    dataset.json. path: the dataset folder. rows: (N,) the rows of the folder that these meshes
    have, so that a selection can be found again in the whole dataset.

    Unless the folder is mentioned, a *row* is a row of this object.
    """

    template: Template
    vertices: MeshStack
    labels: LabelTable
    info: Mapping[str, Any]
    path: Path
    rows: np.ndarray
    state: FolderState | None = None
    """The files of the folder when it was opened; None if the meshes are of no folder."""

    def __len__(self) -> int:
        return len(self.vertices)

    def require_unchanged(self) -> None:
        """Raise DataChanged if the folder vanished or changed since it was opened."""
        if self.state is not None:
            require_unchanged(self.path, self.info["vertex_files"], self.state)

    def select(self, rows: np.ndarray | Sequence[int]) -> MeshDataset:
        """Return the dataset of these rows, in this order."""
        rows = np.asarray(rows, np.int64)
        vertices, labels = self.vertices.select(rows), self.labels.take(rows)
        return replace(self, vertices=vertices, labels=labels, rows=self.rows[rows])

    def split(self, name: str | None = None) -> SplitDataset:
        """Divide this dataset by the named split, or by its default one.

        Raises InputError, listing the known splits, if there is no such split.
        """
        name = self.default_split() if name is None else name
        if name not in self.split_names:
            known = ", ".join(self.split_names) or "none"
            raise InputError(f"{self.path}: there is no split {name!r}; the splits are {known}")
        return SplitDataset(
            self, name, Split.read(self.path / "splits" / f"{name}.json", len(self))
        )

    @property
    def split_names(self) -> list[str]:
        return sorted(path.stem for path in (self.path / "splits").glob("*.json"))

    def default_split(self) -> str:
        """Return the name of the default split: `subject`, or `frames` if there are fewer than 20
        subjects. Raises InputError if the dataset has no split.
        """
        names = self.split_names
        subjects = len(self.labels.classes("subject").names) if "subject" in self.labels else 0
        preferred = "subject" if subjects >= 20 and "subject" in names else "frames"
        if preferred in names or names:
            return preferred if preferred in names else names[0]
        raise InputError(
            f"{self.path}: the dataset has no split; a set needs at least three meshes to be split"
        )


@dataclass(frozen=True, eq=False)
class SplitDataset:
    """A dataset divided into train, val and test meshes, the input of training and evaluation.

    whole: all meshes; its rows are the rows of the dataset folder. name: the split's name. split:
    the rows of each subset.
    """

    whole: MeshDataset
    name: str
    split: Split

    def subset(self, name: str) -> MeshDataset:
        """Return the meshes of `train`, `val` or `test`. Raises InputError if there are none."""
        rows = self.split.subset(name)
        if not len(rows):
            raise InputError(f"{self.whole.path}: split {self.name!r} has no {name} mesh")
        return self.whole.select(rows)

    @cached_property
    def train(self) -> MeshDataset:
        return self.subset("train")

    @cached_property
    def val(self) -> MeshDataset:
        return self.subset("val")

    @cached_property
    def test(self) -> MeshDataset:
        return self.subset("test")


def load_dataset(path: Path | str, *, changed: bool = False) -> MeshDataset:
    """Open a dataset folder.

    changed: whether to open it also if its labels or meshes are not those that were written, to
    look at it. Raises InputError, naming the file, if anything is missing, damaged or inconsistent.
    """
    path = Path(path)
    require_dataset(path)
    info = _read_info(path / "dataset.json")
    for name in ("template.npz", "labels.csv", *info["vertex_files"]):
        if (path / name).exists() and not (path / name).is_file():
            raise InputError(f"{path / name}: is not a file")
    template = Template.load(path / "template.npz")
    if template.fingerprint != info["template"]:
        expected, got = info["template"], template.fingerprint
        raise InputError(
            f"{path / 'template.npz'}: is not the template of this dataset ({got}, not {expected})"
        )
    shards = [_map_vertices(path / name, template) for name in info["vertex_files"]]
    vertices = MeshStack(shards, name=str(path))
    labels = LabelTable.read(path / "labels.csv")
    if not len(vertices) == labels.count == info["meshes"]:
        counts = (
            f"{info['meshes']} meshes in dataset.json, {len(vertices)} in the vertex file, "
            f"{labels.count} labels"
        )
        raise InputError(f"{path}: the counts differ ({counts})")
    labels.check_neutral(path / "labels.csv")
    state = FolderState.of(path, info["vertex_files"])
    if not changed and info.get("sampled_hash", state.sampled_hash) != state.sampled_hash:
        raise InputError(
            f"{path}: the meshes or labels are not those that were written; import them again, "
            "for other labels with `labels`",
            "labels",
        )
    return MeshDataset(template, vertices, labels, info, path, np.arange(len(vertices)), state)


def require_dataset(path: Path) -> None:
    """Raise InputError unless `path` is a dataset folder. Its content is not checked."""
    if not path.is_dir():
        raise InputError(f"{path}: no such dataset folder")
    if not (path / "dataset.json").exists():
        raise InputError(
            f"{path}: not a dataset folder, it has no dataset.json (make one with "
            "`morphable data make`)"
        )


def _read_info(path: Path) -> dict[str, Any]:
    """Read dataset.json and check the fields that reading the dataset needs."""
    info = read_json(path)
    if not isinstance(info, dict):
        raise InputError(f"{path}: not the header of a dataset")
    if info.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path}: expected format version {FORMAT_VERSION}, got {info.get('format_version')}"
        )
    missing = {"template", "meshes", "vertex_files", "content_hash"} - info.keys()
    if missing:
        raise InputError(f"{path}: has no {sorted(missing)[0]!r}, it may have been changed by hand")
    for key, kind in (("template", str), ("content_hash", str), ("meshes", int)):
        if not isinstance(info[key], kind):
            expected = "a text" if kind is str else "a whole number"
            raise InputError(f"{path}: {key}: expected {expected}, got {info[key]!r}")
    names = info["vertex_files"]
    if not (
        isinstance(names, list)
        and names
        and all(isinstance(n, str) and n == Path(n).name and len(n) < MAX_NAME for n in names)
    ):
        raise InputError(
            f"{path}: vertex_files: expected names of files in the folder, got {names!r}"
        )
    return info


def _map_vertices(path: Path, template: Template) -> np.ndarray:
    array = map_npy(path)
    if array.ndim != 3 or array.shape[1:] != (template.n_vertices, 3) or array.dtype != np.float32:
        expected = f"(N, {template.n_vertices}, 3) float32"
        raise InputError(
            f"{path}: expected {expected} to fit template.npz, got {array.shape} {array.dtype}"
        )
    # A header that states another order of the same numbers would scramble every mesh.
    if not array.flags.c_contiguous:
        raise InputError(f"{path}: expected the numbers mesh by mesh (fortran_order False)")
    return array


def write_dataset(
    source: MeshSource, path: Path | str, seed: int = 0, on_block: Any = None
) -> MeshDataset:
    """Write a source atomically as a dataset folder, with the splits that its labels allow.

    seed: for the splits. on_block: called with the number of meshes written so far, for a progress
    bar.

    Raises InputError if `path` exists, or a mesh has the wrong vertex count or a value that is not
    finite.
    """
    path = Path(path)
    with atomic_folder(path) as folder:
        names, digest = _write_vertices(source, folder, on_block)
        source.template.save(folder / "template.npz")
        source.labels.write(folder / "labels.csv")
        digest.update((folder / "labels.csv").read_bytes())
        digest.update(source.template.fingerprint.encode())
        subjects = len(source.labels.classes("subject").names) if "subject" in source.labels else 0
        counts = {
            "meshes": source.labels.count,
            "vertices": source.template.n_vertices,
            "subjects": subjects,
        }
        header = {
            "format_version": FORMAT_VERSION,
            "template": source.template.fingerprint,
            "vertex_files": names,
        }
        content = {
            "content_hash": digest.hexdigest(),
            "sampled_hash": sampled_hash(folder, names),
        }
        write_json(
            folder / "dataset.json",
            header | counts | content | json.loads(json.dumps(dict(source.info))),
        )
        for name, split in (make_splits(source.labels, seed) | dict(source.splits)).items():
            split.write(folder / "splits" / f"{name}.json")
        load_dataset(folder)  # labels can be such that the result could not be opened
    return load_dataset(path)


def _write_vertices(source: MeshSource, folder: Path, on_block: Any) -> tuple[list[str], Any]:
    count, n_vertices = source.labels.count, source.template.n_vertices
    if count == 0:
        raise InputError("the source has no mesh")
    per_shard = max(1, SHARD_BYTES // (n_vertices * 12))
    sizes = [min(per_shard, count - start) for start in range(0, count, per_shard)]
    names = (
        ["vertices.npy"]
        if len(sizes) == 1
        else [f"vertices-{i:05d}.npy" for i in range(len(sizes))]
    )
    digest, done = hashlib.sha256(), 0
    for block in _checked(source):
        digest.update(block.tobytes())
        while len(block):
            shard, within = divmod(done, per_shard)
            meshes, block = block[: per_shard - within], block[per_shard - within :]
            # Do not memory-map the file: on a full disk a write raises, but a mapped page kills
            # the process.
            with (folder / names[shard]).open("ab") as file:
                if within == 0:
                    _write_header(file, (sizes[shard], n_vertices, 3))
                file.write(meshes.data)
            done += len(meshes)
        if on_block is not None:
            on_block(done)
    if done != count:
        raise InputError(f"the source gave {done} meshes for {count} labels")
    return names, digest


def _write_header(file: IO[bytes], shape: tuple[int, int, int]) -> None:
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )


def _checked(source: MeshSource) -> Iterator[np.ndarray]:
    """Yield the source's blocks as (n, V, 3) little-endian float32. Raises InputError if a block
    has another shape or a value that is not finite.
    """
    count, n_vertices, done = source.labels.count, source.template.n_vertices, 0
    for meshes in source.blocks():
        block = np.ascontiguousarray(meshes, "<f4")
        if block.shape[1:] != (n_vertices, 3) or done + len(block) > count:
            expected = f"({n_vertices}, 3) x {count}"
            raise InputError(f"the source gave meshes of shape {block.shape}, expected {expected}")
        bad = np.flatnonzero(~within_limit(block))
        if len(bad):
            raise InputError(
                f"mesh {done + bad[0]}: has a coordinate that is not finite or beyond {MAX_MM:g} mm"
            )
        done += len(block)
        yield block
