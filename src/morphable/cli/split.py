"""`morphable data split`: add a split of one's own to a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from morphable.cli.arguments import SplitSeed
from morphable.errors import InputError

if TYPE_CHECKING:
    from morphable.data.labels import LabelTable
    from morphable.data.splits import Split


def split(
    dataset: Annotated[Path, Parameter(help="a dataset folder")],
    /,
    *,
    name: Annotated[str, Parameter(help="name of the split; folds get NAME-1, NAME-2, ...")],
    test_subjects: Annotated[
        str | None, Parameter(help="subjects to test on: a,b,c or a file with one a line")
    ] = None,
    val_subjects: Annotated[
        str | None,
        Parameter(help="subjects for validation; default: a tenth of the others, by the seed"),
    ] = None,
    test_files: Annotated[
        str | None,
        Parameter(help="meshes to test on: a file that lists them as the column `file` does"),
    ] = None,
    val_files: Annotated[str | None, Parameter(help="meshes for validation, likewise")] = None,
    column: Annotated[
        str | None, Parameter(help="a label column that says train, val or test of each mesh")
    ] = None,
    every: Annotated[
        str | None,
        Parameter(
            help="PERIOD:FIRST-LAST, positions to test on of each block of sorted meshes; 100:0-9 "
            "is COMA's rule"
        ),
    ] = None,
    folds: Annotated[
        int | None, Parameter(help="number of splits of a cross-validation, for `bench --folds`")
    ] = None,
    by: Annotated[
        str | None, Parameter(help="folds: the label whose meshes stay together, such as subject")
    ] = None,
    seed: Annotated[SplitSeed, Parameter(help="seed of what is drawn")] = 0,
) -> None:
    """Add a split to a dataset: exactly one of the rules says which meshes are tested on.

    Meshes that no rule holds out for testing or validation are trained on. Splits are hashed and
    disjoint; what they hold is printed by subject and sequence.
    """
    from morphable.data import own_splits
    from morphable.data.dataset import load_dataset

    given = {
        "--test-subjects": test_subjects,
        "--test-files": test_files,
        "--column": column,
        "--every": every,
        "--folds": folds,
    }
    chosen = [flag for flag, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise InputError(
            f"expected one of {', '.join(given)}, got {' and '.join(chosen) or 'none'}"
        )
    for flag, value, needs in (
        ("--val-subjects", val_subjects, test_subjects),
        ("--val-files", val_files, test_files),
        ("--by", by, folds),
    ):
        if value is not None and needs is None:
            raise InputError(f"{flag}: not with {chosen[0]}")
    labels = load_dataset(dataset).labels
    if folds is not None:
        made = own_splits.folds(labels, folds, by, seed)
        splits = {f"{name}-{number}": found for number, found in enumerate(made, 1)}
    elif every is not None:
        rule = own_splits.Every.parsed(every)
        splits = {name: own_splits.split_by_position(labels, rule, seed)}
    elif column is not None:
        splits = {name: own_splits.split_by_column(labels, column, seed)}
    else:
        subjects = test_subjects is not None
        test = own_splits.read_names(test_subjects or test_files or "")
        held_out = val_subjects if subjects else val_files
        val = None if held_out is None else own_splits.read_names(held_out)
        kind = "subjects" if subjects else "files"
        found = own_splits.split_by_values(
            labels, "subject" if subjects else "file", test, val, seed, f"test_{kind}"
        )
        splits = {name: found}
    own_splits.write_splits(dataset, splits)
    for number, (title, found) in enumerate(splits.items()):
        _print_split(dataset, title, found, labels, details=number == 0 and len(splits) == 1)


def _print_split(
    dataset: Path, name: str, split: Split, labels: LabelTable, *, details: bool
) -> None:
    """Print the counts, by subject and sequence too."""
    import numpy as np

    from morphable.cli.output import print_table
    from morphable.data.splits import SUBSETS

    counts = ", ".join(f"{len(split.subset(subset)):,} {subset}" for subset in SUBSETS)
    print(f"{dataset}: split {name}: {counts}, hash {split.hash}")
    for column in ("subject", "sequence"):
        if not details or column not in labels:
            continue
        values = labels[column].astype(str)
        rows = [
            [
                value or "(none)",
                *(str(int((values[split.subset(subset)] == value).sum())) for subset in SUBSETS),
            ]
            for value in np.unique(values).tolist()
        ]
        print_table(f"by {column}", [column, *SUBSETS], rows)
