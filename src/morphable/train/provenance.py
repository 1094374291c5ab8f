"""The command that started this process and the versions of its software, for what a run records."""

from __future__ import annotations

import platform
import shlex
import sys
from pathlib import Path

import numpy as np
import torch

import morphable


def command_line() -> str:
    """The command that started this process, as it would be typed in a shell."""
    program = Path(sys.argv[0]).name
    words = ["morphable" if program in ("__main__.py", "main.py") else program, *sys.argv[1:]]
    return shlex.join(words)


def versions() -> dict[str, str]:
    """The versions of the software that results depend on."""
    return {
        "morphable": morphable.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
