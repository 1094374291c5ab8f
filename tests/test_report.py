"""The report: one file, nothing outside it, the numbers of the evaluation in it, and honest words
about them.
"""

from __future__ import annotations

import dataclasses
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import all_of, html_of, measured, report_context
from morphable.data.dataset import MeshDataset, SplitDataset, write_dataset
from morphable.data.labels import LabelTable
from morphable.data.source import MeshSource
from morphable.data.splits import Split
from morphable.draw.numbers import number, percent, round_up
from morphable.errors import InputError
from morphable.evaluate.directions import principal_directions
from morphable.evaluate.evaluation import Evaluation
from morphable.evaluate.measures import compactness
from morphable.evaluate.record import Measured
from morphable.mesh.template import Template
from morphable.models.base import MorphableModel, Origin
from morphable.models.families import create, family
from morphable.models.pca import Pca, PcaConfig
from morphable.models.pca_mlp import PcaMlp
from morphable.models.training import TrainConfig
from morphable.report.chart_sections import training
from morphable.report.context import ReportContext
from morphable.report.headline import setting, verdict
from morphable.report.latent import STEPS, prior_walks
from morphable.report.page import write_report
from morphable.report.scene import middles
from parsed_page import ParsedPage

pytestmark = pytest.mark.usefixtures("small_pictures")


def trained(dataset: MeshDataset, split: str, latent: int = 4) -> MorphableModel:
    """A pca-mlp as it is before the first step: PCA's shapes through a random network."""
    torch.manual_seed(0)
    recipe = family("pca-mlp").fast
    config = type(recipe.model)(latent=latent)
    model = create("pca-mlp", dataset.template, config)
    assert isinstance(model, PcaMlp) and isinstance(recipe.train, TrainConfig)
    model.initialize(dataset.split(split).train.vertices)
    with torch.no_grad():
        model.prior.fit(model.encode(torch.from_numpy(dataset.split(split).train.vertices[:])))
    provenance = {
        "split": split,
        "command": "morphable train pca-mlp <b>",
        "licence": "CC0-1.0",
    }
    return model.eval().with_origin(Origin("pca-mlp", provenance))


def linear(dataset: MeshDataset, split: str, latent: int = 3) -> Pca:
    model = Pca.estimate(
        dataset.template, dataset.split(split).train.vertices, {}, PcaConfig(latent)
    )
    return model.eval().with_origin(Origin("pca", {"split": split}))


def balls(template: Template, folder: Path, count: int = 12) -> MeshDataset:
    """Shapes without any label, on a template without regions."""
    random = np.random.default_rng(2)
    shapes = template.mesh.vertices * random.uniform(0.7, 1.3, (count, 1, 3))
    shapes = (shapes + random.normal(0, 0.3, shapes.shape)).astype(np.float32)
    info = {"source": "balls <script>", "licence": "none", "unit": "mm"}
    return write_dataset(
        MeshSource(template, LabelTable({}, count), lambda: iter([shapes]), info), folder
    )


METRICS: list[dict[str, Any]] = [
    {
        "epoch": e,
        "step": e,
        "train/distance": 5.0 / e,
        "train/kl": 0.1 * e,
        "validation_mm": v,
        "seconds": 2.0 * e,
    }
    for e, v in enumerate((4.0, 2.5, 3.0), start=1)
]


@pytest.fixture(scope="module")
def report(
    hands: MeshDataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    """The HTML of a report on hands and the evaluation that it shows."""
    model = trained(hands, "subject")
    result = measured(model, hands)
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(result, METRICS, path)
    return path.read_text(encoding="utf-8"), json.loads(json.dumps(result.measures))


def test_it_is_one_file_with_nothing_outside(report: tuple[str, dict[str, Any]]) -> None:
    html, _ = report
    page = ParsedPage(html)
    targets = [
        value
        for name, value in page.attributes
        if name in ("src", "href", "srcset", "data", "action", "poster")
    ]
    assert targets and all(value.startswith(("data:image/webp;base64,", "#")) for value in targets)
    bare = re.sub(r'(data:image/webp;base64,|data-\w+=")[A-Za-z0-9+/=]+', "", html)
    assert not re.search(r"https?:|//|<script[^>]|<link|@import|@font-face|url\((?!#)", bare)


def test_its_links_lead_to_sections_and_every_picture_has_words(
    report: tuple[str, dict[str, Any]],
) -> None:
    page = ParsedPage(report[0])
    anchors = [value[1:] for name, value in page.attributes if name == "href"]
    identifiers = [value for name, value in page.attributes if name == "id"]
    assert len(anchors) > 8 and set(anchors) <= set(identifiers)
    assert all(page.alternatives) and len(set(page.alternatives)) == len(page.alternatives)
    assert all(value for name, value in page.attributes if name == "aria-label")


def test_it_holds_the_numbers_of_the_evaluation(report: tuple[str, dict[str, Any]]) -> None:
    html, evaluation = report
    text = ParsedPage(html).text
    for measures in (evaluation["model"], *evaluation["baselines"].values()):
        for key, value in measures.items():
            shown = (
                [number(value[k]) for k in ("mean", "std", "median", "p95", "max")]
                if isinstance(value, dict)
                else []
            )
            assert all(item in text for item in shown), key
    assert number(evaluation["model"]["specificity_mm"]) in text
    raw = re.findall(r"<pre>(\{.*?\})</pre>", html, re.S)
    assert json.loads(unescape(raw[0])) == {
        k: v for k, v in evaluation.items() if k != "provenance"
    }
    for name in (
        "palm",
        "thumb",
        "CC0-1.0",
        evaluation["provenance"]["split_hash"],
        "morphable train pca-mlp <b>",
    ):
        assert name in text
    assert not re.search(r"\b(nan|inf|None)\b", text)


def test_the_training_curve_has_no_mark_if_the_kept_epoch_is_unknown(
    report: tuple[str, dict[str, Any]],
) -> None:
    text = ParsedPage(report[0]).text
    assert "kept: 2.50" not in text and "3 epochs in 6 s" in text and "kl" in text


@pytest.mark.parametrize(
    ("validated", "train", "expected"),
    [
        (True, {"keep": "best"}, "Epoch 2 is kept, the best on the validation meshes."),
        (True, {"keep": "last"}, "The last epoch, 2, is kept."),
        (True, {"keep": "best", "b": {"keep": "last"}}, "The last epoch, 2, is kept."),
        (False, {"keep": "best"}, "The family has no validation; the last epoch, 2, is kept."),
    ],
)
def test_the_training_section_says_which_epoch_is_kept_and_why(
    hands: MeshDataset, validated: bool, train: dict[str, Any], expected: str
) -> None:
    provenance = {"split": "subject", "kept_epoch": 2, "train": train}
    model = linear(hands, "subject").with_origin(Origin("pca", provenance))
    rows = [{"epoch": e, "step": e, "stage": "b", "train/critic/score": 1.0 / e} for e in (1, 2)]
    if validated:
        rows = [row | {"validation_mm": 1.0 + row["epoch"]} for row in rows]
    made = report_context(model, hands.split("subject"))
    text = ParsedPage(html_of(training(dataclasses.replace(made, metrics=rows)))).text
    assert expected in text and "critic/score" in text
    assert ("kept: 3.00 mm, epoch 2" in text) == ("Validation" in text) == validated
    assert "best:" not in text
    assert training(made) is None, "an estimated model has no course of training"


def test_the_epochs_of_several_stages_are_counted_apart(hands: MeshDataset) -> None:
    """The best epoch is one of the last stage: validation errors of others are of another kind."""
    model = linear(hands, "subject").with_origin(Origin("pca", {"kept_epoch": 3, "train": {}}))
    errors = {"first": [0.1, 0.2], "second": [3.0, 4.0]}
    rows: list[dict[str, Any]] = []
    for stage, values in errors.items():
        for error in values:
            place = {"epoch": len(rows) + 1, "step": len(rows) + 1, "stage": stage}
            rows.append(place | {"train/loss": 1.0, "validation_mm": error})
    made = dataclasses.replace(report_context(model, hands.split("subject")), metrics=rows)
    text = ParsedPage(html_of(training(made))).text
    assert "4 epochs (2 of first, then 2 of second)" in text
    assert "Epoch 1 of second is kept, the best" in text and "kept: 3.00 mm, epoch 3" in text


def test_writing_it_tells_its_progress(hands: MeshDataset, tmp_path: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    result = measured(linear(hands, "subject"), hands)
    write_report(result, [], tmp_path / "r.html", lambda *step: steps.append(step))
    total = steps[0][1]
    assert [step[:2] for step in steps] == [(done, total) for done in range(total)]
    assert steps[2][2] == "report: reconstructions" and "writing" in steps[-1][2]


def test_writing_it_again_gives_the_same_file(hands: MeshDataset, tmp_path: Path) -> None:
    model = linear(hands, "subject")
    result = measured(model, hands)
    for name in ("a.html", "b.html"):
        write_report(result, [], tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    page = ParsedPage((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert "than that of the mean shape" in page.text and "Training" not in page.texts


def test_a_template_without_regions_and_meshes_without_subjects(
    ball: Template, tmp_path: Path
) -> None:
    dataset = balls(ball, tmp_path / "balls")
    for model in (linear(dataset, "frames"), trained(dataset, "frames", 2)):
        assert len(dataset.split("frames").test) == 2
        path = tmp_path / f"{model.family}.html"
        write_report(measured(model, dataset), [], path)
        html = path.read_text(encoding="utf-8")
        page = ParsedPage(html)
        assert (
            "The template has no regions." in page.text
            and "balls <script>" in page.text
            and html.count("<script") == 1  # the one that draws the shape in 3D
        )
        assert not re.search(r"\b(nan|inf|None)\b", page.text)


def test_one_test_mesh(ball: Template, tmp_path: Path) -> None:
    dataset = balls(ball, tmp_path / "balls", 4)
    assert len(dataset.split("frames").test) == 1
    model = trained(dataset, "frames", 2)
    write_report(measured(model, dataset), METRICS[:1], tmp_path / "one.html")
    text = ParsedPage((tmp_path / "one.html").read_text(encoding="utf-8")).text
    reason = "o confidence interval: at least 8 measured subjects are needed, there is 1"
    assert text.count(reason) == 3, "beside the number, in the verdict and under the table"
    assert "whiskers" not in text and not re.search(r"\b(nan|inf|None)\b", text)


def test_an_evaluation_with_almost_nothing_in_it(ball: Template, tmp_path: Path) -> None:
    dataset = balls(ball, tmp_path / "balls")
    evaluation = Evaluation.of(linear(dataset, "frames"), dataset.split("frames"))
    write_report(Measured(evaluation, {"model": {"locality": None}}), [], tmp_path / "r.html")
    assert not re.search(
        r"\b(nan|inf)\b", ParsedPage((tmp_path / "r.html").read_text(encoding="utf-8")).text
    )


def test_what_a_model_cannot_do(ball: Template, tmp_path: Path) -> None:
    dataset = balls(ball, tmp_path / "balls")
    model = linear(dataset, "frames")

    def refuse(*_: Any, **__: Any) -> Any:
        raise InputError("this model cannot be sampled")

    result = measured(model, dataset)
    model.sample = refuse  # type: ignore[method-assign]
    write_report(result, [], tmp_path / "r.html")
    page = ParsedPage((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert (
        "Not shown: this model cannot be sampled" in page.text
        and "Meshes of the test set" in page.text
    )


@pytest.mark.parametrize(
    ("own", "better", "emphasis"),
    [([1.2, 1.4], False, "30 % higher"), ([0.7, 0.5], True, "40 % lower"), ([1.0, 1.0], None, "0 % different"),
     ([2.0, 0.2], None, "10 % higher"), ([200.0, 314.0], False, "257 times")],
)  # fmt: skip
def test_the_verdict_follows_the_paired_interval(
    hands: MeshDataset, own: list[float], better: bool | None, emphasis: str
) -> None:
    """Errors of PCA are 1 mm everywhere; the model's are own[0] mm on one half of the subjects,
    own[1] on the other.
    """
    evaluation = Evaluation.of(trained(hands, "subject"), hands.split("subject"), "train")
    rows, subjects = len(evaluation.codes), evaluation.groups
    half = np.isin(subjects, np.unique(subjects)[: len(set(subjects.tolist())) // 2])
    errors = {"model": np.where(half, *own), "pca": np.ones(rows), "mean_shape": np.ones(rows)}
    known = dataclasses.replace(evaluation, mesh_errors=errors, subset="test")
    context = ReportContext(Measured(known, _means(float(np.mean(own)), 1.0)), [])
    context.result.evaluation.__dict__["groups"] = subjects
    said = verdict(context)
    assert said is not None
    assert said.better is better and said.emphasis == emphasis and "on unseen subjects" in said.text
    assert ("do not show" in said.text) is (better is None)


def _means(own: float, pca: float) -> dict[str, Any]:
    results = {
        name: {"vertex_error_mm": {"mean": mean}} for name, mean in (("model", own), ("pca", pca))
    }
    return {
        "model": results["model"],
        "baselines": {"pca": results["pca"]},
        "provenance": {"split": "subject"},
    }


@pytest.mark.parametrize(
    ("split", "part", "words"),
    [
        ("subject", "test", "on unseen subjects"),
        ("frames", "test", "on held-out frames of subjects that were seen in training"),
        ("expression-smile", "test", "on the unseen expression “smile”"),
        ("subject", "train", "on its own training meshes"),
        ("subject", "val", "on validation subjects"),
    ],
)
def test_the_setting_is_named_for_what_it_is(
    hands: MeshDataset, split: str, part: str, words: str
) -> None:
    rows = np.arange(20)
    data = SplitDataset(hands, split, Split(rows, rows, rows))
    assert setting(report_context(linear(hands, "subject"), data, subset=part)) == words


def test_walks_follow_the_components_of_pca(hands: MeshDataset) -> None:
    """PCA's prior is white, so nothing but the surface can order its directions."""
    model = linear(hands, "subject", 5)
    found = prior_walks(model, "shape", 3)
    assert [walk.title for walk in found] == ["shape 1", "shape 2", "shape 3"]
    ends = (model.basis.components * model.basis.deviations[:, None]).reshape(5, -1, 3).numpy() * (
        STEPS[-1] - STEPS[0]
    )
    for walk, end in zip(found, ends, strict=False):
        assert np.allclose(walk.movement, np.linalg.norm(end, axis=-1), rtol=1e-3, atol=1e-3)
        assert np.allclose(walk.shapes[2], model.basis.mean.reshape(-1, 3).numpy(), atol=1e-4)


def test_directions_are_orthogonal_and_reproduce_the_prior(hands: MeshDataset) -> None:
    model = trained(hands, "subject", 4)
    steps = principal_directions(model).double()
    covariance = model.prior.factor.double() @ model.prior.factor.double().T
    assert torch.allclose(steps.T @ steps, covariance, atol=1e-4 * float(covariance.max()))
    gram = steps @ steps.T
    assert float((gram - torch.diag(gram.diagonal())).abs().max()) < 1e-4 * float(gram.max())


def test_compactness_of_pca_is_the_classical_one(hands: MeshDataset) -> None:
    """On its own training meshes: cumulative eigenvalues over their sum."""
    chosen = hands.split("subject").train.select(np.arange(40))
    few = chosen.vertices
    model = Pca.estimate(hands.template, few, {}, PcaConfig(6)).eval()
    spectrum = (
        np.linalg.svd(
            few[:].reshape(40, -1).astype(float) - few[:].reshape(40, -1).mean(0), compute_uv=False
        )
        ** 2
    )
    found = compactness(Evaluation.of(model, all_of(chosen)))
    assert np.allclose(found, np.cumsum(spectrum)[:6] / spectrum.sum(), atol=1e-4)


def test_numbers_as_people_read_them() -> None:
    assert [number(v) for v in (3, -0.5, 99.96, None, True, np.inf)] == [
        "3",
        "−0.500",
        "100.0",
        "–",
        "–",
        "–",
    ]
    assert percent(float("nan")) == "–" and round_up(0.0) == 1.0 and round_up(3.1) == 5.0
    assert middles(80, 4).tolist() == [10, 30, 50, 70] and middles(2, 6).tolist() == [0, 1]
