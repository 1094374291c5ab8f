"""gan: a generative face model, trained adversarially on geometry images, with a code of factors
(identity, expression) and noise.

Abrevaya, Boukhayma, Wuhrer and Boyer, "A Generative 3D Facial Model by Adversarial Training"
(arXiv 2019).

- The generator maps a standard normal code to a geometry image of displacements from the mean.
- The critic tells real images from generated ones, and has a branch per factor that classifies
  real images by their labels. Missing labels are left out mesh by mesh.
- Each class of a factor has a fixed random code. Rounds alternate between the factors: one factor
  has codes of classes, and the generator is asked for images that the critic classifies so. The
  other factors have random codes, each shared by a pair of images, and the generator is asked for
  pairs that look alike to that factor's branch.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphable.config import Configuration, Count, CountOrZero, PositiveOrZero, Share
from morphable.errors import InputError
from morphable.mesh.geometry_image import quantize
from morphable.mesh.template import Template
from morphable.models.base import (
    NO_LABELS,
    NO_ORIGIN,
    AdversarialModel,
    Given,
    Labels,
    Origin,
    Shapes,
    blocks,
)
from morphable.models.factor_components import factor_components
from morphable.models.image_geometry import ImageGeometry, ImageMaps, total_variation
from morphable.models.image_network import Critic, Generator, ImageNetworkConfig
from morphable.models.inversion import Search, invert
from morphable.models.normalization import moments
from morphable.models.parts import Parts
from morphable.models.training import Batch, Progress

NOISE = "noise"
"""The part of the code that no label explains."""
COLUMNS = {"identity": "subject"}
"""The label columns of factors that are not called like their factor."""
USUAL = ("identity", "expression")
"""Factors that a dataset may lack labels of: they then have no classifier. Another factor is named
by the user, so a missing column is an error."""
START_NETWORK = 0.01
"""Factor of the last layer's first weights if the image has a linear part."""


@dataclass(frozen=True)
class GanObjective(Configuration):
    """Weights and form of the two objectives. The defaults are those of the paper.

    adversary: `wasserstein` = mean scores; `logistic` = the log form with the generator's
    non-saturating loss. penalty: on the norm of the score's gradient with respect to each image,
    `interpolated` = (norm - 1)^2 between real and generated images (WGAN-GP), `real` = norm^2 / 2
    on real images (R1). penalty_every: the penalty is computed every so many critic steps, times as
    large. critic_steps: before each generator step. critic_class_weight, class_weight: of the
    classification of real images by the critic, and of generated ones by the generator.
    variation_weight: of the total variation of generated images. alternate: if False, all factors
    have codes of classes in each round and no pair shares a code. classify_fakes: whether the
    critic classifies generated images too, as AC-GAN's does.
    """

    adversary: Literal["wasserstein", "logistic"] = "wasserstein"
    penalty: Literal["interpolated", "real"] = "interpolated"
    penalty_weight: PositiveOrZero = 10.0
    penalty_every: Count = 1
    critic_steps: Count = 3
    critic_class_weight: PositiveOrZero = 0.1
    class_weight: PositiveOrZero = 1.0
    feature_weight: PositiveOrZero = 0.5
    variation_weight: PositiveOrZero = 1e-4
    alternate: bool = True
    classify_fakes: bool = False


@dataclass(frozen=True)
class GanConfig(GanObjective, ImageNetworkConfig):
    """factors, sizes: the parts of the code with a meaning and their sizes. noise: size of the part
    without. classified: the factors whose labels are used; None: all that have labels. classes:
    the class names of the labels as `FACTOR/NAME`, read from the training data.

    scale: the unit of the image, `maximum` = the largest displacement of the training meshes, with
    a tanh at the end of the generator; `deviation` = twice the standard deviation, without. eight_
    bit: whether real images are rounded to 256 levels. readout: how vertices are read from an
    image. average: weight of the past in the running average of the generator that is kept; 0: the
    generator itself. linear: whether the image has a linear part that is not trained: the principal
    components of the factors. search_steps: `encode` takes at most so
    many.
    """

    factors: tuple[str, ...] = ("identity", "expression")
    sizes: tuple[int, ...] = (65, 15)
    noise: CountOrZero = 5
    classified: tuple[str, ...] | None = None
    classes: tuple[str, ...] = ()
    scale: Literal["maximum", "deviation"] = "maximum"
    eight_bit: bool = False
    readout: Literal["bilinear", "laplacian"] = "bilinear"
    average: Share = 0.0
    linear: bool = False
    search_steps: Count = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.factors or len(set(self.factors)) < len(self.factors) or NOISE in self.factors:
            raise self.error(
                "factors",
                f"expected different names other than {NOISE!r}, got {','.join(self.factors)}",
            )
        if len(self.sizes) != len(self.factors) or min(self.sizes) < 1:
            raise self.error(
                "sizes", f"expected a size of at least 1 for each of {', '.join(self.factors)}"
            )
        for name in self.classified or ():
            if name not in self.factors:
                raise self.error("classified", f"the factors are {', '.join(self.factors)}")
        if self.normalization == "batch" and self.penalty_weight:
            raise self.error(
                "normalization",
                "batch statistics join the images of a batch, so the penalty on each image's "
                "gradient would be wrong; set model.penalty_weight=0 or model.normalization=none",
            )
        if self.average == 1:
            raise self.error("average", "expected a share below 1, got 1")

    @property
    def proportions(self) -> Mapping[str, int]:
        """The sizes of all parts, which a total latent size is divided by."""
        noise = {NOISE: self.noise} if self.noise else {}
        return dict(zip(self.factors, self.sizes, strict=True)) | noise

    def with_sizes(self, sizes: Mapping[str, int]) -> GanConfig:
        factors = tuple(
            sizes.get(name, own) for name, own in zip(self.factors, self.sizes, strict=True)
        )
        return replace(self, sizes=factors, noise=sizes.get(NOISE, self.noise))

    def names_of(self, factor: str) -> tuple[str, ...]:
        """The class names of a factor; empty if it has no classifier."""
        start = f"{factor}/"
        return tuple(name.removeprefix(start) for name in self.classes if name.startswith(start))


class ClassCodes(nn.Module):
    """One fixed random code for each class of a factor: codes (n, size)."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.codes = nn.Buffer(torch.randn(count, size))
        self.weights = nn.Buffer(torch.ones(count))
        """Of each class in the critic's loss, so that a rare class counts as much as another."""


class Gan(AdversarialModel):
    """x = mean + read(scale (network(z) + linear(z))), with z = (identity, expression, noise).

    The critic minimizes fake - real + penalty + critic_class_weight * classification of real
    images, the generator minimizes -fake + class_weight * classification + feature_weight *
    (1 - cosine of a pair's features) + variation_weight * total variation.

    `encode` searches the code whose decoded shape is nearest.
    """

    config: GanConfig
    geometry: ImageGeometry
    geometry_type = ImageGeometry
    encodes_by_search = True

    def __init__(
        self,
        template: Template,
        config: GanConfig,
        geometry: ImageGeometry,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        super().__init__(template, Parts.of(**config.proportions), config, geometry, origin)
        self.maps = ImageMaps(geometry, config.readout)
        self.mean = nn.Buffer(torch.zeros(template.n_vertices, 3))  # mm
        self.scale = nn.Buffer(torch.ones(()))  # mm

        classes = {name: len(config.names_of(name)) for name in config.factors}
        self.class_codes = nn.ModuleDict(
            {
                name: ClassCodes(classes[name], size)
                for name, size in zip(config.factors, config.sizes, strict=True)
                if classes[name]
            }
        )
        self.critic = Critic({name: classes[name] for name in self.class_codes}, config)
        self.generator = Generator(self.parts.size, config, config.scale == "maximum")
        components = torch.zeros(self.parts.size, 3 * config.resolution**2)
        self.linear = nn.Buffer(components) if config.linear else None
        if config.linear:
            self.generator.start_small(START_NETWORK)
        self.average: Generator | None = None
        if config.average:
            self.average = copy.deepcopy(self.generator).requires_grad_(False)

    @classmethod
    def config_for(
        cls, config: GanConfig, classes: Mapping[str, Sequence[str]], meshes: int
    ) -> GanConfig:
        chosen = config.factors if config.classified is None else config.classified
        found: list[str] = []
        for factor in chosen:
            column = COLUMNS.get(factor, factor)
            names = classes.get(column, ())
            if column not in classes and factor not in USUAL:
                raise InputError(
                    f"the factor {factor!r}: labels.csv has no column {column!r}; "
                    "name other factors with model.factors"
                )
            if len(names) > 1:
                found += [f"{factor}/{name}" for name in names]
                continue
            missing = f"one class, {names[0]!r}" if names else "no label"
            fault = f"the training meshes have {missing} in the column {column!r}"
            if factor in (config.classified or ()):
                raise InputError(f"the factor {factor!r} needs at least two classes, but {fault}")
            warnings.warn(f"the factor {factor!r} has no classifier, because {fault}", stacklevel=2)
        if not found:
            columns = ", ".join(COLUMNS.get(factor, factor) for factor in chosen)
            raise InputError(
                f"gan needs at least two classes of one factor to separate its code by, but no "
                f"column of labels.csv ({columns}) has two among the training meshes"
            )
        return replace(config, classes=tuple(found))

    @property
    def labels_used(self) -> tuple[str, ...]:
        return tuple(COLUMNS.get(factor, factor) for factor in self.config.factors)

    @property
    def labels_drawn(self) -> tuple[str, ...]:
        return tuple(COLUMNS.get(factor, factor) for factor in self.class_codes)

    def initialize(self, shapes: Shapes, labels: Labels = NO_LABELS) -> None:
        mean = moments(shapes)[0]
        self.mean.copy_(torch.tensor(mean))
        raster = self.geometry.layout
        squares, count, largest = 0.0, 0, 0.0
        for block in blocks(shapes):
            pixels = raster.rasterize((block - mean).astype(np.float32))[:, raster.mask]
            squares += float(np.square(pixels, dtype=np.float64).sum())
            count += pixels.size
            largest = max(largest, float(np.abs(pixels).max()))
        deviation = 2 * math.sqrt(squares / count)
        self.scale.fill_((largest if self.config.scale == "maximum" else deviation) or 1.0)

        for factor, table in self.class_codes.items():
            assert isinstance(table, ClassCodes)
            numbers = labels.get(COLUMNS.get(factor, factor), np.zeros(0, np.int64))
            counts = np.bincount(numbers[numbers >= 0], minlength=len(table.codes))
            weights = counts.sum() / (len(counts) * np.maximum(counts, 1))
            table.weights.copy_(torch.tensor(weights))
        if self.linear is not None:
            self._start_linear(shapes, labels)

    def _start_linear(self, shapes: Shapes, labels: Labels) -> None:
        """Set the linear part to the components of the factors, and the code of each class to its
        coordinates along them: then the linear part alone already makes the mean of each class.
        """
        assert self.linear is not None
        factors = self.config.factors
        classes = [labels.get(COLUMNS.get(factor, factor)) for factor in factors]
        components = factor_components(shapes, classes, self.config.sizes)
        self.linear.zero_()
        for factor, own in zip(factors, components, strict=True):
            shape = torch.tensor(own.shapes, dtype=torch.float32).unflatten(1, (-1, 3))
            images = self.maps.to_image(shape.to(self.mean)) / self.scale
            self.linear[self.parts[factor]] = images.flatten(1)
            if factor in self.class_codes and own.class_codes is not None:
                table = self.class_codes[factor]
                assert isinstance(table, ClassCodes)
                table.codes.copy_(torch.tensor(own.class_codes))

    # Images and shapes

    def image_of(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm to geometry images (B, 3, R, R) in the generator's unit."""
        image = self.maps.to_image((vertices - self.mean) / self.scale)
        return quantized(image) * self.maps.mask if self.config.eight_bit else image

    def draw_image(self, code: Tensor, generator: Generator) -> Tensor:
        """(B, L) to (B, 3, R, R). Empty pixels are zero, as in the images of meshes."""
        image: Tensor = generator(code)
        if self.linear is not None:
            image = image + (code @ self.linear).view_as(image)
        return image * self.maps.mask

    def image(self, code: Tensor) -> Tensor:
        """(B, L) to the geometry images (B, 3, R, R) that `decode` reads."""
        return self.draw_image(code, self.generator if self.average is None else self.average)

    def decode(self, code: Tensor) -> Tensor:
        self.check_code(code)
        return self.mean + self.scale * self.maps.to_vertices(self.image(code))

    def class_code(self, factor: str, name: str) -> Tensor:
        """(size,) the code of a class. Raises InputError if the factor has no such class."""
        names = self.config.names_of(factor)
        if name not in names:
            known = ", ".join(names) or "none"
            raise InputError(f"{factor} {name!r}: the model's classes are {known}")
        table = self.class_codes[factor]
        assert isinstance(table, ClassCodes)
        return table.codes[names.index(name)]

    def neutral(self, code: Tensor) -> Tensor:
        """The identity with the code of the expression class `neutral`. If there is none, the
        expression code is zero, the mean expression.
        """
        self.check_code(code)
        person = torch.zeros_like(code)
        person[:, self.parts["identity"]] = code[:, self.parts["identity"]]
        if "neutral" in self.config.names_of("expression"):
            person[:, self.parts["expression"]] = self.class_code("expression", "neutral")
        return self.decode(person)

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        return invert(self, vertices, given, Search(steps=self.config.search_steps)).codes

    # Training

    @property
    def critic_steps(self) -> int:
        return self.config.critic_steps

    def critic_parameters(self) -> Iterable[nn.Parameter]:
        return self.critic.parameters()

    def generator_parameters(self) -> Iterable[nn.Parameter]:
        return self.generator.parameters()

    def draw_codes(self, count: int, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """Codes (N, L) of generated images for a round of training, with N = `count` rounded down
        to pairs but at least two, and the class numbers (N,) of the factors that have labels.
        """
        config, generator = self.config, progress.generator
        n = max(2, count // 2 * 2)
        chosen = progress.step // (self.critic_steps + 1) % len(config.factors)
        values, labels = [], {}
        for number, (factor, size) in enumerate(zip(config.factors, config.sizes, strict=True)):
            labelled = number == chosen or not config.alternate
            if labelled and factor in self.class_codes:
                table = self.class_codes[factor]
                assert isinstance(table, ClassCodes)
                labels[factor] = _different(n, len(table.codes), generator).to(table.codes.device)
                values.append(table.codes[labels[factor]])
            elif labelled:
                values.append(torch.randn(n, size, generator=generator).to(self.mean))
            else:
                shared = torch.randn(n // 2, size, generator=generator)
                values.append(shared.repeat_interleave(2, 0).to(self.mean))
        if config.noise:
            values.append(torch.randn(n, config.noise, generator=generator).to(self.mean))
        return torch.cat(values, 1), labels

    def critic_loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        config = self.config
        real = self.image_of(batch.vertices)
        drawn = {name: self.image_of(other.vertices) for name, other in batch.labelled.items()}
        code, labels = self.draw_codes(len(real), progress)
        with torch.no_grad():
            fake = self.draw_image(code, self.generator)
        # One pass of the trunk over all images, since every branch reads it.
        shared_real, shared_fake, *others = self.critic.trunk(
            torch.cat([real, fake, *drawn.values()])
        ).split([len(real), len(fake), *map(len, drawn.values())])
        shared_drawn = dict(zip(drawn, others, strict=True))

        scores = self.critic.realness(torch.cat([shared_real, shared_fake]))[1][:, 0]
        on_real, on_fake = scores.split([len(real), len(fake)])
        if config.adversary == "wasserstein":
            terms = {"adversary": on_fake.mean() - on_real.mean()}
        else:
            terms = {"adversary": F.softplus(on_fake).mean() + F.softplus(-on_real).mean()}
        if config.penalty_weight and self._critic_step(progress) % config.penalty_every == 0:
            weight = config.penalty_weight * config.penalty_every
            terms["penalty"] = weight * self.penalty(real, fake, progress.generator).mean()

        for factor in self.class_codes:
            column = COLUMNS.get(factor, factor)
            source = batch.labelled.get(column, batch)
            shared = shared_drawn.get(column, shared_real)
            loss = self._classification(factor, shared, source.labels[column])
            if config.classify_fakes and factor in labels:
                loss = loss + self._classification(factor, shared_fake, labels[factor])
            terms[factor] = config.critic_class_weight * loss
        return terms

    def _critic_step(self, progress: Progress) -> int:
        """The number of the critic's step, not counting the generator's."""
        rounds, turn = divmod(progress.step, self.critic_steps + 1)
        return rounds * self.critic_steps + turn

    def penalty(self, real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
        """(N,) the penalty of each image on the gradient of its own score."""
        images = real.detach()
        if self.config.penalty == "interpolated":
            count = min(len(real), len(fake))
            share = torch.rand(count, 1, 1, 1, generator=generator).to(real)
            images = share * images[:count] + (1 - share) * fake[:count]
        images = images.requires_grad_()
        scores = self.critic.score(images).sum()
        (gradient,) = torch.autograd.grad(scores, images, create_graph=True)
        squared = gradient.flatten(1).square().sum(1)
        if self.config.penalty == "real":
            return squared / 2
        return ((squared + 1e-12).sqrt() - 1).square()

    def _classification(self, factor: str, shared: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy of the images with a label, weighted by class; 0 if there is none.

        shared: features of the trunk. labels: (B,) class numbers, -1 = missing.
        """
        table = self.class_codes[factor]
        assert isinstance(table, ClassCodes)
        answers = self.critic.factors[factor](shared)[1]
        known = labels >= 0
        losses = F.cross_entropy(answers, labels.clamp(min=0), reduction="none")
        weights = table.weights[labels.clamp(min=0)] * known
        return (losses * weights).sum() / known.sum().clamp(min=1)

    def generator_loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        config = self.config
        code, labels = self.draw_codes(len(batch.vertices), progress)
        fake = self.draw_image(code, self.generator)
        shared = self.critic.trunk(fake)
        realness, score = self.critic.realness(shared)
        adversary = -score if config.adversary == "wasserstein" else F.softplus(-score)
        terms = {"adversary": adversary.mean()}

        for factor in config.factors:
            # The pair of a factor without a classifier is compared by its realness features.
            features = realness
            if factor in self.class_codes:
                features, answers = self.critic.factors[factor](shared)
            if factor in labels:
                loss = F.cross_entropy(answers, labels[factor])
                terms[factor] = config.class_weight * loss
            elif config.feature_weight and self._shares(factor, progress):
                alike = F.cosine_similarity(features[0::2], features[1::2])
                terms[f"{factor}_features"] = config.feature_weight * (1 - alike).mean()
        if config.variation_weight:
            terms["variation"] = config.variation_weight * total_variation(fake).mean()
        return terms

    def _shares(self, factor: str, progress: Progress) -> bool:
        """Whether pairs share the code of a factor in this round."""
        turn = progress.step // (self.critic_steps + 1) % len(self.config.factors)
        return self.config.alternate and self.config.factors[turn] != factor

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        """Follow the generator after each of its steps. The average remembers little at first."""
        if self.average is None or (progress.step + 1) % (self.critic_steps + 1):
            return
        number = progress.step // (self.critic_steps + 1)
        kept = min(self.config.average, 1 - 1 / (number / 10 + 1))
        for own, other in zip(
            self.average.state_dict().values(), self.generator.state_dict().values(), strict=True
        ):
            if own.is_floating_point():
                own.lerp_(other, 1 - kept)
            else:
                own.copy_(other)


def quantized(image: Tensor) -> Tensor:
    """Values within -1 to 1 rounded to 256 levels."""
    return torch.from_numpy(quantize(image.cpu().numpy(), 1.0)).to(image)


def _different(count: int, classes: int, generator: torch.Generator) -> Tensor:
    """(count,) random class numbers. The two of a pair differ."""
    first = torch.randint(classes, (count // 2,), generator=generator)
    step = torch.randint(1, classes, (count // 2,), generator=generator)
    return torch.stack([first, (first + step) % classes], 1).flatten()
