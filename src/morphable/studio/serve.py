"""Starts the studio: a server on this computer, and the page it serves."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from morphable.data.dataset import MeshDataset
from morphable.errors import InputError
from morphable.export.directions import Step, expressions_of_data, named_conditions
from morphable.studio import tabs
from morphable.studio.page import Page
from morphable.studio.session import Session

if TYPE_CHECKING:
    import viser

LOCAL = "127.0.0.1"
HINT = "the studio needs viser: pip install 'morphable[studio]'"


class Studio:
    """A running studio. port: the one it listens on."""

    def __init__(self, page: Page, port: int) -> None:
        self.page, self.port = page, port

    def close(self) -> None:
        self.page.work.close()
        with contextlib.redirect_stdout(io.StringIO()):
            self.page.server.stop()


def open_studio(
    session: Session, host: str = LOCAL, port: int = 8080, data: MeshDataset | None = None
) -> Studio:
    """Serve a page for a session.

    host: the address to listen on. port: 0 = any free one. data: the dataset whose labels name
    expressions, if the model has none of its own. Raises InputError if the port is in use, the
    address is not one of this computer's, or viser is not installed.
    """
    page = Page(session, _server(host, port))
    server = page.server
    tabs.theme(server, False)
    server.gui.set_panel_label(f"{session.model.name}: {session.model.template.name}")
    tabs.head(page)
    group = server.gui.add_tab_group()
    with group.add_tab("Shape"):
        tabs.shape_tab(page)
    with group.add_tab("Regions"):
        tabs.region_tab(page)
    with group.add_tab("Mix"):
        tabs.mix_tab(page, lambda: _expressions(session, data))
    with group.add_tab("Compare"):
        tabs.compare_tab(page)
    with group.add_tab("Files"):
        tabs.file_tab(page)
    page.refresh()
    return Studio(page, server.get_port())


def _expressions(session: Session, data: MeshDataset | None) -> Sequence[Step]:
    own = named_conditions(session.model)
    if own or data is None:
        return own
    try:
        return expressions_of_data(session.model, data)
    except InputError:
        return []  # data without named expressions


def _server(host: str, port: int) -> viser.ViserServer:
    # viser takes the next port if one is in use, and then an old bookmark shows another model.
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        raise InputError(
            f"`port` {port}: cannot listen on {host}:{port}, "
            f"{getattr(error, 'strerror', None) or error}; choose another with `port`",
            "port",
        ) from error
    try:
        import viser
    except ImportError as error:
        raise InputError(HINT) from error

    class Local(viser.ViserServer):
        """A server that never opens a tunnel to the internet, whatever a page asks for."""

        def request_share_url(self, verbose: bool = True) -> None:
            return None

    # Browsers open connections that they do not use, and each would print a traceback.
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
    with contextlib.redirect_stdout(io.StringIO()):  # viser prints its own address
        return Local(host=host, port=port, verbose=False)
