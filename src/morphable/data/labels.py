"""LabelTable: the content of labels.csv, one typed column per label and one row per mesh."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morphable.errors import InputError
from morphable.files import atomic_path, reading

TEXT_COLUMNS = frozenset({"subject", "expression", "sequence", "file"})
"""Columns that stay text even if every value looks like a number: "007" is a name."""
MAX_LABEL = 4096
"""Characters of the longest label: a text column takes four bytes for each in every row."""
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
"""Texts that become int64. `2020_01`, which Python would read as a number, and numbers too long for
int64 stay text.
"""
NUMBER = re.compile(
    r"|[+-]?(nan|inf|([0-9]{1,18}(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?)", re.IGNORECASE
)
DIGITS = re.compile("[0-9]+")


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of a text column, one for each different text.

    numbers: (N,) int64 class of each mesh; -1 if its text is empty. names: the texts, sorted; class
    k is names[k].
    """

    numbers: np.ndarray
    names: list[str]


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Labels of N meshes: name -> (N,) array of text, int64 or float64.

    Standard columns are `subject`, `expression`, `sequence` (text; "" means unknown), `level`
    (0..1), `frame` (a number; nan means unknown) and `neutral` (row of the same subject's neutral
    mesh; -1 means none). Any other columns are allowed.
    """

    columns: Mapping[str, np.ndarray]
    count: int

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if column.shape != (self.count,):
                raise InputError(
                    f"label column {name!r}: expected {self.count} values, got {column.shape}"
                )

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.columns:
            known = ", ".join(self.columns) or "none"
            raise InputError(f"labels: there is no column {name!r}; the columns are {known}")
        return self.columns[name]

    def check_neutral(self, path: Path) -> None:
        """Raise InputError, naming the file, if the column `neutral` holds anything but rows."""
        if "neutral" not in self or not self.count:
            return
        rows = self["neutral"]
        if rows.dtype.kind != "i" or rows.min() < -1 or rows.max() >= self.count:
            raise InputError(f"{path}: neutral: expected row numbers from -1 to {self.count - 1}")

    def take(self, rows: np.ndarray) -> LabelTable:
        return LabelTable({name: column[rows] for name, column in self.columns.items()}, len(rows))

    def classes(self, name: str) -> Classes:
        """Return the classes of a text column. Raises InputError if there is no such column.

        >>> table = LabelTable({"subject": np.array(["b", "a", "", "b"])}, 4)
        >>> table.classes("subject").names, table.classes("subject").numbers.tolist()
        (['a', 'b'], [1, 0, -1, 1])
        """
        column = self[name].astype(str)
        names = sorted(set(column.tolist()) - {""})
        lookup = {text: number for number, text in enumerate(names)} | {"": -1}
        return Classes(np.array([lookup[text] for text in column.tolist()], np.int64), names)

    def groups(self) -> np.ndarray:
        """Return the group number (N,) of each mesh, for statistics in which the meshes of a group
        are not independent.

        The meshes of a subject form a group, with the subject's number. A mesh whose subject is
        unknown is a group of its own.

        >>> LabelTable({"subject": np.array(["b", "a", "", "b", ""])}, 5).groups().tolist()
        [1, 0, 2, 1, 3]
        >>> LabelTable({}, 3).groups().tolist()
        [0, 1, 2]
        """
        if "subject" not in self:
            return np.arange(self.count)
        subjects = self.classes("subject")
        unknown = subjects.numbers < 0
        own_number = len(subjects.names) - 1 + np.cumsum(unknown)
        return np.where(unknown, own_number, subjects.numbers)

    def write(self, path: Path | str) -> None:
        with (
            atomic_path(Path(path)) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["row", *self.columns])
            columns = [column.tolist() for column in self.columns.values()]
            writer.writerows(
                [row, *(column[row] for column in columns)] for row in range(self.count)
            )

    @classmethod
    def read(cls, path: Path | str) -> LabelTable:
        """Read a CSV file with a header line. A column `row` is for human readers and is dropped.

        Raises InputError if the file is missing or damaged, is empty, has two columns of one name
        or a line with the wrong number of values.
        """
        path = Path(path)
        damage = reading(path, "cannot be read as CSV")
        with damage, path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            header, *rows = [(lines.line_num, row) for row in lines if row] or [(1, [])]
        names = header[1]
        if not names:
            raise InputError(f"{path}: is empty, expected a header line")
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise InputError(f"{path}: two columns are called {sorted(twice)[0]!r}")
        for line, row in rows:
            if len(row) != len(names):
                raise InputError(
                    f"{path}, line {line}: expected {len(names)} values, got {len(row)}"
                )
            if max(map(len, row)) > MAX_LABEL:
                raise InputError(
                    f"{path}, line {line}: a label has {max(map(len, row))} characters, expected "
                    f"at most {MAX_LABEL}"
                )
        table = {name: typed(name, [row[i] for _, row in rows]) for i, name in enumerate(names)}
        if "frame" in table:
            where = [f"{path}, line {line}" for line, _ in rows]
            table["frame"] = frame_numbers(table["frame"], where)
        table.pop("row", None)
        return cls(table, len(rows))


def typed(name: str, values: Sequence[str]) -> np.ndarray:
    """Convert a column of texts to int64 if all are whole numbers, to float64 if all are numbers
    (an empty text becomes nan); otherwise it stays text.

    >>> typed("frame", ["1", "2"]).dtype.kind, typed("level", ["0.5", ""]).dtype.kind
    ('i', 'f')
    >>> typed("subject", ["007"]).tolist()
    ['007']
    """
    if name not in TEXT_COLUMNS and values:
        if all(map(WHOLE_NUMBER.fullmatch, values)):
            return np.array([int(value) for value in values], np.int64)
        if any(values) and all(map(NUMBER.fullmatch, values)):
            return np.array([float(value) if value else np.nan for value in values], np.float64)
    return np.array(list(values), dtype=str) if values else np.zeros(0, "U1")


def frame_numbers(column: np.ndarray, where: Sequence[str]) -> np.ndarray:
    """Convert the `frame` column to numbers: the number in each text, the last one if there are
    several. An empty text becomes nan.

    where: how an error names each entry, such as its file. Raises InputError if a text contains no
    number.

    >>> frame_numbers(np.array(["bareteeth.000001", "take2.000012"]), ["a.ply", "b.ply"]).tolist()
    [1, 12]
    """
    if column.dtype.kind in "if":
        return column
    texts = column.tolist()
    found = [DIGITS.findall(text) for text in texts]
    for text, digits, place in zip(texts, found, where, strict=True):
        if text and not digits:
            raise InputError(f"{place}: its frame {text!r} contains no number")
    numbers = [float(digits[-1]) if digits else np.nan for digits in found]
    exact = all(abs(number) < 2**53 for number in numbers)
    return np.array(numbers, np.int64 if exact else np.float64)
