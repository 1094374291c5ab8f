"""Transported: training meshes that nobody scanned, mixtures of two people with the expression or
pose of a third. They multiply few people and many expressions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast, get_args

import numpy as np

from morphable.data.dataset import MeshDataset
from morphable.data.neutral import NeutralTargets
from morphable.errors import InputError
from morphable.files import content_hash
from morphable.mesh.cache import cached
from morphable.mesh.transport import Method, Transport
from morphable.models.linear_two_space import people_and_expressive
from morphable.models.training import TrainConfig
from morphable.models.transported_pairs import better_method
from morphable.train.distributed import Workers

MIXTURE = (-0.3, 1.3)
"""Range of t in (1 - t) a + t b, the neutral mesh of a mixture of the people a and b."""
MAX_BYTES = 1024**3
"""Not more meshes are made than fit in this much memory; each is then drawn more often."""
BLOCK = 256
KEPT_LABELS = ("expression", "level")
"""The labels that a made mesh has, those of the mesh that its deformation is from."""


@dataclass(frozen=True, eq=False)
class Transported:
    """M made meshes.

    share: which part of the meshes of an epoch they are. method: how their deformations were
    carried over. vertices: (M, V, 3) float32 mm. drawn: what each is made of. neutral: the neutral
    meshes of the training meshes. seconds: how long it took to make them.
    """

    share: float
    method: Method
    vertices: np.ndarray
    drawn: Drawn
    neutral: NeutralTargets
    seconds: float

    def __len__(self) -> int:
        return len(self.vertices)

    def neutral_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the neutral meshes (n, V, 3) mm of made meshes, which are the mixtures."""
        return self.drawn.mixtures(self.neutral, rows)

    def label(self, name: str, column: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return a label of made meshes (n,). A mixture is no subject: -1.

        column: (N,) the label of the training meshes.
        """
        if name in KEPT_LABELS:
            return column[self.drawn.source[rows]]
        return np.full(len(rows), -1, column.dtype)


@dataclass(frozen=True, eq=False)
class Drawn:
    """What M meshes are made of.

    first, second: (M,) entries of the neutral meshes that are mixed. amount: (M,) t. source: (M,)
    rows of the training meshes whose deformation is carried over.
    """

    first: np.ndarray
    second: np.ndarray
    amount: np.ndarray
    source: np.ndarray

    @classmethod
    def of(cls, neutral: NeutralTargets, count: int, seed: int) -> Drawn:
        """Draw two people, and a mesh of a third if there are three.

        neutral: as in `transported`. Raises InputError if fewer than two people have a neutral mesh,
        or nobody another one.
        """
        index = neutral.index
        people, sources = people_and_expressive(index)
        if len(people) < 2 or not len(sources):
            raise InputError(
                "train.transport: needs neutral meshes of at least two training people, and other "
                f"meshes of them; the training meshes have {len(people)} and {len(sources)}; "
                "import them with labels that have a column neutral (the row of the subject's "
                "neutral mesh), or subject, sequence and frame"
            )
        random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
        place = np.searchsorted(people, index[sources])
        source = random.integers(len(sources), size=count)
        # The two are drawn from those who are left, by their distance on the circle of people.
        others = len(people) - (len(people) > 2)
        first = random.integers(others, size=count)
        second = (first + random.integers(1, others, size=count)) % others
        shift = place[source] + 1 if len(people) > 2 else np.zeros(count, np.int64)
        first, second = (people[(shift + chosen) % len(people)] for chosen in (first, second))
        amount = random.uniform(*MIXTURE, size=count).astype(np.float32)
        return cls(first, second, amount, sources[source])

    def mixtures(self, neutral: NeutralTargets, rows: np.ndarray) -> np.ndarray:
        """Return the neutral meshes (n, V, 3) mm of the mixtures."""
        t = self.amount[rows, None, None]
        first, second = (neutral.meshes[chosen[rows]] for chosen in (self.first, self.second))
        mixed: np.ndarray = first + t * (second - first)
        return mixed


def transported(
    config: TrainConfig, data: MeshDataset, neutral: NeutralTargets, workers: Workers
) -> Transported | None:
    """The meshes that a run trains on besides its training meshes `data`; None if its configuration
    wants none.

    neutral: the neutral meshes of the training meshes, or of these and of neutral meshes behind
    them that were computed; `meshes` are all of them.
    """
    if not config.transport:
        return None
    made = None
    for first in (True, False):  # the first process writes the cache, the others read it
        if first == (workers.rank == 0):
            method = config.transport_method
            if method == "auto":
                method = chosen_method(data, neutral, config.seed)
            made = make_transported(data, neutral, config.transport, method, config.seed)
        workers.barrier()
    return made


def chosen_method(data: MeshDataset, neutral: NeutralTargets, seed: int) -> Method:
    """Choose the method of transport by the training meshes, or read the choice from the cache,
    since it takes seconds.

    data: the training meshes. neutral: as in `transported`.
    """

    def build() -> dict[str, np.ndarray]:
        random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,)))
        carrier = Transport.of(data.template.mesh.triangles, data.template.n_vertices)
        return {"method": np.array(better_method(neutral.meshes, neutral.index, carrier, random))}

    def read(arrays: Mapping[str, np.ndarray]) -> Method:
        name = str(arrays.get("method"))
        if name not in get_args(Method):
            raise InputError(f"transport method {name}: expected {' or '.join(get_args(Method))}")
        return cast(Method, name)

    key = content_hash(str(data.info["content_hash"]), data.rows, neutral.index, str(seed))
    return cached("transport-method", key, build, read)


def make_transported(
    data: MeshDataset, neutral: NeutralTargets, share: float, method: Method, seed: int
) -> Transported:
    """Make as many meshes as are `share` of them and the training meshes together, from the cache
    if it has them.

    data: the training meshes. neutral: as in `transported`. Raises InputError as `Drawn.of`.
    """
    bytes_each = 4 * int(np.prod(data.vertices.shape[1:]))
    wanted = round(len(data) * share / (1 - share))
    drawn = Drawn.of(neutral, max(1, min(wanted, MAX_BYTES // bytes_each)), seed)

    def build() -> dict[str, np.ndarray]:
        clock = time.monotonic()
        made = Transport.of(data.template.mesh.triangles, data.template.n_vertices)
        vertices = np.empty((len(drawn.source), *data.vertices.shape[1:]), np.float32)
        for start in range(0, len(vertices), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(vertices)))
            source = drawn.source[rows]
            vertices[rows] = made.apply(
                neutral.of(source), data.vertices[source], drawn.mixtures(neutral, rows), method
            )
        return {"vertices": vertices, "seconds": np.array(time.monotonic() - clock)}

    def read(arrays: Mapping[str, np.ndarray]) -> Transported:
        vertices, seconds = arrays.get("vertices"), arrays.get("seconds")
        shape = (len(drawn.source), *data.vertices.shape[1:])
        if vertices is None or seconds is None or vertices.shape != shape or seconds.shape != ():
            raise InputError("transported meshes: expected vertices and seconds")
        if vertices.dtype != np.float32 or not np.isfinite(vertices).all():
            raise InputError("transported meshes: expected finite float32 vertices")
        return Transported(share, method, vertices, drawn, neutral, float(seconds))

    key = content_hash(
        str(data.info["content_hash"]), data.rows, neutral.index, method, str((MIXTURE, seed))
    )
    return cached("transported", f"{key} {len(drawn.source)}", build, read)
