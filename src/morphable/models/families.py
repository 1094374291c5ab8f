"""MODELS: every family by name, with its class and its two recipes. A published model is one row of
this table.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from morphable.config import suggestion, with_overrides
from morphable.errors import InputError
from morphable.models.autoencoder import AutoencoderConfig, HierarchicalAutoencoder
from morphable.models.base import MorphableModel
from morphable.models.cvae import Cvae, CvaeConfig
from morphable.models.ib_vae import IbVae, IbVaeConfig
from morphable.models.lamm import Lamm, LammConfig
from morphable.models.linear_two_space import LinearTwoSpace, TwoSpaceConfig
from morphable.models.multilinear import Multilinear, MultilinearConfig
from morphable.models.pca import Pca, PcaConfig
from morphable.models.pca_mlp import PcaMlp, PcaMlpConfig
from morphable.models.region_pca import RegionPca, RegionPcaConfig
from morphable.models.training import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """A model configuration and how to optimize it; None where a model is estimated, not trained."""

    model: Any
    train: TrainConfig | None = None


@dataclass(frozen=True)
class Family:
    """A row of MODELS: what it is in a line, its class, and its recipes: `fast` (ours, the default)
    and `paper`.
    """

    summary: str
    model: type[MorphableModel]
    fast: Recipe
    paper: Recipe

    def recipe(self, name: str) -> Recipe:
        recipes = {"fast": self.fast, "paper": self.paper}
        if name not in recipes:
            raise InputError(f"recipe {name!r}: expected fast or paper")
        return recipes[name]


COMA = AutoencoderConfig()
SPIRALNET = AutoencoderConfig(
    convolution="spiral",
    filters="wider",
    activation="elu",
    bottleneck_activation=False,
    final_bias=True,
    initialization="default",
)
SPIRALNET_PLUS = AutoencoderConfig(
    convolution="spiral++",
    filters="spiralnet++",
    activation="elu",
    bottleneck_activation=False,
    final_bias=True,
    initialization="xavier",
)

DEEP3DMM = dataclasses.replace(COMA, aggregation="attention")
DEEP3DMM_SPIRAL = dataclasses.replace(SPIRALNET, aggregation="attention")

COMA_TRAINING = TrainConfig(
    epochs=300,
    batch_size=16,
    optimizer="sgd",
    learning_rate=8e-3,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="exponential",
    decay=0.99,
    warmup=0,
    seed=2,
)
SPIRALNET_TRAINING = dataclasses.replace(
    COMA_TRAINING, optimizer="adam", learning_rate=1e-3, weight_decay=5e-5
)
SPIRALNET_PLUS_TRAINING = dataclasses.replace(
    COMA_TRAINING, optimizer="adam", learning_rate=1e-3, weight_decay=0.0, batch_size=32, seed=1
)


def _fast(model: AutoencoderConfig) -> AutoencoderConfig:
    """Ours: one scale for all coordinates, the error in mm as the objective, a smooth activation
    and a linear code.
    """
    return dataclasses.replace(
        model,
        activation="elu",
        bottleneck_activation=False,
        final_bias=True,
        initialization="xavier",
        normalization="global",
        loss="distance",
    )


FAST_TRAINING = TrainConfig(epochs=30, batch_size=16, optimizer="adam", learning_rate=3e-3)

IB_VAE_TRAINING = TrainConfig(
    epochs=300,
    batch_size=32,
    optimizer="adam",
    learning_rate=5e-5,
    weight_decay=1e-4,
    schedule="exponential",
    decay=0.7,
    decay_every=50,
    warmup=0,
    keep="last",
)
IB_VAE_FAST: dict[str, Any] = {
    "samples": (64, 32),
    "neighbors": 16,
    "scan_share": 0.25,
    "initial_deviation": 0.14,
    "start": "pca",
    "kl_weight": 30.0,
    "identity_gradient": 0.02,
}
"""Ours: a sixteenth of the published sampling's work, a share of each batch seen as unordered
points, decoders that start linear along the principal components, thirty times the weight on the
divergence, since nothing else keeps the expression code from saying who it is, and an encoder that
hears a fiftieth of the identity's gradient, without which it learns expressions only after many
thousands of steps.
"""
IB_VAE_FAST_TRAINING = TrainConfig(epochs=60, batch_size=16, learning_rate=1e-3, keep="last")

LAMM = LammConfig()
LAMM_MIXER = LammConfig(backbone="mixer")
LAMM_TRAINING = TrainConfig(
    epochs=1500, batch_size=32, optimizer="adamw", learning_rate=1e-4, warmup=1 / 1500, seed=42
)
LAMM_FAST: dict[str, Any] = {
    "width": 256,
    "heads": 4,
    "encoder_depth": 2,
    "decoder_depth": 2,
    "normalization": "global",
    "start": "pca",
}
"""Ours: half as wide and half as deep, one scale for all coordinates, starting at each region's
components.
"""
LAMM_FAST_TRAINING = TrainConfig(epochs=60, batch_size=16, optimizer="adamw", learning_rate=3e-4)

_PCA = Recipe(PcaConfig())
_REGION_PCA = Recipe(RegionPcaConfig())
_PCA_MLP = Recipe(
    PcaMlpConfig(), TrainConfig(epochs=150, batch_size=64, optimizer="adamw", learning_rate=2e-3)
)

MODELS: dict[str, Family] = {
    "pca": Family("principal components, the linear model", Pca, _PCA, _PCA),
    "region-pca": Family(
        "principal components of each region on its own", RegionPca, _REGION_PCA, _REGION_PCA
    ),
    "pca-mlp": Family(
        "MLP autoencoder on PCA coefficients, the cheap strong baseline", PcaMlp, _PCA_MLP, _PCA_MLP
    ),
    "multilinear": Family(
        "Tucker model of a complete grid of subjects by expressions",
        Multilinear,
        Recipe(MultilinearConfig()),
        Recipe(MultilinearConfig()),
    ),
    "linear-two-space": Family(
        "linear identity space plus linear expression space, as FLAME's",
        LinearTwoSpace,
        Recipe(TwoSpaceConfig()),
        Recipe(TwoSpaceConfig()),
    ),
    "coma": Family(
        "CoMA: Chebyshev graph convolutions on a mesh hierarchy",
        HierarchicalAutoencoder,
        Recipe(_fast(COMA), FAST_TRAINING),
        Recipe(COMA, COMA_TRAINING),
    ),
    "spiralnet": Family(
        "SpiralNet (Neural3DMM): spiral convolutions from a reference point",
        HierarchicalAutoencoder,
        Recipe(_fast(SPIRALNET), FAST_TRAINING),
        Recipe(SPIRALNET, SPIRALNET_TRAINING),
    ),
    "spiralnet++": Family(
        "SpiralNet++: spiral convolutions over whole rings",
        HierarchicalAutoencoder,
        Recipe(_fast(SPIRALNET_PLUS), FAST_TRAINING),
        Recipe(SPIRALNET_PLUS, SPIRALNET_PLUS_TRAINING),
    ),
    "lamm": Family(
        "LAMM: a token for each region through a transformer; handles edit regions",
        Lamm,
        Recipe(dataclasses.replace(LAMM, **LAMM_FAST), LAMM_FAST_TRAINING),
        Recipe(LAMM, LAMM_TRAINING),
    ),
    "lamm-mixer": Family(
        "LAMM with an MLP-mixer in place of the transformer",
        Lamm,
        Recipe(dataclasses.replace(LAMM_MIXER, **LAMM_FAST), LAMM_FAST_TRAINING),
        Recipe(LAMM_MIXER, dataclasses.replace(LAMM_TRAINING, learning_rate=1e-3)),
    ),
    "deep3dmm": Family(
        "Deep3DMM: CoMA with learned maps between the levels",
        HierarchicalAutoencoder,
        Recipe(_fast(DEEP3DMM), FAST_TRAINING),
        Recipe(DEEP3DMM, COMA_TRAINING),
    ),
    "ib-vae": Family(
        "information-bottlenecked VAE: identity and expression apart, from points in any order",
        IbVae,
        Recipe(IbVaeConfig(**IB_VAE_FAST), IB_VAE_FAST_TRAINING),
        Recipe(IbVaeConfig(), IB_VAE_TRAINING),
    ),
    "cvae": Family(
        "conditional IB-VAE: named expressions at any level on any identity",
        Cvae,
        Recipe(CvaeConfig(**IB_VAE_FAST), IB_VAE_FAST_TRAINING),
        Recipe(CvaeConfig(), IB_VAE_TRAINING),
    ),
    "deep3dmm-spiral": Family(
        "Deep3DMM on SpiralNet: spiral convolutions with learned maps between the levels",
        HierarchicalAutoencoder,
        Recipe(_fast(DEEP3DMM_SPIRAL), FAST_TRAINING),
        Recipe(DEEP3DMM_SPIRAL, SPIRALNET_TRAINING),
    ),
}


ADDED: dict[str, str] = {}
"""The families of MODELS that are not the package's own, each with where it came from."""


def add_family(name: str, row: Family, source: str = "") -> None:
    """Add a family of your own to MODELS for this process.

    source: where it is defined, for messages. Raises InputError if another family has this name.
    """
    again = name in ADDED and MODELS[name] is row
    if name in MODELS and not again:
        raise InputError(f"family {name!r}: there is one of this name already; choose another")
    MODELS[name] = row
    ADDED[name] = source


def family(name: str) -> Family:
    if name not in MODELS:
        raise InputError(f"family {name!r}: there is no such family; {suggestion(name, MODELS)}")
    return MODELS[name]


MAX_LATENT = 10_000
"""A code's prior holds the square of its length; a longer code is a slip of the hand."""


def with_latent(config: Any, latent: str) -> Any:
    """`config` with its code length: "8" is the total of the free parts, "identity=4,expression=4"
    sets each.

    A configuration of several free parts says in `proportions` how they share a total.

    Raises InputError where a size is not a whole number of at least 1 or a part is unknown.
    """
    sizes: Mapping[str, str]
    if "=" in latent:
        pairs = [item.partition("=") for item in latent.split(",")]
        sizes = {name.strip(): size for name, _, size in pairs}
    else:
        sizes = {"latent": latent}
    total = sizes.get("latent", "")
    proportions: Mapping[str, int] = getattr(config, "proportions", {})
    if proportions and total.strip().isdigit():
        sizes = divided(int(total), proportions)
    parts = list(proportions) or ["shape"]
    for name, size in sizes.items():
        if name not in ("latent", *parts):
            known = ", ".join(parts)
            raise InputError(
                f"--latent {latent}: expected a total or sizes of the parts {known}, got {name!r}"
            )
        if not re.fullmatch(r"\s*\d+\s*", size) or not 1 <= int(size) <= MAX_LATENT:
            expected = f"a whole number of at least 1, at most {MAX_LATENT:,}"
            raise InputError(f"--latent {latent}: expected {expected}, got {size!r}")
        if name == "shape" and "latent" in {field.name for field in dataclasses.fields(config)}:
            sizes = {"latent": size}
    return with_overrides(config, sizes, "--latent")


def divided(total: int, proportions: Mapping[str, int]) -> dict[str, str]:
    """A total of numbers shared out in proportion, as texts; what rounding leaves over goes to the
    first parts.

    >>> divided(9, {"identity": 1, "expression": 1})
    {'identity': '5', 'expression': '4'}
    """
    if total < len(proportions):
        raise InputError(
            f"--latent {total}: expected at least {len(proportions)}, one for each of {list(proportions)}"
        )
    weight = sum(proportions.values())
    sizes = {name: max(1, total * share // weight) for name, share in proportions.items()}
    for name in [*proportions] * len(proportions):
        if sum(sizes.values()) < total:
            sizes[name] += 1
        elif sum(sizes.values()) > total and sizes[name] > 1:
            sizes[name] -= 1
    return {name: str(size) for name, size in sizes.items()}
