"""Splits of one's own: by named subjects or files, a column of the labels, positions, or folds for a
cross-validation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morphable.data.labels import LabelTable
from morphable.data.splits import MAX_VALIDATION, SUBSETS, Split, sorted_rows
from morphable.errors import InputError
from morphable.files import reading

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_FOLDS = 100


@dataclass(frozen=True)
class Every:
    """Positions of the sorted meshes: of each block of `period`, those from `first` to `last`.

    >>> Every.parsed("100:0-9")
    Every(period=100, first=0, last=9)
    """

    period: int
    first: int
    last: int

    @classmethod
    def parsed(cls, text: str) -> Every:
        """Read PERIOD:FIRST-LAST, or PERIOD:FIRST for one position."""
        match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})(?:-([0-9]{1,9}))?", text)
        if match is None:
            raise InputError(f"`every` {text}: expected PERIOD:FIRST-LAST, as in 100:0-9", "every")
        period, first = int(match[1]), int(match[2])
        last = first if match[3] is None else int(match[3])
        if not 0 <= first <= last < period or last - first + 1 == period:
            raise InputError(
                f"`every` {text}: expected positions from 0 to {period - 1}, and not all of them",
                "every",
            )
        return cls(period, first, last)


def split_by_position(labels: LabelTable, every: Every, seed: int = 0) -> Split:
    """Hold out positions of the meshes sorted by subject, expression, sequence and frame. The last of
    the others, a hundred or a tenth, are for validation.
    """
    order = sorted_rows(labels)
    phase = np.arange(len(order)) % every.period
    test = order[(phase >= every.first) & (phase <= every.last)]
    return _completed(labels, test, seed)


def split_by_values(
    labels: LabelTable,
    column: str,
    test: Sequence[str],
    val: Sequence[str] | None = None,
    seed: int = 0,
    argument: str = "test_subjects",
) -> Split:
    """Hold out the meshes whose label in `column` is one of `test`. val: those for validation; None: a
    tenth of the other values, drawn with the seed (of files: the last of them).

    argument: what errors call the list. Raises InputError, naming the value, if no mesh has it.
    """
    if column not in labels:
        raise InputError(f"`{argument}`: the labels have no column {column!r}", argument)
    values = labels[column].astype(str)
    known = set(values.tolist())
    for which, chosen in ((argument, test), (argument.replace("test", "val"), val or ())):
        unknown = [value for value in chosen if value not in known]
        if unknown:
            some = ", ".join(sorted(known - {""})[:6])
            raise InputError(
                f"`{which}`: no mesh has the {column} {unknown[0]!r}; there are {some}, ...", which
            )
        if len(set(chosen)) < len(chosen):
            twice = next(value for value in chosen if list(chosen).count(value) > 1)
            raise InputError(f"`{which}`: names {twice!r} twice", which)
    both = set(test) & set(val or ())
    if both:
        raise InputError(f"{sorted(both)[0]!r} is held out for testing and for validation")
    tested = np.flatnonzero(np.isin(values, list(test)))
    if val is not None:
        return _completed(labels, tested, seed, np.flatnonzero(np.isin(values, list(val))))
    if column == "file":
        return _completed(labels, tested, seed)
    rest = sorted(known - set(test) - {""})
    drawn = np.random.default_rng(seed).permutation(len(rest))[: max(1, round(len(rest) / 10))]
    held_out = [rest[number] for number in drawn] if len(rest) > 1 else []
    return _completed(labels, tested, seed, np.flatnonzero(np.isin(values, held_out)))


def split_by_column(labels: LabelTable, column: str, seed: int = 0) -> Split:
    """Divide by a label column that says train, val or test of each mesh. Without a `val` mesh the
    last of the training meshes are for validation. Meshes without a word are in no subset.
    """
    if column not in labels:
        known = ", ".join(labels.columns) or "none"
        raise InputError(
            f"`column` {column}: the labels have no such column; they have {known}", "column"
        )
    values = np.char.strip(np.char.lower(labels[column].astype(str)))
    other = sorted(set(values.tolist()) - set(SUBSETS) - {""})
    if other:
        raise InputError(
            f"`column` {column}: expected train, val or test, got {other[0]!r}", "column"
        )
    train, val, test = (np.flatnonzero(values == name) for name in SUBSETS)
    if len(val):
        return _checked(Split(train, val, test, seed))
    own = labels.take(train)
    made = _completed(own, np.zeros(0, np.int64), seed, needs_test=False)
    return _checked(Split(train[made.train], train[made.val], test, seed))


def folds(labels: LabelTable, count: int, by: str | None = None, seed: int = 0) -> list[Split]:
    """Splits for a cross-validation: every mesh is held out for testing in exactly one.

    by: the label whose classes stay together, such as subject; None: single meshes. The next fold's
    meshes are not used for validation; a tenth of the remaining classes is.
    """
    if not 2 <= count <= MAX_FOLDS:
        raise InputError(f"`folds` {count}: expected 2 to {MAX_FOLDS}", "folds")
    if by is not None and by not in labels:
        raise InputError(f"`by` {by}: the labels have no such column", "by")
    values = np.arange(labels.count).astype(str) if by is None else labels[by].astype(str)
    names = np.array(sorted(set(values.tolist()) - {""}))
    if len(names) < count + 1:
        what = "meshes" if by is None else f"values of {by}"
        raise InputError(
            f"`folds` {count}: {len(names)} {what} are too few, expected at least {count + 1}",
            "folds",
        )
    random = np.random.default_rng(seed)
    shares = np.array_split(random.permutation(len(names)), count)
    made = []
    for number in range(count):
        rest = random.permutation(np.concatenate(shares[:number] + shares[number + 1 :]))
        held_out = names[rest[: max(1, round(len(rest) / 10))]]
        test = np.flatnonzero(np.isin(values, names[shares[number]]))
        val = np.flatnonzero(np.isin(values, held_out))
        made.append(_completed(labels, test, seed, val))
    return made


def read_names(text: str) -> list[str]:
    """Names of a list `a,b,c`, or the lines of a file if there is one of this name. Blank lines and
    lines that begin with # do not count.
    """
    path = Path(text)
    if path.is_file():
        with reading(path, "is not a text file"):
            lines = path.read_text(encoding="utf-8-sig").splitlines()
    else:
        lines = text.split(",")
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise InputError(f"{text}: names nothing")
    return names


def write_splits(folder: Path, splits: Mapping[str, Split]) -> None:
    """Add splits to a dataset folder. Raises InputError if a name is taken or no file name."""
    for name in splits:
        if not NAME.fullmatch(name):
            raise InputError(
                f"`name` {name}: expected letters, digits, dots, dashes and underscores", "name"
            )
        if (folder / "splits" / f"{name}.json").exists():
            raise InputError(f"`name` {name}: {folder} has a split of this name", "name")
    for name, split in splits.items():
        split.write(folder / "splits" / f"{name}.json")


def _completed(
    labels: LabelTable,
    test: np.ndarray,
    seed: int,
    val: np.ndarray | None = None,
    needs_test: bool = True,
) -> Split:
    """The split of these test meshes, with mirror images only in training and, if `val` is not
    given, the last of the others for validation.
    """
    images = labels["mirror_of"] >= 0 if "mirror_of" in labels else np.zeros(labels.count, bool)
    test = test[~images[test]]
    if val is None:
        order = sorted_rows(labels)
        rest = order[~np.isin(order, test) & ~images[order]]
        val = rest[len(rest) - max(1, min(MAX_VALIDATION, len(rest) // 10)) :]
    val = val[~images[val]]
    held_out = np.concatenate([test, val])
    used = np.ones(labels.count, bool)
    used[held_out] = False
    if images.any():
        used &= ~(images & np.isin(labels["mirror_of"], held_out))
    split = Split(np.flatnonzero(used), np.sort(val), np.sort(test), seed)
    return _checked(split) if needs_test else split


def _checked(split: Split) -> Split:
    for name in SUBSETS:
        if not len(split.subset(name)):
            raise InputError(f"the split would have no {name} mesh")
    return split
