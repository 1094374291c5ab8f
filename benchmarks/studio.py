"""The studio's speed: from a slider to new vertices, from a pull on a handle to an edited region, and
how many updates a second reach a page.

    python benchmarks/studio.py [--vertices 11916] [--rounds 30]

Models are as created, for a sphere with eleven automatic regions: the cost of decoding does not
depend on the weights. One thread. The last column counts the messages with new vertices that a
client on this machine received while one slider was pulled without a pause for three seconds; it has
no browser, so it is the limit of the server.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from _common import Machine, sphere_template
from morphable.models.base import EstimatedModel, MorphableModel
from morphable.models.families import MODELS, create
from morphable.models.lamm import Lamm
from morphable.studio.serve import open_studio
from morphable.studio.session import Session

FAMILIES = ("pca", "region-pca", "lamm", "lamm-mixer", "pca-mlp", "coma", "spiralnet++", "gan")
PULL_SECONDS = 3.0


def model_of(family: str, vertices: int) -> MorphableModel:
    template = sphere_template(vertices)
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    base = np.asarray(template.mesh.vertices, np.float32)
    ways = np.stack([np.sin(base @ random.normal(size=(3, 3)) / 30) for _ in range(12)])
    shapes = base + np.einsum("nk,kvx->nvx", random.normal(size=(80, 12)), ways).astype(np.float32)
    row = MODELS[family]
    if issubclass(row.model, EstimatedModel):
        estimated: MorphableModel = row.model.estimate(template, shapes, {}, row.fast.model)
        return estimated.eval()
    model = create(family, template)
    model.initialize(shapes)  # type: ignore[operator]
    if isinstance(model, Lamm):
        model.edits_trained.fill_(True)
    return model.eval().requires_grad_(False)


def milliseconds(act: Callable[[int], object], rounds: int) -> float:
    """The median CPU time of an action, after a few to warm up: what others do on this machine does
    not count.
    """
    times = []
    for number in range(rounds + 3):
        start = time.process_time()
        act(number)
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times[3:])


def updates_per_second(session: Session) -> float:
    """How many new shapes a page is sent while a slider is pulled as fast as it can be."""
    studio = open_studio(session, port=0)
    try:
        slider, page = session.sliders[0], studio.page
        token, start = object(), time.perf_counter()
        page.work.wait()
        before = page.updates
        while time.perf_counter() - start < PULL_SECONDS:
            value = float(np.sin(10 * (time.perf_counter() - start)))
            page.do("slider", lambda value=value: session.move(slider, value, token))  # type: ignore[misc]
            time.sleep(0.005)
        page.work.wait()
        return (page.updates - before) / (time.perf_counter() - start)
    finally:
        studio.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vertices", type=int, default=11916)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--families", nargs="*", default=list(FAMILIES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{Machine.measure()}; {arguments.vertices:,} vertices, one thread, medians of CPU time")
    print("| family | slider, ms | grab a handle, ms | pull it, ms | updates per second |")
    print("|---|---|---|---|---|")
    for family in arguments.families:
        session = Session(model_of(family, arguments.vertices))
        slider, region = session.sliders[0], session.region_names[0]

        def slide(number: int, session: Session = session, slider: object = slider) -> None:
            session.move(slider, np.sin(number), "pull")  # type: ignore[arg-type]
            _ = session.vertices

        moved = milliseconds(slide, arguments.rounds)
        session.region(region)  # a person picks it before pulling
        grabbed = milliseconds(lambda _, s=session, r=region: s.grab(r, 0), 5)  # type: ignore[misc]
        pull = session.grab(region, 0)

        def follow(number: int, session: Session = session, pull: object = pull) -> None:
            pull.to(np.array([0, 0, np.sin(number)]))  # type: ignore[attr-defined]
            _ = session.vertices

        edited = milliseconds(follow, arguments.rounds)
        rate = updates_per_second(session)
        print(
            f"| `{family}` | {moved:.1f} | {grabbed:.1f} | {edited:.1f} | {rate:.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
