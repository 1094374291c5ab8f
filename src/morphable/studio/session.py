"""Session: what a person has made of a model so far, with undo and redo. It knows no browser."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from morphable.edit.code import interpolate, neutralise, require_part, sample_codes, swap
from morphable.edit.region import Region, Response, answer, region_of, regions_of
from morphable.errors import InputError
from morphable.fitting.fit import fit
from morphable.mesh.intersections import self_intersecting_faces
from morphable.mesh.landmarks import Landmarks
from morphable.models.base import MorphableModel
from morphable.studio.likelihood import Likelihood
from morphable.studio.sliders import Slider, sliders_of

MAX_STEPS = 100
"""Steps that can be undone. Older ones are forgotten, so that a long session does not grow."""


@dataclass(frozen=True, eq=False)
class Shape:
    """A shape of the session: decode(code) + change.

    code: (L,). change: (V, 3) mm, what the code does not say: edits of regions, and the details of
    a mesh that the model cannot represent. None: nothing.
    """

    code: Tensor
    change: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """A shape in the history. what: what made it, in words. gesture: steps of one gesture, such as
    one pull on a slider, are undone together.
    """

    shape: Shape
    what: str
    gesture: object = None


class Session:
    """One model, one current shape, and how it came about.

    All methods that change the shape take `gesture`: the same object for all events of one pull on
    a slider or handle, so that one undo takes the whole pull back. Nothing here is written to disk.
    """

    def __init__(self, model: MorphableModel, seed: int = 0) -> None:
        self.model = model
        self.likelihood = Likelihood(model)
        self._generator = torch.Generator().manual_seed(seed)
        self._steps = [Step(Shape(self._start()), "start")]
        self._position = 0
        self._decoded: tuple[Tensor, np.ndarray] | None = None
        self._regions: dict[str, Region] = {}

    @cached_property
    def sliders(self) -> list[Slider]:
        return sliders_of(self.model)

    @cached_property
    def region_names(self) -> list[str]:
        """The regions that have handles."""
        regions = regions_of(self.model)
        return [
            name
            for name, controls in zip(regions.names, regions.controls, strict=True)
            if len(controls)
        ]

    # The current shape and its history

    @property
    def shape(self) -> Shape:
        return self._steps[self._position].shape

    @property
    def vertices(self) -> np.ndarray:
        """(V, 3) float32 mm."""
        return self.vertices_of(self.shape)

    @torch.no_grad()
    def vertices_of(self, shape: Shape) -> np.ndarray:
        """(V, 3) float32 mm of any shape of this model."""
        # A pull on a handle changes no code, so the last one decoded is often the one wanted.
        if self._decoded is None or self._decoded[0] is not shape.code:
            self._decoded = (shape.code, self.model.decode(shape.code[None])[0].cpu().numpy())
        decoded = self._decoded[1]
        return decoded if shape.change is None else decoded + shape.change

    def show(self, shape: Shape, what: str, gesture: object = None) -> None:
        """Make this the current shape. What was undone before can no longer be redone."""
        if not torch.isfinite(shape.code).all():
            raise InputError(f"{what}: gives a code that is not finite")
        kept = self._steps[: self._position + 1]
        if gesture is not None and kept[-1].gesture is gesture and len(kept) > 1:
            kept.pop()
        self._steps = [*kept, Step(shape, what, gesture)][-MAX_STEPS - 1 :]
        self._position = len(self._steps) - 1

    @property
    def undone_next(self) -> str | None:
        """What `undo` would take back, in words; None if there is nothing."""
        return self._steps[self._position].what if self._position else None

    @property
    def redone_next(self) -> str | None:
        """What `redo` would do again, in words; None if there is nothing."""
        after = self._position + 1
        return self._steps[after].what if after < len(self._steps) else None

    def undo(self) -> None:
        self._position = max(0, self._position - 1)

    def redo(self) -> None:
        self._position = min(len(self._steps) - 1, self._position + 1)

    # The vocabulary

    def reset(self) -> None:
        """Back to the mean of the prior, without any edit. It can be undone."""
        self.show(Shape(self._start()), "reset")

    def move(self, slider: Slider, value: float, gesture: object = None) -> None:
        """Set one slider, in standard deviations. Edits of regions stay."""
        if not np.isfinite(value):
            raise InputError(f"{slider.name}: expected a finite number, got {value}")
        code = slider.moved(self.shape.code, value)
        self.show(replace(self.shape, code=code), slider.name, gesture)

    def set_part(self, part: str, values: Iterable[float], gesture: object = None) -> None:
        """Set the numbers of one part of the code, such as a condition, as they are."""
        require_part(self.model, part)
        place = self.model.parts[part]
        numbers = torch.tensor(list(values), dtype=torch.float32)
        if numbers.shape != (place.stop - place.start,):
            raise InputError(
                f"part {part!r}: expected {place.stop - place.start} numbers, got {len(numbers)}"
            )
        code = self.shape.code.clone()
        code[place] = numbers.to(code)
        self.show(replace(self.shape, code=code), part, gesture)

    def sample(self, part: str | None = None, scale: float = 1.0) -> None:
        """A random shape from the prior. part: only this part is random, the others stay."""
        if part is not None:
            require_part(self.model, part)
        drawn = sample_codes(self.model, 1, self._generator, scale=scale)[0]
        pinned = torch.from_numpy(~self.model.parts.free)
        drawn[pinned] = self.shape.code[pinned]
        code = drawn if part is None else swap(self.model.parts, self.shape.code, drawn, [part])
        change = None if part is None else self.shape.change
        self.show(Shape(code, change), f"random {part or 'shape'}")

    def neutralise(self) -> None:
        """The neutral shape of the same subject."""
        neutral = neutralise(self.model, self.shape.code[None])[0].cpu().numpy()
        place = self.model.parts["identity"]
        code = torch.zeros_like(self.shape.code)
        code[place] = self.shape.code[place]
        # A model may have a decoder of its own for neutral shapes, which says more than the code.
        change = neutral - self.vertices_of(Shape(code))
        self.show(Shape(code, change if change.any() else None), "neutral")

    def blend(
        self, a: Shape, b: Shape, position: float, part: str | None, gesture: object = None
    ) -> None:
        """a + t (b - a), for the whole shape or one part of the code. t = 0 is `a`, 1 is `b`; it may
        lie outside.
        """
        if part is not None:
            require_part(self.model, part)
        at = torch.tensor([float(position)])
        code = interpolate(self.model.parts, a.code, b.code, at, part)[0]
        change = a.change
        if part is None and not (a.change is None and b.change is None):
            first, second = (_or_zero(x.change, self.model.template.n_vertices) for x in (a, b))
            change = (first + np.float32(position) * (second - first)).astype(np.float32)
        self.show(Shape(code, change), f"blend {position:.2f}", gesture)

    def swap(self, other: Shape, part: str) -> None:
        """Take one part of the code from another shape."""
        require_part(self.model, part)
        code = swap(self.model.parts, self.shape.code, other.code, [part])
        self.show(replace(self.shape, code=code), f"{part} of the other")

    def add(self, base: Shape, step: Tensor, level: float, what: str, gesture: object) -> None:
        """base + level * step: a named expression at a level."""
        self.show(replace(base, code=base.code + level * step), what, gesture)

    # Meshes

    @torch.no_grad()
    def encoded(self, vertices: np.ndarray, details: bool = True) -> Shape:
        """The shape of a mesh (V, 3) mm. details: keep what the model cannot represent, so that the
        shape is the mesh itself.
        """
        code = self.model.encode(torch.from_numpy(np.asarray(vertices, np.float32))[None])[0]
        shape = Shape(code)
        if not details:
            return shape
        return replace(shape, change=np.asarray(vertices, np.float32) - self.vertices_of(shape))

    def fit(self, landmarks: Landmarks) -> float:
        """The most likely shape with these landmarks, wherever they lie. Returns their mean distance
        from it, in mm.
        """
        found = fit(self.model, landmarks)
        self.show(Shape(found.code[0].detach().to(self.shape.code)), "fit to landmarks")
        return float(found.error[0])

    def heat(self, target: np.ndarray) -> np.ndarray:
        """(V,) mm, the distance of each vertex to where a mesh (V, 3) mm has it."""
        distances: np.ndarray = np.linalg.norm(self.vertices - target, axis=1)
        return distances

    def intersections(self) -> np.ndarray:
        """Rows of the template's triangles that pass through others."""
        return self_intersecting_faces(self.vertices, self.model.template.mesh.triangles)

    # Regions

    def region(self, name: str) -> Region:
        if name not in self._regions:
            mesh = self.model.template.mesh
            region = region_of(mesh, regions_of(self.model), name)
            _ = region.confinement  # computed now, not at the first pull
            self._regions[name] = region
        return self._regions[name]

    def grab(self, region: str, handle: int) -> Pull:
        """Begin to pull one handle of a region. handle: 0, 1, ... of the region."""
        place = self.region(region)
        vertex = place.handle(f"h{handle}")
        handles = np.array([vertex])
        respond = answer(self.model, self.vertices, place, handles, self.shape.code)
        return Pull(self, self.shape, self.vertices, place, vertex, respond)

    def pull(self, region: str, handle: int, displacement: np.ndarray) -> None:
        """Pull one handle of a region by (3,) mm, in one step."""
        self.grab(region, handle).to(displacement)

    def _start(self) -> Tensor:
        prior = self.model.prior
        if prior is not None:
            return prior.mean.clone()
        mean = torch.as_tensor(np.asarray(self.model.template.mesh.vertices, np.float32))
        with torch.no_grad():
            return self.model.encode(mean[None].to(self.model.device))[0]


@dataclass(frozen=True, eq=False)
class Pull:
    """One pull on one handle: all its events are one step of the history.

    shape, start: the shape and its vertices (V, 3) mm when the pull began.
    """

    session: Session
    shape: Shape
    start: np.ndarray
    region: Region
    vertex: int
    respond: Response

    def to(self, displacement: np.ndarray) -> float:
        """Displace the handle by (3,) mm from where the pull began. Returns how far it comes to lie
        from its goal, in mm. Nothing outside the region moves.
        """
        goal = np.asarray(displacement, np.float64)
        if goal.shape != (3,) or not np.isfinite(goal).all():
            raise InputError(f"handle {self.vertex}: expected three finite numbers in mm")
        change = self.region.confinement(self.respond(goal[None])).astype(np.float32)
        before = _or_zero(self.shape.change, len(change))
        what = f"pull on {self.region.name}"
        self.session.show(replace(self.shape, change=before + change), what, gesture=self)
        return float(np.linalg.norm(change[self.vertex] - goal))


def _or_zero(change: np.ndarray | None, n_vertices: int) -> np.ndarray:
    return np.zeros((n_vertices, 3), np.float32) if change is None else change
