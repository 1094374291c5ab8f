"""Labels of imported meshes: from a CSV, from patterns of paths, and what follows from them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from morphable.data.labels import LabelTable, frame_numbers, typed
from morphable.errors import InputError

RESERVED = ("row", "file", "neutral", "mirror_of")
"""Columns that follow from the files and the other columns."""


def check_descriptions(
    labels: Path | None, pattern: str | None, name: str | None, licence: str | None
) -> None:
    """Raise InputError if the labels of meshes have two sources, or the name of their class or
    their licence is empty.
    """
    if labels is not None and pattern is not None:
        raise InputError("`labels` and `pattern`: give one of the two", "labels", "pattern")
    for argument, text in (("name", name), ("licence", licence)):
        if text is not None and not text.strip():
            raise InputError(f"`{argument}`: is empty, expected some text", argument)


def label_files(
    files: list[Path], raw: Path, labels: Path | None, pattern: str | None
) -> LabelTable:
    """The label table of mesh files: their paths under `raw`, and what a CSV or a pattern says of
    each, completed.
    """
    names = [path.relative_to(raw).as_posix() for path in files]
    odd = next((name for name in names if not _is_unicode(name)), None)
    if odd is not None:
        raise InputError(f"{raw}: the name of the file {odd!a} is not valid UTF-8, rename it")
    columns = {"file": np.array(names)}
    if labels is not None:
        columns |= _from_csv(LabelTable.read(labels), labels, names)
    elif pattern is not None:
        columns |= _from_pattern(pattern, names)
    table = LabelTable(columns, len(files))
    return completed(table)


def _is_unicode(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _from_csv(table: LabelTable, path: Path, names: list[str]) -> dict[str, np.ndarray]:
    if "file" not in table:
        raise InputError(f"{path}: has no `file` column that names the meshes")
    listed = [Path(name.replace("\\", "/")).as_posix() for name in table["file"].tolist()]
    position = {name: row for row, name in enumerate(listed)}
    if len(position) < len(listed):
        twice = next(name for row, name in enumerate(listed) if position[name] != row)
        raise InputError(f"{path}: has two lines for {twice}")
    missing = [name for name in names if name not in position]
    if missing:
        raise InputError(
            f"{path}: has no line for {missing[0]} ({len(missing)} of {len(names)} meshes are missing)"
        )
    taken = table.take(np.array([position[name] for name in names]))
    return {
        name: column for name, column in taken.columns.items() if name not in ("file", "neutral")
    }


def _from_pattern(pattern: str, names: list[str]) -> dict[str, np.ndarray]:
    fields = re.findall(r"\{(\w+)\}", pattern)
    if not fields or len(set(fields)) != len(fields):
        raise InputError(
            f"`pattern` {pattern}: expected names in braces, each once, as in {{subject}}/{{frame}}",
            "pattern",
        )
    reserved = next((name for name in fields if name in RESERVED), None)
    if reserved is not None:
        raise InputError(
            f"`pattern` {pattern}: {{{reserved}}} is a column that the import writes itself, choose "
            "another name",
            "pattern",
        )
    pieces = re.split(r"\{\w+\}", pattern)
    if "" in pieces[1:-1]:
        raise InputError(
            f"`pattern` {pattern}: two names follow each other, expected some text between them",
            "pattern",
        )
    body = "([^/]+?)".join(map(re.escape, pieces))
    expression = re.compile(rf"(?:^|.*/){body}$")
    rows = []
    for name in names:
        match = expression.match(name.rsplit(".", 1)[0])
        if match is None:
            raise InputError(f"{name}: its path does not match the pattern {pattern}")
        rows.append(match.groups())
    texts = zip(*rows, strict=True)
    columns = {field: typed(field, column) for field, column in zip(fields, texts, strict=True)}
    if "frame" in columns:
        columns["frame"] = frame_numbers(columns["frame"], names)
    return columns


def completed(table: LabelTable) -> LabelTable:
    """The table with what follows from it: a sequence's name is its expression if there is no
    `expression` column, and each subject's first mesh called neutral is the neutral one of all.
    """
    if "sequence" in table and "expression" not in table:
        table = LabelTable(
            {**table.columns, "expression": table["sequence"].astype(str)}, table.count
        )
    if "subject" not in table or "expression" not in table:
        return table
    subject, expression = table["subject"].astype(str), table["expression"].astype(str)
    rows: dict[str, int] = {}
    for row in np.flatnonzero(np.char.lower(expression) == "neutral")[::-1]:
        rows[subject[row]] = int(row)
    neutral = np.array([rows.get(name, -1) for name in subject.tolist()], np.int64)
    return LabelTable({**table.columns, "neutral": neutral}, table.count)


def mirrored_labels(table: LabelTable) -> LabelTable:
    """The labels of meshes followed by those of their mirror images, which have a column
    `mirror_of`: the row of the original, -1 for an original. Splits keep the two together.
    """
    count = table.count
    columns = {}
    for name, column in table.columns.items():
        other = column
        if name == "neutral":
            other = np.where(column >= 0, column + count, -1)
        elif name in ("sequence", "file"):
            texts = column.astype(str).tolist()
            other = np.array([f"{text} mirrored" if text else "" for text in texts])
        columns[name] = np.concatenate([column, other])
    columns["mirror_of"] = np.concatenate([np.full(count, -1), np.arange(count)])
    return LabelTable(columns, 2 * count)
