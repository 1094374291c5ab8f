"""ONNX files: decoders of all families, and the encoders that are networks, equal torch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from family_models import VARIANTS
from morphable.errors import InputError
from morphable.export.onnx import TOLERANCE, export_onnx
from morphable.models.base import MorphableModel
from test_decoders_in_programs import BOTH, built

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
ENCODERS = (
    "region-pca", "pca-mlp", "rotation-mlp", "spiralnet++", "coma", "lamm", "ib-vae", "cvae", "deepflame", *VARIANTS,
)  # fmt: skip
"""One family per kind of encoder."""
SEARCHING = ("multilinear", "gan", "ac-gan")


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def close(found: np.ndarray, expected: torch.Tensor) -> None:
    vertices = expected.ndim == 3
    size = np.ptp(expected.numpy(), axis=1).max() if vertices else expected.abs().max().item()
    assert np.abs(found - expected.numpy()).max() < TOLERANCE * size


def adds_where_it_scatters(node: onnx.NodeProto) -> bool:
    given = {attribute.name: attribute.s for attribute in node.attribute}
    return node.op_type.startswith("Scatter") and given.get("reduction", b"none") != b"none"


@pytest.mark.parametrize(("family", "folded"), BOTH)
@torch.no_grad()
def test_a_decoder_equals_torch_for_any_batch(family: str, folded: bool, tmp_path: Path) -> None:
    model = built(family, folded)
    made = export_onnx(model, tmp_path / "a.onnx")
    assert made.difference < TOLERANCE
    run = session(tmp_path / "a.onnx")
    for count in (1, 4, 7):
        codes = torch.randn(count, model.parts.size)
        close(run.run(None, {"code": codes.numpy()})[0], model.decode(codes))
    file = onnx.load(tmp_path / "a.onnx")
    # ONNX Runtime adds to one row from several threads at once, and loses some of the sums.
    assert not [node for node in file.graph.node if adds_where_it_scatters(node)]
    about = {entry.key: entry.value for entry in file.metadata_props}
    assert about["parts"] == model.parts.described
    assert about["template"] == model.template.fingerprint


@pytest.mark.parametrize("family", ENCODERS)
@torch.no_grad()
def test_an_encoder_equals_torch_for_any_batch(family: str, tmp_path: Path) -> None:
    model = built(family, False)
    made = export_onnx(model, tmp_path / "a.onnx", "encoder")
    run = session(tmp_path / "a.onnx")
    scale = torch.linspace(0.9, 1.1, 4)[:, None, None]
    vertices = torch.from_numpy(model.template.mesh.vertices.astype(np.float32)) * scale
    values, given = {"vertices": vertices.numpy()}, None
    if model.searched_size:
        pinned = model.parts.size - model.parts.free_size
        given = {"condition": torch.rand(4, pinned)}
        values["given"] = given["condition"].numpy()
        assert f"given (B, {pinned})" in made.inputs
    close(run.run(None, values)[0], model.encode(vertices, given))


@pytest.mark.parametrize("family", SEARCHING)
def test_a_search_is_no_network(family: str, tmp_path: Path) -> None:
    model = built(family, False)
    assert model.encodes_by_search and not model.encoder_is_network
    with pytest.raises(InputError, match=f"{family}: encodes by a search, not by a network"):
        export_onnx(model, tmp_path / "a.onnx", "encoder")
    assert not list(tmp_path.iterdir())


def test_what_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: MorphableModel = built("pca", False)
    monkeypatch.setattr("morphable.export.onnx.TOLERANCE", -1.0)
    with pytest.raises(InputError, match=r"a\.onnx: not written, ONNX Runtime differs"):
        export_onnx(model, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"need onnxruntime; install it with pip install 'morph"):
        export_onnx(model, tmp_path / "a.onnx")
