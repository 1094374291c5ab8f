"""Files of linear models: what is written is read back, in our layout and in statismo's."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import ball_template
from morphable.errors import InputError
from morphable.mesh.io.linear_model import LinearModel, read_linear_model, write_linear_model

h5py = pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def model() -> LinearModel:
    mesh = ball_template(40).mesh
    random = np.random.default_rng(0)
    basis, _ = np.linalg.qr(random.standard_normal((120, 5)))
    return LinearModel(
        mesh,
        mesh.vertices + 1,
        basis.T.reshape(5, 40, 3),
        np.array([9.0, 4, 2, 1, 0.5]),
        0.25,
        "ball",
        "a model made by hand",
    )


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_a_round_trip_keeps_everything(model: LinearModel, tmp_path: Path, suffix: str) -> None:
    write_linear_model(tmp_path / f"a{suffix}", model)
    back = read_linear_model(tmp_path / f"a{suffix}")
    assert (back.name, back.note, back.noise_variance) == ("ball", "a model made by hand", 0.25)
    np.testing.assert_array_equal(back.reference.faces, model.reference.faces)
    for name in ("mean", "components", "variances"):
        expected = getattr(model, name).astype(np.float32)
        np.testing.assert_array_equal(getattr(back, name), expected)
    np.testing.assert_array_equal(
        back.reference.vertices, model.reference.vertices.astype(np.float32)
    )
    z = np.random.default_rng(1).standard_normal((3, 5))
    np.testing.assert_allclose(back.shapes(z), model.shapes(z), atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_the_layout_is_statismos(model: LinearModel, tmp_path: Path) -> None:
    """By hand: what a reader of statismo 0.9 computes from the file."""
    write_linear_model(tmp_path / "a.h5", model)
    with h5py.File(tmp_path / "a.h5") as file:
        basis, variance = file["model/pcaBasis"][:], file["model/pcaVariance"][:]
        assert basis.shape == (120, 5) and basis.dtype == np.float32
        np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-6)
        shape = file["model/mean"][:] + basis @ (np.sqrt(variance) * [1, 0, 0, 0, -1])
        expected = model.shapes(np.array([[1.0, 0, 0, 0, -1]]))[0]
        np.testing.assert_allclose(shape.reshape(-1, 3), expected, atol=1e-4)
        assert file["representer/points"].shape == (3, 40)
        assert file["representer/cells"].shape == (3, len(model.reference.faces))
        assert file["representer/cells"].dtype == np.int32
        assert file["representer"].attrs["datasetType"] == "POLYGON_MESH"
        assert (file["version/majorVersion"][()], file["version/minorVersion"][()]) == (0, 9)
        assert file["catalog/ball/modelPath"][()] == b"/"
        assert file["catalog/ball/modelType"][()] == b"POLYGON_MESH_MODEL"


def test_the_old_version_and_a_prefix_are_read(model: LinearModel, tmp_path: Path) -> None:
    """Version 0.8 stores the basis times the deviations; the Basel models have prefixes."""
    write_linear_model(tmp_path / "new.h5", model)
    with h5py.File(tmp_path / "new.h5") as new, h5py.File(tmp_path / "old.h5", "w") as old:
        for group in ("model", "representer"):
            new.copy(group, old.require_group("shape"))
        old["shape/model/pcaBasis"][:] *= np.sqrt(new["model/pcaVariance"][:])
        old["shape/representer"].attrs["name"] = "vtkPolyDataRepresenter"
    back = read_linear_model(tmp_path / "old.h5", "/shape")
    np.testing.assert_allclose(back.components, model.components, atol=1e-6)
    with pytest.raises(InputError, match=r"no statismo model at /, .*; at the top it has shape"):
        read_linear_model(tmp_path / "old.h5")


def test_bad_files_are_refused_in_one_sentence(
    model: LinearModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"a\.ply: expected a linear model in \.npz or \.h5"):
        write_linear_model(tmp_path / "a.ply", model)
    with pytest.raises(InputError, match=r"none\.h5: no such file"):
        read_linear_model(tmp_path / "none.h5")
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    with pytest.raises(InputError, match=r"other\.npz: not a linear model, it has no components"):
        read_linear_model(tmp_path / "other.npz")
    for wrong in ({"variances": -np.ones(5)}, {"mean": np.zeros((7, 3))}):
        with pytest.raises(InputError, match="linear model: expected"):
            dataclasses.replace(model, **wrong)
    write_linear_model(tmp_path / "a.h5", model)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["model/pcaBasis"][0, 0] = np.nan
    with pytest.raises(InputError, match=r"a\.h5: basis: holds a number that is not finite"):
        read_linear_model(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["version/minorVersion"][()] = 3
    with pytest.raises(InputError, match=r"a\.h5: is of statismo version 0\.3"):
        read_linear_model(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"b\.h5: HDF5 files need h5py; install it with pip"):
        write_linear_model(tmp_path / "b.h5", model)
    assert not (tmp_path / "b.h5").exists()
