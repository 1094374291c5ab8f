"""Faces: expressions, subdivision and hinges by hand; the ICT model's own laws where the model is
at hand.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from morphable.data.labels import LabelTable
from morphable.data.makers import MAKERS, ict, make_source
from morphable.data.makers.draws import subject_numbers
from morphable.data.makers.expressions import (
    OPPOSITES,
    random_weights,
    recipe,
    recipes,
    sequence_weights,
)
from morphable.data.makers.face_shape import FaceShapes, Transfer, sphere_center
from morphable.data.makers.faces import (
    GRID,
    PREFIX,
    face_maker,
    face_population,
    faces,
    weight_labels,
)
from morphable.data.makers.ict import EYEBALLS, HEAD, LOWER_TEETH, IctModel, find_ict, load_ict
from morphable.data.makers.subdivide import subdivide
from morphable.data.source import MeshSource
from morphable.errors import InputError
from morphable.files import write_npz
from morphable.mesh.topology import adjacency, boundary_edges, components, nonmanifold_edges

needs_ict = pytest.mark.skipif(
    "MORPHABLE_ICT" not in os.environ, reason="not run: no ICT data (set MORPHABLE_ICT)"
)

PAIRS = ("eyeBlink", "mouthSmile", "eyeLookUp", "mouthStretch", "browInnerUp")
SINGLES = [name for pair in OPPOSITES for name in pair]
NAMES = [
    *SINGLES,
    "jawForward",
    "jawOpen",
    "mouthClose",
    *(f"{name}_{side}" for name in PAIRS for side in "LR"),
]
CUBE = np.array(
    [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]]
)
CORNERS = np.array([[x, y, z] for z in (-1.0, 1) for y in (-1.0, 1) for x in (-1.0, 1)])


def meshes(source: MeshSource) -> np.ndarray:
    return np.concatenate(list(source.blocks()))


# ----- without the model
# -----------------------------------------------------------------------------------------


def test_a_cube_subdivides_as_catmull_and_clark_have_it() -> None:
    step = subdivide(CUBE, 8)
    fine = step.matrix @ CORNERS
    assert len(fine) == 8 + 12 + 6 and step.faces.shape == (24, 4)
    np.testing.assert_allclose(fine[:8], CORNERS * 5 / 9)
    np.testing.assert_allclose(
        np.sort(np.abs(fine[8:20]), axis=1), np.tile([0, 0.75, 0.75], (12, 1)), atol=1e-12
    )
    np.testing.assert_allclose(
        np.sort(np.abs(fine[20:]), axis=1), np.tile([0, 0, 1], (6, 1)), atol=1e-12
    )
    assert not len(boundary_edges(step.faces)) and not len(nonmanifold_edges(step.faces))
    normal = np.cross(
        fine[step.faces[:, 1]] - fine[step.faces[:, 0]],
        fine[step.faces[:, 3]] - fine[step.faces[:, 0]],
    )
    outward = (normal * fine[step.faces].mean(axis=1)).sum(axis=1)
    assert (np.sign(outward) == np.sign(outward[0])).all(), "all faces keep one orientation"


def test_borders_follow_the_spline_of_the_border_and_triangles_become_quads() -> None:
    points = np.array([[0.0, 0, 0], [4, 0, 0], [4, 4, 0], [0, 4, 0], [8, 0, 0]])
    step = subdivide(np.array([[0, 1, 2, 3], [1, 4, 2, -1]]), 5)
    fine = step.matrix @ points
    assert step.faces.shape == (7, 4)
    np.testing.assert_allclose(
        fine[1], [4, 0, 0], err_msg="6/8 of itself, 1/8 of either neighbor along the border"
    )
    np.testing.assert_allclose(fine[0], [0.5, 0.5, 0])
    np.testing.assert_allclose(step.matrix.sum(axis=1), 1)
    flat = subdivide(np.array([[0, 1, 2, 3], [1, 4, 2, -1]]), 5, smooth=False).matrix @ points
    np.testing.assert_allclose(flat[:5], points)


def test_recipes_name_shapes_and_sequences_rise_and_fall() -> None:
    assert len(recipes()) == 12 and set(GRID) <= set(recipes())
    time = np.linspace(0, 1, 101)
    weights, level = sequence_weights(np.random.default_rng(0), "mouth_open", NAMES, time)
    jaw = weights[:, NAMES.index("jawOpen")]
    assert weights.min() >= 0 and weights.max() <= 1 and not weights[0].any()
    assert jaw[0] == 0 and 0.45 < jaw.max() <= 1 and jaw[-1] < 0.2 * jaw.max()
    np.testing.assert_allclose(level, np.clip(jaw / recipes()["mouth_open"]["jawOpen"], 0, 1))
    assert (np.count_nonzero(weights.max(axis=0)) - 1) == 2, "two other shapes come and go"
    with pytest.raises(InputError, match="expression 'wink': expected one of bareteeth"):
        recipe("wink", NAMES)


def test_random_expressions_obey_their_rules() -> None:
    weights = random_weights(np.random.default_rng(0), NAMES, 3000)
    assert weights.min() >= 0 and weights.max() <= 1
    at = {name: weights[:, number] for number, name in enumerate(NAMES)}
    for one, other in OPPOSITES:
        assert not ((at[one] > 0) & (at[other] > 0)).any()
    assert (at["mouthClose"] <= at["jawOpen"]).all() and at["mouthClose"].max() > 0
    smiling = at["mouthSmile_L"] > 0
    symmetric = (at["mouthSmile_L"] == at["mouthSmile_R"])[smiling].mean()
    assert 0.7 < symmetric < 0.9 and (at["mouthSmile_R"] <= at["mouthSmile_L"]).all()


def test_sphere_center_is_exact_on_part_of_a_sphere() -> None:
    points = np.random.default_rng(0).normal(size=(40, 3))
    points[:, 2] = np.abs(points[:, 2])
    points = 12 * points / np.linalg.norm(points, axis=1, keepdims=True) + [30, 36, 80]
    np.testing.assert_allclose(sphere_center(points), [30, 36, 80], atol=1e-8)


def test_transfer_recovers_a_rotation_and_is_the_identity_on_its_own_face() -> None:
    random = np.random.default_rng(0)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(6.0), np.arange(6.0)))
    sheet = np.stack([x, y, 0.3 * random.normal(size=36)], axis=1)
    corner = np.array([r * 6 + c for r in range(5) for c in range(5)])
    triangles = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + 7], 1),
            np.stack([corner, corner + 7, corner + 6], 1),
        ]
    )
    transfer = Transfer(sheet, triangles)
    np.testing.assert_allclose(transfer.gradients(sheet), np.tile(np.eye(3), (36, 1, 1)), atol=1e-6)
    angle = 0.7
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    turned = transfer.gradients(sheet @ turn.T + [5, 6, 7])
    np.testing.assert_allclose(turned, np.tile(turn, (36, 1, 1)), atol=1e-5)


def test_a_missing_or_wrong_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MORPHABLE_ICT", raising=False)
    with pytest.raises(
        InputError, match="was not given: set `source` or the variable MORPHABLE_ICT"
    ):
        find_ict()
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        find_ict(tmp_path / "nowhere")
    monkeypatch.setenv("MORPHABLE_ICT", str(tmp_path))
    assert find_ict() == tmp_path
    with pytest.raises(InputError, match=r"holds no generic_neutral_mesh\.obj"):
        load_ict(tmp_path)
    write_npz(tmp_path / "other.npz", {"neutral": np.zeros((4, 3), np.float32)})
    with pytest.raises(InputError, match=r"it lacks expression_deltas, .*uv"):
        load_ict(tmp_path / "other.npz")
    with pytest.raises(InputError, match="`size` 9k: expected one of 5k, 12k, 70k"):
        from morphable.data.makers.face_template import face_topology

        face_topology(None, "9k")  # type: ignore[arg-type]


def write_obj(path: Path, vertices: np.ndarray) -> None:
    lines = ["mtllib none.mtl", *(f"v {x:.7f} {y:.7f} {z:.7f}" for x, y, z in vertices)]
    lines += [
        "vt 0 0",
        "vt 1 0",
        "vt 1 1",
        "vt 0 1",
        "vt 0.5 0.5",
        "f 1/1 2/2 3/3 4/4",
        "f 2/2 5/5 3/3",
    ]
    path.write_text("\n".join(lines) + "\n")


def test_a_clone_is_read_in_the_models_order_and_in_millimeters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ict, "VERTICES", 5)
    monkeypatch.setattr(ict, "IDENTITY_MODES", 2)
    random = np.random.default_rng(0)
    folder = tmp_path / "FaceXModel"
    folder.mkdir()
    neutral = random.normal(size=(5, 3))
    names = ["jawOpen", "eyeBlink_R", "eyeBlink_L"]
    files = {
        name: neutral + random.normal(size=(5, 3))
        for name in ["identity000", "identity001", *names]
    }
    for name, vertices in (files | {"generic_neutral_mesh": neutral}).items():
        write_obj(folder / f"{name}.obj", vertices)
    index = {"expressions": names, "idx_to_landmark_verts": [3, 1], "idx_to_rigid_verts": [4]}
    (folder / "vertex_indices.json").write_text(json.dumps(index))
    for path in (tmp_path, folder):
        model = load_ict(path)
        np.testing.assert_allclose(model.neutral, 10 * neutral, atol=1e-5)
        np.testing.assert_allclose(
            model.expressions[1], 10 * (files["eyeBlink_R"] - neutral), atol=1e-5
        )
        np.testing.assert_allclose(
            model.identity_modes[1], 10 * (files["identity001"] - neutral), atol=1e-5
        )
        assert model.names == tuple(names) and model.landmarks.tolist() == [3, 1]
        assert model.faces.tolist() == [[0, 1, 2, 3], [1, 4, 2, -1]] == model.uv_faces.tolist()
    (folder / "jawOpen.obj").unlink()
    with pytest.raises(InputError, match=r"jawOpen\.obj"):
        load_ict(tmp_path)


def test_options_that_do_not_apply_are_refused() -> None:
    assert set(MAKERS) == {"hands", "faces", "face-population", "bodies"}
    with pytest.raises(
        InputError,
        match="`linear`, `neutral_only`: not an option of hands, which takes `count`, `seed`",
    ):
        make_source("hands", linear=True, neutral_only=True)
    with pytest.raises(InputError, match="data set 'feet': expected one of hands, faces"):
        make_source("feet")
    assert make_source("hands", count=3, seed=None, source=None, linear=False).labels.count == 3
    with pytest.raises(InputError, match="`labelled` 7: expected a share from 0 to 1"):
        make_source("face-population", count=3, labelled=7)


# ----- with the model
# --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> IctModel:
    return load_ict(find_ict())


@pytest.fixture(scope="module")
def curved(model: IctModel) -> FaceShapes:
    return FaceShapes(model)


@pytest.fixture(scope="module")
def straight(model: IctModel) -> FaceShapes:
    return FaceShapes(model, linear=True)


@needs_ict
def test_the_linear_twin_is_the_model(model: IctModel, straight: FaceShapes) -> None:
    random = np.random.default_rng(0)
    identity, weights = random.normal(size=100), random.uniform(size=(2, 53))
    made = straight.express(straight.individual(identity), weights)
    for row in range(2):
        expected = model.neutral + np.tensordot(identity, model.identity_modes, 1)
        expected = expected + np.tensordot(weights[row], model.expressions, 1)
        np.testing.assert_allclose(made[row], expected[:HEAD], atol=1e-3)


@needs_ict
def test_neutral_is_the_same_to_the_bit(curved: FaceShapes, straight: FaceShapes) -> None:
    identity = np.random.default_rng(1).normal(size=100)
    still = np.zeros((3, 53))
    one, other = (
        shapes.express(shapes.individual(identity), still) for shapes in (curved, straight)
    )
    assert np.array_equal(one, other)


@needs_ict
def test_hinged_shapes_end_where_the_artist_put_them(model: IctModel, curved: FaceShapes) -> None:
    mean = curved.individual(np.zeros(100))
    for name in ("jawOpen", "eyeBlink_L", "eyeBlink_R"):
        weights = np.zeros((2, 53))
        weights[:, model.names.index(name)] = 1, 0.5
        end, middle = curved.express(mean, weights)
        target = (model.neutral + model.expressions[model.names.index(name)])[:HEAD]
        assert np.linalg.norm(end - target, axis=1).max() < 0.01
        chord = (model.neutral[:HEAD] + target) / 2
        assert np.linalg.norm(middle - chord, axis=1).max() > 0.1, (
            f"{name} takes an arc, not the chord"
        )


@needs_ict
def test_lower_teeth_turn_rigidly_about_the_jaw_hinge(model: IctModel) -> None:
    shapes = FaceShapes(model, n_vertices=len(model.neutral))
    weights = np.zeros((3, 53))
    weights[:, model.names.index("jawOpen")] = 0, 0.5, 1
    rest, half, full = shapes.express(shapes.individual(np.zeros(100)), weights)[
        :, LOWER_TEETH
    ].astype(np.float64)
    for teeth, degrees in ((half, 25.33 / 2), (full, 25.33)):
        angle = np.radians(degrees)
        turn = np.array(
            [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
        )
        hinge = np.array([0, -5.5, 18.2])
        miss = teeth - ((rest - hinge) @ turn.T + hinge)
        assert np.sqrt((miss**2).sum(axis=1).mean()) < 0.15
    size = [np.linalg.norm(teeth - teeth.mean(axis=0), axis=1).mean() for teeth in (rest, half)]
    assert size[1] == pytest.approx(size[0], rel=2e-3), (
        "half way, a chord would have shrunk the row of teeth"
    )


@needs_ict
def test_closing_lids_keep_further_from_the_eyeball_than_on_the_chord(
    model: IctModel, curved: FaceShapes, straight: FaceShapes
) -> None:
    blink = model.names.index("eyeBlink_L")
    lid = np.argsort(np.linalg.norm(model.expressions[blink, :HEAD], axis=1))[-200:]
    center = sphere_center(model.neutral[EYEBALLS["L"]].astype(np.float64))
    weights = np.zeros((1, 53))
    weights[0, blink] = 0.5
    nearest = [
        np.linalg.norm(
            shapes.express(shapes.individual(np.zeros(100)), weights)[0, lid] - center, axis=1
        ).min()
        for shapes in (curved, straight)
    ]
    assert nearest[0] > nearest[1] + 0.1


@needs_ict
def test_stacked_displacements_saturate(model: IctModel, curved: FaceShapes) -> None:
    weights = np.zeros((1, 53))
    mouth = [n for n, name in enumerate(model.names) if name.startswith("mouth")]
    weights[0, mouth] = 1
    mean = curved.individual(np.zeros(100))
    moved = np.linalg.norm(curved.express(mean, weights)[0] - mean.neutral, axis=1)
    linear = np.linalg.norm(model.expressions[mouth, :HEAD].sum(axis=0), axis=1)
    assert linear.max() > 16 and moved.max() <= 16.001 and moved.max() > 12


@needs_ict
def test_sequences_are_labelled_and_repeatable() -> None:
    source = faces(count=30)
    labels = source.labels
    assert {"subject", "expression", "sequence", "level", "frame", "neutral"} <= set(labels.columns)
    assert sum(name.startswith("w/") for name in labels.columns) == 53
    neutral = labels["neutral"]
    assert len(np.unique(neutral)) == 2 and (labels["expression"][neutral] == "neutral").all()
    assert (weight_labels(labels)[neutral] == 0).all() and np.array_equal(
        labels["subject"][neutral], labels["subject"]
    )
    assert len(labels.classes("sequence").names) == 12
    assert weight_labels(labels)[labels["expression"] != "neutral"].any(axis=1).all(), (
        "no frame is exactly neutral"
    )
    assert meshes(source).tobytes() == meshes(faces(count=30)).tobytes()


@needs_ict
def test_labels_make_the_same_face_again_and_answer_swaps(tmp_path: Path) -> None:
    source = face_population(count=40)
    source.labels.write(tmp_path / "labels.csv")
    labels = LabelTable.read(tmp_path / "labels.csv")
    maker = face_maker(seed=1)
    subjects, weights, made = (
        subject_numbers(PREFIX, labels["subject"]),
        weight_labels(labels),
        meshes(source),
    )
    np.testing.assert_allclose(maker.faces(subjects, weights), made, atol=1e-4)
    smile = np.flatnonzero(labels["expression"] == "high_smile")
    assert len(smile) == 2
    np.testing.assert_allclose(
        maker.faces(subjects[smile[1:]], weights[smile[:1]])[0], made[smile[1]], atol=1e-4
    )


@needs_ict
def test_population_has_a_complete_grid_and_hides_labels_on_request() -> None:
    source = face_population(count=400)
    tested = source.labels["subject"][source.splits["first-ten"].test]
    assert np.array_equal(np.unique(tested), np.unique(source.labels["subject"])[:10])
    labels = face_population(count=100).labels
    for subject in np.unique(labels["subject"]):
        rows = labels["subject"] == subject
        assert labels["expression"][rows].tolist() == ["neutral", *GRID, *[""] * 13]
        assert (labels["level"][rows][1:7] == 1).all() and labels["level"][rows][0] == 0
    hidden = face_population(count=100, labelled=0.07).labels
    assert (hidden["expression"] != "").sum() == 7
    shown = hidden["expression"] != ""
    assert np.array_equal(hidden["expression"][shown], labels["expression"][shown])
    alone = face_population(count=5, neutral_only=True).labels
    assert (alone["expression"] == "neutral").all() and len(np.unique(alone["subject"])) == 5
    assert not weight_labels(alone).any()


@needs_ict
@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 11_248),
        ({"part": "face"}, 9_409),
        ({"size": "5k"}, 5_023),
        ({"size": "70k"}, 68_089),
    ],
)
def test_every_topology_is_whole(options: dict[str, str], count: int) -> None:
    source = face_population(count=1, **options)  # type: ignore[arg-type]
    template = source.template
    assert template.n_vertices == count == meshes(source).shape[1] and template.regions is not None
    assert not len(nonmanifold_edges(template.mesh.faces))
    island = components(template.mesh.faces, count)
    graph = adjacency(template.mesh.faces, count)
    for number, controls in enumerate(template.regions.controls):
        for piece in np.unique(island[template.regions.labels == number]):
            members = np.flatnonzero((template.regions.labels == number) & (island == piece))
            assert connected_components(graph[members][:, members])[0] == 1
        assert len(np.unique(controls)) == 10
    assert len(template.regions.names) == 11 and len(template.landmarks) == 68
    assert template.rigid is not None and len(template.rigid) > 10
    vertices = template.mesh.vertices
    eyes = (
        vertices[template.region("eye_left")].mean(axis=0),
        vertices[template.region("eye_right")].mean(axis=0),
    )
    assert eyes[0][0] > 20 and eyes[1][0] < -20, "left is the subject's left"
    assert vertices[template.landmarks[30], 2] > vertices[template.landmarks[8], 2], (
        "the tip of the nose leads the chin"
    )
    if template.mirror is not None:
        np.testing.assert_allclose(vertices[template.mirror], vertices * [-1, 1, 1], atol=1.0)
    if "size" not in options:
        assert template.mesh.faces.shape[1] == 4 and template.uv is not None


@needs_ict
def test_the_small_head_is_a_selection_of_the_large_one_and_the_fine_one_its_subdivision(
    model: IctModel,
) -> None:
    large, small, fine = (
        meshes(face_population(count=8, size=size)) for size in ("12k", "5k", "70k")
    )
    kept = face_maker(seed=1, size="5k").topology.resample
    assert kept is not None and np.array_equal(small, large[:, kept.indices])
    base = face_maker(seed=1, size="70k")
    own = base.shapes.express(base.shapes.individual(base.identity(0)), np.zeros((1, 53)))[0]
    np.testing.assert_allclose(fine[0], base.topology.resample @ own, atol=1e-3)
    with pytest.raises(InputError, match="`size` 70k: only the whole head"):
        face_population(count=1, size="70k", part="face")


@needs_ict
def test_a_model_with_missing_shapes_is_refused(model: IctModel, tmp_path: Path) -> None:
    short = replace(model, names=model.names[:-1], expressions=model.expressions[:-1])
    assert ict._checked(tmp_path, short) is short
    with pytest.raises(InputError, match="the expression shapes lack jawOpen"):
        ict._checked(
            tmp_path, replace(model, names=tuple(n.replace("jawOpen", "jaw") for n in model.names))
        )
    with pytest.raises(
        InputError, match=r"expected the neutral mesh of ICT-FaceKit Light, shape \(26719, 3\)"
    ):
        ict._checked(tmp_path, replace(model, neutral=model.neutral[:100]))
