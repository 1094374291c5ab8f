"""Configurations change by name and type, and never by guessing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import pytest

from morphable.config import (
    Configuration,
    Count,
    CountOrZero,
    Positive,
    PositiveOrZero,
    SettingError,
    Share,
    as_table,
    suggestion,
    with_overrides,
)
from morphable.errors import InputError
from morphable.models.families import MODELS, family, with_latent
from morphable.models.ib_vae import IbVaeConfig
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
    result = with_overrides(Example(), given, "model")
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
        with_overrides(Example(), given, "model")
    assert words in str(caught.value)


def test_a_table_and_back() -> None:
    config = Example(count=4, sizes=(9, 8))
    table = as_table(config)
    assert table["sizes"] == [9, 8] and "limit" not in table
    assert with_overrides(Example(), table, "model") == config


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_every_recipe_survives_its_table(name: str, recipe: str) -> None:
    row = MODELS[name].recipe(recipe)
    assert with_overrides(row.model, as_table(row.model), "model") == row.model
    if row.train is not None:
        assert TrainConfig().with_overrides(row.train.as_table(), "train") == row.train


def test_suggestions() -> None:
    assert suggestion("spiralnet+", MODELS) == "did you mean 'spiralnet++'?"
    assert "pca" in suggestion("qqqqq", MODELS)
    with pytest.raises(InputError, match="did you mean 'coma'"):
        family("comma")
    with pytest.raises(InputError, match="expected fast or paper"):
        family("coma").recipe("slow")


def test_the_latent_size_is_a_total_or_named() -> None:
    config = MODELS["coma"].fast.model
    assert with_latent(config, 16).latent == 16
    assert with_latent(config, {"shape": 4}).latent == 4
    two = MODELS["ib-vae"].fast.model
    assert (with_latent(two, 9).identity, with_latent(two, 9).expression) == (5, 4)
    assert with_latent(two, {"expression": 7}) == replace(two, expression=7)


@pytest.mark.parametrize(
    "latent", [0, -1, 99_999_999_999, {"shape": 0}, {"nose": 4}, {"terms": 3}, {"latent": 4}]
)
def test_latent_sizes_that_cannot_be(latent: int | dict[str, int]) -> None:
    with pytest.raises(InputError, match="`latent`") as caught:
        with_latent(MODELS["coma"].fast.model, latent)
    assert caught.value.arguments == ("latent",)


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
        with_overrides(TrainConfig(), values, "train")


@dataclass(frozen=True)
class Ranges(Configuration):
    count: Count = 1
    zero: CountOrZero = 0
    positive: Positive = 1.0
    weight: PositiveOrZero = 0.0
    share: Share = 0.5


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"count": 0}, "count: expected 1 to 1,000,000, got 0"),
        ({"zero": -1}, "zero: expected 0 to 1,000,000, got -1"),
        ({"positive": 0.0}, "positive: expected a positive number, got 0.0"),
        ({"positive": float("nan")}, "positive: expected a positive number, got nan"),
        ({"weight": -0.1}, "weight: expected a number of at least 0, got -0.1"),
        ({"share": 1.1}, "share: expected a share from 0 to 1, got 1.1"),
        ({"share": -0.1}, "share: expected a share from 0 to 1, got -0.1"),
    ],
)
def test_a_value_out_of_range_is_refused_at_construction_and_named_by_its_source(
    values: dict[str, float], fault: str
) -> None:
    with pytest.raises(SettingError) as constructed:
        Ranges(**values)  # type: ignore[arg-type]
    assert str(constructed.value) == f"model.{fault}"

    if "nan" not in fault:  # `with_overrides` takes no nan at all
        with pytest.raises(InputError) as overridden:
            with_overrides(Ranges(), values, "recipe.toml: model")
        assert str(overridden.value) == f"recipe.toml: model.{fault}"


def test_the_ends_of_a_range_are_allowed() -> None:
    assert Ranges(1, 0, 1e-9, 0.0, 0.0).share == 0
    assert Ranges(share=1.0).share == 1


def test_ranges_are_inherited_and_read_as_plain_types() -> None:
    with pytest.raises(InputError, match=r"model\.identity: expected 1 to 1,000,000, got 0"):
        IbVaeConfig(identity=0)
    with pytest.raises(InputError, match=r"--set model\.hidden: expected at least 2 for"):
        with_overrides(IbVaeConfig(), {"start": "pca", "hidden": "1"}, "--set model")
    with pytest.raises(InputError, match=r"train\.seed: expected .* to 2\^32 - 1, got -1"):
        TrainConfig(seed=-1)
    with pytest.raises(InputError, match=r"train\.epochs: expected a whole number, got 'many'"):
        with_overrides(TrainConfig(), {"epochs": "many"}, "train")
