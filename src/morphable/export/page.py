"""A page of a model that needs no server: the mean shape with a slider per named way to vary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from morphable.draw.blocks import Page, Section, Text
from morphable.draw.camera import view_for
from morphable.draw.html import render_page
from morphable.draw.turntable import Amounts, Layer, Slider, Turntable
from morphable.errors import InputError
from morphable.export.directions import Offset, Step, mean_code
from morphable.export.linear import TEST_SAMPLES, Distance
from morphable.files import write_text
from morphable.models.base import MorphableModel
from morphable.models.batched import decode_all
from morphable.models.dense import DenseDecoder

EXACT = 1e-4
"""A page is called exact if no vertex is further from the model than this share of the mesh."""
COMPLETE = 1e-3
"""Sliders reach all shapes if the others move a sample by less than this share of what samples vary."""
STRAIGHT = 1e-4
"""Bends below this share of the mesh are rounding errors of a linear decoder, and are left out."""


@dataclass(frozen=True)
class ExportedPage:
    """What was written. megabytes: size of the file. words: how far it is from the model."""

    megabytes: float
    words: str


def export_page(
    model: MorphableModel, path: Path | str, ways: Sequence[Step | Offset], reach: float = 2.0
) -> ExportedPage:
    """Write one HTML file that shows the model in a browser and loads nothing else.

    The page computes a decoder of dense layers as it is. Any other decoder is replaced by a slope
    and a bend per slider, added up, which is the decoder itself if that is linear. How far the page
    is from the model is measured with the stored numbers and written on the page.

    Raises InputError if there is no way to vary, or the mesh has no faces.
    """
    path = Path(path)
    if not ways:
        raise InputError(f"{path}: nothing to write, there is no part, region or expression")
    if not len(model.template.mesh.faces):
        raise InputError(
            f"{path}: the mesh of this model has no faces, so there is nothing to show"
        )
    table = _turntable(model, ways, reach)
    samples = _samples(model, table, ways)
    distance = Distance.between(samples.model, samples.page)
    size = np.ptp(table.mean, axis=0).max()
    method = _method(table, distance.max < EXACT * size)
    words = f"{method} With its latent sliders at random it is {distance}."
    page = Page(
        f"{model.name}: {model.template.name}",
        f"{model.template.name}, {model.name}",
        [
            Section(
                "Shapes",
                [
                    Text(_lead(ways), "lead"),
                    table,
                    Text(words, strong="How far from the model."),
                    Text(_reached(samples, ways), strong="What the sliders reach."),
                    Text(_facts(model, reach), strong="The model."),
                ],
            )
        ],
        below=f"{model.template.n_vertices:,} vertices, latent size {model.latent}",
        contents=False,
    )
    write_text(path, render_page(page))
    return ExportedPage(path.stat().st_size / 1e6, words)


def _lead(ways: Sequence[Step | Offset]) -> str:
    lead = "Drag the shape to turn it, or select it and use the arrow keys."
    if any(isinstance(way, Offset) for way in ways):
        lead += " A slider of a region moves that region and nothing else."
    return lead


def _facts(model: MorphableModel, reach: float) -> str:
    facts = model.provenance
    licence = facts.get("licence", "unknown")
    return (
        f"{model.name} with the parts {model.parts.described}. A slider of a part or a region goes "
        f"to {reach:g} standard deviations (sd) of the prior. Licence of the training data: "
        f"{licence}. Lengths are in millimeters."
    )


def _reached(samples: _Samples, ways: Sequence[Step | Offset]) -> str:
    """A sentence on how much of the model's variation has a slider."""
    latent = sum(isinstance(way, Step) and not way.is_expression for way in ways)
    distance = Distance.between(samples.whole, samples.model)
    if distance.mean <= COMPLETE * distance.movement:
        return f"The {latent} latent sliders reach every shape that the prior of the model draws."
    return (
        f"The model varies in more directions than the {latent} that have a latent slider here: "
        f"the others move a sample by {distance.mean:.2g} mm on average, while samples vary by "
        f"{distance.movement:.3g} mm."
    )


def _turntable(model: MorphableModel, ways: Sequence[Step | Offset], reach: float) -> Turntable:
    """The shape with its sliders."""
    dense = model.dense_decoder()
    layers = None if dense is None else _layers(dense.layers)
    mean = mean_code(model)
    if dense is not None and layers is not None:
        origin, components, amounts = _of_dense(dense, layers, ways, mean)
    else:
        origin, components, amounts = _of_ends(model, ways, mean, reach)
    offsets = [k for k, way in enumerate(ways) if isinstance(way, Offset)]
    extra = [way.offset for way in ways if isinstance(way, Offset)]
    amounts = _with_offsets(amounts, offsets, len(ways))
    components = np.concatenate([components, np.stack(extra)]) if extra else components
    view = view_for(model.template, origin[None])
    return Turntable(
        origin,
        components,
        model.template.mesh.triangles,
        _sliders(ways, reach),
        amounts,
        view.rotation,
        f"The mean shape of {model.name} in 3D",
        numbers=True,
    )


def _method(table: Turntable, is_exact: bool) -> str:
    """A sentence on how the page computes a shape."""
    stored = "with coordinates stored in 65,535 steps."
    if table.amounts.layers:
        return f"The page runs the network of the decoder, {stored}"
    if is_exact:
        return f"The decoder is linear, and the page runs it, {stored}"
    terms = "a slope" if table.amounts.bend is None else "a slope and a bend"
    return (
        f"The page replaces the decoder by {terms} per latent slider: exact in the middle and at "
        "both ends of one slider, while several sliders are added up."
    )


def _sliders(ways: Sequence[Step | Offset], reach: float) -> list[Slider]:
    found = []
    before = ""
    for way in ways:
        latent = isinstance(way, Step) and not way.is_expression
        heading = way.name.rpartition(" ")[0] if latent else "Expressions"
        heading = "Regions" if isinstance(way, Offset) else heading
        low, unit = (0.0, "") if heading == "Expressions" else (-reach, "sd")
        high = 1.0 if heading == "Expressions" else reach
        found.append(Slider(way.name, low, high, unit, heading if heading != before else ""))
        before = heading
    return found


def _of_ends(
    model: MorphableModel, ways: Sequence[Step | Offset], mean: torch.Tensor, reach: float
) -> tuple[np.ndarray, np.ndarray, Amounts]:
    """Slopes and bends through the shapes at both ends of each slider, or only slopes if the
    decoder is linear. The end of an expression at 1 is exact, it has no other.
    """
    codes = [mean]
    for way in ways:
        if isinstance(way, Step):
            codes += [mean - way.code] if way.is_expression else [mean - reach * way.code]
            codes += [mean + way.code] if way.is_expression else [mean + reach * way.code]
    origin, *ends = decode_all(model, torch.stack(codes)).astype(np.float64)
    slopes, bends, columns = [], [], []
    pairs = zip(ends[::2], ends[1::2], strict=True)
    steps = [(k, way) for k, way in enumerate(ways) if isinstance(way, Step)]
    for (k, way), (low, high) in zip(steps, pairs, strict=True):
        far = 1.0 if way.is_expression else reach
        slopes.append((high - low) / (2 * far))
        bends.append((high + low - 2 * origin) / (2 * far**2))
        columns.append(k)
    size = np.ptp(origin, axis=0).max()
    picked = np.eye(len(ways))[columns]
    straight = all(np.abs(bend).max() * reach**2 < STRAIGHT * size for bend in bends)
    if straight:
        empty = np.zeros((0, *origin.shape))
        return origin, np.stack(slopes) if slopes else empty, Amounts(picked)
    components = np.stack([*slopes, *bends])
    nothing = np.zeros_like(picked)
    return origin, components, Amounts(np.vstack([picked, nothing]), np.vstack([nothing, picked]))


def _of_dense(
    dense: DenseDecoder, layers: list[Layer], ways: Sequence[Step | Offset], mean: torch.Tensor
) -> tuple[np.ndarray, np.ndarray, Amounts]:
    """The decoder itself, with its first layer reading the sliders instead of the code, and its
    mean moved to the shape in the middle.
    """
    steps = np.zeros((len(ways), len(mean)))
    for k, way in enumerate(ways):
        if isinstance(way, Step):
            steps[k] = way.code.double().numpy()
    center = mean.double().numpy()
    first, *rest = layers
    layers = [
        Layer(first.weight @ steps.T, first.weight @ center + first.bias, first.activation),
        *rest,
    ]
    count = len(dense.components)
    skip = np.zeros((count, len(mean))) if dense.skip is None else _array(dense.skip)
    amounts, components = Amounts(skip @ steps.T, None, layers), _array(dense.components)
    at_rest = amounts.at_rest + skip @ center
    return _array(dense.mean) + np.tensordot(at_rest, components, 1), components, amounts


def _layers(module: nn.Sequential) -> list[Layer] | None:
    """The layers as arrays; None if one is of a kind that the page does not know."""
    known = {nn.ReLU: "relu", nn.SiLU: "silu"}
    found: list[Layer] = []
    for layer in module:
        if isinstance(layer, nn.Linear):
            found.append(Layer(_array(layer.weight), _array(layer.bias)))
        elif type(layer) in known and found and not found[-1].activation:
            found[-1] = Layer(found[-1].weight, found[-1].bias, known[type(layer)])
        else:
            return None
    return found


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def _with_offsets(amounts: Amounts, offsets: Sequence[int], sliders: int) -> Amounts:
    """The amounts with one more component per slider in `offsets`, which it moves alone."""
    if not offsets:
        return amounts
    more = np.eye(sliders)[list(offsets)]
    nothing = np.zeros_like(more)
    bend = None if amounts.bend is None else np.vstack([amounts.bend, nothing])
    layers = list(amounts.layers)
    if layers:
        last = layers[-1]
        weight = np.vstack([last.weight, np.zeros((len(more), last.weight.shape[1]))])
        layers[-1] = Layer(weight, np.append(last.bias, np.zeros(len(more))), last.activation)
    return Amounts(np.vstack([amounts.linear, more]), bend, layers)


@dataclass(frozen=True, eq=False)
class _Samples:
    """Shapes (N, V, 3) mm of random codes of the prior. model: the model's, with every slider at
    random. page: those that the page shows. whole: the model's, of the whole codes, which also vary
    in directions without a slider.
    """

    model: np.ndarray
    page: np.ndarray
    whole: np.ndarray


def _samples(model: MorphableModel, table: Turntable, ways: Sequence[Step | Offset]) -> _Samples:
    """The latent sliders stand where the code is nearest to a sample; one expression at a time has a
    random level.
    """
    generator = torch.Generator().manual_seed(1)
    mean = mean_code(model)
    codes = mean.repeat(TEST_SAMPLES, 1)
    if model.prior is not None:
        codes = model.prior.sample(TEST_SAMPLES, generator).cpu()
    sliders = torch.zeros(TEST_SAMPLES, len(ways))
    steps = torch.zeros(len(ways), len(mean))
    expressions = []
    for k, way in enumerate(ways):
        if isinstance(way, Step):
            steps[k] = way.code
            if way.is_expression:
                expressions.append(k)
            else:
                sliders[:, k] = (codes - mean) @ way.code / way.code.square().sum()
    if expressions:
        chosen = torch.randint(len(expressions), (TEST_SAMPLES,), generator=generator)
        levels = torch.rand(TEST_SAMPLES, generator=generator)
        sliders[torch.arange(TEST_SAMPLES), torch.tensor(expressions)[chosen]] = levels
    change = sliders @ steps
    latent = sliders.clone()
    latent[:, expressions] = 0
    return _Samples(
        decode_all(model, mean + change),
        table.shapes_at(sliders.numpy()),
        decode_all(model, codes + change - latent @ steps),
    )
