"""Records what the commands do, and compares two records: how a redesign shows that it changed
nothing.

    python scripts/behavior.py record FOLDER [--ict ICT]     # runs every command in FOLDER, writes
    FOLDER/behavior.json
    python scripts/behavior.py compare BEFORE.json AFTER.json

A record holds, for every family, a hash of its weights after 20 training steps and every number
that `evaluate` gives on 200 hands, and for every command its exit code, what it printed and a hash
of each file it wrote. Only the command line and the file formats are used, so any two versions can
be compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors.numpy import load

FAMILIES = (
    "pca", "region-pca", "pca-mlp", "multilinear", "linear-two-space", "coma", "spiralnet", "spiralnet++",
    "lamm", "lamm-mixer", "deep3dmm", "deep3dmm-spiral", "ib-vae", "cvae",
)  # fmt: skip
ESTIMATED = ("pca", "region-pca", "multilinear", "linear-two-space")
SETTINGS = {"ib-vae": ["model.samples=64,32"], "cvae": ["model.samples=64,32"]}
MESHES = (".ply", ".obj", ".off", ".glb")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record")
    record.add_argument("folder", type=Path)
    record.add_argument("--ict", type=Path, help="ICT-FaceKit, for the face sets")
    record.add_argument("--families", nargs="*", help="these families alone, no other command")
    compare = commands.add_parser("compare")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.command == "record":
        Recorder(options.folder.resolve(), options.ict).record(options.families)
    else:
        sys.exit(
            report(json.loads(options.before.read_text()), json.loads(options.after.read_text()))
        )


class Recorder:
    """Runs commands in one folder and keeps what each did."""

    def __init__(self, folder: Path, ict: Path | None) -> None:
        self.folder = folder
        self.commands: dict[str, Any] = {}
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        self.environment.pop("MORPHABLE_ICT", None)
        if ict is not None:
            self.environment["MORPHABLE_ICT"] = str(ict.resolve())

    def record(self, only: Sequence[str] | None) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for words in data_commands():
            if only is None or "--out hands" in words or "--out grid" in words:
                self.run(words)
        families = {name: self.family(name) for name in only or FAMILIES}
        for words in shape_commands() if only is None else ():
            self.run(words)
        content = {"families": families, "commands": self.commands}
        (self.folder / "behavior.json").write_text(json.dumps(content, indent=1) + "\n")
        print(self.folder / "behavior.json")

    def run(self, words: str) -> None:
        before = {path: path.stat().st_mtime_ns for path in self.files()}
        done = subprocess.run(
            [sys.executable, "-m", "morphable", *words.split()],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        print(f"[{done.returncode}] {words}", flush=True)
        changed = [path for path in self.files() if before.get(path) != path.stat().st_mtime_ns]
        self.commands[words] = {
            "code": done.returncode,
            "out": timeless(done.stdout),
            "err": timeless(done.stderr),
            "files": {str(path.relative_to(self.folder)): fingerprint(path) for path in changed},
        }

    def files(self) -> list[Path]:
        return sorted(
            path for path in self.folder.rglob("*") if path.is_file() and "events" not in path.parts
        )

    def family(self, name: str) -> dict[str, Any]:
        """Twenty steps on 200 hands (a multilinear model: on a grid of faces), then its numbers."""
        data = "grid" if name == "multilinear" else "hands"
        split = "frames" if name == "multilinear" else "subject"
        words = f"train {name} --data {data} --split {split} --out run-{name}"
        words += " --latent 12" if name.startswith("lamm") or name == "region-pca" else ""
        if name not in ESTIMATED:
            words += " --epochs 2 --seed 5 --set train.batch_size=16"
        words += "".join(f" --set {setting}" for setting in SETTINGS.get(name, []))
        words += " --stages autoencode,manipulate" if name.startswith("lamm") else ""
        self.run(words)
        self.run(f"evaluate run-{name} --json {name}.json")
        weights = self.folder / f"run-{name}" / "model" / "weights.safetensors"
        measures = self.folder / f"{name}.json"
        if not (weights.exists() and measures.exists()):
            return {"weights": None, "numbers": {}}
        tensors = load(weights.read_bytes())
        # Sorted by content, not by name: a tensor may be called something else.
        digests = sorted(
            hashlib.sha256(str(t.shape).encode() + t.tobytes()).hexdigest()
            for t in tensors.values()
        )
        found = json.loads(measures.read_text())
        numbers = dict(flat({key: found[key] for key in found if key != "provenance"}))
        return {
            "weights": hashlib.sha256("".join(digests).encode()).hexdigest(),
            "numbers": numbers,
        }


def data_commands() -> Iterator[str]:
    yield "data make hands --count 200 --seed 3 --out hands"
    yield "data make bodies --count 30 --seed 1 --out bodies"
    yield "data make faces --count 72 --seed 1 --out faces"
    yield "data make face-population --count 60 --seed 1 --labelled 0.5 --out population"
    yield "data make face-population --count 30 --seed 1 --size 12k --part face --linear --neutral-only --out linear"
    yield "data make face-population --count 320 --seed 1 --out grid"
    yield "data make hands --count 200 --size 5k --out refused"
    yield "data info hands --json --audit"
    yield "data info population --json"
    yield "data regions bodies --count 11"
    yield "data regions linear --count 12 --merged-from 24"


def shape_commands() -> Iterator[str]:
    yield "sample run-pca -n 3 --seed 1 --out s"
    yield "sample run-spiralnet++ -n 2 --seed 1 --scale 0.5 --format obj --out s-obj"
    yield "sample run-ib-vae -n 2 --part expression --format glb --out s-glb"
    yield "sample run-cvae -n 2 --given condition=expression:0.5 --out s-given"
    yield "sample run-cvae -n 2 --given condition=0.5 --out s-numbers"
    yield "sample run-cvae -n 2 --given condition=smile:0.5 --out s-refused"
    yield "sample run-pca -n 0 --out s-none"
    yield "reconstruct run-coma s/sample-0000.ply s/sample-0001.ply --out r"
    yield "reconstruct run-ib-vae s/sample-0000.ply --points --out r-points"
    yield "reconstruct run-cvae s/sample-0000.ply --given condition=0.25 --out r-given"
    yield "reconstruct run-coma s/sample-0000.ply --points --out r-refused"
    yield "edit interpolate run-deep3dmm s/sample-0000.ply s/sample-0001.ply --steps 3 --out e-line"
    yield "edit interpolate run-ib-vae s/sample-0000.ply s/sample-0001.ply --steps 3 --part identity --out e-part"
    yield "edit extrapolate run-pca s/sample-0000.ply s/sample-0001.ply --from -1 --to 2 --steps 4 --out e-far"
    yield "edit transfer run-pca-mlp s/sample-0000.ply s/sample-0001.ply s/sample-0002.ply --out e-transfer.ply"
    yield "edit swap run-linear-two-space s/sample-0000.ply s/sample-0001.ply --part expression --out e-swap.ply"
    yield "edit combine run-region-pca s/sample-0000.ply --part thumb=s/sample-0001.ply --out e-combine.ply"
    yield "edit neutralise run-ib-vae s/sample-0000.ply --out e-neutral.ply"
    yield "edit neutralise run-pca s/sample-0000.ply --out e-refused.ply"
    yield "edit region run-lamm s/sample-0000.ply --region thumb --target s/sample-0001.ply --out e-region.ply"
    yield "edit region run-region-pca s/sample-0000.ply --region thumb --move 0:1,2,3 --out e-move.ply"
    yield "edit swap-region run-lamm-mixer s/sample-0000.ply s/sample-0001.ply --region thumb --out e-swapped.ply"
    yield "edit sample-region run-lamm s/sample-0000.ply --region thumb -n 2 --blend none --out e-drawn"
    yield "factor run-lamm --rank 8 --out small"
    yield "evaluate small --split subject:val"
    yield "evaluate run-pca --split frames:train --json frames.json"
    yield "evaluate run-pca --split nonsense"
    yield "data import folder s --unit mm --pattern {subject}-{frame} --out imported"
    yield "data import folder s-obj --unit cm --out imported-refused"
    yield "data import folder s --unit mm --align --up z --template s/sample-0000.ply --out imported-z"
    yield "train coma --data hands --out run-coma"
    yield "train coma --data hands --out run-coma --resume"
    yield "train nonsense --data hands --out nothing"
    yield "train pca --data hands --epochs 3 --out nothing"
    yield "train coma --data hands --latent identity=3 --out nothing"
    yield "train coma --data hands --set train.rate=3 --out nothing"
    yield "train lamm --data hands --stages manipulate --out nothing"
    for name in ("pca", "coma", "deep3dmm", "lamm", "cvae"):
        yield f"report run-{name}"
    yield "bench main --data hands --epochs 1 --rows coma --out bench"
    yield "bench nonsense --out bench-nothing"


def fingerprint(path: Path) -> str:
    """A hash of what a file says: of the arrays in an .npz or the members of a .zip, whose bytes
    hold the time.
    """
    if path.suffix in (".npz", ".zip"):
        with zipfile.ZipFile(path) as archive:
            parts = [name.encode() + archive.read(name) for name in sorted(archive.namelist())]
    elif path.suffix == ".json":
        parts = [timeless(path.read_text()).encode()]
    elif (
        path.suffix in (".html", ".toml", ".jsonl", ".pt", ".md", ".csv")
        and path.name != "labels.csv"
    ):
        return "not compared"
    else:
        parts = [path.read_bytes()]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def timeless(text: str) -> str:
    """A text without what differs from run to run: seconds, paths of this machine."""
    text = re.sub(r'("seconds[^"]*": )[0-9.e-]+', r"\1T", text)
    return re.sub(r"\d+(\.\d+)? ms\b", "T ms", re.sub(r"/[\w./-]*/(?=[\w.-]+)", "", text))


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{name}/{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from flat(item, f"{name}/{number}")
    else:
        yield name, value


def report(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Print every difference; 1 if weights, numbers, exit codes or meshes differ, 0 if only words
    do.
    """
    serious = 0
    for name in after["families"]:
        old, new = before["families"][name], after["families"][name]
        same = old["weights"] == new["weights"]
        keys = sorted(old["numbers"].keys() | new["numbers"].keys())
        changed = [
            key
            for key in keys
            if old["numbers"].get(key, "absent") != new["numbers"].get(key, "absent")
        ]
        print(
            f"{name}: weights {'identical' if same else 'DIFFER'}, {len(keys)} numbers, {len(changed)} differ"
        )
        for key in changed[:20]:
            print(
                f"    {key}: {old['numbers'].get(key, 'absent')} -> {new['numbers'].get(key, 'absent')}"
            )
        serious += not same or bool(changed)
    partly = len(after["families"]) < len(before["families"])
    for words, old in before["commands"].items():
        new = after["commands"].get(words, {"code": None, "out": "", "err": "", "files": {}})
        if partly and words not in after["commands"]:
            continue
        lines: list[str] = []
        if old["code"] != new["code"]:
            lines.append(f"exit code {old['code']} -> {new['code']}")
        for path in sorted(old["files"].keys() | new["files"].keys()):
            pair = old["files"].get(path, "absent"), new["files"].get(path, "absent")
            if pair[0] != pair[1]:
                lines.append(f"{path}: {pair[0]} -> {pair[1]}")
        serious += bool(
            lines
            and (
                old["code"] != new["code"]
                or any(line.split(":")[0].endswith(MESHES) for line in lines)
            )
        )
        for stream in ("out", "err"):
            lines += difference(old[stream].splitlines(), new[stream].splitlines())
        if lines:
            print(f"\n{words}")
            print("\n".join(f"    {line}" for line in lines))
    return int(bool(serious))


def difference(old: Sequence[str], new: Sequence[str]) -> list[str]:
    import difflib

    found = difflib.unified_diff(old, new, lineterm="", n=0)
    return [line for line in found if not line.startswith(("---", "+++", "@@"))]


if __name__ == "__main__":
    main()
