"""`morphable studio`: shape, edit and save with a model in the browser."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from morphable.cli.arguments import Model, ModelData
from morphable.errors import InputError


def _check_port(_: object, port: int) -> None:
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: expected a number from 0 (any free port) to 65535")


def studio(
    model: Model,
    /,
    *,
    port: Annotated[
        int, Parameter(help="port to listen on; 0: any free one", validator=_check_port)
    ] = 8080,
    host: Annotated[
        str,
        Parameter(
            help="address to listen on; with another one than this computer's own, everybody who "
            "reaches it can use the studio"
        ),
    ] = "127.0.0.1",
    data: ModelData = None,
    browser: Annotated[
        bool, Parameter(help="open the page in the browser", negative="--no-browser")
    ] = True,
) -> None:
    """Open a web page on this computer to shape, edit and save with a model of any family.

    It has a slider per direction of the code, handles of regions, blends of two meshes, named
    expressions, comparison with a mesh, undo, and files to save. Nothing leaves this computer. Stop
    it with Ctrl-C.
    """
    import webbrowser

    from morphable.evaluate.protocol import open_dataset
    from morphable.models.io import load
    from morphable.studio.serve import open_studio
    from morphable.studio.session import Session

    loaded = load(model)
    try:
        dataset = open_dataset(loaded, data)
    except InputError:
        if data is not None:
            raise
        dataset = None  # it only names expressions
    running = open_studio(Session(loaded), host, port, dataset)
    address = f"http://{host}:{running.port}"
    print(f"{address}: the studio of {model}; stop it with Ctrl-C", flush=True)
    if browser:
        webbrowser.open(address)
    try:
        wait_for_stop()
    finally:
        running.close()


def wait_for_stop() -> None:
    """Return never; Ctrl-C ends it."""
    import threading

    threading.Event().wait()
