"""One editing vocabulary: every operation on every family, or one sentence that says which families
have what it needs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from family_models import trained_family
from helpers import Outcome, in_process
from morphable.data.dataset import MeshDataset
from morphable.data.registered_mesh import read_registered, write_shape
from morphable.edit.code import require_part
from morphable.edit.region import find_region, regions_of
from morphable.errors import InputError
from morphable.mesh.io import read_mesh
from morphable.models.base import MorphableModel
from morphable.models.families import MODELS, families_with
from morphable.models.io import save

IDENTITY = [
    "multilinear",
    "linear-two-space",
    "two-space",
    "ib-vae",
    "cvae",
    "gan",
    "ac-gan",
    "mae",
    "deepflame",
]
"""The families that separate identity from expression. All others say so if they are asked to."""


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest, gestures: MeshDataset) -> MorphableModel:
    return trained_family(request.param, gestures)


@pytest.fixture(scope="module")
def folder(
    model: MorphableModel, hands: MeshDataset, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    place = tmp_path_factory.mktemp("vocabulary")
    save(model, place / "model")
    for name, row in (("a.ply", 70), ("b.ply", 170), ("c.ply", 270)):
        write_shape(place / name, hands.vertices[row], hands.template)
    return place


def test_every_operation_works_or_names_the_families_that_can(
    model: MorphableModel, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, a, b, c = (folder / name for name in ("model", "a.ply", "b.ply", "c.ply"))
    part = model.parts.free_names[-1]

    def run(*words: object) -> Outcome:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.ply"
        return in_process(capsys, *words, "--out", file)

    works = (
        ("edit", "transfer", made, a, b, c),
        ("edit", "swap", made, a, b, "--part", part),
        ("edit", "combine", made, a, "--part", f"{part}={b}"),
    )
    for words in works:
        outcome = run(*words)
        assert outcome.code == 0, (words, outcome.err)
    for words in (
        ("edit", "interpolate", made, a, b, "--steps", 2, "--part", part),
        ("edit", "extrapolate", made, a, b, "--steps", 2),
        ("sample", made, "-n", 2, "--part", part),
    ):
        outcome = in_process(capsys, *words, "--out", tmp_path / str(words[1]).replace("/", "-"))
        assert outcome.code == 0, (words, outcome.err)

    neutral = run("edit", "neutralise", made, a)
    swapped = run("edit", "swap", made, a, b, "--part", "expression")
    for outcome in (neutral, swapped):
        if model.family in IDENTITY:
            assert outcome.code == 0, outcome.err
        else:
            outcome.refuses("the parts of this", ", ".join(IDENTITY))


def test_a_region_follows_its_handles_and_nothing_else_moves(
    model: MorphableModel, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The region of a handle moves towards its goal. Outside, every bit stays."""
    regions = regions_of(model)
    number = 1
    name, handle = regions.names[number], int(regions.controls[number][0])
    source = read_registered(folder / "a.ply", model.template)
    inside = regions.labels == number
    base = (folder / "model", folder / "a.ply")
    runs = {
        "moved": ("edit", "region", *base, "--region", name, "--move", "h0:0,0,4"),
        "aimed": ("edit", "region", *base, "--region", name, "--target", folder / "b.ply"),
        "swapped": ("edit", "swap-region", *base, folder / "b.ply", "--region", name),
    }
    for what, words in runs.items():
        file = tmp_path / f"{what}.ply"
        outcome = in_process(capsys, *words, "--out", file)
        assert outcome.code == 0, outcome.err
        made = read_mesh(file).mesh.vertices
        assert np.array_equal(made[~inside], source[~inside]), what
        assert not np.array_equal(made[inside], source[inside]), what
        if what == "moved":
            step = made[handle] - source[handle]
            assert 0 < step[2] < 6, "towards its goal, and not far beyond it"
    drawn = in_process(
        capsys, "edit", "sample-region", *base, "--region", name, "-n", 2, "--out", tmp_path / "d"
    )
    assert drawn.code == 0, drawn.err
    first, second = (read_mesh(file).mesh.vertices for file in sorted((tmp_path / "d").iterdir()))
    assert np.array_equal(first[~inside], source[~inside])
    assert not np.array_equal(first[inside], second[inside])


def test_the_families_that_have_a_part_are_named_rightly(model: MorphableModel) -> None:
    for part in ("shape", "identity", "expression", "noise"):
        assert (model.family in families_with(part)) == (part in model.parts)


def test_a_region_that_is_taken_for_a_part(gestures: MeshDataset) -> None:
    lamm = trained_family("lamm", gestures)
    with pytest.raises(InputError, match="'thumb' is a region: use edit region or edit swap-regi"):
        require_part(lamm, "thumb")
    require_part(lamm, "shape")
    pca = trained_family("pca", gestures)
    with pytest.raises(
        InputError, match="part 'identity': the parts of this pca are shape; multilinear, "
    ):
        require_part(pca, "identity")
    with pytest.raises(InputError, match="region 'nose': not in this template, which has palm"):
        find_region(pca, "nose")


def test_identity_families_are_those_with_the_part() -> None:
    assert families_with("identity") == IDENTITY == families_with("expression")
