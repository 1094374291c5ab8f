"""Template: the topology that all meshes of a class share, with regions, landmarks and other facts
about its vertices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from morphable.errors import InputError
from morphable.files import content_hash, read_npz, write_npz
from morphable.mesh.mesh import Mesh
from morphable.mesh.regions import Regions
from morphable.mesh.stored_arrays import stored_indices, stored_mask, stored_numbers, stored_text


@dataclass(frozen=True, eq=False)
class Template:
    """The shared topology of a shape class.

    mesh: the reference shape, millimeters.
    name: of the class, such as "hand".
    uv, uv_faces: (U, 2) texture coordinates and (F, K) their indices per face corner, which
        keeps seams; or None.
    regions: disjoint regions that cover the mesh, with their control vertices; or None.
    landmarks: (K,) vertex indices of the landmarks; empty if none are known.
    mirror: (V,) the vertex that mirrors each vertex across x = 0; or None.
    masks: named vertex subsets, (V,) bool each, such as {"face": ...}; evaluation reports the error
        of each.
    rigid: (K,) vertices that do not move with expression or pose, used for alignment; or None.

    Raises InputError if a field does not fit the mesh.
    """

    mesh: Mesh
    name: str = "template"
    uv: np.ndarray | None = None
    uv_faces: np.ndarray | None = None
    regions: Regions | None = None
    landmarks: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    mirror: np.ndarray | None = None
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    rigid: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = self.n_vertices
        if self.regions is not None and self.regions.labels.shape != (count,):
            raise InputError(
                f"template regions: expected one number per vertex ({count}), got "
                f"{self.regions.labels.shape}"
            )
        for name, indices in (
            ("landmarks", self.landmarks),
            ("mirror", self.mirror),
            ("rigid", self.rigid),
        ):
            if (
                indices is not None
                and len(indices)
                and not (indices.min() >= 0 and indices.max() < count)
            ):
                raise InputError(f"template {name}: vertex indices must lie in 0..{count - 1}")
        if self.mirror is not None and not np.array_equal(
            self.mirror[self.mirror], np.arange(count)
        ):
            raise InputError("template mirror: mirroring twice must give back every vertex")
        for name, mask in self.masks.items():
            if mask.shape != (count,) or mask.dtype != bool:
                raise InputError(
                    f"template mask {name!r}: expected ({count},) bool, got {mask.shape} "
                    f"{mask.dtype}"
                )
        if (self.uv is None) != (self.uv_faces is None):
            raise InputError("template: uv and uv_faces must be given together")
        if self.uv_faces is not None and self.uv_faces.shape != self.mesh.faces.shape:
            raise InputError(
                f"template uv_faces: expected {self.mesh.faces.shape}, got {self.uv_faces.shape}"
            )

    @property
    def n_vertices(self) -> int:
        return len(self.mesh.vertices)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the topology, the vertex count and the faces: 16 hexadecimal digits."""
        return content_hash(str(self.n_vertices), self.mesh.faces)[:16]

    def region(self, name: str) -> np.ndarray:
        """Return the vertex indices of a region. Raises InputError, listing the known names, if
        there is none called `name`.
        """
        if self.regions is None:
            raise InputError(f"region {name!r}: this template has no regions")
        return self.regions.vertices(self.regions.number(name))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all fields as plain arrays, the content of template.npz."""
        arrays: dict[str, np.ndarray] = {
            "name": np.array(self.name),
            "vertices": np.asarray(self.mesh.vertices, np.float32),
            "faces": self.mesh.faces.astype(np.int32),
            "landmarks": self.landmarks.astype(np.int32),
        }
        optional = {
            "uv": self.uv,
            "uv_faces": self.uv_faces,
            "mirror": self.mirror,
            "rigid": self.rigid,
        }
        arrays |= {key: value for key, value in optional.items() if value is not None}
        if self.regions is not None:
            arrays |= self.regions.to_arrays()
        return arrays | {f"masks/{key}": value for key, value in self.masks.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], name: str = "template") -> Template:
        """Invert `to_arrays`, ignoring unknown keys. name: what error messages call the source.

        Raises InputError if an array is missing or does not fit.
        """
        missing = {"vertices", "faces"} - arrays.keys()
        if missing:
            raise InputError(f"{name}: not a template, it has no {', '.join(sorted(missing))}")
        try:
            return cls._of(arrays)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error

    @classmethod
    def _of(cls, arrays: Mapping[str, np.ndarray]) -> Template:
        vertices = stored_numbers(arrays, "vertices", (None, 3))
        count = len(vertices)
        corners = arrays["faces"].shape[1] if arrays["faces"].ndim == 2 else 3
        # Only a quad's fourth corner may be -1, which Mesh checks.
        faces = stored_indices(arrays, "faces", (None, corners), count, at_least=3 - corners)
        if not len(faces):
            raise InputError("faces: expected at least one")
        uv = stored_numbers(arrays, "uv", (None, 2)) if "uv" in arrays else None

        def vertices_of(key: str, size: int | None = None) -> np.ndarray | None:
            return stored_indices(arrays, key, (size,), count) if key in arrays else None

        landmarks = vertices_of("landmarks")
        return cls(
            mesh=Mesh(vertices, faces),
            name=stored_text(arrays, "name") if "name" in arrays else "template",
            uv=uv,
            uv_faces=stored_indices(
                arrays, "uv_faces", faces.shape, 0 if uv is None else len(uv), at_least=3 - corners
            )
            if "uv_faces" in arrays
            else None,
            regions=Regions.from_arrays(arrays),
            landmarks=landmarks if landmarks is not None else np.zeros(0, np.int64),
            mirror=vertices_of("mirror", count),
            masks={
                key.removeprefix("masks/"): stored_mask(arrays, key, (count,))
                for key in arrays
                if key.startswith("masks/")
            },
            rigid=vertices_of("rigid"),
        )

    def save(self, path: Path | str) -> None:
        write_npz(Path(path), self.to_arrays())

    @classmethod
    def load(cls, path: Path | str) -> Template:
        return cls.from_arrays(read_npz(Path(path)), str(path))
