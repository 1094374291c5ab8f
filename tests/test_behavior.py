"""Training goes the course that it has always gone: figures recorded before the code was rearranged.

A change that is meant to change a family's results records new figures; any other change must not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from helpers import in_process
from morphable.data.dataset import MeshDataset
from morphable.models.families import MODELS

RECORDED = {
    "pca": 2.1868973214748326,
    "region-pca": 0.2705427591888791,
    "pca-mlp": 0.06096263497241066,
    "rotation-mlp": 0.06096263497241066,
    "multilinear": 1.1348528228120207,
    "linear-two-space": 0.44180708799434587,
    "two-space": 0.04513089729688214,
    "coma": 0.06632127000574391,
    "spiralnet": 0.059336599939846905,
    "spiralnet++": 0.05495845438151374,
    "lamm": 0.04677363307321529,
    "lamm-mixer": 0.06984607184341791,
    "deep3dmm": 0.056021695103667175,
    "ib-vae": 0.35198755330751874,
    "cvae": 0.3428402227029154,
    "deep3dmm-spiral": 0.061062341034973204,
    "gan": 0.04902429494196331,
    "ac-gan": 0.052063586898808835,
    "local-weights": 0.07417375497999354,
    "mae": 0.11258042758701339,
    "deepflame": 0.05550155574212986,
}
"""Geometric mean over tensors of the root mean square of each, after about 20 steps (LAMM: 40) on two
dozen hands. So each tensor counts alike, however small its numbers are.
"""


def size_after_training(
    family: str, data: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> float:
    words: list[object] = ["train", family, "--data", data, "--split", "frames", "--out", out]
    if MODELS[family].fast.train is not None:
        words += [
            "--epochs",
            7,
            "--seed",
            5,
            "--set",
            "train.batch_size=8",
        ]
    if family.startswith("lamm"):
        words += ["--stages", "autoencode,manipulate"]
    ended = in_process(capsys, *words)
    assert ended.code == 0, ended.err
    tensors = load_file(out / "model" / "weights.safetensors").values()
    sizes = np.array([np.sqrt(np.square(t.astype(np.float64)).mean()) for t in tensors])
    return float(np.exp(np.log(sizes[sizes > 0]).mean()))


def test_every_family_is_recorded() -> None:
    assert set(RECORDED) == set(MODELS)


@pytest.mark.parametrize("family", RECORDED)
def test_training_goes_its_usual_course(
    family: str, gestures: MeshDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = size_after_training(family, gestures.path, tmp_path / "run", capsys)
    assert size == pytest.approx(RECORDED[family], rel=1e-5)
