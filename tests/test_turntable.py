"""The shape in 3D on a report: its numbers in Python, and what a browser draws of them."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import numpy as np
import pytest

from browser import needs_browser, run_in_browser, with_probe
from helpers import html_of, report_context
from morphable.data.dataset import MeshDataset
from morphable.draw.blocks import Page, Section
from morphable.draw.html import render_page
from morphable.draw.turntable import Slider, Turntable
from morphable.models.base import Origin
from morphable.models.pca import Pca, PcaConfig
from morphable.report.shape_space import shape_space
from parsed_page import ParsedPage
from test_render import sphere

pytestmark = pytest.mark.usefixtures("small_pictures")
RADIUS, LOW, HIGH, REACH = 4.0, 3.0, 6.0, 2.0


def table() -> Turntable:
    """A sphere, and a slider that changes its radius: 3 at -2, 4 in the middle, 6 at 2."""
    vertices, triangles = sphere(12, RADIUS)
    ends = np.stack([vertices * LOW / RADIUS, vertices * HIGH / RADIUS])[None]
    slider = Slider("size", -REACH, REACH, "sd")
    return Turntable.of_ends(vertices, ends, triangles, [slider], np.eye(3), "a sphere")


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), kind)


def shape_at(block: Turntable, direction: int, s: float) -> np.ndarray:
    """The shape around its middle that the page shows, from what is stored in it."""
    whole = unpacked(block.shapes, "<i2").astype(float).reshape(-1, block.view["vertices"], 3)
    count = (len(whole) - 1) // 2
    units = block.view["units"]
    slope, bend = 1 + direction, 1 + count + direction
    return np.asarray(
        units[0] * whole[0] + s * units[slope] * whole[slope] + s**2 * units[bend] * whole[bend]
    )


def test_the_stored_numbers_give_the_ends_and_the_middle() -> None:
    block = table()
    vertices, triangles = sphere(12, RADIUS)
    for s, radius in ((0.0, RADIUS), (-REACH, LOW), (REACH, HIGH), (1.0, 4.875)):
        np.testing.assert_allclose(shape_at(block, 0, s), vertices * radius / RADIUS, atol=2e-3)
    assert np.array_equal(unpacked(block.indices, "<u4").reshape(-1, 3), triangles)


def model(hands: MeshDataset) -> Pca:
    fitted = Pca.estimate(hands.template, hands.split("subject").train.vertices, {}, PcaConfig(3))
    return fitted.eval().with_origin(Origin("pca", {"split": "subject"}))


def test_a_report_has_a_slider_per_walk(
    hands: MeshDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = report_context(model(hands), hands.split("subject"))
    section = shape_space(context)
    assert section is not None
    block = section.blocks[1]
    assert isinstance(block, Turntable) and [s.name for s in block.sliders] == [
        w.title for w in context.scene.walks
    ]
    walk = context.scene.walks[1].shapes
    shown = [shape_at(block, 1, s) for s in (-2.0, 0.0, 2.0)]
    middle = (walk[2].min(0) + walk[2].max(0)) / 2
    np.testing.assert_allclose(shown, walk[[0, 2, 4]] - middle, atol=0.05)
    # A fine mesh is shown with fewer vertices, and a model without a prior without sliders.
    monkeypatch.setattr("morphable.report.shape_space.BUDGET", 1500)
    coarse = shape_space(context)
    assert coarse is not None and isinstance(coarse.blocks[1], Turntable)
    assert len(coarse.blocks[1].mean) == 500
    assert "500 of 1,609 vertices" in ParsedPage(html_of(coarse)).text
    monkeypatch.setattr("morphable.report.scene.all_walks", lambda _: [])
    plain = shape_space(report_context(model(hands), hands.split("subject")))
    assert not ParsedPage(html_of(plain)).values("max"), "no slider"


PROBE = """
const canvas = figure.querySelector("canvas"), slider = figure.querySelector("input");
const flat = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const area = (act) => {
  act();
  flat.canvas.width = canvas.width;
  flat.canvas.height = canvas.height;
  flat.drawImage(canvas, 0, 0);
  const pixels = flat.getImageData(0, 0, canvas.width, canvas.height).data;
  return pixels.filter((value, i) => i % 4 === 3 && value > 127).length;
};
const slide = (value) => () => {
  slider.value = value;
  slider.dispatchEvent(new Event("change"));
};
const key = () => canvas.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}));
const areas = [slide(0), slide(-2), slide(2), slide(1), slide(0), key].map(area);
return {areas, told: figure.querySelector("output").textContent};
"""


@needs_browser
def test_a_browser_draws_it_and_its_sliders_move_it(tmp_path: Path) -> None:
    page = render_page(Page("a page", "heading", [Section("Shapes", [table()])]))
    (tmp_path / "page.html").write_text(with_probe(page, PROBE), encoding="utf-8")
    found = run_in_browser(tmp_path / "page.html", tmp_path / "profile")
    assert found["told"] == "0.0 sd"
    middle, low, high, one, again, turned = found["areas"]
    assert middle > 1000 and again == middle
    expected = [(radius / RADIUS) ** 2 for radius in (LOW, HIGH, 4.875)]
    assert np.array([low, high, one]) / middle == pytest.approx(expected, rel=0.03)
    assert turned == pytest.approx(middle, rel=0.02), "a sphere looks the same from everywhere"
