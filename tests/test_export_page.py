"""The page that needs no server: what it shows is the model, in numbers and in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from browser import needs_browser, run_in_browser, with_probe
from conftest import ball_template
from helpers import shapes
from morphable.errors import InputError
from morphable.export.directions import latent_steps, named_conditions, region_offsets
from morphable.export.page import _turntable, export_page
from morphable.mesh.automatic_regions import automatic_regions
from morphable.mesh.template import Template
from morphable.models.base import MorphableModel, TrainableModel
from morphable.models.families import create
from morphable.models.pca import Pca, PcaConfig

SETTINGS = {
    "pca-mlp": {"latent": 4, "rank": 12, "width": 16},
    "cvae": {"samples": (32, 16), "neighbors": 8, "expressions": ("neutral", "happy", "sad")},
    "coma": {"latent": 4, "start": "random"},
}
DENSE = ("pca-mlp", "cvae")


def with_regions(count: int) -> Template:
    plain = ball_template(count)
    return Template(plain.mesh, "ball", regions=automatic_regions(plain.mesh, 3))


def built(family: str) -> MorphableModel:
    """A small model whose decoder is far from linear, as if it had been trained."""
    template = with_regions(560 if family == "coma" else 200)
    meshes = shapes(template, 40)
    if family == "pca":
        return Pca.estimate(template, meshes, {}, PcaConfig(5)).eval()
    torch.manual_seed(0)
    model = create(family, template, **SETTINGS[family])
    assert isinstance(model, TrainableModel)
    model.initialize(meshes, {"expression": np.arange(40) % 3, "subject": np.arange(40) // 3})
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=2 / module.in_features**0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.3)
    assert model.prior is not None
    model.prior.fit(torch.randn(50, model.parts.size, generator=torch.Generator().manual_seed(2)))
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=["pca", "pca-mlp", "cvae", "coma"])
def model(request: pytest.FixtureRequest) -> MorphableModel:
    return built(request.param)


@torch.no_grad()
def test_a_dense_decoder_is_the_decoder() -> None:
    for family in DENSE:
        model = built(family)
        dense = model.dense_decoder()
        assert dense is not None
        codes = torch.randn(5, model.parts.size)
        torch.testing.assert_close(dense.decode(codes), model.decode(codes), rtol=1e-5, atol=1e-3)
        assert (dense.amounts(codes).std(0) > 0).any()
    assert built("coma").dense_decoder() is None


@torch.no_grad()
def test_the_stored_numbers_give_the_models_shapes(model: MorphableModel) -> None:
    """Linear and dense decoders with all sliders at once, others with one slider at its end."""
    ways = [*latent_steps(model), *named_conditions(model)]
    table = _turntable(model, ways, 2.0)
    count, random = len(ways), np.random.default_rng(0)
    sliders = random.uniform(-1, 1, (6, count))
    if model.dense_decoder() is None and not isinstance(model, Pca):
        sliders = np.concatenate([2 * np.eye(count), -2 * np.eye(count), np.zeros((1, count))])
    steps = torch.stack([way.code for way in ways])
    assert model.prior is not None
    exact = model.decode(model.prior.mean + torch.from_numpy(sliders).float() @ steps).numpy()
    size = np.ptp(exact[0], axis=0).max()
    assert np.abs(table.shapes_at(sliders) - exact).max() < 1e-4 * size
    moved = np.abs(exact - exact[-1]).max()
    assert moved > 1e-2 * size, "the sliders move it far more than they err"


def test_a_slider_of_a_region_moves_nothing_else() -> None:
    model = built("pca")
    ways = [*latent_steps(model), *region_offsets(model, ["r1", "r3"])]
    table = _turntable(model, ways, 2.0)
    names = [way.name for way in ways]
    still = table.shapes_at(np.zeros((1, len(ways))))[0]
    for name in ("r1", "r3"):
        position = np.zeros((1, len(ways)))
        position[0, names.index(f"{name} 1")] = 2
        moved = np.linalg.norm(table.shapes_at(position)[0] - still, axis=1)
        inside = model.template.region(name)
        assert moved[inside].max() > 0.1
        assert not np.delete(moved, inside).any()


@torch.no_grad()
def test_the_page_says_how_far_it_is_and_loads_nothing(tmp_path: Path) -> None:
    exact, far = tmp_path / "exact.html", tmp_path / "far.html"
    model = built("pca")
    words = export_page(model, exact, latent_steps(model)).words
    assert "The decoder is linear, and the page runs it" in words
    model = built("coma")
    words = export_page(model, far, latent_steps(model)).words
    assert "exact in the middle and at both ends of one slider" in words
    stated = re.search(r"it is ([\d.e-]+) mm from the model on average", words)
    assert stated and float(stated[1]) > 0
    page = far.read_text()
    assert words.replace("%", "%") in page
    assert not re.search(r'(src|href)="(?!#|data:)', page), "nothing is loaded"
    with pytest.raises(InputError, match=r"none\.html: nothing to write"):
        export_page(model, tmp_path / "none.html", [])
    assert not (tmp_path / "none.html").exists()


PROBE = """
const sliders = [...figure.querySelectorAll("input")], text = figure.querySelector("textarea");
const button = (name) => figure.querySelector(`[data-do=${name}]`).click();
const slide = (k, value, kind) => {
  sliders[k].value = value;
  sliders[k].dispatchEvent(new Event(kind));
};
const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
const shape = () => [...figure.positions()];
const found = {names: sliders.map((s) => s.previousElementSibling.textContent), start: shape()};
slide(0, 1.5, "input");
await frame();
found.one = shape();
SETTINGS.forEach((value, k) => slide(k, value, "change"));
found.all = shape();
found.text = text.value;
button("random");
found.random = sliders.map((s) => Number(s.value));
found.drawn = shape();
text.value = found.text;
text.dispatchEvent(new Event("input"));
found.back = shape();
button("reset");
found.reset = shape();
const began = performance.now();
for (let k = 0; k < 20; k++) slide(0, k / 20, "change");
found.ms = (performance.now() - began) / 20;
return found;
"""


@needs_browser
@torch.no_grad()
def test_in_a_browser_the_sliders_give_the_models_shapes(
    model: MorphableModel, tmp_path: Path
) -> None:
    ways = [*latent_steps(model), *named_conditions(model)]
    export_page(model, tmp_path / "page.html", ways)
    single = model.dense_decoder() is None and not isinstance(model, Pca)
    values = np.round(np.linspace(-1, 1, len(ways)), 2)
    values = np.where([way.is_expression for way in ways], np.abs(values), values)
    if single:  # exact at the end of one slider
        values = np.eye(len(ways))[0] * 2
    script = PROBE.replace("SETTINGS", str(values.tolist()))
    page = (tmp_path / "page.html").read_text()
    (tmp_path / "probe.html").write_text(with_probe(page, script))
    found = run_in_browser(tmp_path / "probe.html", tmp_path / "profile")

    steps = torch.stack([way.code for way in ways])
    assert model.prior is not None
    sliders = torch.zeros(4, len(ways))
    sliders[1, 0] = 1.5
    sliders[2], sliders[3] = torch.from_numpy(values), torch.tensor(found["random"])
    exact = model.decode(model.prior.mean + sliders @ steps).numpy()
    exact -= (exact[0].min(axis=0) + exact[0].max(axis=0)) / 2
    size = np.ptp(exact[0], axis=0).max()

    def error(name: str, row: int) -> float:
        return float(np.abs(np.reshape(found[name], (-1, 3)) - exact[row]).max() / size)

    assert found["names"] == [way.name for way in ways]
    assert error("start", 0) < 1e-4 and error("all", 2) < 1e-4
    if not single:
        assert error("one", 1) < 1e-4 and error("drawn", 3) < 1e-4
    assert found["one"] != found["start"] != found["drawn"]
    assert found["reset"] == found["start"], "exactly"
    assert found["back"] == found["all"], "the numbers give the shape back exactly"
    assert f"{ways[0].name}: {values[0]:g}" in found["text"]
