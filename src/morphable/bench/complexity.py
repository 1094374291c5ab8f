"""What decoding costs: the parameters and the time per mesh of untrained models, on a template of
any size.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.spatial import ConvexHull

from morphable.data.labels import LabelTable
from morphable.data.source import MeshSource
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template
from morphable.models.base import MorphableModel

ROUNDS = 20
MESHES = 4


def sphere_template(vertices: int, seed: int = 0) -> Template:
    """Make a bumpy closed surface of exactly `vertices` vertices, about 100 mm in radius.

    The order of the vertices is shuffled, since that of a real template is arbitrary too.
    """
    rank = np.random.default_rng(seed).permutation(vertices) + 0.5
    # Fibonacci's spiral, which spreads points evenly over the sphere.
    height, turn = 1 - 2 * rank / vertices, rank * np.pi * (1 + 5**0.5)
    ring = np.sqrt(1 - height**2)
    points = np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], 1)
    # The triangles of the hull have no consistent orientation: turn them so that all face outward.
    hull = ConvexHull(points)
    outward = (
        np.einsum(
            "fi,fi->f",
            np.cross(*np.diff(points[hull.simplices], axis=1).transpose(1, 0, 2)),
            hull.equations[:, :3],
        )
        > 0
    )
    faces = np.where(outward[:, None], hull.simplices, hull.simplices[:, ::-1])
    radius = 100 + 10 * np.sin(3 * points[:, 0]) * np.cos(4 * points[:, 1])
    return Template(Mesh(points * radius[:, None], faces))


def sphere(*, vertices: int) -> MeshSource:
    """Make a dataset of the sphere template and a few noisy copies. Only its size matters."""
    template = sphere_template(vertices)
    noise = np.random.default_rng(0).standard_normal((MESHES, vertices, 3))
    shapes = (template.mesh.vertices + noise).astype(np.float32)
    labels = LabelTable({"subject": np.array([f"s{row}" for row in range(MESHES)])}, MESHES)
    return MeshSource(
        template,
        labels,
        lambda: iter([shapes]),
        {"source": "sphere", "licence": "CC0", "unit": "mm"},
    )


def in_turns(
    actions: Sequence[Callable[[], object]], rounds: int, clock: Callable[[], float] | None = None
) -> list[list[float]]:
    """Time actions in turns, so that other load on the machine affects all of them alike. Returns
    the milliseconds of each action in each round, after one round of warm-up.

    clock: the default is the CPU time of the process if torch has one thread, because other
    programs hardly disturb it, and wall time if it has several.
    """
    clock = clock or (time.process_time if torch.get_num_threads() == 1 else time.perf_counter)
    times: list[list[float]] = [[] for _ in actions]
    for round_number in range(rounds + 1):
        for action, taken in zip(actions, times, strict=True):
            start = clock()
            action()
            if round_number:
                taken.append(1e3 * (clock() - start))
    return times


def decoding_cost(model: MorphableModel, device: torch.device) -> dict[str, Any]:
    """Return `decoder_parameters` and the median `decode_ms` of one mesh; if `device` is a GPU,
    also `decode_gpu_ms`.
    """
    costs: dict[str, Any] = {
        "decoder_parameters": decoder_parameters(model),
        "decode_ms": _decode_ms(model.cpu()),
    }
    if device.type == "cuda":
        costs["decode_gpu_ms"] = _decode_ms(model.to(device))
    return costs


def decoder_parameters(model: MorphableModel) -> int:
    """Count the trainable parameters that decoding uses: those that get a gradient from it."""
    code = torch.zeros(1, model.parts.size, device=model.device, requires_grad=True)
    model.decode(code).sum().backward()
    count = sum(p.numel() for p in model.parameters() if p.grad is not None)
    model.zero_grad(set_to_none=True)
    return count


@torch.no_grad()
def _decode_ms(model: MorphableModel) -> float:
    code = torch.zeros(1, model.parts.size, device=model.device)
    on_gpu = model.device.type == "cuda"

    def decode() -> None:
        model.decode(code)
        if on_gpu:  # calls return before the GPU is done
            torch.cuda.synchronize()

    return statistics.median(in_turns([decode], ROUNDS, time.perf_counter if on_gpu else None)[0])
