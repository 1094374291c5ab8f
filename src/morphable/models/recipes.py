"""Recipes: the published models with the settings of their papers, and a `fast` variant of each.

    from morphable.models.recipes import COMA, DEEP3DMM    # COMA.model, COMA.train

Each `fast` recipe is the published one with a few settings changed, which the tables `*_FAST` below
list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from morphable.models.autoencoder import AutoencoderConfig
from morphable.models.deepflame import DeepFlameConfig
from morphable.models.gan import GanConfig
from morphable.models.ib_vae import IbVaeConfig
from morphable.models.lamm import MANIPULATE, LammConfig
from morphable.models.linear_two_space import TwoSpaceConfig
from morphable.models.local_weights import LocalWeightsConfig
from morphable.models.mae import MaeConfig
from morphable.models.multilinear import MultilinearConfig
from morphable.models.pca import PcaConfig
from morphable.models.pca_mlp import PcaMlpConfig
from morphable.models.region_pca import RegionPcaConfig
from morphable.models.rotation_mlp import RotationMlpConfig
from morphable.models.training import TrainConfig
from morphable.models.two_space import TwoSpaceNetworkConfig


@dataclass(frozen=True)
class Recipe:
    """A model configuration, and how to optimize it. `train` is None if the model is estimated, not
    trained.
    """

    model: Any
    train: TrainConfig | None = None

    def with_model(self, **settings: Any) -> Recipe:
        """Return the recipe with some settings of the model changed."""
        return replace(self, model=replace(self.model, **settings))

    def with_training(self, **settings: Any) -> Recipe:
        """Return the recipe with some settings of the training changed."""
        assert self.train is not None
        return replace(self, train=replace(self.train, **settings))


# Linear models, whose only setting is their latent size.

PCA = Recipe(PcaConfig())
REGION_PCA = Recipe(RegionPcaConfig())
MULTILINEAR = Recipe(MultilinearConfig())
LINEAR_TWO_SPACE = Recipe(TwoSpaceConfig())

PCA_MLP = Recipe(
    PcaMlpConfig(), TrainConfig(epochs=150, batch_size=64, optimizer="adamw", learning_rate=2e-3)
)

ROTATION_MLP = Recipe(
    RotationMlpConfig(),
    TrainConfig(epochs=150, batch_size=64, optimizer="adamw", learning_rate=1e-3),
)

# The gates are chosen after training, so it keeps the last epoch.

TWO_SPACE = Recipe(
    TwoSpaceNetworkConfig(),
    TrainConfig(epochs=20, batch_size=64, optimizer="adamw", learning_rate=2e-3, keep="last"),
)

# Autoencoders on a mesh hierarchy. The SpiralNets train as CoMA does, but with another optimizer.

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
COMA = Recipe(AutoencoderConfig(), COMA_TRAINING)
SPIRALNET = COMA.with_model(
    convolution="spiral",
    filters="wider",
    activation="elu",
    bottleneck_activation=False,
    final_bias=True,
    initialization="default",
).with_training(optimizer="adam", learning_rate=1e-3, weight_decay=5e-5)
SPIRALNET_PLUS = COMA.with_model(
    convolution="spiral++",
    filters="spiralnet++",
    activation="elu",
    bottleneck_activation=False,
    final_bias=True,
    initialization="xavier",
).with_training(optimizer="adam", learning_rate=1e-3, weight_decay=0.0, batch_size=32, seed=1)
DEEP3DMM = COMA.with_model(aggregation="attention")
DEEP3DMM_SPIRAL = SPIRALNET.with_model(aggregation="attention")

MESH_FAST: Mapping[str, Any] = {
    "activation": "elu",
    "bottleneck_activation": False,
    "final_bias": True,
    "initialization": "xavier",
    "normalization": "global",
    "loss": "distance",
}
"""All coordinates have one scale, the objective is the error in mm, the activation is smooth, and
the code is linear.
"""
MESH_FAST_LINEAR: Mapping[str, Any] = {**MESH_FAST, "start": "linear"}
"""In addition, training starts as PCA."""
MESH_FAST_TRAINING = TrainConfig(epochs=30, batch_size=16, optimizer="adam", learning_rate=3e-3)

# The locally weighted autoencoder trains as CoMA does.

LOCAL_WEIGHTS = Recipe(LocalWeightsConfig(), COMA.train).with_training(batch_size=32)

LOCAL_WEIGHTS_FAST: Mapping[str, Any] = {**MESH_FAST, "cycle_weight": 0.1, "cycle_share": 0.25}
"""In addition, the cycle has a tenth of the weight, because with all of it the reconstruction needs
many more steps, and mixes a quarter of each batch, because it costs more than all else.
"""
LOCAL_WEIGHTS_FAST_TRAINING = replace(MESH_FAST_TRAINING, epochs=10)

# LAMM.

LAMM = Recipe(
    LammConfig(),
    TrainConfig(
        epochs=1500,
        batch_size=32,
        optimizer="adamw",
        learning_rate=1e-4,
        warmup=1 / 1500,
        seed=42,
        stage_settings={MANIPULATE: {"batch_size": 16, "learning_rate": 1e-4, "warmup": 10 / 1500}},
    ),
)
LAMM_MIXER = LAMM.with_model(backbone="mixer").with_training(learning_rate=1e-3)

LAMM_FAST: Mapping[str, Any] = {
    "width": 256,
    "heads": 4,
    "encoder_depth": 2,
    "decoder_depth": 2,
    "normalization": "global",
    "start": "linear",
}
"""The network is half as wide and about half as deep, all coordinates have one scale, and training
starts as PCA.
"""
LAMM_FAST_TRAINING = TrainConfig(epochs=60, batch_size=16, optimizer="adamw", learning_rate=3e-4)

# The information-bottlenecked VAE and its conditional form. As published they keep the last epoch,
# because validation measures the reconstruction alone. Ours starts as the linear model of two spaces,
# so it keeps the best: nothing that is worse than its start.

IB_VAE = Recipe(
    IbVaeConfig(),
    TrainConfig(
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
    ),
)
CVAE = IB_VAE.with_model(expressions=())

IB_VAE_FAST: Mapping[str, Any] = {
    "encoder": "components",
    "samples": (64, 32),
    "neighbors": 16,
    "sampling": "template",
    "scan_share": 0.25,
    "initial_deviation": 0.14,
    "start": "pca",
    "kl_weight": 30.0,
    "identity_gradient": 0.02,
}
"""Differences from the paper:

- Sampling does a sixteenth of the published work.
- Registered meshes share the template's sampling, so they must keep its vertex order. A quarter of
  each batch is encoded as unordered points.
- The decoders start linear, along the principal components.
- The weight of the KL divergence is 30 times larger, because nothing else keeps identity out of the
  expression code.
- The shared encoder receives 2 % of the identity loss's gradient. With all of it, the encoder
  learns expressions only after many thousands of steps.
"""
IB_VAE_FAST_TRAINING = TrainConfig(epochs=100, batch_size=16, learning_rate=1e-3)

# The adversarial model on geometry images. AC-GAN is its baseline.

GAN = Recipe(
    GanConfig(),
    TrainConfig(
        epochs=200,
        batch_size=64,
        learning_rate=2e-4,
        betas=(0.5, 0.999),
        schedule="constant",
        warmup=0,
    ),
)
AC_GAN: Mapping[str, Any] = {
    "alternate": False,
    "classify_fakes": True,
    "feature_weight": 0.0,
    "variation_weight": 0.0,
}
"""The critic classifies generated images, too, and the generator sees codes of classes only."""

# Two other baselines of the adversarial model.

MAE = Recipe(
    MaeConfig(),
    TrainConfig(epochs=200, batch_size=64, learning_rate=1e-3, schedule="cosine"),
)
MAE_FAST_TRAINING = TrainConfig(epochs=60, batch_size=64, learning_rate=1e-3)

DEEPFLAME = Recipe(DeepFlameConfig(), replace(COMA_TRAINING, epochs=150))

GAN_FAST: Mapping[str, Any] = {
    "adversary": "logistic",
    "penalty": "real",
    "penalty_weight": 1.0,
    "penalty_every": 8,
    "critic_steps": 1,
    "critic_class_weight": 0.5,
    "variation_weight": 2e-5,
    "generator": "bilinear",
    "initial_deviation": 0.0,
    "scale": "deviation",
    "average": 0.999,
    "linear": True,
}
"""Differences from the paper:

- The adversarial loss is logistic with a penalty on real images only, computed every eighth step,
  the critic takes one step per generator step, and batches are half as large: a round costs a
  seventh.
- The generator is small and upsamples bilinearly, so no grid shows on the skin.
- Values are in standard deviations and not bounded by a tanh.
- The running average of the generator is kept.
- Identity and expression have a linear part, and the codes of classes lie where that part makes
  their means. Random codes, as published, would ask the network to undo the linear part.
"""
GAN_FAST_TRAINING = TrainConfig(
    epochs=20,
    batch_size=32,
    learning_rate=2e-3,
    betas=(0.0, 0.99),
    schedule="constant",
    warmup=0,
)
