"""The real studio in a real browser: sliders, handles, undo, files, bad uploads, long use."""

from __future__ import annotations

import gc
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from browser import Chromium, needs_browser, until
from family_models import trained_family
from helpers import in_process
from morphable.data.dataset import MeshDataset
from morphable.data.registered_mesh import read_registered, write_shape
from morphable.models.io import save
from morphable.studio.files import read_code_upload
from morphable.studio.serve import Studio, open_studio
from morphable.studio.session import Session

pytest.importorskip("viser", reason="the studio's extra is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def studio(gestures: MeshDataset) -> Iterator[Studio]:
    model = trained_family("region-pca", gestures)
    made = open_studio(Session(model), port=0, data=gestures)
    with pytest.MonkeyPatch.context() as patch:
        # On a busy machine, the events of one pull come seconds apart.
        patch.setattr("morphable.studio.page.GESTURE_PAUSE", 60.0)
        yield made
    made.close()


@pytest.fixture(scope="module")
def page(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    address, folder = f"http://127.0.0.1:{studio.port}", tmp_path_factory.mktemp("browser")
    with closing(Chromium(address, folder)) as made:
        assert until(lambda: "Random shape" in made.text and pixels(made) > 2000, 60), made.text
        yield made
    assert not made.errors


def pixels(page: Chromium) -> int:
    """How many pixels of the picture the surface covers."""
    return len(np.argwhere(foreground(page)))


def foreground(page: Chromium) -> np.ndarray:
    """(H, W) bool: where something is drawn, left of the panel."""
    import io

    from PIL import Image

    shot = page.screenshot()
    image = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), int)
    left = image[:, : int(0.7 * image.shape[1])]
    drawn: np.ndarray = np.abs(left - left[-1, 0]).sum(axis=2) > 30
    drawn[: int(0.3 * len(drawn)), : int(0.3 * left.shape[1])] = False  # messages
    return drawn


def colorful(page: Chromium) -> int:
    """How many pixels of the picture have a strong color, as the surface itself has not."""
    import io

    from PIL import Image

    image = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), int)
    left = image[:, int(0.3 * image.shape[1]) : int(0.7 * image.shape[1])]
    return int((np.ptp(left, axis=2) > 70).sum())


def settled(studio: Studio, quiet: float = 0.0) -> np.ndarray:
    """The current shape, once the studio has done what it was asked for.

    quiet: seconds without any update from the page, which on a busy machine sends events late.
    """
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < quiet or seen < 0:
        assert studio.page.work.wait(30)
        if studio.page.updates != seen:
            seen, since = studio.page.updates, time.monotonic()
        time.sleep(0.02)
    return studio.page.session.vertices.copy()


@needs_browser
def test_a_slider_moves_the_mesh_and_undo_is_exact(studio: Studio, page: Chromium) -> None:
    page.click("Shape")
    start, drawn = settled(studio), foreground(page)
    thumb = page.place(".mantine-Slider-thumb")
    page.drag(thumb, (thumb[0] + 40, thumb[1]))
    assert until(lambda: not np.array_equal(settled(studio), start))
    moved = settled(studio, quiet=2)
    assert until(lambda: (foreground(page) != drawn).mean() > 0.002), "the picture changes too"
    assert studio.page.session.undone_next == "palm 1"
    page.click("Undo: palm 1")
    assert until(lambda: np.array_equal(settled(studio), start)), "exactly"
    page.click("Redo: palm 1")
    assert until(lambda: np.array_equal(settled(studio), moved))
    for _ in range(5):  # a page that is drawn in software may lose a click
        page.click("Reset")
        if until(lambda: studio.page.session.undone_next == "reset", 4):
            break
    assert np.array_equal(settled(studio), start), studio.page.session.undone_next


@needs_browser
def test_a_dragged_handle_moves_only_its_region(studio: Studio, page: Chromium) -> None:
    session = studio.page.session
    start = settled(studio, quiet=1)
    page.click("Regions")
    studio.page.do("region", lambda: studio.page.pick_region("palm"))
    settled(studio, quiet=1)
    camera = next(iter(studio.page.server.get_clients().values())).camera
    region = session.region("palm")
    places = studio.page._placed(start[region.controls])
    height, width = page.run("[window.innerHeight, window.innerWidth]")
    seen = [on_screen(place, camera, width, height) for place in places]
    # The handle that is nearest to the viewer is not hidden.
    towards = np.asarray(camera.position) - np.asarray(camera.look_at)
    nearest = int(np.argmax(places @ towards))
    x, y = seen[nearest]
    page.drag((x, y), (x + 30, y - 20))
    assert until(lambda: not np.array_equal(settled(studio), start)), (seen, page.text)
    moved = settled(studio, quiet=2)
    assert session.undone_next == "pull on palm"
    assert np.array_equal(moved[~region.inside], start[~region.inside]), "every bit outside stays"
    assert np.linalg.norm(moved - start, axis=1).max() > 0.5
    page.click("Undo: pull")
    assert until(lambda: np.array_equal(settled(studio), start))
    studio.page.do("region", lambda: studio.page.pick_region(None))


def on_screen(
    place: np.ndarray, camera: object, width: float, height: float
) -> tuple[float, float]:
    """Pixels of a point, by viser's camera: x right, y down, z forward."""
    from viser.transforms import SO3

    local = SO3(camera.wxyz).inverse().apply(place - camera.position)  # type: ignore[attr-defined]
    focal = height / 2 / np.tan(camera.fov / 2)  # type: ignore[attr-defined]
    x, y = local[:2] / local[2] * focal
    return float(width / 2 + x), float(height / 2 + y)


@needs_browser
def test_what_is_saved_loads_back(studio: Studio, page: Chromium) -> None:
    session = studio.page.session
    before = settled(studio)
    page.click("Random shape")
    assert until(lambda: not np.array_equal(settled(studio), before))
    shape = settled(studio)
    page.click("Files")
    page.click("Save the mesh")
    mesh = until(lambda: next(page.downloads.glob("*.ply"), None))
    assert mesh, page.text
    assert np.array_equal(read_registered(mesh, session.model.template), shape)
    page.click("Save the code")
    code = until(lambda: next(page.downloads.glob("*.npz"), None))
    back = read_code_upload(code.name, code.read_bytes(), session.model)
    assert np.array_equal(session.vertices_of(back), shape)
    page.click("Reset")
    assert until(lambda: session.undone_next == "reset")
    page.upload("Open a code", code)
    assert until(lambda: np.array_equal(settled(studio), shape)), page.text
    page.click("Reset")
    assert until(lambda: session.undone_next == "reset")
    page.upload("Open a mesh", mesh)
    assert until(lambda: np.abs(settled(studio) - shape).max() < 1e-3), page.text


@needs_browser
def test_a_damaged_upload_gives_a_message_and_the_server_lives(
    studio: Studio, page: Chromium, tmp_path: Path
) -> None:
    page.click("Files")
    shape = settled(studio)
    for name, content in (("broken.ply", b"ply\nformat ascii 1.0\nelement"), ("empty.ply", b"")):
        (tmp_path / name).write_bytes(content)
        page.upload("Open a mesh", tmp_path / name)
        assert until(lambda name=name: f"{name}: " in page.text), page.text  # type: ignore[misc]
    assert np.array_equal(settled(studio), shape)
    page.click("Random shape")
    assert until(lambda: not np.array_equal(settled(studio), shape)), "it lives"


@needs_browser
def test_heat_and_intersections_are_shown(
    studio: Studio, page: Chromium, tmp_path: Path, gestures: MeshDataset
) -> None:
    write_shape(tmp_path / "other.ply", gestures.vertices[4], gestures.template)
    page.click("Compare")
    page.upload("Compare with a mesh file", tmp_path / "other.ply")
    assert until(lambda: "Distance to the mesh: mean" in page.text), page.text
    assert until(lambda: colorful(page) > 500), "colors of the distance"
    studio.page.show_crossings = True
    studio.page.do("overlay", lambda: None)
    words = ("triangles pass through others", "does not pass through itself")
    assert until(lambda: any(word in page.text for word in words)), page.text
    studio.page.show_crossings = studio.page.show_heat = False
    studio.page.do("overlay", lambda: None)
    assert until(lambda: "Distance to the mesh" not in page.text)


@needs_browser
def test_random_use_does_not_let_memory_grow(studio: Studio, page: Chromium) -> None:
    """Bounded random use: after a first round fills history and caches, the next ones add little."""
    session, random = studio.page.session, np.random.default_rng(0)
    mesh = session.vertices.copy()

    def use() -> None:
        for _ in range(250):
            slider = session.sliders[int(random.integers(len(session.sliders)))]
            name = session.region_names[int(random.integers(len(session.region_names)))]
            acts = (
                partial(session.move, slider, float(random.normal())),
                session.sample,
                partial(session.pull, name, 0, random.normal(size=3)),
                session.undo,
                session.redo,
                lambda: session.show(session.encoded(mesh), "mesh"),
            )
            studio.page.do("use", acts[int(random.integers(len(acts)))])
            assert studio.page.work.wait(30)
        gc.collect()

    use()
    used = []
    for _ in range(3):
        use()
        used.append(resident_mb())
    assert used[-1] - used[0] < 15, used
    assert len(session._steps) <= 101
    page.click("Reset")
    assert until(lambda: session.undone_next == "reset"), "the page still answers"


def resident_mb() -> float:
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def test_a_port_in_use_is_one_sentence(
    gestures: MeshDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(trained_family("pca", gestures), tmp_path / "model")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = in_process(capsys, "studio", tmp_path / "model", "--port", port, "--no-browser")
    outcome.refuses(f"--port {port}: cannot listen on 127.0.0.1:{port}", "in use")
    in_process(capsys, "studio", tmp_path / "model", "--port", 70000).refuses("--port 70000")
    elsewhere = in_process(capsys, "studio", tmp_path / "model", "--host", "192.0.2.1")
    elsewhere.refuses("cannot listen on 192.0.2.1:8080")


def test_it_listens_on_this_computer_only(studio: Studio) -> None:
    with socket.socket() as probe:
        probe.settimeout(5)
        probe.connect(("127.0.0.1", studio.port))
    sockets = Path("/proc/net/tcp")
    if sockets.exists():
        ends = [line.split()[1] for line in sockets.read_text().splitlines()[1:]]
        own = [end.split(":")[0] for end in ends if int(end.split(":")[1], 16) == studio.port]
        assert own and set(own) == {"0100007F"}
    assert studio.page.server.request_share_url() is None
