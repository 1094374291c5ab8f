"""A headless browser for tests: it opens a page, runs a script in it and gives back what that found."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
needs_browser = pytest.mark.skipif(not BROWSER, reason="no browser is installed")


def run_in_browser(address: Path | str, profile: Path) -> Any:
    """Open a page whose script sets `document.title` to "found: " and JSON; returns the value."""
    drawn = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader",
            "--virtual-time-budget=20000",
            f"--user-data-dir={profile}",
            "--dump-dom",
            str(address),
        ],
        capture_output=True,
        text=True,
        timeout=180,
    ).stdout
    title = re.search(r'<pre id="found">(.*?)</pre>', drawn, re.S)
    errors = re.search(r"<title>(error.*?)</title>", drawn)
    assert title, errors[1] if errors else drawn[-2000:]
    return json.loads(title[1])


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
