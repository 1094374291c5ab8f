"""Splits of a dataset into training, validation and test meshes: sorted, seeded, hashed, and
disjoint by construction.
"""

from __future__ import annotations

import itertools
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from morphable.data.labels import LabelTable
from morphable.errors import InputError
from morphable.files import content_hash, read_json, write_json

SUBSETS = ("train", "val", "test")
N_FIRST = 10
MAX_VALIDATION = 100
"""A frame split uses the last hundred training frames for validation, as CoMA does; in a small
dataset fewer.
"""


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of the three disjoint subsets, each sorted, and the seed they were drawn with."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    seed: int = 0

    @property
    def hash(self) -> str:
        return content_hash(*(self.subset(name).astype(np.int64) for name in SUBSETS))[:16]

    def subset(self, name: str) -> np.ndarray:
        if name not in SUBSETS:
            raise InputError(f"subset {name!r}: expected one of {', '.join(SUBSETS)}")
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def write(self, path: Path) -> None:
        rows = {name: self.subset(name).tolist() for name in SUBSETS}
        write_json(path, rows | {"seed": self.seed, "hash": self.hash})

    @classmethod
    def read(cls, path: Path, count: int) -> Split:
        """Read a split file. Raises InputError unless every row is in 0..count-1 and in one subset
        only, and the hash is that of the rows.
        """
        if not path.exists():
            known = ", ".join(sorted(p.stem for p in path.parent.glob("*.json"))) or "none"
            raise InputError(
                f"{path.parent.parent}: there is no split {path.stem!r}; the splits are {known}"
            )
        value = read_json(path)
        try:
            train, val, test = (_rows(value[name]) for name in SUBSETS)
            split = cls(train, val, test, int(value["seed"]))
            stored = str(value["hash"])
            rows = np.concatenate([split.train, split.val, split.test])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{path}: not a split file ({error})") from error
        if rows.ndim != 1:
            raise InputError(f"{path}: not a split file (rows: expected lists of numbers)")
        if len(rows) and (
            rows.min() < 0 or rows.max() >= count or len(np.unique(rows)) != len(rows)
        ):
            raise InputError(f"{path}: rows must lie in 0..{count - 1} and in one subset only")
        if stored != split.hash:
            raise InputError(
                f"{path}: the rows do not match their hash, the file was changed by hand"
            )
        return split


def _rows(values: Any) -> np.ndarray:
    """Sorted row numbers. Raises TypeError or OverflowError if they are none."""
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise TypeError("expected lists of row numbers")
    return np.array(sorted(values), np.int64)


def make_splits(labels: LabelTable, seed: int = 0) -> dict[str, Split]:
    """Make all splits that the labels allow, by name: `frames`, `frames-deep3dmm`, `subject`,
    `expression-LABEL`.
    """
    if "mirror_of" in labels:
        return _with_mirror_images(labels, seed)
    splits = {}
    if labels.count >= 3:
        splits["frames"] = frame_split(labels, seed)
    if labels.count >= 21:
        splits["frames-deep3dmm"] = frame_split(labels, seed, deep3dmm=True)
    if "subject" in labels and len(labels.classes("subject").names) >= 3:
        splits["subject"] = subject_split(labels, seed)
    if "expression" in labels:
        names = [name for name in labels.classes("expression").names if name.lower() != "neutral"]
        if len(names) >= 2:
            for name in names:
                splits[_unused(f"expression-{_file_name(name)}", splits)] = expression_split(
                    labels, name, seed
                )
    return splits


def _with_mirror_images(labels: LabelTable, seed: int) -> dict[str, Split]:
    """The splits of the originals. The mirror images of training meshes are training meshes too;
    those of held-out meshes are in no subset.
    """
    original = labels["mirror_of"] < 0
    own, images = np.flatnonzero(original), np.flatnonzero(~original)
    position = np.full(labels.count, -1)
    position[own] = np.arange(len(own))
    columns = {name: labels[name][own] for name in labels.columns if name != "mirror_of"}
    if "neutral" in columns:
        columns["neutral"] = np.where(columns["neutral"] >= 0, position[columns["neutral"]], -1)
    made = make_splits(LabelTable(columns, len(own)), seed)
    of_image = labels["mirror_of"][images]
    return {
        name: Split(
            np.sort(np.concatenate([own[s.train], images[np.isin(of_image, own[s.train])]])),
            own[s.val],
            own[s.test],
            s.seed,
        )
        for name, s in made.items()
    }


def _file_name(label: str) -> str:
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in label)
    return name.encode()[:100].decode(errors="ignore")  # file systems count bytes


def _unused(name: str, taken: Container[str]) -> str:
    """`name`, with a number if another label has the same file name, as "a b" and "a/b" do."""
    candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)


def sorted_rows(labels: LabelTable) -> np.ndarray:
    """Return the row numbers sorted by (subject, expression, sequence, frame), the order that frame
    splits use.
    """
    keys = [np.arange(labels.count)]
    if "frame" in labels:
        keys.append(labels["frame"])
    keys += [
        labels[name].astype(str) for name in ("sequence", "expression", "subject") if name in labels
    ]
    return np.lexsort(keys)


def frame_split(labels: LabelTable, seed: int = 0, deep3dmm: bool = False) -> Split:
    """Make COMA's interpolation split: the first ten of every hundred sorted frames are test
    frames, and the last of the others are validation frames.

    deep3dmm: use the variant of that paper's code: positions 0..10 modulo 100 are test frames,
    11..20 validation frames. Neutral meshes of other rows are always training meshes. In datasets
    of fewer than 200 frames, the blocks have ten frames instead of a hundred: one for testing and,
    in the variant, the next one for validation.
    """
    order = sorted_rows(labels)
    neutral = _neutral_rows(labels)
    frames = order[~neutral[order]] if neutral.any() and not neutral.all() else order
    period = 100 if len(frames) >= 200 else 10
    phase = np.arange(len(frames)) % period
    if deep3dmm:
        n_test, n_held = (11, 21) if period == 100 else (1, 2)
        test, val = frames[phase < n_test], frames[(phase >= n_test) & (phase < n_held)]
    else:
        test, rest = frames[phase < period // 10], frames[phase >= period // 10]
        val = rest[len(rest) - max(1, min(MAX_VALIDATION, len(rest) // 10)) :]
    return _with_rest_training(labels.count, val, test, seed)


def subject_split(labels: LabelTable, seed: int = 0) -> Split:
    """Make a split by subject: a tenth of the subjects is held out for testing and a tenth for
    validation, at least one each.

    The number of test subjects is rounded up, because results on a single subject have no standard
    deviation, and its expressions cannot be exchanged with another's. Meshes without a subject are
    training meshes.
    """
    subjects = labels.classes("subject")
    order = np.random.default_rng(seed).permutation(len(subjects.names))
    count = len(subjects.names)
    n_test, n_val = -(-count // 10), max(1, round(count / 10))
    test = np.flatnonzero(np.isin(subjects.numbers, order[:n_test]))
    val = np.flatnonzero(np.isin(subjects.numbers, order[n_test : n_test + n_val]))
    return _with_rest_training(labels.count, val, test, seed)


def first_ten(labels: LabelTable) -> dict[str, Split]:
    """The split `first-ten`, BU-3DFE's in Sun et al. (WACV 2022): the first ten people by name are
    test people, and the last tenth of the others validation people. Empty if there are too few
    people.
    """
    names = labels.classes("subject").names
    if len(names) < N_FIRST + 2:
        return {}
    rest = names[N_FIRST:]
    held_out = rest[-max(1, len(rest) // 10) :]
    subject = labels["subject"].astype(str)
    test, val = np.isin(subject, names[:N_FIRST]), np.isin(subject, held_out)
    rows = (np.flatnonzero(~test & ~val), np.flatnonzero(val), np.flatnonzero(test))
    return {"first-ten": Split(*rows)}


def sequence_split(labels: LabelTable, seed: int = 0) -> Split:
    """Hold out a tenth of the sequences of all subjects for testing and a tenth for validation, so
    that no neighboring frame of a test mesh is trained on (VCMeshConv's rule for DFAUST).
    """
    subject = labels["subject"].astype(str) if "subject" in labels else np.full(labels.count, "")
    names, numbers = np.unique(
        np.char.add(np.char.add(subject, "/"), labels["sequence"].astype(str)), return_inverse=True
    )
    order = np.random.default_rng(seed).permutation(len(names))
    n_held = max(1, round(len(names) / 10))
    test = np.flatnonzero(np.isin(numbers, order[:n_held]))
    val = np.flatnonzero(np.isin(numbers, order[n_held : 2 * n_held]))
    return _with_rest_training(labels.count, val, test, seed)


def expression_split(labels: LabelTable, expression: str, seed: int = 0) -> Split:
    """Make COMA's extrapolation split: one expression is held out for testing, and a tenth of the
    other (subject, expression) groups for validation.
    """
    test = np.flatnonzero(labels["expression"].astype(str) == expression)
    others = np.flatnonzero(
        (labels["expression"].astype(str) != expression) & ~_neutral_rows(labels)
    )
    subject = labels["subject"].astype(str) if "subject" in labels else np.full(labels.count, "")
    groups = np.char.add(np.char.add(subject, "\n"), labels["expression"].astype(str))[others]
    names = np.unique(groups)
    held_out = np.random.default_rng(seed).permutation(len(names))[: max(1, len(names) // 10)]
    val = others[np.isin(groups, names[held_out])] if len(names) > 1 else others[:0]
    return _with_rest_training(labels.count, val, test, seed)


def _neutral_rows(labels: LabelTable) -> np.ndarray:
    """(N,) bool: the mesh is the neutral mesh of some row."""
    is_neutral = np.zeros(labels.count, bool)
    if "neutral" in labels:
        rows = labels["neutral"].astype(np.int64)
        is_neutral[rows[rows >= 0]] = True
    return is_neutral


def _with_rest_training(count: int, val: np.ndarray, test: np.ndarray, seed: int) -> Split:
    train = np.setdiff1d(np.arange(count), np.concatenate([val, test]))
    return Split(train, np.sort(val), np.sort(test), seed)
