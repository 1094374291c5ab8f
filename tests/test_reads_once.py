"""Values are handed on, not looked up again: a training opens its dataset once and reads its split
once, and an evaluation encodes each mesh once.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import morphable.data.dataset
from helpers import in_process
from morphable.data.dataset import MeshDataset
from morphable.data.splits import Split
from morphable.models.base import MorphableModel
from morphable.models.families import MODELS


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often datasets are opened and split files are read, by whoever does it."""
    counts: Counter[str] = Counter()
    load, read = morphable.data.dataset._read_info, Split.read.__func__  # type: ignore[attr-defined]

    def counting_load(path: Path) -> dict[str, Any]:
        counts["dataset"] += 1
        return load(path)

    def counting_read(cls: type[Split], path: Path, count: int) -> Split:
        counts["split"] += 1
        return read(cls, path, count)

    monkeypatch.setattr(morphable.data.dataset, "_read_info", counting_load)
    monkeypatch.setattr(Split, "read", classmethod(counting_read))
    return counts


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often the class under test encodes each mesh; baselines are counted by none."""
    counts: Counter[bytes] = Counter()
    kind = MODELS["pca-mlp"].model
    encode = kind.encode

    def counting(self: MorphableModel, vertices: torch.Tensor, *rest: Any) -> torch.Tensor:
        counts.update(mesh.numpy().tobytes() for mesh in vertices.cpu())
        return encode(self, vertices, *rest)

    monkeypatch.setattr(kind, "encode", counting)
    return counts


def train(hands: MeshDataset, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("train", "pca-mlp", "--data", hands.path, "--out", out, "--epochs", 1)
    ended = in_process(capsys, *words)
    assert ended.code == 0, ended.err


def test_a_training_opens_its_dataset_and_its_split_once(
    hands: MeshDataset, tmp_path: Path, opened: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    train(hands, tmp_path / "run", capsys)
    assert opened == {"dataset": 1, "split": 1}


def test_an_evaluation_and_its_report_encode_each_mesh_once(
    hands: MeshDataset,
    tmp_path: Path,
    opened: Counter[str],
    encoded: Counter[bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    train(hands, tmp_path / "run", capsys)
    opened.clear()
    encoded.clear()

    assert in_process(capsys, "evaluate", tmp_path / "run").code == 0
    measured = hands.split().test.vertices
    assert len(encoded) == len(measured) and set(encoded.values()) == {1}
    assert opened == {"dataset": 1, "split": 2}, "one split read is this test's own"

    # The report encodes only neutral shapes to calculate with, no measured mesh again.
    assert in_process(capsys, "report", tmp_path / "run").code == 0
    again = [mesh for mesh in measured[:] if encoded[np.asarray(mesh).tobytes()] > 1]
    assert not again
