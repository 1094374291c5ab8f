"""Generator and critic of images: the published DC-GAN forms, and a smooth one for the CPU.

- `transposed`: transposed convolutions (Radford et al., ICLR 2016).
- `upsampled`: nearest upsampling and convolutions (the DC-GAN of the PyTorch-GAN collection).
- `bilinear`: bilinear upsampling, so that no grid shows on the surface, and group normalization,
  which has no statistics of the batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from morphable.config import Configuration, Count, PositiveOrZero, Share
from morphable.ops.gather import wants_plain

SLOPE = 0.2
"""Of the leaky rectifiers."""
HALVINGS = 4
"""Every network halves or doubles the image this often."""
MAX_RESOLUTION = 512
CRITICS: dict[str, tuple[int, tuple[int, ...]]] = {
    "narrow": (3, (16, 32, 64, 128)),
    "wide": (4, (64, 128, 256, 512)),
}
"""Size of the kernels, and channels of the four convolutions of a critic. The first two
convolutions are shared."""
SHARED = 2


@dataclass(frozen=True)
class ImageNetworkConfig(Configuration):
    """The defaults are those of the paper, as far as it states them.

    resolution: R, the side of the image. generator: its form, see above. critic: `narrow` has 3 x 3
    kernels and 16 to 128 channels, `wide` has 4 x 4 kernels and 64 to 512. normalization, dropout:
    of the critic. initial_deviation: standard deviation of the first weights of all convolutions;
    0: PyTorch's own choice. width: multiplies the channels of the generator `bilinear`.
    """

    resolution: Count = 64
    generator: Literal["transposed", "upsampled", "bilinear"] = "transposed"
    critic: Literal["narrow", "wide"] = "narrow"
    normalization: Literal["none", "batch"] = "none"
    dropout: Share = 0.0
    initial_deviation: PositiveOrZero = 0.02
    width: Count = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        step = 2**HALVINGS
        if self.resolution % step or self.resolution > MAX_RESOLUTION:
            raise self.error(
                "resolution",
                f"expected a multiple of {step} up to {MAX_RESOLUTION}, got {self.resolution}",
            )
        if self.width > 1 and self.generator != "bilinear":
            raise self.error("width", f"the generator {self.generator!r} has one width only")


class Generator(nn.Module):
    """Codes (B, L) to images (B, 3, R, R).

    bounded: whether values end in a tanh, which keeps them within -1 to 1.
    """

    def __init__(self, latent: int, config: ImageNetworkConfig, bounded: bool) -> None:
        super().__init__()
        side = config.resolution >> HALVINGS
        layers: Sequence[nn.Module]
        match config.generator:
            case "transposed":
                layers = _transposed(latent, side)
            case "upsampled":
                layers = _upsampled(latent, 4 * side)
            case _:
                layers = _bilinear(latent, side, config.width)
        self.layers = nn.Sequential(*layers, *([nn.Tanh()] if bounded else []))
        _initialize(self, config.initial_deviation)

    def forward(self, code: Tensor) -> Tensor:
        image: Tensor = self.layers(code)
        return image

    @torch.no_grad()
    def start_small(self, factor: float) -> None:
        """Multiply the weights and biases of the last convolution."""
        last = [layer for layer in self.layers if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
        for parameter in last[-1].parameters():
            parameter.mul_(factor)


def _transposed(latent: int, side: int) -> list[nn.Module]:
    channels = (512, 256, 128, 64)
    layers: list[nn.Module] = [
        nn.Unflatten(1, (latent, 1, 1)),
        nn.ConvTranspose2d(latent, channels[0], side, bias=False),
    ]
    for before, after in zip(channels, (*channels[1:], 3), strict=True):
        layers += [nn.BatchNorm2d(before), nn.ReLU()]
        layers.append(nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False))
    return layers


def _upsampled(latent: int, side: int) -> list[nn.Module]:
    return [
        nn.Linear(latent, 128 * side * side),
        nn.Unflatten(1, (128, side, side)),
        nn.BatchNorm2d(128),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(128, 128, 3, padding=1),
        nn.BatchNorm2d(128, 0.8),
        nn.LeakyReLU(SLOPE),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(128, 64, 3, padding=1),
        nn.BatchNorm2d(64, 0.8),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(64, 3, 3, padding=1),
    ]


class GroupNorm(nn.GroupNorm):
    """Torch's, whose forward-mode gradients fail for images that are stored channels last."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.contiguous() if wants_plain(x) else x)


def _bilinear(latent: int, side: int, width: int) -> list[nn.Module]:
    channels = [width * base for base in (128, 64, 32, 16, 16)]
    layers: list[nn.Module] = [
        nn.Linear(latent, channels[0] * side * side),
        nn.Unflatten(1, (channels[0], side, side)),
    ]
    for before, after in itertools.pairwise(channels):
        layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        layers.append(nn.Conv2d(before, after, 3, padding=1))
        layers += [GroupNorm(4, after), nn.LeakyReLU(SLOPE)]
    return [*layers, nn.Conv2d(channels[-1], 3, 3, padding=1)]


class Branch(nn.Module):
    """The last two convolutions of the critic for one question, and a linear layer that answers it.

    feature_size: length of the features, 2048 for `narrow` at 64 x 64.
    """

    def __init__(self, outputs: int, config: ImageNetworkConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_convolutions(config, SHARED, HALVINGS), nn.Flatten())
        side = config.resolution >> HALVINGS
        self.feature_size = CRITICS[config.critic][1][-1] * side * side
        self.head = nn.Linear(self.feature_size, outputs)

    def forward(self, shared: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the trunk to the branch's own features (B, F) and its answers (B, n)."""
        features: Tensor = self.layers(shared)
        return features, self.head(features)


class Critic(nn.Module):
    """Images (B, 3, R, R) to a score of how real each looks, and to scores of its classes: a shared
    trunk of two convolutions, one branch for the realness and one for each factor.

    classes: by factor, the number of its classes.
    """

    def __init__(self, classes: dict[str, int], config: ImageNetworkConfig) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*_convolutions(config, 0, SHARED))
        self.realness = Branch(1, config)
        self.factors = nn.ModuleDict({name: Branch(n, config) for name, n in classes.items()})
        _initialize(self, config.initial_deviation)

    def score(self, images: Tensor) -> Tensor:
        """(B,) how real images look; larger is more real."""
        answer: Tensor = self.realness(self.trunk(images))[1]
        return answer[:, 0]


def _convolutions(config: ImageNetworkConfig, first: int, last: int) -> Iterable[nn.Module]:
    """Convolutions number `first` to `last` - 1, each of which halves the image."""
    kernel, channels = CRITICS[config.critic]
    for number in range(first, last):
        before = channels[number - 1] if number else 3
        yield nn.Conv2d(before, channels[number], kernel, 2, 1)
        # As published, the first convolution is not normalized.
        if number and config.normalization == "batch":
            yield nn.BatchNorm2d(channels[number], 0.8)
        yield nn.LeakyReLU(SLOPE)
        if config.dropout:
            yield nn.Dropout2d(config.dropout)


@torch.no_grad()
def _initialize(network: nn.Module, deviation: float) -> None:
    """Weights of convolutions from N(0, deviation), of batch normalizations from N(1, deviation);
    as they are if the deviation is zero.
    """
    for parameter in network.parameters():
        # Channels last: the convolutions of a training step take a third less time on a CPU.
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    if not deviation:
        return
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, deviation)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, deviation)
