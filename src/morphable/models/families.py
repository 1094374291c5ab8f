"""MODELS: the table of all families, by name. A row holds the family's class, its paper and its two
recipes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from morphable.config import Configuration, suggestion, with_overrides
from morphable.errors import InputError
from morphable.mesh.template import Template
from morphable.models.autoencoder import HierarchicalAutoencoder
from morphable.models.base import MorphableModel, Origin
from morphable.models.deepflame import DeepFlame
from morphable.models.gan import Gan
from morphable.models.geometry import Geometry
from morphable.models.ib_vae import IbVae
from morphable.models.lamm import Lamm
from morphable.models.linear_two_space import LinearTwoSpace
from morphable.models.local_weights import LocalWeights
from morphable.models.mae import MultilinearAutoencoder
from morphable.models.multilinear import Multilinear
from morphable.models.parts import MAX_LATENT
from morphable.models.pca import Pca
from morphable.models.pca_mlp import PcaMlp
from morphable.models.recipes import (
    AC_GAN,
    COMA,
    CVAE,
    DEEP3DMM,
    DEEP3DMM_SPIRAL,
    DEEPFLAME,
    GAN,
    GAN_FAST,
    GAN_FAST_TRAINING,
    IB_VAE,
    IB_VAE_FAST,
    IB_VAE_FAST_TRAINING,
    LAMM,
    LAMM_FAST,
    LAMM_FAST_TRAINING,
    LAMM_MIXER,
    LINEAR_TWO_SPACE,
    LOCAL_WEIGHTS,
    LOCAL_WEIGHTS_FAST,
    LOCAL_WEIGHTS_FAST_TRAINING,
    MAE,
    MAE_FAST_TRAINING,
    MESH_FAST,
    MESH_FAST_LINEAR,
    MESH_FAST_TRAINING,
    MULTILINEAR,
    PCA,
    PCA_MLP,
    REGION_PCA,
    ROTATION_MLP,
    SPIRALNET,
    SPIRALNET_PLUS,
    TWO_SPACE,
    Recipe,
)
from morphable.models.region_pca import RegionPca
from morphable.models.rotation_mlp import RotationMlp
from morphable.models.training import TrainConfig
from morphable.models.two_space import TwoSpace


@dataclass(frozen=True)
class Family:
    """A row of MODELS: a summary of one line, the paper, the class, and two recipes. `published`
    has the settings of the paper; `fast` has ours, and is the default.
    """

    summary: str
    paper: str
    model: type[MorphableModel]
    published: Recipe
    fast: Recipe

    @classmethod
    def of(
        cls,
        summary: str,
        paper: str,
        model: type[MorphableModel],
        published: Recipe,
        changes: Mapping[str, Any] | None = None,
        training: TrainConfig | None = None,
    ) -> Family:
        """A family whose fast recipe is the published one with some changes.

        changes: settings of the model that differ. training: the settings of the training, if they
        differ.
        """
        fast = published if training is None else Recipe(published.model, training)
        return cls(summary, paper, model, published, fast.with_model(**(changes or {})))

    def recipe(self, name: str) -> Recipe:
        """The recipe called `fast` or `paper`. Raises InputError for another name."""
        recipes = {"fast": self.fast, "paper": self.published}
        if name not in recipes:
            raise InputError(f"recipe {name!r}: expected fast or paper")
        return recipes[name]


MODELS: dict[str, Family] = {
    "pca": Family.of(
        "principal components, the linear model",
        "Blanz and Vetter, SIGGRAPH 1999",
        Pca,
        PCA,
    ),
    "region-pca": Family.of(
        "principal components of each region on its own",
        "the baseline of Tarasiou et al., CVPR 2024",
        RegionPca,
        REGION_PCA,
    ),
    "pca-mlp": Family.of(
        "MLP autoencoder on PCA coefficients, the cheap strong baseline",
        "ours",
        PcaMlp,
        PCA_MLP,
    ),
    "rotation-mlp": Family.of(
        "MLP autoencoder on components of local rotations, or of positions where those do better",
        "ours",
        RotationMlp,
        ROTATION_MLP,
    ),
    "multilinear": Family.of(
        "Tucker model of a complete grid of subjects by expressions",
        "Vlasic, Brand, Pfister and Popovic, SIGGRAPH 2005",
        Multilinear,
        MULTILINEAR,
    ),
    "linear-two-space": Family.of(
        "linear identity space plus linear expression space, as FLAME's",
        "Li, Bolkart, Black, Li and Romero, SIGGRAPH Asia 2017 (FLAME, without its joints)",
        LinearTwoSpace,
        LINEAR_TWO_SPACE,
    ),
    "two-space": Family.of(
        "identity and expression apart, on PCA coefficients: the linear model and what is not linear",
        "ours",
        TwoSpace,
        TWO_SPACE,
    ),
    "coma": Family.of(
        "CoMA: Chebyshev graph convolutions on a mesh hierarchy",
        "Ranjan, Bolkart, Sanyal and Black, ECCV 2018",
        HierarchicalAutoencoder,
        COMA,
        MESH_FAST_LINEAR,
        MESH_FAST_TRAINING,
    ),
    "spiralnet": Family.of(
        "SpiralNet (Neural3DMM): spiral convolutions from a reference point",
        "Bouritsas, Bokhnyak, Ploumpis, Bronstein and Zafeiriou, ICCV 2019",
        HierarchicalAutoencoder,
        SPIRALNET,
        MESH_FAST_LINEAR,
        MESH_FAST_TRAINING,
    ),
    "spiralnet++": Family.of(
        "SpiralNet++: spiral convolutions over whole rings",
        "Gong, Chen, Bronstein and Zafeiriou, ICCV Workshops 2019",
        HierarchicalAutoencoder,
        SPIRALNET_PLUS,
        MESH_FAST_LINEAR,
        MESH_FAST_TRAINING,
    ),
    "lamm": Family.of(
        "LAMM: a token for each region through a transformer; handles edit regions",
        "Tarasiou, Potamias, O'Sullivan, Ploumpis and Zafeiriou, CVPR 2024",
        Lamm,
        LAMM,
        LAMM_FAST,
        LAMM_FAST_TRAINING,
    ),
    "lamm-mixer": Family.of(
        "LAMM with an MLP-mixer in place of the transformer",
        "Tarasiou, Potamias, O'Sullivan, Ploumpis and Zafeiriou, CVPR 2024",
        Lamm,
        LAMM_MIXER,
        LAMM_FAST,
        LAMM_FAST_TRAINING,
    ),
    "deep3dmm": Family.of(
        "Deep3DMM: CoMA with learned maps between the levels",
        "Chen and Kim, CVPR 2021",
        HierarchicalAutoencoder,
        DEEP3DMM,
        MESH_FAST_LINEAR,
        MESH_FAST_TRAINING,
    ),
    "local-weights": Family.of(
        "locally weighted autoencoder: parts found in the data, each with a code of its own",
        "Kim and Kim, arXiv 2107.08737, 2021",
        LocalWeights,
        LOCAL_WEIGHTS,
        LOCAL_WEIGHTS_FAST,
        LOCAL_WEIGHTS_FAST_TRAINING,
    ),
    "ib-vae": Family.of(
        "information-bottlenecked VAE: identity and expression apart",
        "Sun, Pears and Gu, WACV 2022",
        IbVae,
        IB_VAE,
        IB_VAE_FAST,
        IB_VAE_FAST_TRAINING,
    ),
    "cvae": Family.of(
        "conditional IB-VAE: named expressions at any level on any identity",
        "Sun, Pears and Gu, WACV 2022",
        IbVae,
        CVAE,
        IB_VAE_FAST,
        IB_VAE_FAST_TRAINING,
    ),
    "deep3dmm-spiral": Family.of(
        "Deep3DMM on SpiralNet: spiral convolutions with learned maps between the levels",
        "Chen and Kim, CVPR 2021",
        HierarchicalAutoencoder,
        DEEP3DMM_SPIRAL,
        MESH_FAST_LINEAR,
        MESH_FAST_TRAINING,
    ),
    "gan": Family.of(
        "adversarial model on geometry images: identity, expression and noise",
        "Abrevaya, Boukhayma, Wuhrer and Boyer, arXiv 2019",
        Gan,
        GAN,
        GAN_FAST,
        GAN_FAST_TRAINING,
    ),
    "ac-gan": Family.of(
        "AC-GAN on geometry images: the critic classifies what is generated, too",
        "Odena, Olah and Shlens, ICML 2017; the baseline of Abrevaya et al., arXiv 2019",
        Gan,
        GAN.with_model(**AC_GAN),
        {**GAN_FAST, **AC_GAN},
        GAN_FAST_TRAINING,
    ),
    "mae": Family.of(
        "multilinear autoencoder: an encoder for a Tucker model, both trained",
        "Abrevaya, Wuhrer and Boyer, WACV 2018",
        MultilinearAutoencoder,
        MAE,
        {},
        MAE_FAST_TRAINING,
    ),
    "deepflame": Family.of(
        "linear identity space plus a CoMA autoencoder of expression offsets",
        "Ranjan, Bolkart, Sanyal and Black, ECCV 2018",
        DeepFlame,
        DEEPFLAME,
        MESH_FAST,
        MESH_FAST_TRAINING,
    ),
}


def create(
    name: str,
    template: Template,
    config: Any = None,
    geometry: Geometry | None = None,
    *,
    recipe: str = "fast",
    **overrides: Any,
) -> MorphableModel:
    """Build an untrained model of the family `name`: `create("coma", template, latent=8)`.

    config: the configuration; if None, that of `recipe`, which is `fast` or `paper`. geometry: if
    None, it is computed from the template. overrides: settings of the configuration by name. For
    every family, `latent` sets the total latent size, which is divided among its parts.

    Raises InputError if the family, the recipe or a setting does not exist.
    """
    row = family(name)
    config = row.recipe(recipe).model if config is None else config
    if "latent" in overrides:
        config = with_latent(config, overrides.pop("latent"))
    config = with_overrides(config, overrides, name)
    if geometry is None:
        geometry = row.model.geometry_type.of(template, config)
    return build(template, config, geometry, Origin(name))


MAX_PARAMETERS = 500_000_000
"""Twice what the largest model of the papers' tables has at 70,000 vertices, and more."""


def build(template: Template, config: Any, geometry: Geometry, origin: Origin) -> MorphableModel:
    """Build an untrained model of the family that `origin` names, with a geometry already computed.

    Raises InputError if the settings make a model that memory cannot hold.
    """
    kind: Callable[..., MorphableModel] = family(origin.family).model
    try:
        with _limited_parameters():
            return kind(template, config, geometry, origin)
    except (MemoryError, RuntimeError) as error:
        # torch has no class of its own for this: its message speaks of the allocation.
        if isinstance(error, RuntimeError) and "alloc" not in str(error):
            raise
        raise InputError(
            f"{origin.family}: the settings make a model that does not fit into memory; make its "
            "sizes smaller"
        ) from error


@contextlib.contextmanager
def _limited_parameters() -> Iterator[None]:
    """Raise InputError in the block as soon as the parameters that it makes exceed MAX_PARAMETERS.

    A system may promise more memory than it has, and end the process when that is filled. So this
    does not wait for an allocation that fails.
    """
    total = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        # Called when a layer registers a parameter, before it fills the memory with numbers.
        total += 0 if parameter is None else parameter.numel()
        if total > MAX_PARAMETERS:
            raise InputError(
                f"the settings make a model of more than {MAX_PARAMETERS:,} trainable parameters; "
                "make its sizes smaller"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


ADDED: dict[str, str] = {}
"""The families in MODELS that users have added, each with the source it came from."""


def add_family(name: str, row: Family, source: str = "") -> None:
    """Add your own family to MODELS, for this process.

    source: where the family is defined, for error messages. Raises InputError if another family has
    this name.
    """
    # Adding the same family twice is harmless: a notebook cell may run again.
    again = name in ADDED and MODELS[name] is row
    if name in MODELS and not again:
        raise InputError(f"family {name!r}: this name is already in use; choose another")
    MODELS[name] = row
    ADDED[name] = source


def families_with(part: str) -> list[str]:
    """The families whose code has a free part of this name, by their default recipe."""
    return [
        name
        for name, row in MODELS.items()
        if not row.model.parts_from_data and part in _part_names(row.fast.model)
    ]


def _part_names(config: Any) -> list[str]:
    """The parts that a latent size is divided among. A family with one calls it `shape`."""
    return list(getattr(config, "proportions", {})) or ["shape"]


def family(name: str) -> Family:
    """The row of MODELS. Raises InputError, suggesting a similar name, if there is none."""
    if name not in MODELS:
        raise InputError(f"family {name!r}: there is no such family; {suggestion(name, MODELS)}")
    return MODELS[name]


def with_latent(config: Any, latent: int | Mapping[str, int]) -> Any:
    """Return `config` with another latent size.

    latent: a number is the total over all free parts, which is divided by the configuration's
    `proportions`. A mapping gives the size of each part by name.

    Raises InputError if a size is below 1 or above MAX_LATENT, or if a part does not exist.
    """
    proportions: Mapping[str, int] = getattr(config, "proportions", {})
    parts = _part_names(config)
    if isinstance(latent, int):
        _check_size(str(latent), latent)
        sizes = split_total(latent, proportions) if proportions else {"shape": latent}
    else:
        sizes = dict(latent)
    for name, size in sizes.items():
        if name not in parts:
            raise InputError(
                f"`latent` {name}={size}: expected a total or sizes of the parts "
                f"{', '.join(parts)}, got {name!r}",
                "latent",
            )
        _check_size(f"{name}={size}", size)
    # A model with one part, `shape`, calls its size `latent`.
    if "latent" in {field.name for field in dataclasses.fields(config)} and "shape" in sizes:
        sizes = {"latent": sizes["shape"]}
    if isinstance(config, Configuration):
        return config.with_sizes(sizes)
    return dataclasses.replace(config, **sizes)


def _check_size(text: str, size: int) -> None:
    if not 1 <= size <= MAX_LATENT:
        expected = f"a whole number of at least 1, at most {MAX_LATENT:,}"
        raise InputError(f"`latent` {text}: expected {expected}", "latent")


def split_total(total: int, proportions: Mapping[str, int]) -> dict[str, int]:
    """Divide a latent size among parts in proportion. The first parts get the rest that rounding
    leaves.

    Raises InputError if there is less than one dimension per part.

    >>> split_total(9, {"identity": 1, "expression": 1})
    {'identity': 5, 'expression': 4}
    """
    if total < len(proportions):
        raise InputError(
            f"`latent` {total}: expected at least {len(proportions)}, "
            f"one for each of the parts {', '.join(proportions)}",
            "latent",
        )
    weight = sum(proportions.values())
    sizes = {name: max(1, total * share // weight) for name, share in proportions.items()}
    for name in [*proportions] * len(proportions):
        if sum(sizes.values()) < total:
            sizes[name] += 1
        elif sum(sizes.values()) > total and sizes[name] > 1:
            sizes[name] -= 1
    return sizes
