"""GLB files in programs that we did not write: three.js opens them in a browser, and the validator
of Khronos, who made glTF, finds nothing wrong.

Both come from the npm registry when the tests are set up; without npm or the registry, the tests
are skipped.
"""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import needs_browser, run_in_browser
from morphable.mesh.io import in_sequence, write_mesh
from test_morph_targets import morphs
from test_written_meshes import tube

PACKAGES = ("three@0.187.0", "gltf-validator@2.0.0-dev.3.10")
PAGE = """<!doctype html><title>waiting</title><body>
<script type="importmap">{"imports": {
  "three": "./node_modules/three/build/three.module.js",
  "three/addons/": "./node_modules/three/examples/jsm/"
}}</script>
<script type="module">
import * as THREE from "three";
import {GLTFLoader} from "three/addons/loaders/GLTFLoader.js";
const errors = [];
console.error = (...words) => errors.push(words.join(" "));
const found = {};
for (const name of ["targets", "walk"]) {
  const gltf = await new GLTFLoader().loadAsync(`./${name}.glb`);
  let mesh;
  gltf.scene.traverse((node) => { if (node.isMesh) mesh = node; });
  const {geometry} = mesh;
  const mixed = (weights) => {
    mesh.morphTargetInfluences.splice(0, Infinity, ...weights);
    mesh.updateMorphTargets;
    const vertex = new THREE.Vector3();
    return Array.from({length: geometry.attributes.position.count},
      (_, i) => mesh.getVertexPosition(i, vertex).toArray());
  };
  const count = geometry.morphAttributes.position.length;
  found[name] = {
    names: Object.entries(mesh.morphTargetDictionary).sort((a, b) => a[1] - b[1]).map((e) => e[0]),
    count,
    normals: geometry.morphAttributes.normal.length,
    uv: Boolean(geometry.attributes.uv),
    rest: mixed(Array(count).fill(0)),
    mixed: mixed(Array.from({length: count}, (_, k) => (k + 1) / 10)),
    clips: gltf.animations.length,
  };
  if (gltf.animations.length) {
    const mixer = new THREE.AnimationMixer(gltf.scene);
    mixer.clipAction(gltf.animations[0]).setLoop(THREE.LoopOnce).play();
    found[name].seconds = gltf.animations[0].duration;
    mixer.setTime(0.75);
    found[name].weights = [...mesh.morphTargetInfluences];
  }
}
found.errors = errors;
const pre = document.createElement("pre");
pre.id = "found";
pre.textContent = JSON.stringify(found);
document.body.append(pre);
</script></body>"""


VALIDATE = """
const fs = require("fs"), validator = require("gltf-validator");
(async () => {
  const found = {};
  for (const name of process.argv.slice(1)) {
    const report = await validator.validateBytes(new Uint8Array(fs.readFileSync(name)));
    found[name] = {...report.issues, morphs: report.info.hasMorphTargets};
  }
  console.log(JSON.stringify(found));
})();
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three.js and two files of ours."""
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("three")
    if not npm:
        pytest.skip("npm is not installed")
    done = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        pytest.skip(f"the npm registry cannot be reached: {done.stderr.strip()[-200:]}")
    (folder / "page.html").write_text(PAGE)
    template = tube()
    write_mesh(
        folder / "targets.glb", template.mesh, template.uv, template.uv_faces, morphs=morphs()
    )
    write_mesh(folder / "walk.glb", template.mesh, morphs=walk())
    return folder


def walk() -> Any:
    """Five shapes in two seconds, of which the last is the first."""
    vertices = tube().mesh.vertices.astype(np.float64)
    return in_sequence(np.stack([vertices * size for size in (1, 1.1, 1.2, 1.1, 1)]))


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """A server on this machine, because a page from a file may not import modules."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    handler = functools.partial(Silent, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/page.html"
        server.shutdown()


@needs_browser
def test_three_opens_ten_named_targets_and_an_animation(address: str, tmp_path: Path) -> None:
    found = run_in_browser(address, tmp_path / "profile")
    assert found["errors"] == []
    template, targets = tube(), morphs()
    seen = found["targets"]
    assert seen["names"] == list(targets.names) and seen["count"] == seen["normals"] == 10
    assert seen["uv"] and not seen["clips"]
    count = template.n_vertices
    vertices = template.mesh.vertices / 1000
    np.testing.assert_allclose(seen["rest"][:count], vertices, atol=1e-7)
    mixed = vertices + np.tensordot(np.arange(1, 11) / 10, targets.offsets, 1) / 1000
    np.testing.assert_allclose(seen["mixed"][:count], mixed, atol=1e-6)

    seen = found["walk"]
    assert seen["names"] == ["step 1", "step 2", "step 3", "step 4"]
    assert seen["clips"] == 1 and seen["seconds"] == pytest.approx(2)
    assert seen["weights"] == pytest.approx([0.5, 0.5, 0, 0]), "between the second and the third"
    assert replace(walk()).names == seen["names"]


def test_the_validator_of_khronos_finds_no_fault(site: Path) -> None:
    node = shutil.which("node")
    if not node:
        pytest.skip("node is not installed")
    files = ["targets.glb", "walk.glb"]
    done = subprocess.run(
        [node, "-e", VALIDATE, *files], cwd=site, capture_output=True, text=True, timeout=60
    )
    found = json.loads(done.stdout)
    for name in files:
        assert (found[name]["numErrors"], found[name]["numWarnings"]) == (0, 0), found[name]
        assert found[name]["morphs"]
