"""01: a dataset and its splits.

A dataset is shapes (N, V, 3) on one template, with a table of labels. It is a folder; the vertices
stay on disk until they are needed. A split divides it into training, validation and test subsets,
so that a model is measured on what it never saw: other frames, other people, other expressions.

Writes data/hands, which the next examples use.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import morphable

folder = Path("data/hands")
if not folder.exists():
    hands = morphable.make_source("hands", count=400, seed=3)
    morphable.write_dataset(hands, folder, seed=3)

dataset = morphable.load_dataset(folder)
print(f"{len(dataset)} meshes {dataset.vertices.shape}, made from {dataset.info['source']}")

# Labels: a column of N values each.
subjects = dataset.labels.classes("subject")
print(f"{len(subjects.names)} people; mesh 7 is of {subjects.names[subjects.numbers[7]]}")

# Some of the meshes are a dataset again, which knows the rows that it came from.
first = dataset.select(np.flatnonzero(subjects.numbers == 0))
print(f"{subjects.names[0]} has {len(first)} meshes, rows {first.rows.tolist()}")

# A split is written once, with the dataset. By subject: nobody is in two of the subsets.
for name in dataset.split_names:
    split = dataset.split(name)
    print(f"split {name}: {len(split.train)} train, {len(split.val)} val, {len(split.test)} test")
split = dataset.split("subject")
shared = set(split.train.labels["subject"]) & set(split.test.labels["subject"])
assert not shared, "a held-out person is in the training subset"
