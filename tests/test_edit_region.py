"""Region edits: nothing else moves, the band is the smoothest one, moves are checked, commands
write.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from helpers import html_of, report_context
from morphable.cli.main import main
from morphable.data.dataset import MeshDataset
from morphable.data.registered_mesh import read_registered, write_shape
from morphable.edit.region import (
    complete_moves,
    confine,
    edit_region,
    find_region,
    ring_depth,
    seam,
)
from morphable.errors import InputError
from morphable.mesh.mesh import Mesh
from morphable.mesh.topology import adjacency
from morphable.models.base import Origin
from morphable.models.families import create
from morphable.models.io import save
from morphable.models.lamm import MANIPULATE, Lamm, LammConfig
from morphable.models.pca import Pca, PcaConfig
from morphable.models.training import Batch, Progress
from morphable.report.region_edits import region_edits
from morphable.report.token_tests import (
    corrupted_tokens,
    drawn_regions,
    movement_by_place,
    token_movements,
    touching_regions,
)


def strip(columns: int) -> Mesh:
    """A flat strip of quads, three vertices wide; vertex 3 c + r."""
    points = (
        np.stack(
            [
                np.repeat(np.arange(columns), 3),
                np.tile(np.arange(3), columns),
                np.zeros(3 * columns),
            ],
            1,
        )
        * 1.0
    )
    corner = (3 * np.arange(columns - 1)[:, None] + np.arange(2)).ravel()
    return Mesh(points, np.stack([corner, corner + 3, corner + 4, corner + 1], 1))


def neighbors(mesh: Mesh) -> sp.csr_matrix:
    return adjacency(mesh.faces, len(mesh.vertices)).tocsr()


@pytest.fixture(scope="module")
def model(hands: MeshDataset) -> Lamm:
    """A small LAMM with a few steps of either stage."""
    torch.manual_seed(0)
    made = create(
        "lamm",
        hands.template,
        LammConfig(latent=8, width=32, heads=1, encoder_depth=1, decoder_depth=1),
    )
    assert isinstance(made, Lamm)
    shapes = hands.vertices[:64]
    made.initialize(shapes)
    optimizer = torch.optim.Adam(made.parameters(), 3e-3)
    for step in range(20):
        stage = made.stages[step // 10]
        progress = Progress(step, 20, step, 1, torch.Generator().manual_seed(step), stage)
        optimizer.zero_grad()
        torch.stack(
            list(made.loss(Batch(torch.from_numpy(shapes)), progress).values())
        ).sum().backward()
        optimizer.step()
    return made.eval()


@pytest.fixture(scope="module")
def folder(model: Lamm, hands: MeshDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("edit")
    save(model, place / "model")
    for name, row in (("a.ply", 70), ("b.ply", 170)):
        write_shape(place / name, hands.vertices[row], hands.template)
    return place


def test_rings_and_seam_by_hand() -> None:
    mesh = strip(6)
    inside = np.repeat([False, False, False, True, True, True], 3)
    graph = neighbors(mesh)
    assert ring_depth(graph, inside).tolist() == np.repeat([0, 0, 0, 1, 2, 3], 3).tolist()
    change = np.zeros((18, 3))
    change[inside, 2] = 1.0
    # A middle border vertex has four neighbors, one of them across: a jump of a quarter. An edge
    # vertex has three.
    assert seam(change, inside, graph) == pytest.approx(1 / 3)
    assert seam(np.ones((18, 3)), inside, graph) == 0


def test_the_blend_is_zero_outside_and_untouched_deep_inside() -> None:
    mesh = strip(12)
    inside = np.repeat(np.arange(12) >= 4, 3)
    change = np.random.default_rng(0).normal(size=(36, 3))
    result = confine(change, inside, neighbors(mesh))
    assert (result[~inside] == 0).all()
    assert np.array_equal(result[21:], change[21:])
    assert not np.allclose(result[12:21], change[12:21])


def test_the_band_minimises_the_bilaplacian() -> None:
    """Any other displacement of the band has more of it."""
    mesh, random = strip(12), np.random.default_rng(1)
    inside = np.repeat(np.arange(12) >= 4, 3)
    change = random.normal(size=(36, 3))
    graph = neighbors(mesh).toarray()
    laplacian = np.eye(36) - graph / graph.sum(1, keepdims=True)

    def roughness(x: np.ndarray) -> float:
        return float(np.square(laplacian @ x).sum())

    best = confine(change, inside, neighbors(mesh))
    for _ in range(20):
        other = best.copy()
        other[12:21] += 0.01 * random.normal(size=(9, 3))
        assert roughness(other) > roughness(best)


def test_a_thin_region_keeps_its_innermost_vertices() -> None:
    mesh = strip(9)
    inside = np.repeat((np.arange(9) >= 3) & (np.arange(9) <= 5), 3)
    change = np.ones((27, 3))
    result = confine(change, inside, neighbors(mesh))
    assert (result[12:15] == 1).all()
    assert ((result[9:12] > 0) & (result[9:12] < 1)).all()
    one_ring = np.repeat(np.arange(9) == 4, 3)
    assert np.array_equal(
        confine(change, one_ring, neighbors(mesh)), one_ring[:, None] * np.ones((27, 3))
    )


@pytest.mark.parametrize("region", range(6))
def test_a_hard_blend_moves_nothing_outside(model: Lamm, hands: MeshDataset, region: int) -> None:
    shape, place = hands.vertices[70], find_region(model, model.regions.names[region])
    moved = 5 * torch.ones(len(model.regions.controls[region]), 3)
    hard, soft = (edit_region(model, shape, place, moved, blend) for blend in ("hard", "none"))  # type: ignore[arg-type]
    outside = model.regions.labels != region
    assert np.array_equal(hard.vertices[outside], shape[outside])
    assert hard.outside_mm == 0 < soft.outside_mm
    assert hard.movement[~outside].max() > 0
    assert hard.seam_mm < max(soft.seam_mm, 1e-9) or hard.seam_mm < 0.2 * hard.movement.max()


def test_no_displacement_gives_the_input_back(model: Lamm, hands: MeshDataset) -> None:
    shape = hands.vertices[70]
    for blend in ("hard", "none"):
        edit = edit_region(
            model,
            shape,
            find_region(model, model.regions.names[1]),
            torch.zeros(len(model.regions.controls[1]), 3),
            blend,
        )
        assert np.array_equal(edit.vertices, shape)


def test_named_handles_go_where_told_and_others_follow(model: Lamm) -> None:
    controls = model.regions.controls[1]
    region = find_region(model, model.regions.names[1])
    moves = {int(controls[0]): np.array([0, 0, 2.0]), int(controls[3]): np.array([0.5, 0, 0])}
    moved = complete_moves(model, region, moves)
    assert moved.shape == (len(controls), 3)
    assert moved[0].tolist() == pytest.approx([0, 0, 2], abs=0.3)
    assert moved[3].tolist() == pytest.approx([0.5, 0, 0], abs=0.3)


def test_only_control_vertices_can_be_moved(model: Lamm) -> None:
    with pytest.raises(InputError, match="`move` v-1: region 'palm' has no such handle"):
        complete_moves(model, find_region(model, "palm"), {-1: np.ones(3)})


def test_unknown_regions_and_untrained_edits(model: Lamm, hands: MeshDataset) -> None:
    with pytest.raises(InputError, match="region 'nose': not in this template, which has palm"):
        find_region(model, "nose")
    fresh = create("lamm", hands.template, model.config)
    assert isinstance(fresh, Lamm)
    with pytest.raises(InputError, match=f"train it with `stages` autoencode,{MANIPULATE}"):
        edit_region(fresh, hands.vertices[0], find_region(fresh, "palm"), torch.zeros(8, 3))


def test_the_commands_write_edited_meshes(
    folder: Path,
    model: Lamm,
    hands: MeshDataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    a, b, name = str(folder / "a.ply"), str(folder / "b.ply"), model.regions.names[2]
    base = ["edit"]
    main(
        [
            *base,
            "region",
            str(folder / "model"),
            a,
            "--region",
            name,
            "--move",
            "h0:0,0,3",
            "--out",
            str(tmp_path / "m.ply"),
        ]
    )
    main(
        [
            *base,
            "region",
            str(folder / "model"),
            a,
            "--region",
            name,
            "--target",
            b,
            "--out",
            str(tmp_path / "t.ply"),
        ]
    )
    main(
        [
            *base,
            "swap-region",
            str(folder / "model"),
            a,
            b,
            "--region",
            name,
            "--out",
            str(tmp_path / "s.ply"),
        ]
    )
    main(
        [
            *base,
            "sample-region",
            str(folder / "model"),
            a,
            "--region",
            name,
            "-n",
            "3",
            "--out",
            str(tmp_path / "d"),
        ]
    )
    said = capsys.readouterr().out
    assert said.count("outside at most 0 mm; seam") == 3 and "nothing moved more than 0 mm" in said
    drawn = sorted((tmp_path / "d").iterdir())
    assert len(drawn) == 3
    outside = model.regions.labels != 2
    source = read_registered(Path(a), hands.template)
    for path in (tmp_path / "m.ply", tmp_path / "t.ply", tmp_path / "s.ply", *drawn):
        result = read_registered(path, hands.template)
        assert np.array_equal(result[outside], source[outside])
        assert not np.array_equal(result, source)


@pytest.mark.parametrize(
    "arguments",
    [
        ["region", "--region", "palm"],
        ["region", "--region", "palm", "--move", "1:0,0,1", "--target", "x.ply"],
        ["region", "--region", "thumb2", "--target", "a.ply"],
        ["sample-region", "--region", "palm", "-n", "0"],
        ["sample-region", "--region", "palm", "--scale", "0"],
    ],
)
def test_what_the_commands_refuse(folder: Path, tmp_path: Path, arguments: list[str]) -> None:
    name, *rest = arguments
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "edit",
                name,
                str(folder / "model"),
                str(folder / "a.ply"),
                *rest,
                "--out",
                str(tmp_path / "o.ply"),
            ]
        )
    assert stop.value.code == 2
    assert not (tmp_path / "o.ply").exists()


def test_the_report_shows_edits_where_there_are_handles(model: Lamm, hands: MeshDataset) -> None:
    moved = {
        "control_error_mm": 1.0,
        "other_error_mm": 2.0,
        "control_moved_mm": 3.0,
        "other_moved_mm": 4.0,
    }
    evaluation = {
        "model": moved | {"locality": 0.1},
        "baselines": {},
    }
    made = region_edits(report_context(model, hands.split("subject"), evaluation))
    assert made is not None
    assert html_of(made).count("<img") == 1 + 3 * 5
    assert "0 outside" in html_of(made) and "error at the handles" in html_of(made)
    pca = Pca.estimate(hands.template, hands.vertices, {}, PcaConfig(2))
    assert region_edits(report_context(pca, hands.split("subject"))) is None


def test_the_report_shows_how_local_regions_are(model: Lamm, hands: MeshDataset) -> None:
    context = report_context(model, hands.split("subject"))
    learned = model.network.learned_tokens.clone()
    tokens, drawn = corrupted_tokens(context), drawn_regions(context)
    assert tokens is not None and drawn is not None
    movements = token_movements(model, context.scene.codes[:1])
    assert next(movements).max() > 0
    assert torch.equal(model.network.learned_tokens, learned), "not even between two regions"
    regions = len(model.regions.names)
    assert html_of(tokens).count("<img") == regions
    assert html_of(drawn).count("<img") == 3 * sum(
        len(controls) > 0 for controls in model.regions.controls
    )
    pca = Pca.estimate(hands.template, hands.vertices, {}, PcaConfig(2))
    other = report_context(pca, hands.split("subject"))
    assert corrupted_tokens(other) is None and drawn_regions(other) is None


def test_movement_by_place_by_hand(model: Lamm) -> None:
    """All fingers touch the palm; the little finger touches neither thumb nor index."""
    names, labels = list(model.regions.names), model.regions.labels
    palm, little = names.index("palm"), names.index("little")
    touching = touching_regions(model)
    fingers = float(np.mean(labels[labels != palm]))
    assert movement_by_place(labels, touching, labels.astype(float), palm) == pytest.approx(
        (palm, fingers, 0)
    )
    far = np.isin(labels, [names.index("thumb"), names.index("index")])
    inside, _, elsewhere = movement_by_place(labels, touching, np.where(far, 3.0, 1.0), little)
    assert inside == 1 and 1 < elsewhere <= 3


def test_combine_takes_each_part_from_its_file(
    hands: MeshDataset, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from morphable.models.region_pca import RegionPca, RegionPcaConfig

    model = RegionPca.estimate(hands.template, hands.vertices, {}, RegionPcaConfig(12))
    save(model.with_origin(Origin("region-pca")), tmp_path / "model")
    a, b, first = str(folder / "a.ply"), str(folder / "b.ply"), model.regions.names[1]
    main(
        [
            "edit",
            "combine",
            str(tmp_path / "model"),
            a,
            "--part",
            f"{first}={b}",
            "--out",
            str(tmp_path / "c.ply"),
        ]
    )
    made = read_registered(tmp_path / "c.ply", hands.template)
    own, other = (
        model(torch.from_numpy(hands.vertices[row][None]))[0].numpy() for row in (70, 170)
    )
    inside = model.regions.labels == 1
    np.testing.assert_allclose(made[inside], other[inside], atol=1e-3)
    np.testing.assert_allclose(made[~inside], own[~inside], atol=1e-3)
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "edit",
                "combine",
                str(tmp_path / "model"),
                a,
                "--part",
                first,
                "--out",
                str(tmp_path / "d.ply"),
            ]
        )
    assert stop.value.code == 2
