"""two-space: closed gates are the linear model, the expression zero is the neutral mesh, what trains
what, how pairs are transported, and how gates are chosen.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from family_models import batch, progress, trained_family, training
from helpers import all_of
from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.evaluate.disentangle import disentanglement
from morphable.evaluate.evaluation import Evaluation
from morphable.mesh.template import Template
from morphable.mesh.transport import Transport
from morphable.models import apart
from morphable.models.apart import Apart, relative_score
from morphable.models.base import Origin
from morphable.models.basis_points import MAX_POINTS, BasisPoints
from morphable.models.coefficient_start import alignment
from morphable.models.families import create
from morphable.models.linear_two_space import LinearTwoSpace, TwoSpaceConfig
from morphable.models.training import Batch
from morphable.models.transported_pairs import Pairs, better_method
from morphable.models.two_space import GATES, TwoSpace


def made(dataset: MeshDataset, **settings: Any) -> TwoSpace:
    """A model before its first step."""
    torch.manual_seed(0)
    model = create("two-space", dataset.template, **{"pair_count": 60, **settings})
    assert isinstance(model, TwoSpace)
    model.initialize(*training(dataset).at_start(with_neutral=True))
    return model


def set_gates(model: TwoSpace, value: float) -> None:
    for gate in GATES:
        model.get_buffer(gate).fill_(value)


@torch.no_grad()
def spoil(model: TwoSpace) -> None:
    """Make all networks large and random."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.5)


@pytest.mark.parametrize("sizes", [(4, 4), (7, 9)])
def test_closed_gates_are_the_linear_model(gestures: MeshDataset, sizes: tuple[int, int]) -> None:
    """Whatever the networks are: the same codes, meshes and neutral meshes, of new meshes too."""
    model = made(gestures, identity=sizes[0], expression=sizes[1])
    spoil(model)
    set_gates(model, 0)
    linear = LinearTwoSpace.estimate(
        gestures.template,
        *training(gestures).at_start(with_neutral=True),
        TwoSpaceConfig(*sizes),
    )
    meshes = torch.from_numpy(gestures.vertices[:]) + torch.randn(24, 1609, 3)
    codes = linear.encode(meshes)
    with torch.no_grad():
        assert torch.allclose(model.encode(meshes), codes, atol=2e-3)
        assert torch.allclose(model.decode(codes), linear.decode(codes), atol=2e-3)
        assert torch.allclose(model.neutral(codes), linear.neutral(codes), atol=2e-3)


def test_the_expression_zero_is_the_neutral_mesh(gestures: MeshDataset) -> None:
    model = made(gestures)
    spoil(model)
    code = torch.randn(3, 8)
    code[:, 4:] = 0
    with torch.no_grad():
        person = model.mean + model.person(code[:, :4]) @ model.components
        assert torch.equal(model.offset(code[:, :4], code[:, 4:]), torch.zeros(3, 137))
    assert torch.allclose(model.decode(code), person.unflatten(1, (-1, 3)))


def test_only_neutral_meshes_train_the_identity(gestures: MeshDataset) -> None:
    """Neither the offsets nor the swaps move what reads or writes the identity."""
    model = made(gestures)
    terms = model.loss(batch(training(gestures)), progress(0))
    assert set(terms) == {"neutral", "offset", "swap", "kl"}
    (terms["offset"] + terms["swap"]).backward()
    for network in (model.identity_encoder, model.identity_decoder):
        assert all(p.grad is None or not p.grad.any() for p in network.parameters())
    assert model.expression_encoder.linear.weight.grad is not None
    model.zero_grad()
    model.loss(batch(training(gestures)), progress(0))["neutral"].backward()
    assert model.identity_encoder.linear.weight.grad is not None
    assert model.identity_encoder.linear.weight.grad.any()


@pytest.mark.parametrize("bias", [-200.0, 200.0])
def test_a_posterior_without_noise_does_not_break_the_information_term(
    gestures: MeshDataset, bias: float
) -> None:
    """Its variance would be 0 or infinite in single precision, and the density not a number."""
    model = made(gestures, information_weight=0.01)
    with torch.no_grad():
        model.log_variance.linear.bias.fill_(bias)
    terms = model.loss(batch(training(gestures)), progress(0))
    torch.stack([*terms.values()]).sum().backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_the_target_of_offsets_has_no_part_of_the_person(
    gestures: MeshDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meshes and their neutral meshes may be another person's: the loss of offsets is the same."""
    model = made(gestures, pairs="none", initial_deviation=1e-6)
    data = batch(training(gestures))
    assert data.neutral is not None
    monkeypatch.setattr(model, "code_of", lambda meshes, _: torch.zeros(len(meshes), 8))
    shift = 100 * model.components[:40].sum(0).view(-1, 3)
    moved = Batch(data.vertices + shift, data.neutral + shift)
    plain, other = (model.loss(given, progress(0)) for given in (data, moved))
    assert plain["offset"].item() == pytest.approx(other["offset"].item(), rel=1e-4)
    assert plain["neutral"].item() != pytest.approx(other["neutral"].item(), rel=1e-2)


def test_pairs_are_of_two_people() -> None:
    neutral = np.array([0, 0, 0, 3, 3, -1])
    pairs = Pairs.draw(neutral, 200, np.random.default_rng(0))
    assert 50 < len(pairs) < 150
    assert (pairs.person_neutral != pairs.source_neutral).all()
    assert (neutral[pairs.person] == pairs.person_neutral).all()
    assert (neutral[pairs.source] == pairs.source_neutral).all()
    assert not len(Pairs.draw(np.full(4, -1), 10, np.random.default_rng(0)))


def test_added_offsets_are_pairs_in_coefficients(gestures: MeshDataset) -> None:
    """Each pair is the person's neutral mesh plus what the expression adds to another one's."""
    model = made(gestures, pairs="offsets")
    _, source, pair, neutral = model.pairs.unbind(1)
    known = model.coefficients(torch.from_numpy(gestures.vertices[:]))
    row = torch.cdist(source, known).argmin(1)
    index = torch.from_numpy(training(gestures).neutral.index)
    expected = neutral + known[row] - known[index[row]]
    assert torch.allclose(pair, expected, atol=1e-2)
    assert len(made(gestures, pairs="none").pairs) == 0


def test_the_method_of_transport_that_fits_the_data(hands: MeshDataset) -> None:
    """Hands turn with their bones; what is added by offsets is explained by them."""
    transport = Transport.of(hands.template.mesh.triangles, hands.template.n_vertices)
    data = training(hands)
    neutral = data.neutral.index
    random = np.random.default_rng(0)
    assert better_method(data.vertices, neutral, transport, random) == "gradients"
    people = hands.vertices[np.unique(neutral)]
    moves = random.standard_normal((40, 3)) @ random.standard_normal((3, 3 * 1609))
    shapes = np.concatenate(
        [np.concatenate([p[None], p + moves.reshape(40, 1609, 3)]) for p in people[:4]]
    )
    index = np.repeat(np.arange(4) * 41, 41)
    added = shapes.astype(np.float32)
    assert better_method(added, index, transport, random) == "offsets"


def test_measures_for_gates_are_those_of_evaluate(
    gestures: MeshDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "MAX_VERTICES", 10**6)
    model = trained_family("linear-two-space", gestures)
    found = disentanglement(evaluation := Evaluation.of(model, all_of(gestures)))["model"]
    transport = Transport.of(gestures.template.mesh.triangles, 1609)
    validation = batch(training(gestures))
    judge = Apart(validation, Batch(validation.vertices[:0]), transport.apply)
    codes = model.encode(judge.meshes)
    measures = judge.measures(model.parts, codes, model.encode(judge.sources), model.decode)
    assert measures["vertex"] == pytest.approx(evaluation.mesh_errors["model"].mean(), rel=1e-4)
    assert measures["neutral"] == pytest.approx(found["neutral_error_mm"]["mean"], rel=1e-4)
    assert measures["lost"] == pytest.approx(1 - found["expression_kept"], rel=1e-3)
    # The true swaps are known there, and transported here; pairs are drawn anew.
    assert measures["swap"] == pytest.approx(found["swap_error_mm"]["mean"], rel=0.15)


def test_aligned_codes_give_the_same_meshes(gestures: MeshDataset) -> None:
    """Networks add a little to a linear model whose codes are turned: aligning undoes the turn."""
    model = made(gestures)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.003)
    turn = torch.linalg.qr(torch.randn(4, 4)).Q
    flat = torch.zeros_like(model.directions)
    with torch.no_grad():
        for coder, part in (
            (model.identity_encoder, model.parts["identity"]),
            (model.expression_encoder, model.parts["expression"]),
        ):
            linear = model.inverse[:, part] * model.scales[:, None]
            coder.change_outputs(turn, linear @ turn - linear, model.center / model.scales)
        skip = model.directions / model.correction_unit
        model.identity_decoder.change_inputs(turn, skip[:4])
        flat[4:] = skip[4:]
        model.expression_decoder.change_inputs(torch.block_diag(turn, turn), flat)

        meshes = torch.from_numpy(gestures.vertices[:])
        turned = model.encode(meshes)
        shapes, neutral = model.decode(turned), model.neutral(turned)
        model.align()
        codes = model.encode(meshes)
        assert torch.allclose(model.decode(codes), shapes, atol=1e-2)
        assert torch.allclose(model.neutral(codes), neutral, atol=1e-2)
        set_gates(model, 0)
        linear = model.encode(meshes)
    apart_by = [(found - linear).norm() / linear.norm() for found in (turned, codes)]
    assert apart_by[1] < 0.4 * apart_by[0]


def test_a_change_of_codes_is_least_squares_or_a_rotation() -> None:
    torch.manual_seed(0)
    codes, directions = torch.randn(500, 3), torch.randn(3, 20)
    change = torch.tensor([[1.0, 0.4, 0.0], [0.0, 0.8, 0.3], [-0.2, 0.0, 1.1]])
    found = alignment(codes, codes @ change @ directions, directions)
    assert torch.allclose(found, change, atol=1e-2)
    # The last dimension says nothing of the shapes, and dropping it could not be undone.
    shapes = codes[:, :2] @ directions[:2]
    found = alignment(codes, shapes, directions)
    assert torch.allclose(found @ found.T, torch.eye(3), atol=1e-4)


def test_gates_close_over_networks_that_learned_nothing(gestures: MeshDataset) -> None:
    model = made(gestures)
    spoil(model)
    with torch.no_grad():
        model.finish(batch(training(gestures)))
    assert [float(model.get_buffer(gate)) for gate in GATES] == [0, 0, 0]


def test_gates_open_where_training_helped(gestures: MeshDataset) -> None:
    """And no measure is worse than the linear model's by more than the tolerance."""
    model = copy.deepcopy(trained_family("two-space", gestures))  # others share it
    assert isinstance(model, TwoSpace)
    with torch.no_grad():
        model.finish(batch(training(gestures)))
    opened = [float(model.get_buffer(gate)) for gate in GATES]
    assert any(opened)
    data = all_of(gestures)
    found = disentanglement(Evaluation.of(model.with_origin(Origin("two-space")), data))["model"]
    set_gates(model, 0)
    linear = disentanglement(Evaluation.of(model, data))["model"]
    for gate, value in zip(GATES, opened, strict=True):
        model.get_buffer(gate).fill_(value)
    for name in ("neutral_error_mm", "disentanglement_error_mm"):
        assert found[name]["mean"] <= 1.011 * linear[name]["mean"]


def test_a_single_validation_person_is_swapped_with_training_people(gestures: MeshDataset) -> None:
    model = made(gestures)
    one = batch(training(gestures))
    assert one.neutral is not None
    alone = Batch(one.vertices[:3], one.neutral[:3])
    transport = Transport.of(gestures.template.mesh.triangles, 1609)
    judge = Apart(alone, Batch(model.others[0], model.others[1]), transport.apply)
    assert len(judge.swaps) == apart.MAX_SWAPS and len(judge.sources) == 24


def test_few_validation_people_leave_the_identity_linear(gestures: MeshDataset) -> None:
    model = made(gestures)
    whole = batch(training(gestures))
    assert whole.neutral is not None
    larger = Batch(1.1 * whole.vertices[:21], 1.1 * whole.neutral[:21])  # seven other people
    set_gates(model, 1)
    with torch.no_grad():
        model.finish(larger)
    assert float(model.identity_encoder_gate) == float(model.identity_decoder_gate) == 0


def test_people_who_were_trained_on_are_no_strangers(gestures: MeshDataset) -> None:
    model = made(gestures)
    whole = batch(training(gestures))
    assert whole.neutral is not None
    others = Batch(model.others[0], model.others[1])
    transport = Transport.of(gestures.template.mesh.triangles, 1609)
    some = Batch(whole.vertices[:9], whole.neutral[:9])
    assert Apart(some, others, transport.apply).strangers == 0
    mixed = Batch(whole.vertices[:9], torch.cat([whole.neutral[:6], 1.1 * whole.neutral[6:9]]))
    assert Apart(mixed, others, transport.apply).strangers == 1


def test_scans_are_read_as_the_coefficients_of_meshes(gestures: MeshDataset) -> None:
    """The network of points learns them from simulated scans, and trains nothing else."""
    model = made(gestures, pairs="none", scans=True)
    meshes = torch.from_numpy(gestures.vertices[:8])

    @torch.no_grad()
    def error() -> float:
        shapes = model.eval().decode(model.encode_points(meshes[:, ::3]))
        model.train()
        return float((shapes - meshes).norm(dim=-1).mean())

    model.loss(batch(training(gestures)), progress(0))["scan"].backward()
    touched = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {"cloud"}
    first = error()
    moved = (meshes - meshes.mean(0)).norm(dim=-1).mean()
    assert first < 0.7 * moved, "the regression alone is better than the mean shape"
    optimizer = torch.optim.Adam(model.cloud.parameters(), lr=1e-3)
    for step in range(60):
        optimizer.zero_grad()
        model.loss(batch(training(gestures)), progress(step))["scan"].backward()
        optimizer.step()
    assert error() < 0.7 * first


@torch.no_grad()
def test_scans_get_the_codes_of_the_meshes_that_they_are_read_as(gestures: MeshDataset) -> None:
    model = made(gestures, scans=True).eval()
    for parameter in model.parameters():
        parameter.add_(0.01 * torch.randn(parameter.shape))
    points = torch.from_numpy(gestures.vertices[:2])
    code = model.encode_points(points)
    order = torch.randperm(1609)
    assert torch.allclose(model.encode_points(points[:, order]), code, atol=1e-4)
    read = (model.mean + model.cloud(points) @ model.components).unflatten(1, (-1, 3))
    assert torch.allclose(model.encode(read), code, atol=1e-2)
    for gate in (0.0, 0.5):
        set_gates(model, gate)
        assert torch.allclose(model.encode_points(points), model.encode(read), atol=1e-2)


@torch.no_grad()
def test_vectors_to_nearest_points_by_hand() -> None:
    places = torch.tensor([[0.0, 0, 0], [10, 0, 0], [0, 10, 0]])
    reader = BasisPoints(3, 2, [4])
    reader.initialize(places, torch.tensor([2.0, 3.0]))
    assert {tuple(place) for place in reader.places.tolist()} == {(0, 0, 0), (10, 0, 0), (0, 10, 0)}
    cloud = torch.tensor([[[1.0, 1, 0], [9, 2, 0], [50, 50, 50]]])
    expected = {(0, 0, 0): (1, 1, 0), (10, 0, 0): (-1, 2, 0), (0, 10, 0): (1, -9, 0)}
    found = reader.vectors(cloud)[0].unflatten(0, (3, 3)).tolist()
    for place, vector in zip(reader.places.tolist(), found, strict=True):
        assert tuple(vector) == expected[tuple(place)]
    assert torch.equal(reader(cloud), torch.zeros(1, 2))
    reader.map.linear.bias.fill_(1)
    assert reader(cloud)[0].tolist() == [2, 3]
    for wrong in (cloud[:, :2], cloud[0], cloud[..., :2]):
        with pytest.raises(InputError, match=r"points: expected \(B, P, 3\) with P >= 3"):
            reader(wrong)


@torch.no_grad()
def test_basis_points_start_at_a_regression_and_read_dense_clouds() -> None:
    """Of spheres, whose radius the nearest points say."""
    random = torch.Generator().manual_seed(0)
    sphere = nn.functional.normalize(torch.randn(5000, 3, generator=random), dim=1)
    radii = torch.linspace(20, 40, 60)
    clouds = radii[:, None, None] * sphere[:900]
    reader = BasisPoints(900, 1, [8])
    reader.initialize(30 * sphere[:900], torch.tensor([10.0]))
    vectors = torch.cat([reader.vectors(cloud[None]) for cloud in clouds])
    reader.start_at_regression(vectors, radii[:, None])
    dense = torch.tensor([23.0, 35.0])[:, None, None] * sphere
    assert dense.shape[1] > MAX_POINTS
    found = reader(dense)
    assert torch.allclose(found[:, 0], torch.tensor([23.0, 35.0]), atol=1.0)
    shuffled = dense[:, torch.randperm(5000, generator=random)]
    assert torch.allclose(reader(shuffled), found, atol=1e-4)


def test_without_the_encoder_of_points_scans_are_refused(gestures: MeshDataset) -> None:
    model = made(gestures)
    assert not model.encodes_points
    with pytest.raises(InputError, match=r"model\.scans=true"):
        model.encode_points(torch.zeros(1, 100, 3))
    with pytest.raises(InputError, match=r"points: expected \(B, P, 3\)"):
        made(gestures, scans=True).encode_points(torch.zeros(100, 3))


NAMES = ("neutral", "smile", "frown")


def additive(ball: Template) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """60 meshes of six people with a named expression each at a level, plus a movement without a
    name; their labels; and what the two expressions add (2, V, 3).
    """
    random = np.random.default_rng(0)
    size = ball.mesh.vertices.shape
    people = ball.mesh.vertices + 3 * random.standard_normal((6, *size))
    named, free = 5 * random.standard_normal((2, *size)), random.standard_normal((1, *size))
    subject = np.repeat(np.arange(6), 10)
    expression, level = random.integers(1, 3, 60), random.uniform(0.3, 1.0, 60)
    amount = random.standard_normal(60)
    expression[::10], level[::10], amount[::10] = 0, 0.0, 0.0
    condition = np.eye(3)[expression][:, 1:] * level[:, None]
    amount -= condition @ np.linalg.lstsq(condition, amount)[0]  # unrelated to the condition
    shapes = people[subject] + np.tensordot(condition, named, 1) + amount[:, None, None] * free
    labels = {"expression": expression, "level": level, "neutral": 10 * subject}
    return shapes.astype(np.float32), labels, named


@torch.no_grad()
def test_a_condition_is_part_of_the_linear_model(ball: Template) -> None:
    """With closed gates it adds what its expression adds, and the expression code says the rest."""
    shapes, labels, named = additive(ball)
    torch.manual_seed(0)
    settings = {"identity": 5, "expression": 1, "pair_count": 50}
    model = create("two-space", ball, conditional=True, expressions=NAMES, **settings)
    assert isinstance(model, TwoSpace)
    model.initialize(shapes, labels)
    set_gates(model, 0)
    meshes = torch.from_numpy(shapes)
    given = model.given_by_labels({k: torch.from_numpy(v) for k, v in labels.items()}, 60)
    code = model.encode(meshes, given)
    assert torch.equal(code[:, 6:], given["condition"])
    assert float((model.decode(code) - meshes).norm(dim=-1).mean()) < 0.2
    smile = torch.zeros(1, 8)
    smile[0, 6] = 0.5
    moved = model.decode(smile) - model.decode(torch.zeros(1, 8))
    assert torch.allclose(moved[0], torch.from_numpy(0.5 * named[0]).float(), atol=0.3)
    assert torch.allclose(model.neutral(code), meshes[labels["neutral"]], atol=0.5)

    searched = model.encode(meshes)
    assert float((searched - code)[:, 6:].abs().mean()) < 0.05
    assert (searched[:, 6:] > 0).sum(1).max() == 1


@torch.no_grad()
def test_aligning_keeps_meshes_with_conditions(ball: Template) -> None:
    shapes, labels, _ = additive(ball)
    settings = {"identity": 5, "expression": 1, "pair_count": 50}
    model = create("two-space", ball, conditional=True, expressions=NAMES, scans=True, **settings)
    assert isinstance(model, TwoSpace)
    model.initialize(shapes, labels)
    for parameter in model.parameters():
        parameter.add_(0.01 * torch.randn(parameter.shape))
    meshes = torch.from_numpy(shapes)
    given = model.given_by_labels({k: torch.from_numpy(v) for k, v in labels.items()}, 60)
    model.eval()
    before = [model(meshes, given), model.decode(model.encode_points(meshes, given))]
    model.align()
    after = [model(meshes, given), model.decode(model.encode_points(meshes, given))]
    for first, second in zip(before, after, strict=True):
        assert torch.allclose(first, second, atol=1e-2)
    model.finish(Batch(meshes, meshes[labels["neutral"]]))
    assert all(0 <= float(model.get_buffer(gate)) <= 1 for gate in GATES)


def test_a_worse_measure_outweighs_any_gain() -> None:
    linear = {"vertex": 1.0, "swap": 1.0, "lost": 0.1}
    assert relative_score(linear, linear) == 0
    assert relative_score({"vertex": 0.5, "swap": 0.5, "lost": 0.1}, linear) < 0
    assert relative_score({"vertex": 1e-3, "swap": 1e-3, "lost": 0.12}, linear) > 0


def test_without_neutral_meshes_gates_are_chosen_by_the_vertex_error(gestures: MeshDataset) -> None:
    model = made(gestures)
    with torch.no_grad():
        model.finish(Batch(torch.from_numpy(gestures.vertices[:])))
        assert all(0 <= float(model.get_buffer(gate)) <= 1 for gate in GATES)
