"""Splits: the published counts, disjoint by construction, the same on every machine, and checked
when read.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import labels
from morphable.data.labels import LabelTable
from morphable.data.splits import (
    Split,
    expression_split,
    frame_split,
    make_splits,
    sorted_rows,
    subject_split,
)
from morphable.errors import InputError

COMA_FRAMES = 20_466
"""Meshes of the CoMA dataset, whose split sizes are published (facts 07)."""


def frames(count: int) -> LabelTable:
    return LabelTable({"frame": np.arange(count)}, count)


def test_coma_blocks_of_ten_give_the_published_counts() -> None:
    split = frame_split(frames(COMA_FRAMES))
    assert (len(split.test), len(split.train) + len(split.val), len(split.val)) == (
        2050,
        18416,
        100,
    )
    assert np.array_equal(split.test, np.flatnonzero(np.arange(COMA_FRAMES) % 100 < 10))
    rest = np.flatnonzero(np.arange(COMA_FRAMES) % 100 >= 10)
    assert np.array_equal(split.val, rest[-100:])


def test_deep3dmm_variant_gives_its_counts() -> None:
    split = frame_split(frames(COMA_FRAMES), deep3dmm=True)
    assert (len(split.test), len(split.val), len(split.train)) == (2255, 2050, 16161)
    position = np.arange(COMA_FRAMES) % 100
    assert np.array_equal(split.test, np.flatnonzero(position <= 10))
    assert np.array_equal(split.val, np.flatnonzero((position > 10) & (position <= 20)))


def test_small_sets_count_in_blocks_of_ten() -> None:
    split = frame_split(frames(30))
    assert split.test.tolist() == [0, 10, 20] and split.val.tolist() == [28, 29]


def test_the_variant_tests_a_tenth_of_a_small_set_too() -> None:
    split = frame_split(frames(60), deep3dmm=True)
    assert split.test.tolist() == [0, 10, 20, 30, 40, 50]
    assert split.val.tolist() == [1, 11, 21, 31, 41, 51]


def test_rows_are_counted_in_sorted_order_whatever_their_order_in_the_folder(
    rng: np.random.Generator,
) -> None:
    table = LabelTable(
        {
            "subject": np.repeat(["a", "b"], 150),
            "expression": np.tile(np.repeat(["o", "s", "u"], 50), 2),
            "frame": np.tile(np.arange(50), 6),
        },
        300,
    )
    mixed = rng.permutation(300)
    shuffled = table.take(mixed)
    assert np.array_equal(mixed[sorted_rows(shuffled)], np.arange(300))
    for name, split in make_splits(table).items():
        other = make_splits(shuffled)[name]
        if name.startswith("frames"):
            assert np.array_equal(np.sort(mixed[other.test]), split.test), name


def test_frame_ten_comes_after_frame_nine() -> None:
    table = LabelTable({"subject": np.array(["a"] * 3), "frame": np.array([10, 9, 100])}, 3)
    assert sorted_rows(table).tolist() == [1, 0, 2]


def test_subjects_are_kept_apart() -> None:
    table = labels(60, subjects=20)
    split = subject_split(table, seed=4)
    subject = table["subject"]
    parts = [set(subject[split.subset(name)].tolist()) for name in ("train", "val", "test")]
    assert [len(part) for part in parts] == [16, 2, 2]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert not np.array_equal(split.test, subject_split(table, seed=5).test)
    assert split.hash == subject_split(table, seed=4).hash


@pytest.mark.parametrize(
    ("subjects", "sizes"), [(3, [1, 1, 1]), (10, [8, 1, 1]), (12, [9, 1, 2]), (34, [27, 3, 4])]
)
def test_a_tenth_of_the_subjects_tests_rounded_up(subjects: int, sizes: list[int]) -> None:
    table = labels(5 * subjects, subjects=subjects)
    split = subject_split(table)
    found = [
        len(set(table["subject"][split.subset(name)].tolist())) for name in ("train", "val", "test")
    ]
    assert found == sizes


def test_meshes_of_no_known_subject_train() -> None:
    table = LabelTable({"subject": np.array(["", "a", "b", "c", "", "d"])}, 6)
    split = subject_split(table)
    assert {0, 4} <= set(split.train.tolist())
    assert len(split.test) == len(split.val) == 1


def test_an_expression_is_left_out_and_neutral_meshes_train() -> None:
    table = labels(60)
    split = expression_split(table, "smile")
    assert set(table["expression"][split.test].tolist()) == {"smile"}
    assert "smile" not in table["expression"][np.concatenate([split.train, split.val])].tolist()
    assert set(table["neutral"].tolist()) <= set(split.train.tolist())
    pairs = np.char.add(table["subject"], table["expression"])
    moving = table["expression"] != "neutral"
    assert len(split.val) and not set(pairs[split.train][moving[split.train]]) & set(
        pairs[split.val]
    )
    assert set(table["neutral"].tolist()) <= set(frame_split(table).train.tolist())


def test_which_splits_there_are() -> None:
    assert set(make_splits(labels(60))) == {
        "frames", "frames-deep3dmm", "subject", "expression-open", "expression-smile",
    }  # fmt: skip
    assert set(make_splits(labels(60, subjects=2))) == {
        "frames", "frames-deep3dmm", "expression-open", "expression-smile",
    }  # fmt: skip
    assert make_splits(frames(2)) == {}
    assert set(make_splits(frames(3))) == {"frames"}


def test_neutral_is_no_expression_to_leave_out_however_it_is_written() -> None:
    table = LabelTable({"expression": np.array(["Neutral", "NEUTRAL", "a", "b"])}, 4)
    assert {name for name in make_splits(table) if name.startswith("expr")} == {
        "expression-a",
        "expression-b",
    }


def test_labels_that_give_the_same_file_name_keep_their_own_split() -> None:
    table = LabelTable({"expression": np.array(["a b", "a/b", "a_b", "../x"])}, 4)
    splits = {name: split for name, split in make_splits(table).items() if name.startswith("expr")}
    assert set(splits) == {
        "expression-a_b",
        "expression-a_b-2",
        "expression-a_b-3",
        "expression-.._x",
    }
    assert sorted(int(split.test[0]) for split in splits.values()) == [0, 1, 2, 3]


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 500), st.integers(1, 30), st.integers(0, 5))
def test_parts_are_disjoint_sorted_and_cover_every_mesh(
    count: int, subjects: int, seed: int
) -> None:
    for name, split in make_splits(labels(count, subjects=min(subjects, count)), seed).items():
        rows = np.concatenate([split.train, split.val, split.test])
        assert np.array_equal(np.sort(rows), np.arange(count)), name
        assert all(
            np.array_equal(part, np.sort(part)) for part in (split.train, split.val, split.test)
        ), name
        assert len(split.test), name


def test_a_split_comes_back_from_its_file(tmp_path: Path) -> None:
    split = subject_split(labels(60), seed=7)
    path = tmp_path / "splits" / "subject.json"
    split.write(path)
    back = Split.read(path, 60)
    assert back.hash == split.hash == json.loads(path.read_text())["hash"] and back.seed == 7
    for name in ("train", "val", "test"):
        np.testing.assert_array_equal(back.subset(name), split.subset(name))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": [0, 1, 60]}, "rows must lie in 0..59"),
        ({"train": [-1]}, "rows must lie in 0..59"),
        ({"train": [0, 0]}, "in one subset only"),
        ({"test": [1, 2, 3], "train": [3]}, "in one subset only"),
        ({"train": []}, "do not match their hash"),
        ({"hash": "0"}, "do not match their hash"),
        ({"train": ["a"]}, "not a split file"),
        ({"train": 3}, "not a split file"),
        ({"train": [10**30]}, "not a split file"),
        ({"seed": None}, "not a split file"),
    ],
)
def test_a_split_changed_by_hand_is_refused(
    change: dict[str, object], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "splits" / "subject.json"
    subject_split(labels(60)).write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError) as caught:
        Split.read(path, 60)
    assert str(path) in str(caught.value) and words in str(caught.value)


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    subject_split(labels(60)).write(tmp_path / "splits" / "subject.json")
    with pytest.raises(InputError, match="no split 'frame'; the splits are subject"):
        Split.read(tmp_path / "splits" / "frame.json", 60)
    with pytest.raises(InputError, match="subset 'dev': expected one of train, val, test"):
        subject_split(labels(60)).subset("dev")
