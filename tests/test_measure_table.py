"""The table of measures: every number that an evaluation or a bench holds has a row with a meaning,
and every row is measured of some model.
"""

from __future__ import annotations

import pytest
import torch

from conftest import ball_template
from helpers import dataset, measured
from morphable.bench import TABLES, find_table
from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.evaluate.measure_table import MEASURES, measure_of, titled
from morphable.evaluate.referee import JUDGED
from morphable.models.base import MorphableModel
from morphable.models.families import create
from morphable.models.ib_vae import IbVae, IbVaeConfig
from morphable.models.local_weights import LocalWeights
from morphable.models.region_pca import RegionPca, RegionPcaConfig

OF_A_RUN = {
    "parameters",
    "training_parameters",
    "epochs",
    "training_seconds",
    "seconds_per_epoch",
}
OF_DECODING = {"decoder_parameters", "decode_ms", "decode_gpu_ms"}


def evaluated(model: MorphableModel, data: MeshDataset) -> set[str]:
    """Keys of the model's and all baselines' measures."""
    result = measured(model.eval(), data, "frames", "train").measures
    return {key for row in (result["model"], *result["baselines"].values()) for key in row}


def separated(data: MeshDataset, expressions: tuple[str, ...] | None = None) -> IbVae:
    """An untrained model with identity and expression, or of its conditional form."""
    config = IbVaeConfig(samples=(32, 16), neighbors=8, expressions=expressions)
    torch.manual_seed(0)
    model = create("ib-vae", data.template, config)
    model.initialize(data.vertices)
    return model


def in_parts(data: MeshDataset) -> LocalWeights:
    """An untrained model that has found its parts."""
    torch.manual_seed(0)
    model = create("local-weights", data.template, latent=4)
    model.initialize(data.vertices)
    return model


@pytest.fixture(scope="module")
def keys(gestures: MeshDataset, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What is measured of a model with handles, of one that finds its own parts, and of one with
    identity and expression: on few meshes with true swaps, and on enough meshes per subject for the
    probes of leakage.
    """
    editor = RegionPca.estimate(gestures.template, gestures.vertices, {}, RegionPcaConfig(12))
    many = dataset(ball_template(320), tmp_path_factory.mktemp("data") / "set", 60, subjects=5)
    return (
        evaluated(editor, gestures)
        | evaluated(in_parts(gestures), gestures)
        | evaluated(separated(gestures), gestures)
        | evaluated(separated(many), many)
        | evaluated(separated(many, ("open", "smile")), many)
    )


def test_every_number_of_an_evaluation_has_a_meaning(keys: set[str]) -> None:
    assert {"collapsed/identity", "vertex_error_mm/thumb", "control_moved_mm"} <= keys
    for key in keys:
        assert measure_of(key)[0].meaning, key


def test_every_row_of_the_table_is_measured_somewhere(keys: set[str]) -> None:
    assert {key.partition("/")[0] for key in keys} | OF_A_RUN | OF_DECODING | set(JUDGED) == set(
        MEASURES
    )


def test_units_are_those_of_the_keys() -> None:
    assert all((name.endswith("_mm")) == (row.unit == "mm") for name, row in MEASURES.items())


def test_every_column_of_a_bench_shows_a_measure() -> None:
    for name in TABLES:
        for column in find_table(name, True).columns:
            assert measure_of(column.measure)[0].name in MEASURES, f"{name}: {column.title}"


def test_no_winner_of_what_only_describes() -> None:
    """How far two meshes lie apart is the task, not the result; fewer parameters are no merit."""
    for name in ("control_moved_mm", "other_moved_mm", "parameters", "identity_leakage_chance"):
        assert MEASURES[name].better == "neither"
    assert MEASURES["expression_kept"].better == "higher"
    assert MEASURES["vertex_error_mm"].better == "lower"


def test_a_key_names_its_region() -> None:
    assert titled("collapsed/expression") == "collapsed dimensions, expression"
    with pytest.raises(InputError, match="measure 'beauty_mm': not in the table"):
        measure_of("beauty_mm/thumb")
