"""Finger motion: joint axes computed from a hand's skeleton, and a sampler of grasps.

Most poses of a hand lie along one closing motion (Santello, Flanders & Soechting, "Postural hand
synergies for tool use", Journal of Neuroscience 1998).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from morphable.data.makers.draws import clipped_normal
from morphable.data.makers.rig import Rig

FINGERS = 5
DIP_PER_PIP = 0.62
"""The last joint bends with the middle one, because both are moved by the same tendon."""


@dataclass(frozen=True, eq=False)
class HandAxes:
    """Unit vectors of one hand in the reference pose.

    up: from wrist to middle knuckle. side: from little to index knuckle. palm: out of the palm.
    These are (3,) each and orthogonal. flexion: (5, 3) for each finger, thumb first, the axis about
    which a positive angle closes it.
    """

    up: np.ndarray
    side: np.ndarray
    palm: np.ndarray
    flexion: np.ndarray


@dataclass(frozen=True, eq=False)
class Grasp:
    """Finger angles of N hands, radians, thumb first.

    bend: (N, 5, 3) closing angle of the three joints of every finger. spread: (N, 5) sideways angle
    at the knuckle. opposition: (N,) angle of the thumb across the palm. closed: (N, 5) closure of
    every finger, 0 (open) to 1.
    """

    bend: np.ndarray
    spread: np.ndarray
    opposition: np.ndarray
    closed: np.ndarray


def finger_joint(finger: int, phalanx: int, side: str = "R") -> str:
    """Name a joint as the rig does: finger 1 (thumb) to 5, phalanx 1 (nearest the palm) to 3."""
    return f"finger{finger}-{phalanx}.{side}"


@cache
def hand_axes(rig: Rig, side: str = "R") -> HandAxes:
    """Compute the axes of the right ("R") or left ("L") hand of a rig."""
    heads = rig.reference_heads()

    def at(finger: int, phalanx: int) -> np.ndarray:
        return heads[rig.joint(finger_joint(finger, phalanx, side))]

    up = _unit(at(3, 1) - heads[rig.joint(f"wrist.{side}")])
    across = at(2, 1) - at(5, 1)
    across = _unit(across - up * (up @ across))
    palm = np.cross(across, up) if side == "R" else np.cross(up, across)
    # Fingers close towards the palm. The opposed thumb closes across the palm, towards the little
    # finger.
    towards = [_unit(0.3 * palm - across)] + [palm] * (FINGERS - 1)
    flexion = [
        _unit(np.cross(at(f, 3) - at(f, 1), t))
        for f, t in zip(range(1, FINGERS + 1), towards, strict=True)
    ]
    return HandAxes(up, across, palm, np.stack(flexion))


def sample_grasps(random: np.random.Generator, count: int) -> Grasp:
    """Draw `count` grasps: one synergy closes all fingers together, each finger varies from it, and
    15 % of the fingers are independent.
    """
    synergy = random.uniform(size=(count, 1))
    closed = 0.65 * synergy + 0.35 * random.uniform(size=(count, FINGERS))
    alone = random.uniform(size=(count, FINGERS)) < 0.15
    closed = np.where(alone, random.uniform(size=(count, FINGERS)), closed)
    middle = 100 * closed * random.uniform(0.8, 1, size=(count, FINGERS))
    bend = np.stack([85 * closed - 10, middle, DIP_PER_PIP * middle], axis=-1)
    thumb = closed[:, 0]
    bend[:, 0, 0] = 15 * thumb
    bend[:, 0, 1:] = thumb[:, None] * random.uniform(15, 40, size=(count, 2))
    spread = clipped_normal(random, count * FINGERS, 0, 5, -15, 15).reshape(count, FINGERS) * (
        1 - closed
    )
    spread[:, 0] = 0
    return Grasp(np.radians(bend), np.radians(spread), np.radians(40 * thumb), closed)


def apply_grasp(
    rig: Rig, axes: HandAxes, grasp: Grasp, rotation_vectors: np.ndarray, side: str = "R"
) -> None:
    """Write a grasp into the finger joints of `rotation_vectors` (N, J, 3), in place."""
    for finger in range(FINGERS):
        for phalanx in range(3):
            joint = rig.joint(finger_joint(finger + 1, phalanx + 1, side))
            rotation_vectors[:, joint] = grasp.bend[:, finger, phalanx, None] * axes.flexion[finger]
        knuckle = rig.joint(finger_joint(finger + 1, 1, side))
        rotation_vectors[:, knuckle] += grasp.spread[:, finger, None] * axes.palm
    inward = -1.0 if side == "R" else 1.0
    rotation_vectors[:, rig.joint(finger_joint(1, 1, side))] += (
        inward * grasp.opposition[:, None] * axes.up
    )


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
