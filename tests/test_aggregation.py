"""Aggregation between levels: Deep3DMM's learned maps against the formula written densely, their
rivals, folding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from conftest import ball_template
from helpers import dataset, shapes
from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.mesh.hierarchy import Hierarchy, build_hierarchy
from morphable.mesh.template import Template
from morphable.mesh.topology import adjacency
from morphable.models.autoencoder import AutoencoderConfig, HierarchicalAutoencoder
from morphable.models.families import MODELS, create
from morphable.models.io import load, save
from morphable.models.level_maps import LevelMapsConfig, build_maps
from morphable.models.mesh_geometry import MeshGeometry
from morphable.models.mesh_network import FILTERS
from morphable.models.recipes import DEEP3DMM, DEEP3DMM_SPIRAL
from morphable.models.training import Batch, Progress
from morphable.ops.aggregation import DiffPool, FullMap, VariantMap, average_map, padded_rows
from morphable.ops.attention_map import AttentionMap
from morphable.ops.best_keys import select_best
from morphable.ops.sparse import SparseMap, entry_products, transpose_index
from morphable.train.checkpoint import read_checkpoint
from morphable.train.distributed import Workers
from morphable.train.events import TrainingEvent
from morphable.train.run import RunConfig, run

EXACT = {"rtol": 1e-10, "atol": 1e-12}
WORKER = Workers(0, 1, torch.device("cpu"))


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=[(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=["float", "double"])
def tolerance(request: pytest.FixtureRequest) -> Iterator[float]:
    """Single and double precision by turns, and what may be lost in each."""
    precision, allowed = request.param
    torch.set_default_dtype(precision)
    yield allowed
    torch.set_default_dtype(torch.float32)


def prior(n_out: int = 7, n_in: int = 12) -> sp.csr_matrix:
    """One to three non-negative entries a row that sum to one."""
    matrix = sp.random(n_out, n_in, 0.2, format="lil", rng=np.random.default_rng(0))
    matrix[np.arange(n_out), np.arange(n_out) + 2] = 1
    matrix = sp.csr_matrix(matrix)
    return sp.csr_matrix(sp.diags(1 / np.asarray(matrix.sum(1)).ravel()) @ matrix)


def attention(
    k: int = 3, n_out: int = 7, n_in: int = 12, seed: int = 0, **options: Any
) -> AttentionMap:
    """A learned map whose keys and queries point everywhere, so that about half the cosines are
    negative.
    """
    torch.manual_seed(seed)
    made = AttentionMap(prior(n_out, n_in), np.zeros((n_in, 3)), np.zeros((n_out, 3)), k, **options)
    for tensor in (made.keys, made.queries):
        nn.init.normal_(tensor)
    nn.init.constant_(made.mixing[:1].detach(), 0.7)
    return made


def signal(n: int = 12, batch: int = 4, channels: int = 3) -> Tensor:
    return torch.randn(batch, n, channels, generator=torch.Generator().manual_seed(1))


def by_the_formula(made: AttentionMap, x: Tensor) -> Tensor:
    """Facts 2.2 to the letter, with dense matrices: cosines, clamp, top k, scatter, divide, mix,
    multiply.
    """
    norms = [tensor.square().sum(1, keepdim=True).sqrt() for tensor in (made.queries, made.keys)]
    scores = ((made.queries / norms[0]) @ (made.keys / norms[1]).T).clamp(1e-25, 1e25)
    if made.k < made.n_in:
        best = scores.topk(made.k, dim=1)
        scores = torch.zeros_like(scores).scatter(1, best.indices, best.values)
    learned = scores / scores.abs().sum(1, keepdim=True).clamp(min=1e-12)
    given = torch.from_numpy(made.prior.toarray())
    return ((made.mixing[0] * given + made.mixing[1] * learned) / made.mixing.sum()) @ x


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("k", [1, 2, 3, 11, 12, 40])
@pytest.mark.parametrize("training", [True, False])
def test_the_learned_map_is_the_dense_formula_in_values_and_gradients(
    k: int, training: bool
) -> None:
    made, x = attention(k).train(training), signal().requires_grad_()
    wanted = (x, made.keys, made.queries, made.mixing)
    seed = signal(7)
    ours, theirs = made(x), by_the_formula(made, x)
    torch.testing.assert_close(ours, theirs, **EXACT)
    for mine, other in zip(
        torch.autograd.grad(ours, wanted, seed),
        torch.autograd.grad(theirs, wanted, seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, **EXACT)
        assert (mine != 0).any()


@pytest.mark.usefixtures("double")
def test_a_map_worked_by_hand() -> None:
    """Cosines 1, 0.6 and 0 with two keys kept: weights 1/1.6 and 0.6/1.6, mixed half and half with
    the prior.
    """
    made = AttentionMap(
        sp.csr_matrix([[0.0, 0.0, 1.0]]), np.zeros((3, 3)), np.zeros((1, 3)), 2, channels=3
    )
    made.keys.data = torch.tensor([[2.0, 0, 0], [3, 4, 0], [0, 0, 5]])
    made.queries.data = torch.tensor([[7.0, 0, 0]])
    made.mixing.data = torch.tensor([0.5, 0.5])
    y = made(torch.tensor([[[16.0], [32], [100]]]))
    np.testing.assert_allclose(y.item(), 0.5 * 100 + 0.5 * (16 + 0.6 * 32) / 1.6)
    np.testing.assert_allclose(made.folded().toarray(), [[0.5 / 1.6, 0.5 * 0.6 / 1.6, 0.5]])


@pytest.mark.usefixtures("double")
def test_without_attention_it_is_the_precomputed_map() -> None:
    made = attention()
    made.mixing.data = torch.tensor([1.0, 0.0])
    torch.testing.assert_close(made(signal()), SparseMap(made.prior)(signal()), **EXACT)
    np.testing.assert_allclose(made.folded().toarray(), made.prior.toarray())


@pytest.mark.usefixtures("double")
def test_rows_of_the_learned_part_sum_to_one() -> None:
    index, weights = attention(4).rows()
    torch.testing.assert_close(weights.sum(1), torch.ones(7))
    assert (weights >= 0).all()
    assert all(len(set(row)) == 4 for row in index.tolist())


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("k", [3, 12])
def test_permuting_keys_permutes_columns(k: int) -> None:
    one, two, order = attention(k), attention(k), torch.randperm(12)
    two.keys.data = one.keys.data[order]
    two.prior_weights.zero_()
    one.prior_weights.zero_()
    torch.testing.assert_close(two(signal()[:, order]), one(signal()), **EXACT)


@pytest.mark.usefixtures("double")
def test_a_row_without_a_positive_cosine_vanishes_and_learns_nothing() -> None:
    made, x = attention(3), signal().requires_grad_()
    made.keys.data = made.keys.data.abs()
    made.queries.data[2] = -made.queries.data[2].abs()
    y = made(x)
    share = made.attention_share()
    expected = (1 - share) * SparseMap(made.prior)(x)
    torch.testing.assert_close(y[:, 2], expected[:, 2], **EXACT)
    torch.testing.assert_close(y, by_the_formula(made, x), **EXACT)
    (grad,) = torch.autograd.grad(y.square().sum(), made.queries)
    assert torch.isfinite(grad).all() and (grad[2] == 0).all() and (grad[1] != 0).any()


@pytest.mark.usefixtures("double")
def test_mixing_weights_that_cancel_do_not_divide_by_zero() -> None:
    made = attention()
    made.mixing.data = torch.tensor([0.5, -0.5])
    assert torch.isfinite(made.attention_share())


def test_the_start_is_a_tenth_of_the_z_scores_plus_noise() -> None:
    torch.manual_seed(3)
    keys, queries = np.full((12, 3), 5.0), np.full((7, 3), -5.0)
    made = AttentionMap(prior(), keys, queries, 2)
    assert made.keys.shape == (12, 21) and made.queries.shape == (7, 21)
    noise = torch.cat([made.keys[:, :3] - 5, made.queries[:, :3] + 5, made.keys[:7, 3:6]])
    assert noise.min() >= 0 and noise.max() < 0.1 and noise.std() > 0.02
    assert made.mixing.tolist() == pytest.approx([0.8, 0.2])
    ball = ball_template(640)
    hierarchy = build_hierarchy(ball.mesh)
    maps = build_maps(
        MeshGeometry(hierarchy), FILTERS["simple"], LevelMapsConfig(aggregation="attention")
    )
    top = ball.mesh.vertices
    for side, sources, targets in ((maps.down, 0, 1), (maps.up, 1, 0)):
        for level, module in enumerate(side):
            assert isinstance(module, AttentionMap)
            for tensor, where in ((module.keys, sources), (module.queries, targets)):
                expected = (
                    0.1 * (hierarchy.levels[level + where].vertices - top.mean(0)) / top.std(0)
                )
                rest = tensor.detach().numpy()[:, :3] - expected
                assert rest.min() > -1e-6 and rest.max() < 0.1 + 1e-6


@pytest.mark.parametrize(("k", "refresh", "channels"), [(0, 1, 21), (2, 0, 21), (2, 1, 2)])
def test_impossible_settings(k: int, refresh: int, channels: int) -> None:
    with pytest.raises(InputError, match=f"got {k}, {refresh}, {channels}"):
        AttentionMap(prior(), np.zeros((12, 3)), np.zeros((7, 3)), k, channels, refresh)


def test_another_number_of_vertices_is_named() -> None:
    with pytest.raises(
        InputError, match=r"AttentionMap: expected x of shape \(B, 12, C\), got \(4, 9, 3\)"
    ):
        attention()(signal(9))


# Selection


def scores_of(index: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    return (queries @ keys.T).gather(1, index).sort(1).values


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("k", [1, 2, 9, 20])
@pytest.mark.parametrize("block", [1, 100, 1 << 21])
@pytest.mark.parametrize(("group", "above"), [(8, 256), (2, 2), (3, 4)])
def test_selection_is_the_sorted_best_from_any_start(
    monkeypatch: pytest.MonkeyPatch, k: int, block: int, group: int, above: int
) -> None:
    """Along a random walk of keys the cheap selection equals a full sort: any distinct start, any
    blocks and groups.
    """
    for name, value in (("BLOCK_SCORES", block), ("GROUP", group), ("GROUPED_ABOVE", above)):
        monkeypatch.setattr(f"morphable.ops.best_keys.{name}", value)
    generator = torch.Generator().manual_seed(k)
    queries, keys = torch.randn(30, 5, generator=generator), torch.randn(40, 5, generator=generator)
    before = torch.stack([torch.randperm(40, generator=generator)[:k] for _ in range(30)])
    for step in (0.0, 0.01, 0.3, 3.0):
        keys = keys + step * torch.randn(40, 5, generator=generator)
        expected = (queries @ keys.T).sort(1, descending=True).values[:, :k].flip(1)
        for index in (select_best(queries, keys, k), select_best(queries, keys, k, before)):
            assert index.dtype == torch.int64 and index.shape == (30, k)
            assert (index.sort(1).values.diff(dim=1) > 0).all()
            torch.testing.assert_close(scores_of(index, queries, keys), expected, **EXACT)
        before = select_best(queries, keys, k, before)


def test_a_selection_that_is_still_right_is_kept_in_its_order() -> None:
    queries, keys = torch.randn(30, 5), torch.randn(40, 5)
    before = select_best(queries, keys, 9)[:, torch.randperm(9)]
    assert torch.equal(select_best(queries, keys, 9, before), before)


def moved(made: AttentionMap) -> None:
    """New keys, for which another selection is right."""
    made.keys.data = torch.randn(made.keys.shape, generator=torch.Generator().manual_seed(99))


def chosen(made: AttentionMap) -> set[tuple[int, ...]]:
    return {tuple(sorted(row)) for row in made.rows()[0].tolist()}


def test_in_training_a_selection_lasts_as_long_as_refresh_says() -> None:
    made = attention(refresh=3).train()
    before = chosen(made)
    moved(made)
    assert chosen(made) == before and chosen(made) == before
    after = chosen(made)
    assert after != before
    assert after == chosen(attention_with(made))


def attention_with(made: AttentionMap) -> AttentionMap:
    """A fresh map with the same parameters, which has selected nothing yet."""
    fresh = attention(refresh=1)
    for name in ("keys", "queries", "mixing"):
        getattr(fresh, name).data = getattr(made, name).data.clone()
    return fresh


def test_outside_training_the_selection_is_of_the_keys_and_leaves_training_alone() -> None:
    made = attention(refresh=100).train()
    before = chosen(made)
    moved(made)
    made.eval()
    assert chosen(made) == chosen(attention_with(made)) != before
    made.keys.data = made.keys.data.flip(0)
    assert chosen(made) == chosen(attention_with(made))
    made.train()
    assert chosen(made) == before


def test_refreshing_each_step_is_exact() -> None:
    made = attention(refresh=1).train()
    for _ in range(3):
        moved(made)
        made.keys.data *= torch.randn(12, 1).sign()
        assert chosen(made) == chosen(attention_with(made))


def test_the_transpose_follows_the_selection() -> None:
    """Gradients stay right after the keys moved, although the index's transpose is kept between
    calls.
    """
    made, x = attention(refresh=1).train(), signal().requires_grad_()
    torch.autograd.grad(made(x).sum(), made.keys)
    moved(made)
    expected = by_the_formula(attention_with(made).double(), x.double())
    for mine, other in zip(
        torch.autograd.grad(made(x).square().sum(), (x, made.keys)),
        torch.autograd.grad(made.double()(x.double()).square().sum(), (x, made.keys)),
        strict=True,
    ):
        torch.testing.assert_close(mine.double(), other.double(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made(x.double()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("k", [2, 30])
@pytest.mark.parametrize("known", [True, False])
def test_entry_products_are_the_named_entries_of_the_product(k: int, known: bool) -> None:
    """Also where an index names a row twice, and more entries than there are rows."""
    rows, table = torch.randn(6, 4).requires_grad_(), torch.randn(9, 4).requires_grad_()
    index = torch.randint(0, 9, (6, k), generator=torch.Generator().manual_seed(0))
    transposed = transpose_index(index, 9) if known else None
    seed = torch.randn(6, k)
    ours, theirs = entry_products(rows, table, index, transposed), (rows @ table.T).gather(1, index)
    torch.testing.assert_close(ours, theirs, **EXACT)
    for mine, other in zip(
        torch.autograd.grad(ours, (rows, table), seed),
        torch.autograd.grad(theirs, (rows, table), seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, **EXACT)


# Rivals


def test_average_keeps_the_support_and_levels_the_weights() -> None:
    matrix = sp.csr_matrix(([0.2, 0.8, 0.0, 1.0], ([0, 0, 1, 1], [0, 2, 0, 1])), (3, 3))
    assert average_map(matrix).toarray().tolist() == [[0.5, 0, 0.5], [0, 1, 0], [0, 0, 0]]
    assert matrix.nnz == 4, "the prior is left as it was"
    np.testing.assert_allclose(average_map(prior()).sum(1), 1)


@pytest.mark.usefixtures("double")
def test_full_mapping_is_a_free_matrix() -> None:
    made = FullMap(prior())
    assert [p.shape for p in made.parameters()] == [(7, 12)]
    x = signal()
    expected = np.stack([made.weight.detach().numpy() @ sample for sample in x.numpy()])
    np.testing.assert_allclose(made(x).detach(), expected)
    bound = (6 / (7 + 12)) ** 0.5
    assert made.weight.abs().max() <= bound and made.weight.std() > bound / 3


@pytest.mark.usefixtures("double")
def test_diffpool_averages_and_looks_at_the_features() -> None:
    ring = sp.csr_matrix(np.roll(np.eye(12), 1, 1) + np.roll(np.eye(12), -1, 1))
    made = DiffPool(prior(), ring, 3)
    nn.init.normal_(made.assign.weight)
    constant = torch.full((2, 12, 3), 5.0)
    torch.testing.assert_close(made(constant), torch.full((2, 7, 3), 5.0), **EXACT)
    x = signal()
    y = made(x)
    for sample in range(len(x)):
        scores = np.exp(made.assign(x)[sample].detach().numpy())
        assignment = scores / scores.sum(1, keepdims=True)
        pooled = assignment.T @ x[sample].numpy() / assignment.sum(0)[:, None]
        np.testing.assert_allclose(y[sample].detach(), pooled, rtol=1e-10)
    assert y.detach().min() > x.min() and y.detach().max() < x.max()
    torch.testing.assert_close(made(x[:1]), y[:1], **EXACT)
    alone = made(2 * x) - 2 * y
    assert alone.abs().max() > 0.01, "the map depends on the features, so it is not linear"


@pytest.mark.usefixtures("double")
def test_variant_weights_by_hand() -> None:
    made = VariantMap(sp.csr_matrix([[0.3, 0, 0.7], [0, 1, 0]]))
    assert made.weight.shape == (3,), "one number for each entry of the support"
    made.weight.data = torch.tensor([-1.0, 3.0, -0.5])
    y = made(torch.tensor([[[4.0], [5], [8]]]))
    np.testing.assert_allclose(y.detach().ravel(), [(1 * 4 + 3 * 8) / 4, 5], rtol=1e-7)
    np.testing.assert_allclose(made.folded().toarray(), [[0.25, 0, 0.75], [0, 1, 0]], rtol=1e-7)


@pytest.mark.usefixtures("double")
def test_variant_weights_are_a_dense_quotient_in_values_and_gradients() -> None:
    support, x, seed = prior(), signal(), signal(7)
    made = VariantMap(support)
    dense = torch.zeros(7, 12)
    rows = np.repeat(np.arange(7), np.diff(support.indptr))
    dense[rows, support.indices] = made.weight.detach().abs()
    dense.requires_grad_()
    expected = (dense / (dense.sum(1, keepdim=True) + 1e-8)) @ x
    torch.testing.assert_close(made(x), expected, **EXACT)
    (mine,) = torch.autograd.grad(made(x), made.weight, seed)
    (other,) = torch.autograd.grad(expected, dense, seed)
    torch.testing.assert_close(
        mine, other[rows, support.indices] * made.weight.detach().sign(), **EXACT
    )
    torch.testing.assert_close(SparseMap(made.folded())(x), made(x).detach(), **EXACT)


def test_padded_rows_hold_the_matrix() -> None:
    matrix = prior()
    index, weights = padded_rows(matrix)
    back = np.zeros(matrix.shape)
    np.add.at(back, (np.arange(7)[:, None], index), weights)
    np.testing.assert_array_equal(back, matrix.toarray())
    empty, _ = padded_rows(sp.csr_matrix((3, 4)))
    assert empty.shape == (3, 1)


# Whole networks


@pytest.fixture(scope="module")
def ball() -> Template:
    """Large enough for four coarser levels, of which the last two are smaller than a row of 32
    entries.
    """
    return ball_template(640)


@pytest.fixture(scope="module")
def hierarchy(ball: Template) -> Hierarchy:
    return build_hierarchy(ball.mesh)


def network(template: Template, **settings: Any) -> HierarchicalAutoencoder:
    torch.manual_seed(0)
    made = create("deep3dmm", template, replace(DEEP3DMM.model, latent=3, **settings))
    assert isinstance(made, HierarchicalAutoencoder)
    return made


def trained(made: HierarchicalAutoencoder, steps: int = 5) -> HierarchicalAutoencoder:
    vertices = torch.from_numpy(shapes(made.template, 8)).to(torch.get_default_dtype())
    made.initialize(vertices.numpy())
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    for step in range(steps):
        (loss,) = made.loss(
            Batch(vertices), Progress(0, 1, step, steps, torch.Generator())
        ).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return made.eval()


@pytest.mark.parametrize(("neighbors", "down", "up"), [("paper", 2, 32), ("code", 8, 32)])
def test_presets_and_levels_smaller_than_a_row(
    ball: Template, neighbors: Any, down: int, up: int
) -> None:
    made = network(ball, neighbors=neighbors)
    sizes = (640, 160, 40, 10, 3)
    assert [(m.n_in, m.n_out, m.k) for m in made.encoder.maps] == [
        (fine, coarse, min(down, fine)) for fine, coarse in itertools.pairwise(sizes)
    ]
    assert [(m.n_in, m.n_out, m.k) for m in made.decoder.maps] == [
        (coarse, fine, min(up, coarse)) for fine, coarse in itertools.pairwise(sizes)
    ]


@pytest.mark.parametrize(
    ("learned", "kinds"),
    [
        ("both", (AttentionMap, AttentionMap)),
        ("encoder", (AttentionMap, SparseMap)),
        ("decoder", (SparseMap, AttentionMap)),
    ],
)
def test_the_ablation_switches_one_side(
    ball: Template, learned: Any, kinds: tuple[type, type]
) -> None:
    made = network(ball, learned=learned)
    for side, kind in zip((made.encoder.maps, made.decoder.maps), kinds, strict=True):
        assert all(type(module) is kind for module in side)
    assert all(parameter.requires_grad for parameter in made.parameters())


def test_the_side_that_is_not_learned_keeps_the_precomputed_map(
    ball: Template, hierarchy: Hierarchy
) -> None:
    made = network(ball, learned="encoder")
    for module, matrix in zip(made.decoder.maps, hierarchy.up, strict=True):
        x = torch.randn(1, matrix.shape[1], 2)
        np.testing.assert_allclose(module(x)[0], matrix @ x[0].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("aggregation", "kind"),
    [("full", FullMap), ("diffpool", DiffPool), ("variant", VariantMap), ("qem", SparseMap)],
)
def test_rivals_by_name_learn(ball: Template, aggregation: Any, kind: type) -> None:
    made = network(ball, aggregation=aggregation)
    assert all(type(module) is kind for module in [*made.encoder.maps, *made.decoder.maps])
    before = {name: parameter.detach().clone() for name, parameter in made.named_parameters()}
    trained(made)
    still = [
        name for name, parameter in made.named_parameters() if torch.equal(parameter, before[name])
    ]
    assert not still


def test_variant_maps_reach_over_the_ring_of_the_nearest_vertex(
    ball: Template, hierarchy: Hierarchy
) -> None:
    made = network(ball, aggregation="variant")
    for level, (down, up) in enumerate(zip(made.encoder.maps, made.decoder.maps, strict=True)):
        fine, coarse = hierarchy.levels[level], hierarchy.levels[level + 1]
        rings = [adjacency(part.triangles, len(part.vertices)) for part in (fine, coarse)]
        kept = hierarchy.down[level].indices
        for row in range(down.folded().shape[0]):
            expected = {int(kept[row]), *rings[0][kept[row]].indices.tolist()}
            assert set(down.folded()[row].indices.tolist()) == expected
        for row, matrix_row in enumerate(hierarchy.up[level].toarray()):
            expected = {
                *np.flatnonzero(matrix_row).tolist(),
                *rings[1][matrix_row.argmax()].indices.tolist(),
            }
            assert set(up.folded()[row].indices.tolist()) == expected


def test_average_changes_the_way_up_alone(ball: Template, hierarchy: Hierarchy) -> None:
    made = network(ball, aggregation="average")
    for level, (down, up) in enumerate(zip(made.encoder.maps, made.decoder.maps, strict=True)):
        x = torch.randn(1, hierarchy.down[level].shape[1], 2)
        assert torch.equal(down(x), SparseMap(hierarchy.down[level])(x))
        ones = (hierarchy.up[level].toarray() > 0).astype(float)
        z = torch.randn(1, ones.shape[1], 2)
        np.testing.assert_allclose(
            up(z)[0], ones / ones.sum(1, keepdims=True) @ z[0].numpy(), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("family", ["deep3dmm", "deep3dmm-spiral"])
@pytest.mark.parametrize("settings", [{}, {"learned": "decoder"}, {"aggregation": "variant"}])
def test_folded_it_is_the_same_model(
    ball: Template, tolerance: float, family: str, settings: dict[str, Any]
) -> None:
    """To 1e-6 in the network's units."""
    torch.manual_seed(0)
    alone = replace(MODELS[family].fast.model, latent=3, start="random", **settings)
    made = create(family, ball, alone)
    assert isinstance(made, HierarchicalAutoencoder)
    trained(made)
    folded = made.for_inference()
    vertices = torch.from_numpy(shapes(ball, 8, seed=1)).to(torch.get_default_dtype())
    with torch.no_grad():
        codes = made.encode(vertices)
        assert codes.std() > 1e-3
        for mine, other in (
            (folded.encode(vertices), codes),
            (folded.decode_normalized(codes), made.decode_normalized(codes)),
        ):
            assert (mine - other).abs().max() <= tolerance * max(1, other.abs().max())
    assert all(type(module) is SparseMap for module in [*folded.encoder.maps, *folded.decoder.maps])
    assert not [
        name
        for name in folded.state_dict()
        if "keys" in name or "queries" in name or "selected" in name
    ]
    assert folded.config == made.config and folded.family == made.family
    stored = folded.geometry.folded
    assert stored is not None
    for module, matrix in (
        (made.decoder.maps[0], stored.up[0]),
        (made.encoder.maps[1], stored.down[1]),
    ):
        if isinstance(module, SparseMap):
            assert matrix is None
        else:
            assert matrix is not None and abs(matrix - module.folded()).max() == 0


def test_a_model_without_learned_maps_is_finished_as_it_is(ball: Template) -> None:
    for aggregation in ("qem", "average", "full", "diffpool"):
        made = network(ball, aggregation=aggregation)
        assert made.for_inference() is made


@pytest.fixture(scope="module")
def coma_sized() -> Template:
    return ball_template(5023)


def count(made: nn.Module) -> int:
    return sum(parameter.numel() for parameter in made.parameters())


def test_published_parameter_counts(coma_sized: Template) -> None:
    """30,056 and 179,656 at inference and 380,394 in training; a free dense map for every step has
    13,459,316.
    """
    config = replace(DEEP3DMM.model, neighbors="paper")
    made = create("deep3dmm", coma_sized, config)
    assert isinstance(made, HierarchicalAutoencoder)
    assert count(made) == 380_394
    assert count(made.for_inference()) == 30_056
    geometry = made.geometry
    assert (
        count(create("deep3dmm", coma_sized, replace(config, filters="wider"), geometry))
        == 179_656 + 350_338
    )
    full = create("deep3dmm", coma_sized, replace(config, aggregation="full"), geometry)
    assert count(full) == 30_056 + 13_459_316
    wide = create("deep3dmm", coma_sized, replace(config, filters="wider"), geometry)
    assert isinstance(wide, HierarchicalAutoencoder)
    assert count(wide.for_inference()) == 179_656


# The spiral network, whose tensors we keep one vertex shorter than its authors do


@pytest.mark.usefixtures("double")
def test_the_spiral_network_is_the_one_with_a_dummy_vertex(ball: Template) -> None:
    """Every tensor one vertex longer, every map with a single 1 in the corner, the dummy zeroed
    after every layer.
    """
    torch.manual_seed(0)
    made = create("deep3dmm-spiral", ball, replace(DEEP3DMM_SPIRAL.model, latent=3))
    assert isinstance(made, HierarchicalAutoencoder)
    made.eval()
    spirals = made.geometry.spirals
    vertices = torch.from_numpy(shapes(ball, 3)).double()
    with torch.no_grad():
        x = with_dummy(made.normalization(vertices))
        for level, (conv, down) in enumerate(
            zip(made.encoder.convolutions, made.encoder.maps, strict=True)
        ):
            x = corner(down) @ zeroed(
                made.encoder.activation(plain_spiral(x, conv, spirals[level]))
            )
        code = made.to_code(x.flatten(1))
        torch.testing.assert_close(made.encode(vertices), code, **EXACT)

        y = made.from_code(code).unflatten(1, (x.shape[1], -1))
        assert (y[:, -1] != 0).any()
        for step, (conv, up) in enumerate(
            zip(made.decoder.layers[:-1], reversed(made.decoder.maps), strict=True)
        ):
            y = zeroed(
                made.encoder.activation(plain_spiral(corner(up) @ y, conv, spirals[3 - step]))
            )
        y = plain_spiral(y, made.decoder.final, spirals[0])[:, :-1]
        torch.testing.assert_close(made.decode_normalized(code), y, **EXACT)


def with_dummy(x: Tensor) -> Tensor:
    return torch.cat([x, torch.zeros_like(x[:, :1])], 1)


def zeroed(x: Tensor) -> Tensor:
    return with_dummy(x[:, :-1])


def corner(module: AttentionMap) -> Tensor:
    matrix = module.folded().toarray()
    extended = torch.zeros(matrix.shape[0] + 1, matrix.shape[1] + 1)
    extended[:-1, :-1] = torch.from_numpy(matrix)
    extended[-1, -1] = 1
    return extended


def plain_spiral(x: Tensor, conv: nn.Module, spirals: np.ndarray) -> Tensor:
    """Gather, concatenate, multiply; -1 reads the last vertex, whose own spiral is itself."""
    full = np.concatenate([spirals, np.full((1, spirals.shape[1]), -1)])
    assert isinstance(conv.weight, Tensor) and isinstance(conv.bias, Tensor)
    return x[:, full].flatten(2) @ conv.weight.T + conv.bias


# Training


@pytest.fixture(scope="module")
def data(ball: Template, tmp_path_factory: pytest.TempPathFactory) -> MeshDataset:
    return dataset(ball, tmp_path_factory.mktemp("data") / "set", 60, subjects=20)


def settings(data: MeshDataset, **model: Any) -> RunConfig:
    row = MODELS["deep3dmm"].fast
    assert row.train is not None
    train = replace(row.train, epochs=2, batch_size=8, learning_rate=3e-2, checkpoint_seconds=0)
    return RunConfig("deep3dmm", replace(row.model, latent=3, **model), train)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("above", "every", "at"), [(1 << 24, 10, 5), (0, 4, 2), (0, 4, 6), (0, 4, 7)]
)
def test_a_killed_run_goes_on_with_the_selection_it_had(
    data: MeshDataset, tmp_path: Path, above: int, every: int, at: int
) -> None:
    """Killed within an epoch, after one, and at any age of the selection: bit for bit the
    undisturbed run.
    """
    config = settings(data, refresh_above=above, refresh_every=every)

    def kill(event: TrainingEvent) -> None:
        if event.step == at + 1:  # the checkpoint of step `at` is the last one written
            raise Killed

    run(config, data.split("subject"), tmp_path / "whole", WORKER)
    with pytest.raises(Killed):
        run(config, data.split("subject"), tmp_path / "killed", WORKER, listener=kill)
    assert read_checkpoint(tmp_path / "killed" / "checkpoint" / "last.pt")["step"] == at
    run(config, data.split("subject"), tmp_path / "killed", WORKER, resume=True)
    one, two = (
        read_checkpoint(tmp_path / name / "checkpoint" / "last.pt")["model"]
        for name in ("whole", "killed")
    )
    different = [name for name in one if not torch.equal(one[name], two[name])]
    assert not different
    assert int(one["decoder.maps.0.best_keys.age"]) == 12


def test_refreshing_rarely_changes_the_course_of_training(
    data: MeshDataset, tmp_path: Path
) -> None:
    """Otherwise the test above would prove nothing."""
    run(
        settings(data, refresh_above=0, refresh_every=4),
        data.split("subject"),
        tmp_path / "rare",
        WORKER,
    )
    run(settings(data), data.split("subject"), tmp_path / "each", WORKER)
    one, two = (
        read_checkpoint(tmp_path / name / "checkpoint" / "last.pt")["model"]
        for name in ("rare", "each")
    )
    assert not torch.equal(one["decoder.maps.0.keys"], two["decoder.maps.0.keys"])


def test_what_a_run_saves_is_folded(data: MeshDataset, tmp_path: Path) -> None:
    made = run(settings(data), data.split("subject"), tmp_path / "r", WORKER)
    names = (tmp_path / "r" / "model" / "weights.safetensors").read_bytes()
    assert b"keys" not in names and b"queries" not in names and b"mixing" not in names
    back = load(tmp_path / "r")
    vertices = torch.from_numpy(data.vertices[:5])
    assert torch.equal(back(vertices), made(vertices))
    assert isinstance(back, HierarchicalAutoencoder)
    assert all(type(module) is SparseMap for module in [*back.encoder.maps, *back.decoder.maps])
    best = read_checkpoint(tmp_path / "r" / "checkpoint" / "kept.pt")["model"]
    unfolded = create("deep3dmm", data.template, made.config)
    unfolded.load_state_dict(
        best | {n: t for n, t in made.state_dict().items() if n.startswith("prior")}
    )
    torch.testing.assert_close(
        unfolded.eval().decode(back.encode(vertices)), back(vertices), rtol=1e-6, atol=1e-4
    )
    save(back, tmp_path / "again.zip")
    assert torch.equal(load(tmp_path / "again.zip")(vertices), back(vertices))


def test_snapshots_show_the_map_while_it_is_learned(data: MeshDataset, tmp_path: Path) -> None:
    from morphable.files import read_npz

    run(settings(data), data.split("subject"), tmp_path / "r", WORKER)
    files = sorted((tmp_path / "r" / "snapshots").iterdir())
    assert [path.name for path in files] == ["epoch-00001.npz", "epoch-00002.npz"]
    first, last = (read_npz(path) for path in files)
    assert first["index"].shape == first["weights"].shape == (640, 32)
    np.testing.assert_allclose(last["weights"].sum(1), 1, rtol=1e-5)
    assert float(last["share"]) != float(first["share"])


def test_configuration_keeps_its_bounds() -> None:
    with pytest.raises(InputError, match=r"model\.refresh_every: expected 1 to 1,000,000, got 0"):
        AutoencoderConfig(refresh_every=0)
