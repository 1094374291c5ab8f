"""The tabs of the studio's page: shape, regions, mix, compare, files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from morphable.export.directions import Step
from morphable.models.condition import CONDITION
from morphable.studio.files import (
    CODE_SUFFIX,
    code_bytes,
    mesh_bytes,
    read_code_upload,
    read_landmarks_upload,
    read_mesh_upload,
)
from morphable.studio.page import Page
from morphable.studio.session import Shape
from morphable.studio.sliders import REACH

WHOLE = "whole shape"
NOTHING = "none"
FORMATS = ("ply", "obj", "glb")
MAX_BLEND = 2.0


def head(page: Page) -> None:
    """The state line, and the buttons of the history."""
    gui, session = page.server.gui, page.session
    state = gui.add_markdown("")
    undo = gui.add_button("Undo", icon="arrow-back-up", hint="takes back the last step")
    redo = gui.add_button("Redo", icon="arrow-forward-up")
    sample = gui.add_button("Random shape", icon="dice-5", hint="draws a shape from the prior")
    reset = gui.add_button("Reset", icon="home", hint="back to the mean shape; can be undone")
    sample.disabled = session.model.prior is None
    undo.on_click(lambda _: page.do(object(), session.undo))
    redo.on_click(lambda _: page.do(object(), session.redo))
    sample.on_click(lambda _: page.do(object(), session.sample))
    reset.on_click(lambda _: page.do(object(), session.reset))

    def refresh() -> None:
        state.content = session.likelihood.sentence(session.shape.code)
        undo.disabled, redo.disabled = session.undone_next is None, session.redone_next is None
        undo.label = f"Undo: {session.undone_next}" if session.undone_next else "Undo"
        redo.label = f"Redo: {session.redone_next}" if session.redone_next else "Redo"

    page.refreshers.append(refresh)


def shape_tab(page: Page) -> None:
    """A slider per direction of each part, the largest first, and any of them as a number."""
    gui, session = page.server.gui, page.session
    if not session.sliders:
        gui.add_markdown(
            "This model has no sliders: it has no prior, or no direction of its code moves the "
            "surface."
        )
        return
    handles = {}
    parts = list(dict.fromkeys(slider.part for slider in session.sliders))
    gui.add_markdown("In standard deviations from the mean. The first slider moves most.")
    for index, part in enumerate(parts):
        own = [slider for slider in session.sliders if slider.part == part]
        with gui.add_folder(part_label(part), expand_by_default=index < 2):
            for slider in own:
                handle = gui.add_slider(slider.name, -REACH, REACH, 0.01, 0.0)
                handles[slider.name] = handle

                def moved(event: Any, slider: Any = slider) -> None:
                    if event.client is None:
                        return  # the studio itself shows a value
                    value, token = float(event.target.value), page.gesture(slider.name)
                    page.do(slider.name, lambda: session.move(slider, value, token))

                handle.on_update(moved)
            if len(parts) > 1:
                gui.add_button(f"Random {part_label(part).lower()}").on_click(
                    lambda _, part=part: page.do(object(), lambda: session.sample(part))
                )
    with gui.add_folder("Exact value", expand_by_default=False):
        which = gui.add_dropdown("Slider", tuple(handles))
        number = gui.add_number("Value", 0.0, step=0.001)
        by_name = {slider.name: slider for slider in session.sliders}

        def set_exactly(_: Any) -> None:
            slider, value = by_name[which.value], float(number.value)
            page.do(object(), lambda: session.move(slider, value))

        gui.add_button("Set").on_click(set_exactly)

    def refresh() -> None:
        for slider in session.sliders:
            value = float(np.clip(slider.value(session.shape.code), -REACH, REACH))
            if abs(handles[slider.name].value - value) > 0.006:
                handles[slider.name].value = round(value, 2)

    page.refreshers.append(refresh)


def part_label(part: str) -> str:
    """What a person reads: a number becomes `Part 2`."""
    return f"Part {part}" if part.isdecimal() else part.replace("_", " ").capitalize()


def region_tab(page: Page) -> None:
    """Pick a region; its handles can be pulled in the picture."""
    gui, session = page.server.gui, page.session
    region = gui.add_dropdown("Region", (NOTHING, *session.region_names), initial_value=NOTHING)
    gui.add_markdown(
        "Pull a ball in the picture: its region follows as the model expects, and nothing outside "
        "the region moves."
    )

    def pick(event: Any) -> None:
        name = None if event.target.value == NOTHING else event.target.value
        page.do("region", lambda: page.pick_region(name))

    region.on_update(pick)
    with gui.add_folder("Move a handle by numbers", expand_by_default=False):
        number = gui.add_number("Handle", 0, min=0, step=1)
        move = gui.add_vector3("Move, mm", (0.0, 0.0, 0.0), step=0.1)

        def apply(_: Any) -> None:
            name, handle = region.value, int(number.value)
            goal = np.array(move.value, float)
            if name == NOTHING:
                page.say("Not possible", "Pick a region first.", "yellow")
                return
            page.do(object(), lambda: pull(name, handle, goal))

        def pull(name: str, handle: int, goal: np.ndarray) -> None:
            missed = session.grab(name, handle).to(goal)
            page.say("Moved", f"The handle lies {missed:.2f} mm from its goal.")

        gui.add_button("Move").on_click(apply)


def mix_tab(page: Page, expressions: Callable[[], Sequence[Step]]) -> None:
    """Blends of two shapes, parts of one on the other, and named expressions.

    expressions: the named steps, which may take long to compute.
    """
    gui, session = page.server.gui, page.session
    kept: dict[str, Shape] = {}
    parts = (WHOLE, *session.model.parts.free_names)
    part = gui.add_dropdown("What", parts)
    for letter in ("A", "B"):

        def keep(_: Any, letter: str = letter) -> None:
            page.do(object(), lambda: kept.update({letter: session.shape}))

        def load(vertices: np.ndarray, letter: str = letter) -> None:
            kept[letter] = session.encoded(vertices)
            session.show(kept[letter], f"mesh {letter}")

        gui.add_button(f"{letter} = the shape now", hint="keeps the current shape").on_click(keep)
        upload(page, f"{letter} = a mesh file", load)
    between = gui.add_slider("From A to B", 1 - MAX_BLEND, MAX_BLEND, 0.01, 0.0, disabled=True)
    take = gui.add_button("Take from B", disabled=True, hint="the chosen part of the code")

    def blend(event: Any) -> None:
        if event.client is None:
            return
        position, token = float(event.target.value), page.gesture("blend")
        chosen = None if part.value == WHOLE else part.value
        page.do("blend", lambda: session.blend(kept["A"], kept["B"], position, chosen, token))

    def take_part(_: Any) -> None:
        chosen = part.value
        if chosen == WHOLE:
            page.do(object(), lambda: session.show(kept["B"], "B"))
        else:
            page.do(object(), lambda: session.swap(kept["B"], chosen))

    between.on_update(blend)
    take.on_click(take_part)

    def refresh() -> None:
        between.disabled = len(kept) < 2
        take.disabled = "B" not in kept

    page.refreshers.append(refresh)
    with gui.add_folder("Expression"):
        expression_controls(page, expressions)


def expression_controls(page: Page, expressions: Callable[[], Sequence[Step]]) -> None:
    gui, session = page.server.gui, page.session
    if "identity" in session.model.parts:
        gui.add_button("Neutral", hint="the same person without expression").on_click(
            lambda _: page.do(object(), session.neutralise)
        )
    steps = {step.name: step for step in expressions()}
    if not steps:
        gui.add_markdown(
            "No named expressions: the model has none of its own, and its data, which could name "
            "some, is not here. Start with `--data`."
        )
        return
    name = gui.add_dropdown("Name", (NOTHING, *steps), initial_value=NOTHING)
    level = gui.add_slider("Level", 0.0, 1.5, 0.01, 1.0)
    base: list[Shape] = []

    def express(event: Any) -> None:
        if event.client is None or name.value == NOTHING:
            base.clear()
            return
        step, amount = steps[name.value], float(level.value)
        token = page.gesture("expression")
        page.do("expression", lambda: put_on(step, amount, token))

    def put_on(step: Step, amount: float, token: object) -> None:
        # The expression is put on the shape as it was before it, at any level.
        if not base or session.undone_next not in steps:
            base[:] = [session.shape]
        start = base[0]
        if CONDITION in session.model.parts:
            code = start.code.clone()
            code[session.model.parts[CONDITION]] = 0.0
            start = Shape(code, start.change)
        session.add(start, step.code.to(start.code), amount, step.name, token)

    name.on_update(express)
    level.on_update(express)


def compare_tab(page: Page) -> None:
    """The distance to a mesh as colors, and where the surface passes through itself."""
    gui = page.server.gui

    def aim(vertices: np.ndarray) -> None:
        page.target, page.show_heat, heat.value = vertices, True, True

    upload(page, "Compare with a mesh file", aim)
    heat = gui.add_checkbox("Colors of the distance", False)
    crossings = gui.add_checkbox("Self-intersections", False)
    facts = gui.add_markdown("")

    def toggle(_: Any) -> None:
        page.show_heat, page.show_crossings = heat.value, crossings.value
        page.do("overlay", lambda: None)

    heat.on_update(toggle)
    crossings.on_update(toggle)

    def refresh() -> None:
        missing = "Load a mesh to compare with first." if heat.value and page.target is None else ""
        facts.content = page.facts or missing

    page.refreshers.append(refresh)


def file_tab(page: Page) -> None:
    """Open a mesh, a code or landmarks; save the mesh or the code."""
    gui, session = page.server.gui, page.session
    details = gui.add_checkbox(
        "Keep details", True, hint="also what the model cannot represent of a mesh"
    )
    upload(
        page,
        "Open a mesh",
        lambda vertices: session.show(session.encoded(vertices, details.value), "opened mesh"),
    )
    opened = gui.add_upload_button("Open a code", icon="upload")

    def open_code(event: Any) -> None:
        file = event.target.value
        page.do(
            object(),
            lambda: session.show(
                read_code_upload(file.name, file.content, session.model), "opened code"
            ),
        )

    opened.on_upload(open_code)
    picked = gui.add_upload_button(
        "Fit to landmarks", icon="upload", hint="CSV, JSON, MeshLab .pp or Slicer files"
    )

    def fit_landmarks(event: Any) -> None:
        file = event.target.value

        def act() -> None:
            landmarks = read_landmarks_upload(file.name, file.content, session.model)
            missed = session.fit(landmarks)
            count = len(landmarks.vertices)
            page.say("Fitted", f"{count} landmarks, {missed:.2f} mm from the shape on average.")

        page.do(object(), act)

    picked.on_upload(fit_landmarks)
    gui.add_divider()
    form = gui.add_dropdown("Format", FORMATS)

    def save_mesh(event: Any) -> None:
        client, suffix = event.client, f".{form.value}"

        def send() -> None:
            data = mesh_bytes(session.vertices, session.model, suffix)
            client.send_file_download(f"shape{suffix}", data, save_immediately=True)

        page.do(object(), send)

    def save_code(event: Any) -> None:
        client = event.client

        def send() -> None:
            data = code_bytes(session.shape, session.model)
            client.send_file_download(f"code{CODE_SUFFIX}", data, save_immediately=True)

        page.do(object(), send)

    gui.add_button("Save the mesh", icon="download").on_click(save_mesh)
    gui.add_button("Save the code", icon="download").on_click(save_code)
    gui.add_divider()
    dark = gui.add_checkbox("Dark page", False)
    dark.on_update(lambda _: theme(page.server, dark.value))


def upload(page: Page, label: str, act: Callable[[np.ndarray], None]) -> None:
    """A button for a mesh file on the model's template, which `act` is then given, (V, 3) mm."""
    button = page.server.gui.add_upload_button(label, icon="upload")

    def read(event: Any) -> None:
        file, model = event.target.value, page.session.model
        page.do(object(), lambda: act(read_mesh_upload(file.name, file.content, model)))

    button.on_upload(read)


def theme(server: Any, dark: bool) -> None:
    server.gui.configure_theme(
        dark_mode=dark,
        show_logo=False,
        show_share_button=False,
        control_width="medium",
        brand_color=(64, 106, 168),
    )
