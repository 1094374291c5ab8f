"""A headless Chromium that a test drives over its own protocol (CDP): clicks, pixels, downloads, and
scripts whose findings it gives back.
"""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
needs_browser = pytest.mark.skipif(not BROWSER, reason="no browser is installed")


class Chromium:
    """One page in a browser of its own. folder: for its profile and its downloads."""

    def __init__(self, url: str, folder: Path, size: tuple[int, int] = (1280, 800)) -> None:
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True, exist_ok=True)
        profile = folder / "profile"
        self._process = subprocess.Popen(
            [
                BROWSER,
                "--headless",
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--use-angle=swiftshader",
                "--enable-unsafe-swiftshader",
                "--remote-debugging-port=0",
                f"--window-size={size[0]},{size[1]}",
                f"--user-data-dir={profile}",
                url,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.errors: list[str] = []
        try:
            self._connect(profile)
        except BaseException:
            self._process.kill()
            raise

    def _connect(self, profile: Path) -> None:
        from websockets.sync.client import connect

        port = self._port(profile)
        pages: list[dict[str, str]] = []
        until(lambda: pages.extend(p for p in self._targets(port) if p["type"] == "page") or pages)
        self._socket = connect(pages[0]["webSocketDebuggerUrl"], max_size=2**28)
        self._numbers = itertools.count(1)
        self.call("Runtime.enable")
        self.call("Page.enable")
        self.call("DOM.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def _port(self, profile: Path) -> int:
        file = profile / "DevToolsActivePort"
        until(lambda: file.exists() and file.read_text().count("\n"), 60)
        return int(file.read_text().splitlines()[0])

    @staticmethod
    def _targets(port: int) -> list[dict[str, str]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
            found: list[dict[str, str]] = json.load(answer)
        return found

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(message["params"]["exceptionDetails"])[:500])
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                result: dict[str, Any] = message["result"]
                return result

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    @property
    def text(self) -> str:
        return str(self.run("document.body?.innerText ?? ''"))

    def click(self, words: str) -> None:
        """Click the button or tab that begins with these words, with the mouse."""
        code = (
            "(() => { const all = [...document.querySelectorAll('button, [role=tab]')];"
            f"const one = all.find((e) => e.innerText.trim().startsWith({json.dumps(words)})"
            " && e.getBoundingClientRect().width && !e.disabled);"
            "if (!one) return null; one.scrollIntoView({block: 'center'});"
            "const box = one.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )

        def at_rest() -> Any:
            # A changed text above may still push the button away.
            before = self.run(code)
            time.sleep(0.3)
            return before if before == self.run(code) else None

        place = until(at_rest)
        assert place, f"no button {words!r} in\n{self.text}"
        self.mouse("mouseMoved", *place)
        self.mouse("mousePressed", *place, buttons=1)
        self.mouse("mouseReleased", *place)

    def mouse(self, kind: str, x: float, y: float, buttons: int = 0) -> None:
        pressed: dict[str, Any] = {"clickCount": 1} if kind != "mouseMoved" else {}
        pressed |= {"button": "left"} if kind != "mouseMoved" or buttons else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, buttons=buttons, **pressed)

    def drag(self, start: tuple[float, float], end: tuple[float, float], steps: int = 8) -> None:
        """Press at `start`, move to `end`, release."""
        self.mouse("mouseMoved", *start)
        time.sleep(0.3)
        self.mouse("mousePressed", *start, buttons=1)
        for step in range(1, steps + 1):
            share = step / steps
            x, y = (a + share * (b - a) for a, b in zip(start, end, strict=True))
            self.mouse("mouseMoved", x, y, buttons=1)
            time.sleep(0.08)
        self.mouse("mouseReleased", *end)

    def upload(self, words: str, file: Path) -> None:
        """Give a file to the upload button that begins with these words."""
        self.call("Page.setInterceptFileChooserDialog", enabled=True)
        code = (
            "(() => { const all = [...document.querySelectorAll('button')];"
            f"const one = all.find((e) => e.innerText.trim().startsWith({json.dumps(words)}));"
            "let box = one; while (box && !box.querySelector('input[type=file]'))"
            " box = box.parentElement; return box && box.querySelector('input[type=file]'); })()"
        )
        found = self.call("Runtime.evaluate", expression=code)["result"]
        assert "objectId" in found, f"no upload {words!r} in\n{self.text}"
        self.call("DOM.setFileInputFiles", files=[str(file)], objectId=found["objectId"])

    def place(self, selector: str, number: int = 0) -> tuple[float, float]:
        """The middle of an element that can be seen, in pixels."""
        code = (
            f"(() => {{ const all = [...document.querySelectorAll({json.dumps(selector)})];"
            f"const one = all.filter((e) => e.getClientRects().length)[{number}];"
            "if (!one) return null; const box = one.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        found = until(lambda: self.run(code))
        assert found, f"no {selector}"
        return float(found[0]), float(found[1])

    def screenshot(self) -> bytes:
        """The page as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(20)


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait until a condition holds, and return its value; the last one after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        try:
            value = condition()
        except OSError:
            value = None
        if value or time.monotonic() > end:
            return value
        time.sleep(0.05)


def run_in_browser(address: Path | str, folder: Path) -> Any:
    """Open a page whose script puts JSON into an element `found`; returns the value."""
    url = address.resolve().as_uri() if isinstance(address, Path) else address
    with closing(Chromium(url, folder)) as page:

        def over() -> Any:
            found = page.run("document.querySelector('#found')?.textContent")
            return found or page.run("document.title.startsWith('error: ') && document.title")

        told = until(over, 120)
        assert told and not told.startswith("error: "), told or page.text[-2000:]
    return json.loads(told)


def with_probe(page: str, script: str) -> str:
    """A page with an asynchronous script, `probe(figure)`, that runs when its 3D view is ready. What
    it returns is what `run_in_browser` gives back.
    """
    probe = f"""<script>
window.onerror = (message) => {{ document.title = "error: " + message; }};
window.onunhandledrejection = (event) => {{ document.title = "error: " + event.reason; }};
const probe = async (figure) => {{ {script} }};
const wait = setInterval(async () => {{
  const figure = document.querySelector(".turntable.ready");
  if (!figure) return;
  clearInterval(wait);
  const found = document.createElement("pre");
  found.textContent = JSON.stringify(await probe(figure));
  found.id = "found";
  document.body.append(found);
}}, 20);
</script></body>"""
    assert "</body>" in page
    return page.replace("</body>", probe)
