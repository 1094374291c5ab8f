"""labels.csv: what is written comes back equal, and a damaged file is named with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphable.data.labels import LabelTable, typed
from morphable.errors import InputError


def written(text: str, tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_kind_of_column_comes_back(tmp_path: Path) -> None:
    columns = {
        "subject": np.array(["007", "", 'a, "b"\nc']),
        "expression": np.array(["1", "2", "3"]),
        "frame": np.array([10, 0, -3]),
        "level": np.array([0.1, 1 / 3, np.nan]),
        "mood": np.array(["gut", "", "très bien"]),
        "whole": np.array([1.0, 2.0, 3.0]),
    }
    table = LabelTable(columns, 3)
    table.write(tmp_path / "labels.csv")
    back = LabelTable.read(tmp_path / "labels.csv")
    assert list(back.columns) == list(columns) and back.count == 3
    for name, column in columns.items():
        np.testing.assert_array_equal(back[name], column)
        assert back[name].dtype.kind == column.dtype.kind


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=5))
def test_numbers_come_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    LabelTable({"x": np.array(values)}, len(values)).write(path)
    np.testing.assert_array_equal(LabelTable.read(path)["x"].astype(np.float64), values)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", "+3"], "i"),
        (["1", "2.5"], "f"),
        (["1", ""], "f"),
        (["nan", "inf", "-1e-3"], "f"),
        (["", ""], "U"),
        (["2020_01", "2020_02"], "U"),  # Python would read these as numbers
        (["12345678901234567890"], "U"),  # and this one does not fit
        (["1", "b"], "U"),
        ([" 1"], "U"),
        (["٣"], "U"),
        ([], "U"),
    ],
)
def test_types_are_found_without_loss(values: list[str], kind: str) -> None:
    column = typed("note", values)
    assert column.dtype.kind == kind and len(column) == len(values)
    if kind == "U":
        assert column.tolist() == values


def test_names_stay_text() -> None:
    for name in ("subject", "expression", "sequence", "file"):
        assert typed(name, ["007", "1"]).tolist() == ["007", "1"]


def test_classes_by_hand() -> None:
    table = LabelTable({"subject": np.array(["b", "", "a", "b"]), "frame": np.arange(4)}, 4)
    subjects = table.classes("subject")
    assert subjects.numbers.tolist() == [1, -1, 0, 1] and subjects.names == ["a", "b"]
    assert table.take(np.array([3, 0]))["frame"].tolist() == [3, 0]
    with pytest.raises(InputError, match="no column 'mood'; the columns are subject, frame"):
        table.classes("mood")


@given(st.lists(st.sampled_from(["", "a", "b", "c"])))
def test_meshes_share_a_group_if_and_only_if_they_share_a_known_subject(names: list[str]) -> None:
    groups = LabelTable({"subject": np.array(names, str)}, len(names)).groups()

    together = groups[:, None] == groups
    for i, first in enumerate(names):
        for j, second in enumerate(names):
            assert together[i, j] == (i == j or (first == second != ""))
    assert sorted(set(groups.tolist())) == list(range(len(set(groups.tolist()))))


def test_without_a_subject_column_each_mesh_is_a_group() -> None:
    table = LabelTable({"expression": np.array(["smile", "smile", ""])}, 3)
    assert table.groups().tolist() == [0, 1, 2]


def test_excel_leaves_a_mark_and_blank_lines(tmp_path: Path) -> None:
    path = written("\ufeffrow,subject,frame\r\n0,a,1\r\n\r\n1,b,2\r\n\r\n", tmp_path)
    table = LabelTable.read(path)
    assert list(table.columns) == ["subject", "frame"] and table["frame"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty, expected a header line"),
        ("\n\n", "is empty, expected a header line"),
        ("subject,frame\na,1\nb\n", "line 3: expected 2 values, got 1"),
        ("subject,frame\na,1,2\n", "line 2: expected 2 values, got 3"),
        ("subject,frame\n\na,1\n\nb\n", "line 5: expected 2 values, got 1"),
        ("frame,frame\n1,2\n", "two columns are called 'frame'"),
    ],
)
def test_damage_is_named_with_its_line(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        LabelTable.read(written(text, tmp_path))
    assert str(tmp_path / "labels.csv") in str(caught.value) and words in str(caught.value)


def test_what_is_no_text_file(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"subject\n\xff\xfe\x00")
    for path in (tmp_path / "labels.csv", tmp_path / "none.csv", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            LabelTable.read(path)


@pytest.mark.parametrize(
    ("frames", "numbers"),
    [
        (["bareteeth.000001", "bareteeth.000012"], [1, 12]),
        (["000002", "take2_000010"], [2, 10]),
        (["7", "frame8b"], [7, 8]),
        (["f0.5", "3"], [5, 3]),
        (["0.5", "3"], [0.5, 3]),
        (["frame 4", ""], [4, np.nan]),
        (["", ""], [np.nan, np.nan]),
        (["t20200101120000123456", "1"], [20200101120000123456.0, 1]),
    ],
)
def test_the_frame_is_the_number_in_its_name(
    frames: list[str], numbers: list[float], tmp_path: Path
) -> None:
    lines = [f"a,{frame}" for frame in frames]
    table = LabelTable.read(written("\n".join(["subject,frame", *lines]), tmp_path))
    np.testing.assert_array_equal(table["frame"], numbers)
    table.write(tmp_path / "again.csv")
    np.testing.assert_array_equal(LabelTable.read(tmp_path / "again.csv")["frame"], numbers)


def test_a_frame_without_a_number_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"labels\.csv, line 3: its frame 'last' contains no number"
    ):
        LabelTable.read(written("subject,frame\na,1\nb,last\n", tmp_path))


def test_columns_of_another_length() -> None:
    with pytest.raises(InputError, match="label column 'frame': expected 2 values"):
        LabelTable({"frame": np.arange(3)}, 2)


def test_a_label_of_many_pages_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(f"file,note\na,b\nc,{'x' * 5000}\n")
    with pytest.raises(InputError, match=r"l\.csv, line 3: a label has 5000 characters"):
        LabelTable.read(tmp_path / "l.csv")
