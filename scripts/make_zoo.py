"""Make the models that come with the package (src/morphable/models/zoo), of the CC0 hands only.

    python scripts/make_zoo.py            # all, in some ten minutes on one thread
    python scripts/make_zoo.py hands      # one of them

Matrices are stored in half precision. The error on each card is that of the stored model, on the
test people of the split by subjects.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import morphable
from morphable.models.stored import ZOO

MESHES = 4000


@dataclass(frozen=True)
class Recipe:
    """What a model of the zoo is: a family and its settings."""

    family: str
    latent: int | Mapping[str, int]
    model: Mapping[str, Any]
    train: Mapping[str, Any]


RECIPES: dict[str, Recipe] = {
    "hands": Recipe(
        "pca-mlp",
        16,
        {"rank": 48},
        {"epochs": 150, "learning_rate": 1e-3, "transport": 0.8},
    ),
    "hands-two-space": Recipe(
        "two-space",
        {"identity": 4, "expression": 8},
        {"rank": 48, "width": 128},
        {"epochs": 40},
    ),
    "hands-lamm": Recipe(
        "lamm",
        24,
        {"width": 16, "heads": 2, "start": "linear"},
        {"epochs": 6, "stages": ("autoencode", "manipulate")},
    ),
}


def make(name: str, data: morphable.SplitDataset, folder: Path) -> Path:
    """Train one model in a folder, and write it into the zoo with its error on its card."""
    recipe = RECIPES[name]
    model = morphable.train_model(
        recipe.family,
        data=data,
        folder=folder / name,
        latent=recipe.latent,
        model=recipe.model,
        train=recipe.train,
    )
    morphable.save(model, folder / f"{name}.zip", half=True)
    stored = morphable.load(folder / f"{name}.zip")
    result = morphable.evaluate_model(stored, data=data).measures
    rows = {"model": result["model"], **result["baselines"]}
    errors = {row: rows[row]["vertex_error_mm"]["mean"] for row in ("model", "pca", "mean_shape")}
    provenance = {key: value for key, value in stored.provenance.items() if key != "data"}
    provenance["command"] = f"python scripts/make_zoo.py {name}"
    provenance["measured"] = (
        f"{errors['model']:.3f} mm on {len(data.test):,} meshes of people that training never saw "
        f"(PCA of the same latent size {errors['pca']:.3f} mm, mean shape "
        f"{errors['mean_shape']:.2f} mm); one seed"
    )
    path = ZOO / f"{name}.zip"
    path.unlink(missing_ok=True)
    ZOO.mkdir(exist_ok=True)
    morphable.save(stored.with_origin(morphable.Origin(recipe.family, provenance)), path, half=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(RECIPES)}; default: all")
    names = parser.parse_args().names or list(RECIPES)
    if unknown := set(names) - RECIPES.keys():
        parser.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(RECIPES)}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = morphable.make_source("hands", count=MESHES)
        data = morphable.write_dataset(source, folder / "data").split("subject")
        for name in names:
            path = make(name, data, folder)
            print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    total = sum(path.stat().st_size for path in ZOO.glob("*.zip"))
    print(f"the zoo: {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
