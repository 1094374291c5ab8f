"""Body poses: eighteen turns and two grasps control the 104 joints of the body rig, within human
ranges of motion.

Angles below are in degrees, in the rig's axes: x to the subject's left, y up, z forward. The ranges
of the left and right side mirror each other.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from morphable.data.makers.draws import clipped_normal
from morphable.data.makers.fingers import FINGERS, Grasp, apply_grasp, hand_axes
from morphable.data.makers.rig import Rig

SIDES = ("L", "R")
SHARED = {
    "spine": ("spine05", "spine04", "spine03", "spine02", "spine01"),
    "neck": ("neck01", "neck02", "neck03", "head"),
}
"""Turns that several joints share in equal parts."""
LIMBS = {
    "hip": "upperleg01",
    "knee": "lowerleg01",
    "ankle": "foot",
    "clavicle": "clavicle",
    "shoulder": "upperarm01",
    "elbow": "lowerarm01",
    "forearm": "lowerarm02",
    "wrist": "wrist",
}
"""Turns of one joint on each side."""

TURNS = (*SHARED, *(f"{limb}.{side}" for limb in LIMBS for side in SIDES))
GRASPS = tuple(f"grasp.{side}" for side in SIDES)
MAX_KNEE = np.degrees(2.3)


def sample_poses(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw poses: rotation vectors (count, 18, 3) in radians, in the order of TURNS, and the
    closure (count, 2) of each hand, 0 to 1.
    """

    def draw(mean: float, spread: float, low: float, high: float) -> np.ndarray:
        return clipped_normal(random, count, mean, spread, low, high)

    turns = {
        "spine": _turn(x=-draw(-8, 14, -45, 15), z=draw(0, 10, -25, 25), y=draw(0, 14, -35, 35))
    }
    turns["neck"] = _turn(x=draw(0, 14, -40, 30), z=draw(0, 8, -25, 25), y=draw(0, 20, -60, 60))
    for side in SIDES:
        out = 1.0 if side == "L" else -1.0
        hip = draw(18, 26, -20, 110)
        turns[f"hip.{side}"] = _turn(
            x=-hip, z=out * draw(4, 9, -8, 40), y=out * draw(0, 10, -25, 30)
        )
        # The knee depends on the hip, because independent joints would not give crouches and
        # strides.
        turns[f"knee.{side}"] = _turn(x=np.clip(0.7 * hip + draw(15, 22, 0, 60), 0, MAX_KNEE))
        turns[f"ankle.{side}"] = _turn(x=draw(0, 10, -30, 25))
        turns[f"clavicle.{side}"] = _turn(z=out * draw(0, 5, -15, 15))
        lowering, swing, twist = draw(14, 30, -90, 45), draw(18, 28, -35, 95), draw(0, 25, -60, 60)
        turns[f"shoulder.{side}"] = _shoulder(out, lowering, swing, twist)
        turns[f"elbow.{side}"] = np.radians(draw(40, 34, 0, 135))[:, None] * _elbow_axis(out)
        turns[f"forearm.{side}"] = np.radians(draw(0, 25, -60, 60))[:, None] * _forearm_direction(
            out
        )
        turns[f"wrist.{side}"] = _turn(x=draw(0, 15, -50, 50), y=out * draw(0, 8, -20, 20))
    return np.stack([turns[name] for name in TURNS], axis=1), random.uniform(
        size=(count, len(SIDES))
    )


def joint_rotations(rig: Rig, turns: np.ndarray, grasps: np.ndarray) -> np.ndarray:
    """Convert turns (N, 18, 3) and grasps (N, 2) to rotation vectors (N, J, 3) in radians of all
    joints of the body rig.
    """
    vectors = np.zeros((len(turns), len(rig.joints), 3))
    for name, turn in zip(TURNS, turns.swapaxes(0, 1), strict=True):
        limb, _, side = name.partition(".")
        joints = SHARED.get(limb) or (f"{LIMBS[limb]}.{side}",)
        for joint in joints:
            vectors[:, rig.joint(joint)] = turn / len(joints)
    for side, closed in zip(SIDES, grasps.T, strict=True):
        apply_grasp(rig, hand_axes(rig, side), _relaxed(closed), vectors, side)
    return vectors


def _relaxed(closed: np.ndarray) -> Grasp:
    """The grasp of N hands whose fingers are all closed equally; closed: (N,) in 0..1."""
    finger = np.radians(np.array([[70.0, 85.0, 50.0]] * FINGERS))
    finger[0] = np.radians([12.0, 25.0, 25.0])
    still = np.zeros((len(closed), FINGERS))
    spread_closed = np.repeat(closed[:, None], FINGERS, axis=1)
    return Grasp(closed[:, None, None] * finger, still, np.radians(30 * closed), spread_closed)


def _turn(
    x: np.ndarray | float = 0.0, y: np.ndarray | float = 0.0, z: np.ndarray | float = 0.0
) -> np.ndarray:
    """(N, 3) rotation vectors of turns in degrees: about y first, then z, then x."""
    angles = np.stack(np.broadcast_arrays(y, z, x), axis=-1)
    return Rotation.from_euler("yzx", angles, degrees=True).as_rotvec()


def _shoulder(out: float, lowering: np.ndarray, swing: np.ndarray, twist: np.ndarray) -> np.ndarray:
    """(N, 3) rotation vectors: twist the arm, which points 45 degrees outwards and down, about its
    axis, lower it sideways, then swing it forward.
    """
    arm = np.array([out, -1.0, 0.0]) / np.sqrt(2)
    turned = Rotation.from_rotvec(np.radians(twist)[:, None] * arm)
    lowered = Rotation.from_rotvec(_turn(z=-out * lowering))
    return (Rotation.from_rotvec(_turn(x=-swing)) * lowered * turned).as_rotvec()


def _elbow_axis(out: float) -> np.ndarray:
    """The hinge of an elbow that brings the forearm up and forward from the A-pose."""
    axis = np.cross([out * 0.69, -0.72, -0.05], [out * 0.55, -0.53, 0.70])
    return axis / np.linalg.norm(axis)


def _forearm_direction(out: float) -> np.ndarray:
    direction = np.array([out * 0.55, -0.53, 0.70])
    return direction / np.linalg.norm(direction)
