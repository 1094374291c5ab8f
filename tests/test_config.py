"""Configurations change by name and type, and never by guessing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from morphable.config import as_table, changed, suggestion
from morphable.errors import InputError
from morphable.models.families import MODELS, family, with_latent
from morphable.models.training import TrainConfig


@dataclass(frozen=True)
class Example:
    count: int = 1
    rate: float = 0.1
    name: str = "a"
    on: bool = False
    kind: Literal["x", "y"] = "x"
    sizes: tuple[int, ...] = (1, 2)
    limit: float | None = None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"count": "3"}, Example(count=3)),
        ({"count": 3.0}, Example(count=3)),
        ({"rate": "1e-3"}, Example(rate=1e-3)),
        ({"rate": 1}, Example(rate=1.0)),
        ({"on": "True"}, Example(on=True)),
        ({"kind": "y"}, Example(kind="y")),
        ({"sizes": "3,4,5"}, Example(sizes=(3, 4, 5))),
        ({"sizes": [7]}, Example(sizes=(7,))),
        ({"limit": "2"}, Example(limit=2.0)),
        ({"limit": "none"}, Example()),
        ({"count": "2", "name": "b"}, Example(count=2, name="b")),
    ],
)
def test_texts_and_toml_values_become_the_fields_type(
    given: dict[str, object], expected: Example
) -> None:
    result = changed(Example(), given, "model")
    assert result == expected
    assert type(result.count) is int and type(result.rate) is float


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"count": "1.5"}, "model.count: expected a whole number, got '1.5'"),
        ({"count": 1.5}, "model.count: expected a whole number, got 1.5"),
        ({"count": True}, "model.count"),
        ({"count": [1]}, "model.count"),
        ({"count": float("inf")}, "model.count"),
        ({"rate": "fast"}, "model.rate: expected a number, got 'fast'"),
        ({"rate": "nan"}, "model.rate"),
        ({"rate": "inf"}, "model.rate"),
        ({"name": 3}, "model.name: expected a text, got 3"),
        ({"on": "yes"}, "model.on: expected true or false, got 'yes'"),
        ({"kind": "z"}, "model.kind: expected one of x, y, got 'z'"),
        ({"kind": ["x"]}, "model.kind"),
        ({"sizes": 3}, "model.sizes: expected a list, got 3"),
        ({"sizes": "1,b"}, "model.sizes"),
        ({"cuont": "1"}, "model.cuont: there is no such setting; did you mean 'count'?"),
        ({"zzz": "1"}, "known are count, rate"),
    ],
)
def test_what_does_not_fit_is_named(given: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        changed(Example(), given, "model")
    assert words in str(caught.value)


def test_a_table_and_back() -> None:
    config = Example(count=4, sizes=(9, 8))
    table = as_table(config)
    assert table["sizes"] == [9, 8] and "limit" not in table
    assert changed(Example(), table, "model") == config


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_every_recipe_survives_its_table(name: str, recipe: str) -> None:
    row = MODELS[name].recipe(recipe)
    assert changed(row.model, as_table(row.model), "model") == row.model
    if row.train is not None:
        assert changed(TrainConfig(), as_table(row.train), "train") == row.train


def test_settings_are_sorted_into_tables() -> None:
    parsed = parse_settings(["train.epochs=3", "model.filters=wider", "train.seed=1=2"])
    assert parsed == {"train": {"epochs": "3", "seed": "1=2"}, "model": {"filters": "wider"}}


@pytest.mark.parametrize(
    "setting", ["epochs=3", "train.epochs", "data.path=x", "train.=3", ".epochs=1", ""]
)
def test_a_setting_that_is_not_one(setting: str) -> None:
    with pytest.raises(InputError, match=r"--set .*expected model\.KEY=VALUE or train\.KEY=VALUE"):
        parse_settings([setting])


def test_suggestions() -> None:
    assert suggestion("spiralnet+", MODELS) == "did you mean 'spiralnet++'?"
    assert "pca" in suggestion("qqqqq", MODELS)
    with pytest.raises(InputError, match="did you mean 'coma'"):
        family("comma")
    with pytest.raises(InputError, match="expected fast or paper"):
        family("coma").recipe("slow")


def test_the_code_length_is_a_total_or_named() -> None:
    config = MODELS["coma"].fast.model
    assert with_latent(config, "16").latent == 16
    assert with_latent(config, "shape=4").latent == 4


@pytest.mark.parametrize(
    "latent",
    ["0", "-1", "eight", "", "1.5", "shape=0", "shape=", "nose=4", "terms=3", "99999999999", "8,8"],
)
def test_code_lengths_that_are_none(latent: str) -> None:
    with pytest.raises(InputError, match="--latent"):
        with_latent(MODELS["coma"].fast.model, latent)


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0}, {"batch_size": -1}, {"decay_every": 0}, {"learning_rate": 0.0}, {"decay": -1.0}, {"warmup": 1.0},
        {"weight_decay": -0.1}, {"momentum": -1.0}, {"gradient_clip": -1.0}, {"seed": -1}, {"seed": 2**32},
        {"checkpoint_seconds": -1.0},
    ],
)  # fmt: skip
def test_training_settings_out_of_range(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"train.{next(iter(values))}: expected"):
        changed(TrainConfig(), values, "train")
