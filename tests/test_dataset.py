"""The dataset folder: what is written comes back, in shards and selections too, and damage is
named.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import ball_template
from helpers import dataset, in_process, labels, shapes, source, tree
from morphable.data import dataset as module
from morphable.data.audit import audit_dataset, describe
from morphable.data.dataset import MeshDataset, load_dataset, write_dataset
from morphable.data.labels import LabelTable
from morphable.data.mesh_stack import MeshStack
from morphable.data.neutral import neutral_targets
from morphable.data.unchanged import DataChanged
from morphable.errors import InputError
from morphable.mesh.template import Template


@pytest.fixture(scope="module")
def template() -> Template:
    return ball_template(40)


@pytest.fixture
def folder(template: Template, tmp_path: Path) -> Path:
    dataset(template, tmp_path / "set", 60)
    return tmp_path / "set"


def test_what_is_written_comes_back(template: Template, folder: Path) -> None:
    loaded = load_dataset(folder)
    np.testing.assert_array_equal(loaded.vertices[:], shapes(template, 60))
    assert loaded.vertices.shape == (60, 40, 3) and loaded.vertices[:].dtype == np.float32
    assert loaded.template.fingerprint == template.fingerprint
    np.testing.assert_array_equal(loaded.labels["neutral"], labels(60)["neutral"])
    assert {path.name for path in folder.iterdir()} == {
        "vertices.npy", "labels.csv", "template.npz", "splits", "dataset.json",
    }  # fmt: skip
    info = json.loads((folder / "dataset.json").read_text())
    assert (
        info["format_version"] == 1
        and info["meshes"] == 60
        and info["vertices"] == 40
        and info["subjects"] == 10
    )
    assert {"source", "licence", "unit", "content_hash"} <= info.keys()


def test_meshes_stay_on_disk(folder: Path) -> None:
    shard = load_dataset(folder).vertices._shards[0]
    assert isinstance(shard, np.memmap) and not shard.flags.writeable
    assert np.load(folder / "vertices.npy").shape == (60, 40, 3)


@pytest.mark.parametrize("per_shard", [1, 7, 59, 60, 61])
def test_shards_hold_the_same_meshes(
    template: Template,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    per_shard: int,
) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", per_shard * 40 * 12 + 5)
    sharded = dataset(template, tmp_path / "sharded", 60)
    whole = load_dataset(folder)
    assert len(sharded.info["vertex_files"]) == -(-60 // per_shard)
    assert sharded.info["content_hash"] == whole.info["content_hash"]
    rows = np.array([59, 0, 13, 13, 58])
    for index in (
        slice(None),
        slice(5, 30, 3),
        slice(-4, None),
        rows,
        rows.tolist(),
        -1,
        7,
        np.int64(8),
        [],
    ):
        np.testing.assert_array_equal(sharded.vertices[index], whole.vertices[index])
    np.testing.assert_array_equal(
        np.concatenate(list(sharded.vertices.blocks(11))), whole.vertices[:]
    )


def test_a_stack_is_an_array(rng: np.random.Generator) -> None:
    meshes = rng.standard_normal((9, 4, 3)).astype(np.float32)
    stack = MeshStack([meshes[:4], meshes[4:5], meshes[5:]])
    mask = rng.random(9) > 0.5
    np.testing.assert_array_equal(stack[mask], meshes[mask])
    np.testing.assert_array_equal(stack.select(np.array([8, 1]))[:], meshes[[8, 1]])
    assert stack[3].shape == (4, 3) and stack.shape == (9, 4, 3) and stack.nbytes == meshes.nbytes
    copy = stack[:]
    copy[:] = 0
    np.testing.assert_array_equal(stack[:], meshes)
    with pytest.raises(IndexError):
        stack[9]


def test_a_selection_knows_where_it_comes_from(folder: Path) -> None:
    whole = load_dataset(folder)
    part = whole.select([50, 3, 10]).select([2, 0])
    assert part.rows.tolist() == [10, 50] and len(part) == 2
    np.testing.assert_array_equal(part.vertices[:], whole.vertices[:][[10, 50]])
    assert part.labels["subject"].tolist() == ["s00", "s00"]
    assert neutral_targets(whole.select([10, 0, 11])).index.tolist() == [1, 1, -1]
    assert neutral_targets(whole.select([10, 11])).index.tolist() == [-1, -1]


def test_parts_of_a_split(folder: Path) -> None:
    whole = load_dataset(folder)
    split = whole.split("subject")
    assert [len(split.subset(name)) for name in ("train", "val", "test")] == [48, 6, 6]
    assert np.array_equal(split.test.rows, split.split.test)
    assert whole.default_split() == "frames"  # ten subjects are too few
    with pytest.raises(InputError, match="no split 'nope'"):
        whole.split("nope")


def test_the_default_split_is_by_subject_from_twenty_on(template: Template, tmp_path: Path) -> None:
    assert dataset(template, tmp_path / "many", 60, subjects=20).default_split() == "subject"
    assert dataset(template, tmp_path / "few", 60, subjects=19).default_split() == "frames"
    with pytest.raises(InputError, match="at least three meshes"):
        dataset(template, tmp_path / "two", 2, subjects=2).default_split()


def test_same_content_same_hash(template: Template, tmp_path: Path) -> None:
    first = dataset(template, tmp_path / "a", 12)
    again = dataset(template, tmp_path / "b", 12)
    other = dataset(template, tmp_path / "c", 12, seed=1)
    hashes = [d.info["content_hash"] for d in (first, again, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    left, right = (
        {
            name: content
            for name, content in tree(tmp_path / name_).items()
            if name != "template.npz"
        }
        for name_, name in (("a", ""), ("b", ""))
    )
    assert left == right


def broken(
    template: Template, change: Callable[[list[np.ndarray]], list[np.ndarray]], count: int = 60
) -> object:
    """A source whose blocks are changed by `change`."""
    good = source(template, count)

    def blocks() -> Iterator[np.ndarray]:
        yield from change([block.copy() for block in good.blocks()])

    return dataclasses.replace(good, blocks=blocks)


def with_nan(blocks: list[np.ndarray]) -> list[np.ndarray]:
    blocks[3][1, 5, 2] = np.nan
    return blocks


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_nan, "mesh 22: has a coordinate that is not finite"),
        (lambda blocks: blocks[:-1], "gave 56 meshes for 60 labels"),
        (lambda blocks: [*blocks, blocks[0]], "gave meshes of shape"),
        (
            lambda blocks: [*blocks[:3], blocks[3][:, :-1], *blocks[4:]],
            r"gave meshes of shape \(7, 39, 3\)",
        ),
        (lambda blocks: [blocks[0] * 1e39], "mesh 0: has a coordinate that is not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_a_bad_source_writes_nothing(
    template: Template,
    tmp_path: Path,
    change: Callable[[list[np.ndarray]], list[np.ndarray]],
    words: str,
) -> None:
    with pytest.raises(InputError, match=words):
        write_dataset(broken(template, change), tmp_path / "set")
    assert tree(tmp_path) == {}


def test_a_source_of_no_mesh_writes_nothing(template: Template, tmp_path: Path) -> None:
    empty = dataclasses.replace(source(template, 3), labels=LabelTable({}, 0))
    with pytest.raises(InputError, match="no mesh"):
        write_dataset(empty, tmp_path / "set")
    assert tree(tmp_path) == {}


def test_a_full_disk_leaves_nothing(template: Template, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(InputError, match="set: cannot be written: File too large"):
            dataset(template, tmp_path / "set", 60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert tree(tmp_path) == {}


def test_an_existing_folder_is_left_alone(template: Template, folder: Path) -> None:
    before = tree(folder)
    with pytest.raises(InputError, match="already exists"):
        dataset(template, folder, 30)
    assert tree(folder) == before


def rewritten(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "dataset.json"
        info = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in info.items() if value != "gone"}))

    return change


def cut(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def lines(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "labels.csv"
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return apply


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no header": (lambda f: (f / "dataset.json").unlink(), "no dataset.json"),
    "header cut short": (cut("dataset.json"), "dataset.json: not valid JSON"),
    "header is a list": (lambda f: (f / "dataset.json").write_text("[]"), "dataset.json: not the header"),
    "another version": (rewritten(format_version=99), "dataset.json: expected format version 1, got 99"),
    "no count": (rewritten(meshes="gone"), "dataset.json: has no 'meshes'"),
    "no files": (rewritten(vertex_files=[]), "dataset.json: vertex_files"),
    "files elsewhere": (rewritten(vertex_files=["../x.npy"]), "dataset.json: vertex_files"),
    "files are numbers": (rewritten(vertex_files=[3]), "dataset.json: vertex_files"),
    "another count": (rewritten(meshes=59), "the counts differ (59 meshes in dataset.json, 60 in the vertex file"),
    "another template": (
        lambda f: ball_template(30).save(f / "template.npz"), "template.npz: is not the template of this dataset",
    ),
    "template cut short": (cut("template.npz"), "template.npz: not a readable .npz file"),
    "no template": (lambda f: (f / "template.npz").unlink(), "template.npz: no such file"),
    "vertices cut short": (cut("vertices.npy"), "vertices.npy: not a readable .npy file"),
    "no vertices": (lambda f: (f / "vertices.npy").unlink(), "vertices.npy: no such file"),
    "empty vertices": (lambda f: (f / "vertices.npy").write_bytes(b""), "vertices.npy: not a readable .npy file"),
    "pickled vertices": (
        lambda f: np.save(f / "vertices.npy", np.array([{}], object)), "vertices.npy: not a readable .npy file",
    ),
    "float64 vertices": (
        lambda f: np.save(f / "vertices.npy", np.zeros((60, 40, 3))), "vertices.npy: expected (N, 40, 3) float32",
    ),
    "fewer vertices": (
        lambda f: np.save(f / "vertices.npy", np.zeros((60, 39, 3), "f4")), "vertices.npy: expected (N, 40, 3)",
    ),
    "a label missing": (lines(lambda rows: rows[:-1]), "59 labels"),
    "a label cut short": (lines(lambda rows: [*rows[:-1], "59,s0\n"]), "labels.csv, line 61: expected 5 values"),
    "no labels": (lambda f: (f / "labels.csv").unlink(), "labels.csv: no such file"),
    "empty labels": (lines(lambda rows: []), "labels.csv: is empty"),
    "neutral row out of range": (
        lines(lambda rows: [*rows[:-1], "59,s09,smile,5,77\n"]), "labels.csv: neutral: expected row numbers",
    ),
    "neutral row a word": (
        lines(lambda rows: [*rows[:-1], "59,s09,smile,5,first\n"]), "labels.csv: neutral: expected row numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(DAMAGE))
def test_damage_is_named(folder: Path, name: str) -> None:
    change, words = DAMAGE[name]
    change(folder)
    with pytest.raises(InputError) as caught:
        load_dataset(folder)
    assert str(folder) in str(caught.value) and words in str(caught.value), str(caught.value)


def test_no_folder_and_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none: no such dataset folder"):
        load_dataset(tmp_path / "none")
    with pytest.raises(InputError, match="morphable data make"):
        load_dataset(tmp_path)


def test_describe_by_hand(folder: Path) -> None:
    facts = describe(load_dataset(folder))
    assert (facts["meshes"], facts["vertices"], facts["faces"]) == (60, 40, "76 (0 quads)")
    assert (
        facts["components"],
        facts["boundary_edges"],
        facts["subjects"],
        facts["expressions"],
    ) == (1, 0, 10, 3)
    assert facts["split subject"] == "48 train, 6 val, 6 test"
    json.dumps(facts)


def audited(template: Template, tmp_path: Path, meshes: np.ndarray) -> list[str]:
    kept = dataclasses.replace(source(template, len(meshes)), blocks=lambda: iter([meshes]))
    return [str(f) for f in audit_dataset(write_dataset(kept, tmp_path / "audited"))]


def test_an_audit_finds_what_was_planted(template: Template, tmp_path: Path) -> None:
    meshes = shapes(template, 60)
    meshes[:, 7] = [0, 2, 3]
    meshes[20] *= [-1, 1, 1]
    meshes[31] = meshes[0]
    findings = " | ".join(audited(template, tmp_path, meshes))
    assert "1 vertices never move" in findings
    assert "mesh 20: is mirrored" in findings
    assert "mesh 31: repeats an earlier mesh exactly, mesh 0" in findings


def test_an_audit_of_a_good_set_is_silent(template: Template, folder: Path) -> None:
    assert audit_dataset(load_dataset(folder)) == []


def test_an_audit_sees_a_leak_between_training_and_test(template: Template, tmp_path: Path) -> None:
    meshes = shapes(template, 60)
    loaded: MeshDataset = dataset(template, tmp_path / "plain", 60)
    split = loaded.split("subject").split
    meshes[split.test[0]] = meshes[split.train[5]]
    assert any(
        "held out by split" in f and "subject" in f for f in audited(template, tmp_path, meshes)
    )


def test_an_audit_notices_that_the_meshes_are_not_those_written(folder: Path) -> None:
    stored = np.load(folder / "vertices.npy")
    stored[3, 4, 1] += 1
    np.save(folder / "vertices.npy", stored)
    assert any(
        "content hash" in finding.text
        for finding in audit_dataset(load_dataset(folder, changed=True))
    )
    stored[3, 4, 1] = np.nan
    np.save(folder / "vertices.npy", stored)
    assert any(
        str(f) == "mesh 3: holds coordinates that are not finite or beyond 1e+09 mm"
        for f in audit_dataset(load_dataset(folder, changed=True))
    )


def remade(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        np.save(folder / "vertices.npy", change(np.load(folder / "vertices.npy")))

    return apply


def header(old: bytes, new: bytes) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = (folder / "vertices.npy").read_bytes()
        assert old in content and len(old) == len(new)
        (folder / "vertices.npy").write_bytes(content.replace(old, new, 1))

    return apply


CHANGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "rows reversed": (remade(lambda v: v[::-1]), "not those that were written"),
    "not finite": (remade(lambda v: v * np.nan), "not those that were written"),
    "moved": (remade(lambda v: v + 1), "not those that were written"),
    "another order of numbers": (header(b"False", b"True "), "vertices.npy: expected the numbers"),
    "labels edited": (lines(lambda rows: [row.replace("smile", "SMILE") for row in rows]), "not those that"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CHANGED))
def test_a_dataset_that_was_changed_is_refused_each_time(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    change, words = CHANGED[name]
    run = tmp_path / "run"
    words_of_train = ("train", "pca", "--data", folder, "--latent", 2, "--out")
    assert in_process(capsys, *words_of_train, run).code == 0
    change(folder)
    for command in (
        (*words_of_train, tmp_path / "x"),
        ("evaluate", run),
        ("report", run),
        ("data", "regions", folder),
    ):
        in_process(capsys, *command).refuses(str(folder), words)
    assert not (tmp_path / "x").exists()
    if "order" not in name:
        ended = in_process(capsys, "data", "info", folder, "--audit")
        assert ended.code == 0 and "content hash differs" in ended.out


def test_a_dataset_without_a_sampled_hash_is_read(folder: Path) -> None:
    """Datasets that were written before there was one."""
    info = json.loads((folder / "dataset.json").read_text())
    del info["sampled_hash"]
    (folder / "dataset.json").write_text(json.dumps(info))
    assert len(load_dataset(folder)) == 60


def test_a_copied_dataset_is_the_same(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    opened = load_dataset(tmp_path / "copy")
    (tmp_path / "copy" / "labels.csv").touch()
    opened.require_unchanged()
    (tmp_path / "copy" / "labels.csv").write_text("other")
    with pytest.raises(DataChanged, match="changed while it was in use"):
        opened.require_unchanged()
    shutil.rmtree(tmp_path / "copy")
    with pytest.raises(DataChanged, match="no longer there"):
        opened.require_unchanged()


@pytest.mark.parametrize("name", ["a/b", "../../etc", "", "n" * 5000, "frames.json"])
def test_a_name_that_is_no_split(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"there is no split '.*'; the splits are expression-"):
        load_dataset(folder).split(name)


def test_a_pipe_in_a_dataset_is_not_waited_for(folder: Path) -> None:
    (folder / "labels.csv").unlink()
    os.mkfifo(folder / "labels.csv")
    with pytest.raises(InputError, match=r"labels\.csv: is not a file"):
        load_dataset(folder)
