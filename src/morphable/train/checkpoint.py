"""Checkpoints, and metrics.jsonl. A checkpoint holds everything that a run needs to resume bit for
bit. It is written atomically, and reading one runs no code.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch

from morphable.errors import InputError
from morphable.files import atomic_path, reading, writing

RUN_FORMAT = 2
"""Format version of config.toml and checkpoints in a run folder. Files without a number are version
1.
"""


def check_run_format(path: Path, version: object) -> None:
    """Raise InputError if a file of a run folder has another format version than RUN_FORMAT."""
    if version != RUN_FORMAT:
        found = 1 if version is None else version
        raise InputError(
            f"{path}: is of run format version {found}, but this version of morphable reads "
            f"{RUN_FORMAT}; train again into a new folder"
        )


def last_path(folder: Path) -> Path:
    """Path of the checkpoint that a run resumes from."""
    return folder / "checkpoint" / "last.pt"


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has written a checkpoint to resume from."""
    return last_path(folder).exists()


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint. `state` may hold tensors, numbers, strings, lists and dictionaries.

    Raises InputError if the disk is full.
    """
    # Serialize in memory first: on a full disk, torch.save fails with an unrelated message.
    content = io.BytesIO()
    torch.save({"format_version": RUN_FORMAT, **state}, content)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the state in a checkpoint. Only plain data is accepted, so no code can run.

    Raises InputError if the file is missing, damaged or of another format version.
    """
    damaged = "not a readable checkpoint, it may be truncated"
    missing = "no such checkpoint; the run ended before the first one was written"
    with reading(path, damaged, missing):
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise InputError(f"{path}: not a checkpoint")
    check_run_format(path, state.pop("format_version", None))
    return state


def append_metrics(path: Path, row: dict[str, Any]) -> None:
    """Add one line to metrics.jsonl. Raises InputError if the disk is full."""
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def cut_metrics(path: Path, epochs: int) -> None:
    """Keep only the first `epochs` complete lines of metrics.jsonl. A killed run may have written
    more lines after its last checkpoint; the resumed run writes them again.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[:epochs]:
        try:
            json.loads(line)
        except json.JSONDecodeError:
            break
        kept.append(line + "\n")
    with atomic_path(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, one per epoch. Empty if there is no file, because the model was
    estimated, not trained.
    """
    if not path.exists():
        return []
    with reading(path, "not valid JSON lines, the file may be truncated"):
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
