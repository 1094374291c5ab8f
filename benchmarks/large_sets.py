"""Large collections: what importing and auditing them takes, in time and in memory.

    python benchmarks/large_sets.py audit [--count 5000]
    python benchmarks/large_sets.py files [--count 20000]
    python benchmarks/large_sets.py hands [--count 100000]

`audit`: meshes of 5,023 vertices in memory-mapped files. `files`: binary PLY files of 5,023
vertices in COMA's layout, with the audit at the end of the import taken separately. `hands`: a stack
of hands of 1,609 vertices. Peak memory is that of a process of its own, as the system counts it
(`ru_maxrss`), which includes pages of mapped files.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from morphable.bench.complexity import sphere_template
from morphable.data.audit import audit_dataset
from morphable.data.dataset import load_dataset, write_dataset
from morphable.data.importers import import_dataset
from morphable.data.labels import LabelTable
from morphable.data.makers.hands import hand_template
from morphable.data.source import MeshSource
from morphable.mesh.io import write_mesh
from morphable.mesh.mesh import Mesh
from morphable.mesh.template import Template

VERTICES = 5023


def varied(template: Template, count: int) -> Iterator[np.ndarray]:
    """Blocks (n, V, 3) of the template, bent smoothly in twelve random ways."""
    random = np.random.default_rng(0)
    base = np.asarray(template.mesh.vertices, np.float32)
    unit = base / np.abs(base).max()
    waves = random.normal(size=(12, 3, 3)).astype(np.float32)
    modes = np.stack([np.sin(unit @ wave) for wave in waves]).reshape(12, -1)
    for start in range(0, count, 64):
        amounts = random.normal(size=(min(64, count - start), 12)).astype(np.float32)
        yield base + (amounts @ modes).reshape(len(amounts), *base.shape)


def audit(folder: Path, count: int) -> None:
    template = sphere_template(VERTICES)
    source = MeshSource(template, LabelTable({}, count), lambda: varied(template, count), {})
    write_dataset(source, folder / "set")
    measured(f"audit of {count:,} meshes of {VERTICES:,} vertices", audited, folder / "set")


def audited(path: Path) -> str:
    return f"{len(audit_dataset(load_dataset(path)))} findings"


def files(folder: Path, count: int) -> None:
    template = sphere_template(VERTICES)
    row = 0
    for block in varied(template, count):
        for mesh in block:
            subject, frame = divmod(row, 500)
            path = folder / "raw" / f"s{subject:03d}" / "move" / f"move.{frame:06d}.ply"
            write_mesh(path, Mesh(mesh / 1000, template.mesh.faces))
            row += 1
    title = f"import of {count:,} binary PLY files of {VERTICES:,} vertices"
    measured(title, imported_files, folder / "raw", folder / "set")
    measured("audit of them", audited, folder / "set")


def imported_files(raw: Path, out: Path) -> str:
    return f"{len(import_dataset('coma', raw, out)):,} meshes"


def posed(folder: Path, count: int) -> None:
    template = hand_template()
    write_mesh(folder / "hand.obj", template.mesh)
    stack = folder / "hands.npy"
    shape = (count, template.n_vertices, 3)
    with stack.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in varied(template, count):
            file.write(np.ascontiguousarray(block, "<f4").data)
    title = f"import of a stack of {count:,} hands"
    measured(title, imported_stack, stack, folder / "hand.obj", folder / "set")
    measured("audit of them", audited, folder / "set")


def imported_stack(stack: Path, template: Path, out: Path) -> str:
    made = import_dataset("folder", stack, out, unit="mm", template=template)
    return f"{len(made):,} meshes"


def measured(title: str, work: Callable[..., str], *paths: Path) -> None:
    """Print the time and the peak memory of the work, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        seconds, processor, peak, words = pool.apply(timed, (work, *paths))
    print(
        f"{title}: {seconds:.0f} s ({processor:.0f} s of one processor), peak memory "
        f"{peak / 1024**3:.2f} GiB; {words}",
        flush=True,
    )


def timed(work: Callable[..., str], *paths: Path) -> tuple[float, float, int, str]:
    start, processor = time.perf_counter(), time.process_time()
    words = work(*paths)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return time.perf_counter() - start, time.process_time() - processor, peak, words


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["audit", "files", "hands"])
    parser.add_argument("--count", type=int)
    options = parser.parse_args()
    work = {"audit": (audit, 5000), "files": (files, 20_000), "hands": (posed, 100_000)}
    run, count = work[options.what]
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), options.count or count)


if __name__ == "__main__":
    main()
