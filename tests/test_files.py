"""Files are whole or absent: atomic writing under failure, and readers that say what is wrong."""

from __future__ import annotations

import csv
import errno
import os
import pickle
import resource
import stat
from pathlib import Path

import numpy as np
import pytest

from helpers import tree
from morphable.errors import InputError
from morphable.files import (
    atomic_folder,
    atomic_path,
    content_hash,
    map_npy,
    read_json,
    read_npz,
    reading,
    require_new,
    require_writable,
    write_json,
    write_npz,
    write_text,
)


@pytest.fixture
def tight_disk() -> object:
    """Files may not grow past 20,000 bytes: a real write fails as on a full disk, with a real
    system error.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "made" / "here" / "a.txt"
    write_text(path, "héllo\n")
    assert path.read_text(encoding="utf-8") == "héllo\n"
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("failure", [RuntimeError("bug"), KeyboardInterrupt(), InputError("bad")])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, failure: BaseException
) -> None:
    write_text(tmp_path / "a.txt", "old")
    before = tree(tmp_path)
    with pytest.raises(type(failure)), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise failure
    assert tree(tmp_path) == before


@pytest.mark.parametrize("failure", [RuntimeError("bug"), KeyboardInterrupt(), InputError("bad")])
def test_a_failed_folder_vanishes(tmp_path: Path, failure: BaseException) -> None:
    with pytest.raises(type(failure)), atomic_folder(tmp_path / "out") as folder:
        write_text(folder / "deep" / "a.txt", "half")
        raise failure
    assert tree(tmp_path) == {}


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, tight_disk: object) -> None:
    values = np.random.default_rng(0).standard_normal(100_000)
    for write in (
        lambda path: write_npz(path, {"a": values}),
        lambda path: write_json(path, values.tolist()),
        lambda path: write_text(path, "x" * 100_000),
    ):
        with pytest.raises(InputError, match=r"big\.bin: cannot be written: File too large"):
            write(tmp_path / "big.bin")
        assert tree(tmp_path) == {}


def test_a_full_disk_in_a_folder_names_the_final_path(tmp_path: Path, tight_disk: object) -> None:
    with pytest.raises(InputError) as caught, atomic_folder(tmp_path / "out") as folder:
        write_text(folder / "small.txt", "fits")
        write_text(folder / "big.txt", "x" * 100_000)
    assert f"{tmp_path / 'out' / 'big.txt'}: cannot be written" in str(caught.value)
    assert tree(tmp_path) == {}


def test_no_space_where_the_temporary_file_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.mkstemp", full)
    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(InputError, match=r"a\.txt: cannot be written: No space left"):
        write_text(tmp_path / "a.txt", "x")
    with (
        pytest.raises(InputError, match="out: cannot be written: No space left"),
        atomic_folder(tmp_path / "out"),
    ):
        pass
    assert tree(tmp_path) == {}


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x")
    with (
        pytest.raises(InputError, match="cannot be written"),
        atomic_folder(tmp_path / "file" / "out"),
    ):
        pass
    with pytest.raises(InputError, match="not a folder that you may write to"):
        require_writable(tmp_path / "file" / "a.json")


def test_a_name_too_long(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: File name too long"):
        write_text(tmp_path / ("n" * 254), "x")


def test_nothing_of_the_users_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("kept")
    (tmp_path / "file").write_text("kept")
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    for name in ("full", "file"):
        with pytest.raises(InputError, match="already exists"), atomic_folder(tmp_path / name):
            pass
    assert tree(tmp_path) == before
    require_new(tmp_path / "empty")
    with atomic_folder(tmp_path / "empty") as folder:
        (folder / "a").write_text("new")
    assert (tmp_path / "empty" / "a").read_text() == "new"


def test_a_result_file_is_checked_before_the_work(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "a.json")
    assert tree(tmp_path) == {}
    with pytest.raises(InputError, match="is a folder"):
        require_writable(tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", {"a": np.arange(1000)})
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: len(content) // 2])
    (tmp_path / "a.json").write_text('{"a": ')
    np.savez(tmp_path / "pickle.npz", a=np.array([{"a": 1}], object))
    for read, name in (
        (read_npz, "a.npz"),
        (read_json, "a.json"),
        (read_npz, "pickle.npz"),
        (read_npz, "none.npz"),
    ):
        with pytest.raises(InputError, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad magic. Advice to programmers.\nMore of it."),
        OSError("bad magic. numpy's own, without a number"),
        pickle.UnpicklingError("bad magic"),
        csv.Error("bad magic"),
    ],
)
def test_damage_is_told_by_the_file_the_fault_and_the_parsers_first_sentence(
    error: Exception,
) -> None:
    with pytest.raises(InputError) as caught, reading("a.npz", "not a readable file"):
        raise error
    assert str(caught.value) == "a.npz: not a readable file (bad magic)"
    assert caught.value.__cause__ is error


def test_a_parser_without_words_is_told_by_its_error() -> None:
    with (
        pytest.raises(InputError, match=r"a\.npz: not readable \(EOFError\)"),
        reading("a.npz", "not readable"),
    ):
        raise EOFError


def test_a_missing_file_and_a_folder_are_told_apart_from_damage(tmp_path: Path) -> None:
    for read in (read_json, read_npz, map_npy):
        with pytest.raises(InputError, match=r"none: no such file$"):
            read(tmp_path / "none")
        with pytest.raises(InputError, match=r"cannot be read: Is a directory$"):
            read(tmp_path)
    with (
        pytest.raises(InputError, match="none: no such model"),
        reading("none", "damaged", "no such model"),
    ):
        (tmp_path / "none").read_bytes()


def test_an_error_that_names_its_fault_and_a_keyboard_interrupt_pass_unchanged() -> None:
    for error in (InputError("row 3: no name"), KeyboardInterrupt(), AssertionError("a bug")):
        with pytest.raises(type(error)) as caught, reading("a.csv", "not CSV"):
            raise error
        assert caught.value is error


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", float("nan"))
    assert tree(tmp_path) == {}


def test_the_hash_tells_shape_type_and_border_apart() -> None:
    values = np.arange(6)
    parts = [
        (values,),
        (values.reshape(2, 3),),
        (values.astype(np.int32),),
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
    ]
    hashes = {content_hash(*part) for part in parts}
    assert len(hashes) == len(parts)
    assert content_hash(values[::-1]) == content_hash(values[::-1].copy())
