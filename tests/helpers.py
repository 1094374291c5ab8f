"""What several test files share: small sets of shapes on any template, and the command line in and
out of process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from morphable.cli.main import main
from morphable.data.dataset import MeshDataset, SplitDataset, write_dataset
from morphable.data.labels import LabelTable
from morphable.data.source import MeshSource
from morphable.data.splits import Split
from morphable.draw.blocks import Section
from morphable.draw.html import render_block
from morphable.evaluate.evaluation import Evaluation
from morphable.evaluate.protocol import trained_split
from morphable.evaluate.record import Measured
from morphable.mesh.template import Template
from morphable.models.base import NO_ORIGIN, EstimatedModel, MorphableModel
from morphable.models.geometry import NO_GEOMETRY
from morphable.models.linear_basis import LinearBasis
from morphable.models.parts import Parts
from morphable.models.pca import Pca, PcaConfig
from morphable.report.context import ReportContext

EXPRESSIONS = ("neutral", "open", "smile")


def clouds(count: int, points: int, seed: int = 0) -> torch.Tensor:
    """(count, points, 3) random points, some 50 mm from the origin."""
    return torch.randn(count, points, 3, generator=torch.Generator().manual_seed(seed)) * 50


def shapes(template: Template, count: int, seed: int = 0) -> np.ndarray:
    """(N, V, 3) float32 mm: the template bent smoothly in six independent ways, with a little
    curvature.
    """
    random = np.random.default_rng(seed)
    base = np.asarray(template.mesh.vertices, np.float64)
    unit = base / np.abs(base).max()
    ways = [
        unit * [1, 0, 0],
        unit * [0, 1, 0],
        unit * [0, 0, 1],
        np.sin(3 * unit),
        unit[:, [1, 2, 0]] ** 2,
    ]
    amount = random.uniform(-1.7, 1.7, (count, len(ways))) * [4, 4, 4, 2, 2]
    amount = np.concatenate([amount, amount[:, :1] ** 2 / 8], 1)
    modes = np.stack([*ways, np.cos(2 * unit)])
    return (base + np.einsum("nk,kvi->nvi", amount, modes)).astype(np.float32)


def labels(count: int, subjects: int = 10) -> LabelTable:
    """Subjects by turns; every subject's first mesh is the neutral one of all its meshes."""
    subject, turn = np.arange(count) % subjects, np.arange(count) // subjects
    columns = {
        "subject": np.array([f"s{number:02d}" for number in subject]),
        "expression": np.array([EXPRESSIONS[number % 3] for number in turn]),
        "frame": turn,
        "neutral": subject,
    }
    return LabelTable(columns, count)


def source(template: Template, count: int = 60, subjects: int = 10, seed: int = 0) -> MeshSource:
    meshes = shapes(template, count, seed)

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, count, 7):
            yield meshes[start : start + 7]

    info = {"source": "bent test shapes", "licence": "CC0-1.0", "unit": "mm"}
    return MeshSource(template, labels(count, subjects), blocks, info)


def dataset(
    template: Template, path: Path, count: int = 60, subjects: int = 10, seed: int = 0
) -> MeshDataset:
    return write_dataset(source(template, count, subjects, seed), path, seed)


class TwoParts(Pca):
    """PCA whose four components have the names of two parts."""

    def __init__(self, template: Template, config: PcaConfig) -> None:
        parts = Parts.of(identity=1, expression=3)
        EstimatedModel.__init__(self, template, parts, config, NO_GEOMETRY, NO_ORIGIN)
        self.basis = LinearBasis(parts.size, template.n_vertices)


def two_parts(model: Pca, kind: type[TwoParts] = TwoParts) -> TwoParts:
    """The same components as two parts, with a prior that ties the parts together."""
    made = kind(model.template, model.config)
    made.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(0)
    assert made.prior is not None
    made.prior.fit(
        torch.randn(200, 4, generator=generator) @ torch.randn(4, 4, generator=generator)
    )
    return made.eval()


@dataclass(frozen=True)
class Outcome:
    """What a command ended with."""

    code: int
    out: str
    err: str

    def refuses(self, *words: str) -> None:
        """Assert that it is one clear sentence about bad input which holds these words, exit code
        2, no traceback.
        """
        assert self.code == 2, (self.code, self.out, self.err)
        assert self.err.startswith("morphable: "), self.err
        assert len(self.err.strip().splitlines()) == 1, self.err
        assert "Traceback" not in self.err
        for word in words:
            assert word in self.err, (word, self.err)


def in_process(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """Run a command in this process: fast, and what it writes is the same."""
    capsys.readouterr()
    code = 0
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    captured = capsys.readouterr()
    return Outcome(code, captured.out, captured.err)


def environment(**extra: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", **extra}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "morphable", *map(str, arguments)]


def real(*arguments: object, cwd: Path | None = None) -> Outcome:
    """Run a command as a user does, in a process of its own."""
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment(), cwd=cwd, timeout=240
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder with its content, and every folder: what must not change when a
    command fails.
    """
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"/"
        for path in sorted(folder.rglob("*"))
    }


def measured(
    model: MorphableModel, dataset: MeshDataset, split: str | None = None, subset: str = "test"
) -> Measured:
    """The evaluation of a model with its measures, by default on the split that it was trained on."""
    return Measured.of(Evaluation.of(model, dataset.split(split or trained_split(model)), subset))


def all_of(dataset: MeshDataset) -> SplitDataset:
    """A split whose training and test meshes are all meshes of the dataset."""
    rows = np.arange(len(dataset))
    return SplitDataset(dataset, "all", Split(rows, rows[:0], rows))


def html_of(section: Section | None) -> str:
    """The blocks of a section that applies to the model, rendered."""
    assert section is not None
    return "".join(render_block(block) for block in section.blocks)


def report_context(
    model: MorphableModel,
    data: SplitDataset,
    measures: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    subset: str = "test",
) -> ReportContext:
    """What the sections of a report are given, with only those measures that a test is about."""
    return ReportContext(Measured(Evaluation.of(model, data, subset), measures or {}), [], folder)
