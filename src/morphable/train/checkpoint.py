"""Checkpoints, and metrics.jsonl. A checkpoint holds everything that a run needs to resume bit for
bit. It is written atomically, and reading one runs no code.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from morphable.errors import InputError
from morphable.files import atomic_path, reading, writing
from morphable.models.io import load_weights

RUN_FORMAT = 2
"""Format version of config.toml and checkpoints in a run folder. Files without a number are version
1.
"""


def check_run_format(path: Path, version: object) -> None:
    """Raise InputError if a file of a run folder has another format version than RUN_FORMAT."""
    if not isinstance(version, int) or version != RUN_FORMAT:
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
    with reading(path, damaged, missing), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a file that is no zip before it refuses it
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise InputError(f"{path}: not a checkpoint")
    check_run_format(path, state.pop("format_version", None))
    return state


def read_weights(path: Path, model: nn.Module) -> int:
    """Load the weights in the checkpoint of a stage; returns the number of the epoch they are of.

    Raises InputError if the file is missing or damaged, or the weights are those of another model.
    """
    state = read_checkpoint(path)
    require_fields(path, state, {"model": dict, "epoch": int})
    with reading(path, ANOTHER_MODEL):
        load_weights(model, state["model"])
    return int(state["epoch"])


ANOTHER_MODEL = "does not fit the model of config.toml"
LOOP_FIELDS: dict[str, type | tuple[type, ...]] = {
    "model": dict,
    "learner": dict,
    "generators": list,
    "torch_random": torch.Tensor,
    "step": int,
    "best_mm": (int, float),
    "start_mm": (int, float),
    "sums": dict,
    "seconds": (int, float),
    "world": int,
}
"""What last.pt holds, and of which type it is."""


def require_fields(
    path: Path, state: dict[str, Any], fields: dict[str, type | tuple[type, ...]]
) -> None:
    """Raise InputError, naming the field, unless a checkpoint has these fields of these types."""
    for name, kind in fields.items():
        value = state.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{path}: {name}: expected another value than {value!r:.60}")


def read_loop_state(path: Path, total_steps: int) -> dict[str, Any]:
    """Read last.pt, from which a run of `total_steps` steps resumes: LOOP_FIELDS.

    Raises InputError, naming the field, if one cannot be that of such a run. Whether weights and
    optimizers fit the model is not checked here.
    """
    state = read_checkpoint(path)
    require_fields(path, state, LOOP_FIELDS)
    if not 0 <= state["step"] <= total_steps:
        raise InputError(f"{path}: step: expected 0 to {total_steps}, got {state['step']}")
    numbers = state["best_mm"], state["start_mm"], state["seconds"]
    if not (all(number >= 0 for number in numbers) and math.isfinite(state["seconds"])):
        raise InputError(f"{path}: best_mm, start_mm or seconds: expected numbers of at least 0")
    for name, sums in state["sums"].items():
        match sums:
            case (float(), int() as count) if isinstance(name, str) and count > 0:
                continue
        raise InputError(f"{path}: sums: expected a total and a count by name, got {sums!r:.60}")
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
    with reading(path, "cannot be read"):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = []
    for line in lines[:epochs]:
        try:
            _metrics_row(line)
        except (ValueError, RecursionError):  # a line cut short, or one that nobody wrote
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
        return [_metrics_row(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _metrics_row(line: str) -> dict[str, Any]:
    """One line of metrics.jsonl. Raises ValueError if it holds anything else."""
    row = json.loads(line)
    if not isinstance(row, dict) or {"epoch", "step", "seconds"} - row.keys():
        raise ValueError("expected an object with epoch, step and seconds")
    for key, value in row.items():
        kind = str if key == "stage" else (int, float)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{key}: got {value!r}")
    return row
