"""Page: shows a session in a browser with viser, and passes on what a person does there."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from morphable.draw.camera import view_for
from morphable.draw.colors import heat_colors, region_colors, scale_end
from morphable.studio.session import Pull, Session
from morphable.studio.worker import Newest

if TYPE_CHECKING:
    import viser

SURFACE = (214, 196, 182)
CROSSING = (214, 39, 40)
GESTURE_PAUSE = 1.0
"""Seconds after which the same slider begins a new step of the history."""
SIZE = 2.0
"""The diagonal of the template in the page's own unit, which suits the browser's camera."""
HANDLE_RADIUS = 0.018
FIELD_OF_VIEW = np.radians(35)
"""Of the camera at first: narrow, as a portrait is taken."""
MARGIN = 1.1


class Page:
    """The scene and what all tabs share: the surface, the handles, the state line, messages.

    Everything that touches the session runs in the thread of `work`.
    """

    def __init__(self, session: Session, server: viser.ViserServer) -> None:
        self.session, self.server = session, server
        self.work = Newest(
            lambda text: self.say("Not possible", text, "yellow"),
            lambda text: self.say("An error of the studio", text, "red"),
            self._catch_up,
        )
        self.updates = 0
        """Number of times that the surface was sent."""
        self.refreshers: list[Callable[[], None]] = []
        """Called after each change, to show the state in the tabs."""
        self.target: np.ndarray | None = None
        """(V, 3) mm, the mesh that the shape is compared with."""
        self.show_heat = self.show_crossings = False
        self.facts = ""
        self._gesture: tuple[Hashable, float, object] = (None, 0.0, None)
        self._handles: list[Any] = []
        self._pull: Pull | None = None
        self._region: str | None = None
        self._overlaid: object = None

        mesh = session.model.template.mesh
        reference = np.asarray(mesh.vertices, np.float64)
        low, high = reference.min(axis=0), reference.max(axis=0)
        self._center = (low + high) / 2
        self._scale = SIZE / max(float(np.linalg.norm(high - low)), 1e-9)
        self._triangles = np.asarray(mesh.triangles, np.uint32)
        self._stage()
        self._surface = server.scene.add_mesh_simple(
            "/surface",
            self._placed(session.vertices),
            self._triangles,
            color=SURFACE,
            side="double",
        )

    def _stage(self) -> None:
        scene = self.server.scene
        scene.set_up_direction("+y")
        scene.world_axes.visible = False
        camera = view_for(self.session.model.template)
        direction = camera.rotation[2]  # from the shape towards the viewer
        distance = SIZE / 2 / np.tan(FIELD_OF_VIEW / 2) * MARGIN
        self.server.initial_camera.fov = FIELD_OF_VIEW
        self.server.initial_camera.position = tuple(direction * distance)
        self.server.initial_camera.look_at = (0.0, 0.0, 0.0)
        self.server.initial_camera.up = tuple(camera.rotation[1])

    def _placed(self, vertices: np.ndarray) -> np.ndarray:
        """(V, 3) mm -> the page's unit."""
        return ((vertices - self._center) * self._scale).astype(np.float32)

    # What a person does

    def do(self, key: Hashable, action: Callable[[], None]) -> None:
        """Run an action on the session, then show the result. Of actions with the same key, only
        the newest runs.
        """

        def act() -> None:
            try:
                action()
            finally:
                self.refresh()

        self.work.submit(key, act)

    def gesture(self, key: Hashable) -> object:
        """The gesture that an event belongs to: the same as that of the last event, if that came
        from the same control a moment ago.
        """
        now = time.monotonic()
        last, when, token = self._gesture
        if last != key or now - when > GESTURE_PAUSE:
            token = object()
        self._gesture = (key, now, token)
        return token

    def say(self, title: str, text: str, color: Any = "blue") -> None:
        """Show a message to everybody who has the page open."""
        for client in self.server.get_clients().values():
            client.add_notification(title, text, auto_close_seconds=10.0, color=color)

    # What a person sees

    def refresh(self) -> None:
        """Show the current shape."""
        vertices = self.session.vertices
        with self.server.atomic():
            self._surface.vertices = self._placed(vertices)
            self._place_handles(vertices)
            if self._overlaid is not None:
                # Colors lag behind: until they are computed again, the plain surface is shown.
                self._plain()
        self.updates += 1
        for refresher in self.refreshers:
            refresher()
        self.server.flush()

    def _plain(self) -> None:
        self.server.scene.remove_by_name("/overlay")
        self._surface.visible = True
        self._overlaid = None

    def _catch_up(self) -> None:
        """Compute what is too slow to follow a slider: colors of distances and intersections."""
        wanted = (self.session.shape, id(self.target), self.show_heat, self.show_crossings)
        if not (self.show_heat and self.target is not None) and not self.show_crossings:
            if self._overlaid is not None or self.facts:
                self.facts = ""
                self._plain()
                self._refresh_tabs()
            return
        if self._overlaid == wanted:
            return
        colors = np.tile(np.array(SURFACE) / 255, (len(self._surface.vertices), 1))
        facts = []
        if self.show_heat and self.target is not None:
            distances = self.session.heat(self.target)
            limit = scale_end(distances) or 1.0
            colors = heat_colors(distances, limit)
            facts.append(
                f"Distance to the mesh: mean {distances.mean():.3f} mm, at most "
                f"{distances.max():.3f} mm. Light is 0, dark {limit:g} mm and more."
            )
        if self.show_crossings:
            faces = self.session.intersections()
            colors[np.unique(self._triangles[faces])] = np.array(CROSSING) / 255
            facts.append(
                f"{len(faces):,} of {len(self._triangles):,} triangles pass through others (red)."
                if len(faces)
                else "The surface does not pass through itself."
            )
        self._overlay(colors)
        self._overlaid, self.facts = wanted, "\n\n".join(facts)
        self._refresh_tabs()

    def _overlay(self, colors: np.ndarray) -> None:
        """Show the surface with a color (V, 3) per vertex, sRGB 0..1."""
        import trimesh

        rgba = np.concatenate([np.round(255 * colors), np.full((len(colors), 1), 255)], 1)
        colored = trimesh.Trimesh(
            self._surface.vertices, self._triangles, process=False, vertex_colors=rgba
        )
        with self.server.atomic():
            self.server.scene.add_mesh_trimesh("/overlay", colored)
            self._surface.visible = False

    def _refresh_tabs(self) -> None:
        for refresher in self.refreshers:
            refresher()
        self.server.flush()

    # Handles

    def pick_region(self, name: str | None) -> None:
        """Show the handles of one region, or none."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._region = name
        if name is None:
            return
        region = self.session.region(name)
        places = self._placed(self.session.vertices[region.controls])
        color = region_colors(len(self.session.region_names))[self.session.region_names.index(name)]
        for number, place in enumerate(places):
            handle = self.server.scene.add_icosphere(
                f"/handles/{number}",
                radius=HANDLE_RADIUS,
                color=tuple(float(c) for c in color),
                position=tuple(place),
                cast_shadow=False,
                receive_shadow=False,
            )
            handle.on_drag("left")(self._on_drag(name, number))
            self._handles.append(handle)

    def _on_drag(self, region: str, number: int) -> Any:
        grabbed = np.zeros(3)

        # A coroutine, because viser keeps the order of events only for those.
        async def drag(event: viser.SceneNodeDragEvent[Any]) -> None:
            nonlocal grabbed
            if event.phase == "start":
                grabbed = np.array(event.start_position)
                self.work.submit(("grab", object()), lambda: self._grab(region, number))
            goal = (np.array(event.end_position) - grabbed) / self._scale
            self.do("drag", lambda: self._drag(goal))

        return drag

    def _grab(self, region: str, number: int) -> None:
        self._pull = self.session.grab(region, number)

    def _drag(self, goal: np.ndarray) -> None:
        if self._pull is not None:
            self._pull.to(goal)

    def _place_handles(self, vertices: np.ndarray) -> None:
        if not self._handles or self._region is None:
            return
        places = self._placed(vertices[self.session.region(self._region).controls])
        for handle, place in zip(self._handles, places, strict=True):
            handle.position = tuple(place)
