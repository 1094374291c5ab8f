"""Shared fixtures: small real data, made once per session; one thread, so that test workers do not
wait.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import environment
from morphable.data.dataset import MeshDataset, write_dataset
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template
from morphable.models.families import ADDED, MODELS

torch.set_num_threads(1)

START_SECONDS = 60.0
"""A cluster of a test has started by then."""


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read nor fill the user's geometry cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MORPHABLE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def small_pictures() -> Iterator[None]:
    """How a picture looks is tested where it is drawn; on a page it need only be there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("morphable.draw.view.HEIGHT", 24)
        patch.setattr("morphable.report.gallery.HERO_HEIGHT", 32)
        patch.setattr("morphable.report.places.HEIGHT", 32)
        yield


@pytest.fixture(scope="session")
def hands(tmp_path_factory: pytest.TempPathFactory) -> MeshDataset:
    """300 posed hands of 30 subjects, 1,609 vertices."""
    from morphable.data.makers import make_source

    return write_dataset(
        make_source("hands", count=300, seed=3), tmp_path_factory.mktemp("data") / "hands", 3
    )


@pytest.fixture(scope="session")
def gestures(tmp_path_factory: pytest.TempPathFactory) -> MeshDataset:
    """A complete grid: the open hand and two named gestures of eight subjects, in this order, 24
    meshes.
    """
    from morphable.data.labels import LabelTable
    from morphable.data.makers.hands import (
        hand_template,
        hands,
        pose_hands,
        rotation_columns,
        rotation_labels,
    )
    from morphable.data.source import MeshSource

    poses = rotation_labels(hands(count=5, seed=3).labels)[:3]
    subjects, pose = np.repeat(np.arange(8) * 20, 3), np.tile(np.arange(3), 8)
    columns = {
        "subject": np.char.add("hand", np.char.zfill(subjects.astype(str), 3)),
        "expression": np.array(["neutral", "grasp", "point"])[pose],
        "level": (pose > 0).astype(float),
        "neutral": np.arange(24) // 3 * 3,
        **rotation_columns(poses[pose]),
    }
    maker = {"name": "hands", "options": {}}
    info = {"source": "hands: a grid", "licence": "CC0-1.0", "maker": maker}
    source = MeshSource(
        hand_template(),
        LabelTable(columns, 24),
        lambda: iter([pose_hands(subjects, poses[pose])]),
        info,
    )
    return write_dataset(source, tmp_path_factory.mktemp("data") / "gestures", 3)


@pytest.fixture(scope="session")
def ball() -> Template:
    """A closed surface of 320 vertices with no symmetry, about 100 mm across."""
    return ball_template(320)


def ball_template(n_vertices: int) -> Template:
    """A bumpy closed surface with exactly this many vertices, in random order."""
    from scipy.spatial import ConvexHull

    random = np.random.default_rng(n_vertices)
    directions = random.standard_normal((n_vertices, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    triangles = ConvexHull(directions).simplices.astype(np.int64)
    corners = directions[triangles]
    outward = np.einsum(
        "ij,ij->i",
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]),
        corners[:, 0],
    )
    triangles[outward < 0] = triangles[outward < 0][:, ::-1]
    radius = 50 * (1 + 0.15 * np.sin(3 * directions[:, 0]) + 0.1 * np.cos(4 * directions[:, 1]))
    return Template(Mesh(directions * radius[:, None], triangles), "ball")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def own_families() -> Iterator[None]:
    """The families that a test adds are taken away after it."""
    known = set(MODELS)
    yield
    for name in set(MODELS) - known:
        del MODELS[name], ADDED[name]


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler with two workers, each a process of one thread."""
    pytest.importorskip("distributed", reason="dask is not installed")
    from distributed import Client

    folder = tmp_path_factory.mktemp("cluster")
    where = folder / "scheduler.json"
    settings = environment(PYTHONPATH=os.pathsep.join(sys.path))
    words = ["scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard"]
    commands = [[*words, "--scheduler-file", str(where)]]
    commands += [["worker", "--scheduler-file", str(where), "--nthreads", "1", "--no-dashboard",
                  "--no-nanny", "--local-directory", str(folder)]] * 2  # fmt: skip
    started = []
    try:
        for command in commands:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *command],
                    env=settings,
                    cwd=folder,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            end = time.monotonic() + START_SECONDS
            while not where.exists() and time.monotonic() < end:
                time.sleep(0.05)
        with Client(scheduler_file=str(where), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=START_SECONDS)
            address = str(client.scheduler.address)
        yield address
    finally:
        for process in started:
            process.kill()
            process.wait()
