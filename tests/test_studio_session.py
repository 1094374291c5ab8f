"""The studio's session, without a browser: every family is shaped, edited, undone, saved and loaded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from family_models import VARIANTS, trained_family
from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.export.directions import expressions_of_data
from morphable.models.base import MorphableModel
from morphable.models.families import MODELS
from morphable.models.pca import Pca, PcaConfig
from morphable.studio.files import (
    MAX_UPLOAD,
    code_bytes,
    mesh_bytes,
    read_code_upload,
    read_landmarks_upload,
    read_mesh_upload,
)
from morphable.studio.likelihood import Likelihood
from morphable.studio.session import MAX_STEPS, Session, Shape
from morphable.studio.sliders import sliders_of


@pytest.fixture(scope="module")
def pca(hands: MeshDataset) -> Pca:
    return Pca.estimate(hands.template, hands.vertices, {}, PcaConfig(5)).eval()


@pytest.fixture(params=[*MODELS, *VARIANTS])
def model(request: pytest.FixtureRequest, gestures: MeshDataset) -> MorphableModel:
    return trained_family(request.param, gestures)


@torch.no_grad()
def test_every_family_can_be_shaped_edited_undone_and_saved(
    model: MorphableModel, hands: MeshDataset
) -> None:
    session = Session(model)
    seen = [session.vertices]

    def step(what: str) -> None:
        assert np.isfinite(session.vertices).all(), what
        assert not np.array_equal(session.vertices, seen[-1]), what
        seen.append(session.vertices)

    session.sample()
    step("a random shape")
    # In a VAE that has hardly learned, every dimension has collapsed, and there is nothing to move.
    assert session.sliders or model.family in ("ib-vae", "cvae")
    for slider in session.sliders[:1]:
        session.move(slider, 1.5)
        assert slider.value(session.shape.code) == pytest.approx(1.5, abs=1e-3)
        step("a slider")
    before, name = session.vertices, session.region_names[1]
    session.grab(name, 0).to(np.array([0, 0, 5.0]))
    step("a pull")
    outside = ~session.region(name).inside
    assert np.array_equal(session.vertices[outside], before[outside])
    kept = session.shape
    session.sample(model.parts.free_names[-1])
    step("another random part, and the pull stays")
    assert session.shape.change is kept.change

    while session.undone_next:
        seen.pop()
        session.undo()
        assert np.array_equal(session.vertices, seen[-1]), "undo is exact"
    while session.redone_next:
        session.redo()
    back = read_code_upload("code.npz", code_bytes(session.shape, model), model)
    assert np.array_equal(session.vertices_of(back), session.vertices), "saved and loaded, exactly"

    start = session.shape
    session.blend(kept, start, 1.0, None)
    np.testing.assert_allclose(session.vertices, session.vertices_of(start), atol=0.02)
    mesh = hands.vertices[40]
    session.show(session.encoded(mesh), "opened")
    np.testing.assert_allclose(session.vertices, mesh, atol=1e-3)
    if "identity" in model.parts:
        session.neutralise()
        neutral = model.neutral(session.encoded(mesh, False).code[None])[0]
        np.testing.assert_allclose(session.vertices, neutral, atol=0.02)
    else:
        with pytest.raises(InputError, match=r"part 'identity': .* ib-vae, cvae, .* have a part"):
            session.neutralise()


def test_sliders_do_not_disturb_each_other(pca: Pca) -> None:
    session = Session(pca)
    values = [1.0, -2.0, 0.5, 0.0, 3.0]
    for slider, value in zip(session.sliders, values, strict=True):
        session.move(slider, value)
    found = [slider.value(session.shape.code) for slider in session.sliders]
    assert found == pytest.approx(values, abs=1e-3)


def test_sliders_come_in_the_order_of_how_much_they_move(pca: Pca) -> None:
    movement = []
    for slider in sliders_of(pca):
        session = Session(pca)
        start = session.vertices
        session.move(slider, 1.0)
        movement.append(float(np.square(session.vertices - start).sum()))
    assert movement == sorted(movement, reverse=True) and len(movement) == 5


def test_one_pull_is_one_step_and_other_gestures_are_others(pca: Pca) -> None:
    session, token = Session(pca), object()
    slider, other = session.sliders[:2]
    for value in np.linspace(0, 1, 20):
        session.move(slider, value, token)
    session.move(other, 1.0, object())
    assert session.undone_next == other.name
    session.undo()
    assert slider.value(session.shape.code) == pytest.approx(1.0, abs=1e-4)
    session.undo()
    assert session.undone_next is None and session.redone_next == slider.name
    pull = session.grab("thumb", 2)
    for height in (1.0, 2.0, 3.0):
        pull.to(np.array([0, height, 0]))
    once = Session(pca)
    once.grab("thumb", 2).to(np.array([0, 3.0, 0]))
    assert np.array_equal(session.vertices, once.vertices), "the way to a goal does not matter"
    assert session.redone_next is None, "a new step ends what could be redone"
    session.undo()
    assert session.undone_next is None


def test_the_history_is_bounded(pca: Pca) -> None:
    session = Session(pca)
    for number in range(3 * MAX_STEPS):
        session.move(session.sliders[0], number / 100)
    for _ in range(3 * MAX_STEPS):
        session.undo()
    assert session.undone_next is None
    first = session.sliders[0].value(session.shape.code)
    assert first == pytest.approx((2 * MAX_STEPS - 1) / 100, abs=1e-3)


def test_a_share_is_that_of_random_shapes(pca: Pca) -> None:
    """By counting: the share of 4,000 random codes that are nearer to the mean."""
    likelihood = Likelihood(pca)
    prior = pca.prior
    codes = prior.sample(4000, torch.Generator().manual_seed(0))
    distances = prior.energy(codes)
    for code in codes[:5]:
        counted = float((distances < prior.energy(code[None])).float().mean())
        assert likelihood.share(code) == pytest.approx(counted, abs=0.03)
    assert likelihood.share(prior.mean) == 0
    assert "Plausible" in likelihood.sentence(prior.mean)
    far = prior.mean + 9 * Session(pca).sliders[0].step
    assert "Improbable" in likelihood.sentence(far)


def test_heat_and_intersections(pca: Pca, hands: MeshDataset) -> None:
    session = Session(pca)
    target = session.vertices + np.array([3, 4, 0], np.float32)
    np.testing.assert_allclose(session.heat(target), 5.0, atol=1e-4)
    clean = len(session.intersections())
    session.show(
        Shape(session.shape.code, -2 * session.vertices * (np.arange(1609) % 2)[:, None]), ""
    )
    assert len(session.intersections()) > clean


def test_a_fit_to_landmarks(pca: Pca, hands: MeshDataset) -> None:
    """Thirty vertices of a shape of the model, in a file, bring the shape back."""
    code = pca.prior.sample(1, torch.Generator().manual_seed(4))
    truth = pca.decode(code)[0].detach().numpy()
    vertices = np.arange(0, 1609, 54)
    lines = [f"{v},{x},{y},{z}" for v, (x, y, z) in zip(vertices, truth[vertices], strict=True)]
    file = "\n".join(["vertex,x,y,z", *lines]).encode()
    session = Session(pca)
    landmarks = read_landmarks_upload("picked.csv", file, pca)
    assert session.fit(landmarks) < 0.5
    assert np.linalg.norm(session.vertices - truth, axis=1).mean() < 1.0
    assert session.undone_next == "fit to landmarks"
    for name, content in (
        ("picked.csv", b"x"),
        ("picked.txt", file),
        ("picked.csv", file.rsplit(b",", 1)[0]),
    ):
        with pytest.raises(InputError, match=r"^picked"):
            read_landmarks_upload(name, content, pca)


def test_swaps_and_expressions(gestures: MeshDataset) -> None:
    model = trained_family("linear-two-space", gestures)
    session = Session(model)
    a, b = (session.encoded(gestures.vertices[row], details=False) for row in (0, 4))
    session.show(a, "a")
    session.swap(b, "expression")
    place = model.parts["expression"]
    assert torch.equal(session.shape.code[place], b.code[place])
    assert torch.equal(session.shape.code[model.parts["identity"]], a.code[model.parts["identity"]])
    steps = {step.name: step for step in expressions_of_data(model, gestures)}
    session.add(a, steps["grasp"].code, 1.0, "grasp", None)
    error = np.linalg.norm(session.vertices - gestures.vertices[1], axis=1).mean()
    still = np.linalg.norm(session.vertices_of(a) - gestures.vertices[1], axis=1).mean()
    assert error < 0.5 * still, "the open hand of a person comes near to the person's grasp"
    with pytest.raises(InputError, match="part 'nose': the parts of this linear-two-space"):
        session.swap(b, "nose")


def test_what_a_session_refuses(pca: Pca) -> None:
    session = Session(pca)
    with pytest.raises(InputError, match="expected a finite number, got nan"):
        session.move(session.sliders[0], float("nan"))
    with pytest.raises(InputError, match="three finite numbers"):
        session.grab("thumb", 0).to(np.array([np.inf, 0, 0]))
    with pytest.raises(InputError, match="has no such handle"):
        session.grab("thumb", 99)
    with pytest.raises(InputError, match="region 'nose'"):
        session.grab("nose", 0)
    assert session.undone_next is None, "nothing was changed"


def test_uploads_are_checked_like_any_file(pca: Pca, hands: MeshDataset) -> None:
    good = mesh_bytes(hands.vertices[3], pca, ".ply")
    assert np.array_equal(read_mesh_upload("a.ply", good, pca), hands.vertices[3])
    for suffix in (".obj", ".glb"):
        again = read_mesh_upload(f"a{suffix}", mesh_bytes(hands.vertices[3], pca, suffix), pca)
        np.testing.assert_allclose(again, hands.vertices[3], atol=1e-3)
    for name, content, words in (
        ("a.ply", good[:5000], "a.ply: "),
        ("a.ply", b"", "a.ply: "),
        ("a.ply", np.random.default_rng(0).bytes(9999), "a.ply: "),
        ("a.exe", good, "a.exe: expected a file ending in .ply"),
        ("../../etc/a.ply", b"ply", "^a.ply: "),
        ("big.ply", bytes(MAX_UPLOAD + 1), "big.ply: has 64 MiB, at most 64 are read"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            read_mesh_upload(name, content, pca)
        assert "upload." not in str(caught.value) and "\n" not in str(caught.value)


def test_codes_of_another_model_and_damaged_ones(pca: Pca, gestures: MeshDataset) -> None:
    other = trained_family("region-pca", gestures)
    code = code_bytes(Shape(other.prior.mean), other)  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"c.npz: is a code of another model \(region-pca: palm 2"):
        read_code_upload("c.npz", code, pca)
    own = code_bytes(Shape(pca.prior.mean), pca)
    for damaged in (own[:100], b"", b"PK" + own, code[::-1]):
        with pytest.raises(InputError, match=r"^c.npz: "):
            read_code_upload("c.npz", damaged, pca)
    broken = code_bytes(Shape(torch.full((5,), torch.nan)), pca)
    with pytest.raises(InputError, match=r"c.npz: its code is damaged: expected"):
        read_code_upload("c.npz", broken, pca)
